//! Keeps a volume attached on its node and its guests at work, whatever happens: attaches again, connects again. One
//! thread for each volume.
//!
//! ```text
//!   detach, if it shall move ──► attach ──► the epoch serves ──► guests ──► one has ended ──► cut off the others ─┐
//!        ▲      └─ refused: again ─┘                                                                              │
//!        └────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! When the volume is usurped, its guests stay connected to the old writer, as zombies of which nothing may be
//! acknowledged any more.

use crate::api::{Api, Refusal};
use crate::guest::Guest;
use crate::record::Record;
use anyhow::{Context, Result};
use ashlar_tests::{nbd_socket, wait_until};
use ashlar_types::Epoch;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// NBD connections of each volume.
const GUESTS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long guests may take to have everything answered, before they are cut off.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Orders that wait: a round gives one at a time.
const ORDERS_MAX: usize = 2;

enum Order {
    /// In good order.
    Move(String),
    /// By force, the guests stay behind.
    Usurp(String),
    Stop,
}

pub struct Keeper {
    pub record: Arc<Record>,
    /// Where the volume is, or is to go.
    pub node: String,
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Shared {
    zombies: Mutex<Vec<Guest>>,
    /// The last thing that did not work.
    trouble: Mutex<String>,
}

impl Keeper {
    pub fn start(record: Arc<Record>, node: &str, control_url: &str, seed: u64) -> Result<Keeper> {
        let (orders, incoming) = sync_channel(ORDERS_MAX);
        let shared = Arc::<Shared>::default();
        let mut kept = Kept {
            record: record.clone(),
            api: Api::new(control_url)?,
            seed,
            node: node.to_owned(),
            release: None,
            guests: vec![],
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("keeper-{}", record.name))
            .spawn(move || kept.run(&incoming))
            .context("start a keeper")?;
        Ok(Keeper { record, node: node.to_owned(), orders, shared, thread })
    }

    pub fn move_to(&mut self, node: &str) -> Result<()> {
        self.node = node.to_owned();
        self.orders.send(Order::Move(node.to_owned())).context("the keeper has ended")
    }

    pub fn usurp(&mut self, node: &str) -> Result<()> {
        self.node = node.to_owned();
        self.orders.send(Order::Usurp(node.to_owned())).context("the keeper has ended")
    }

    /// Guests that are connected to a writer of old. Whoever takes them must hang them up.
    pub fn zombies(&self) -> MutexGuard<'_, Vec<Guest>> {
        self.shared.zombies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> String {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that is under way is answered, or cut off; the volume stays attached.
    pub fn stop(self) -> Result<()> {
        self.orders.send(Order::Stop).context("the keeper has ended")?;
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    Clean,
    Force,
}

struct Kept {
    record: Arc<Record>,
    api: Api,
    seed: u64,
    node: String,
    /// How the volume is to be taken from who holds it, before it is attached.
    release: Option<Release>,
    guests: Vec<Guest>,
    shared: Arc<Shared>,
}

impl Kept {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<()> {
        loop {
            match orders.recv_timeout(LOOK_EVERY) {
                Ok(Order::Move(node)) => {
                    self.dismiss();
                    (self.node, self.release) = (node, Some(Release::Clean));
                }
                Ok(Order::Usurp(node)) => {
                    self.shared.zombies.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.guests);
                    (self.node, self.release) = (node, Some(Release::Force));
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.dismiss();
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.guests.iter().any(Guest::has_ended) {
                self.cut_off();
            }
            if self.guests.is_empty()
                && let Err(refusal) = self.attach()
            {
                self.trouble(&refusal.text);
            }
        }
    }

    fn attach(&mut self) -> Result<(), Refusal> {
        if let Some(release) = self.release {
            self.api.detach(&self.record.name, release == Release::Force)?;
            self.release = None;
        }
        let device = self.api.attach(&self.record.name, &self.node).inspect_err(|refusal| {
            if refusal.is_precondition {
                self.release = Some(Release::Clean);
            }
        })?;
        let epoch = Epoch::new(device.epoch).expect("an attached volume has an epoch");
        self.record.serves(epoch);
        let socket = nbd_socket(&device.path).expect("an NBD device is a socket");
        for _ in 0..GUESTS {
            match Guest::connect(self.record.clone(), &socket, epoch, self.seed) {
                Ok(guest) => self.guests.push(guest),
                Err(error) => self.trouble(&format!("{error:#}")),
            }
        }
        Ok(())
    }

    fn dismiss(&mut self) {
        self.guests.iter().for_each(Guest::leave);
        let all = || Ok(self.guests.iter().all(Guest::has_ended).then_some(()));
        if let Err(error) = wait_until("guests to leave", LEAVE_LIMIT, all) {
            self.trouble(&format!("{error:#}"));
        }
        self.cut_off();
    }

    fn cut_off(&mut self) {
        for guest in std::mem::take(&mut self.guests) {
            if let Err(error) = guest.hang_up() {
                self.trouble(&format!("a guest ended: {error:#}"));
            }
        }
    }

    fn trouble(&self, text: &str) {
        text.clone_into(&mut self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
