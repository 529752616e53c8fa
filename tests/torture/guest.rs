//! One NBD connection of a guest, on a thread of its own: random reads, writes, trims and flushes that overlap as they
//! like, at most [`WINDOW`] under way, each in the volume's record.
//!
//! It ends when it is told to leave (what is under way is waited for), when its socket is cut off or its server dies
//! (what is under way stays unknown), or when the server has answered [`ERRORS_MAX`] times with an error: until then it
//! goes on asking, for a writer that was fenced must go on refusing.

use crate::record::{Ask, Connection, Operation, Record};
use anyhow::{Context, Result};
use ashlar_sim::Rng;
use ashlar_tests::NbdClient;
use ashlar_types::Epoch;
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BLOCK_BYTES: u64 = 4096;
/// Operations under way on one connection.
const WINDOW: usize = 8;
/// Operations that may be under way beyond the window, as last words of a guest whose server is silent.
const LAST_WORDS_MAX: u32 = 32;
const BLOCKS_MAX: u64 = 24;
/// Blocks at the volume's beginning to which half of everything goes, so that operations meet.
const HOT_BLOCKS: u64 = 192;
const ERRORS_MAX: u64 = 40;
/// Operations a second, in bursts: more would make histories of ten minutes long and prove nothing more.
const RATE: u64 = 400;
/// How often a guest that waits for an answer looks whether it was told something, or may ask more.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A connection that lives on its own thread.
pub struct Guest {
    orders: Arc<Orders>,
    socket: UnixStream,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Orders {
    leave: AtomicBool,
    /// Operations still to be sent, whatever is under way.
    last_words: AtomicU32,
}

impl Guest {
    pub fn connect(record: Arc<Record>, socket: &Path, epoch: Epoch, seed: u64) -> Result<Guest> {
        let client = NbdClient::connect(socket)?;
        let (socket, orders) = (client.socket()?, Arc::<Orders>::default());
        let connection = record.new_connection();
        let rng = Rng::named(seed, &format!("{} connection {}", record.name, connection.0));
        let mut session = Session {
            record,
            client,
            orders: orders.clone(),
            rng,
            connection,
            epoch,
            under_way: HashMap::new(),
            errors: 0,
            begun: Instant::now(),
            sent: 0,
        };
        let thread = std::thread::Builder::new()
            .name(format!("guest-{}", connection.0))
            .spawn(move || session.run())
            .context("start a guest")?;
        Ok(Guest { orders, socket, thread })
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends when all that is under way is answered.
    pub fn leave(&self) {
        self.orders.leave.store(true, Ordering::SeqCst);
    }

    /// Asks for this much more, whatever is under way.
    pub fn speak(&self, operations: u32) {
        self.orders.last_words.store(operations.min(LAST_WORDS_MAX), Ordering::SeqCst);
    }

    /// Cuts the connection; an end that came before tells its reason.
    pub fn hang_up(self) -> Result<()> {
        // One that is closed already cannot be closed again.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Session {
    record: Arc<Record>,
    client: NbdClient,
    orders: Arc<Orders>,
    rng: Rng,
    connection: Connection,
    epoch: Epoch,
    under_way: HashMap<u64, Operation>,
    errors: u64,
    begun: Instant,
    sent: u64,
}

impl Session {
    fn run(&mut self) -> Result<()> {
        loop {
            let leaving = self.orders.leave.load(Ordering::SeqCst) || self.errors >= ERRORS_MAX;
            if leaving && self.under_way.is_empty() {
                return self.client.disconnect();
            }
            while !leaving && self.under_way.len() < WINDOW && self.may_ask() {
                self.ask()?;
            }
            for _ in 0..self.orders.last_words.swap(0, Ordering::SeqCst) {
                self.ask_small()?;
            }
            if self.client.wait_answer(LOOK_EVERY)? {
                self.take_answer()?;
            }
        }
    }

    fn may_ask(&self) -> bool {
        self.sent * 1000 <= self.begun.elapsed().as_millis() as u64 * RATE
    }

    fn ask(&mut self) -> Result<()> {
        let (start, count) = self.place();
        let ask = match self.rng.below(100) {
            0..55 => Ask::Write { start, count },
            55..92 => Ask::Read { start, count },
            92..95 => Ask::Trim { start, count },
            _ => Ask::Flush,
        };
        self.send(ask)
    }

    /// One block: the answer of the server is not waited for, so what is sent must fit into the socket.
    fn ask_small(&mut self) -> Result<()> {
        let (start, _) = self.place();
        let read = self.rng.coin();
        self.send(if read { Ask::Read { start, count: 1 } } else { Ask::Write { start, count: 1 } })
    }

    fn place(&mut self) -> (u64, u32) {
        let within = if self.rng.coin() { HOT_BLOCKS } else { self.record.blocks() };
        let longest = if self.rng.below(4) == 0 { BLOCKS_MAX } else { 4 };
        let count = self.rng.range(1, longest);
        (self.rng.below(within - count), count as u32)
    }

    fn send(&mut self, ask: Ask) -> Result<()> {
        let operation = self.record.begin(ask, self.connection, self.epoch);
        let bytes = |count: u32| count * BLOCK_BYTES as u32;
        let cookie = match ask {
            Ask::Read { start, count } => self.client.submit_read(start * BLOCK_BYTES, bytes(count)),
            Ask::Write { start, .. } => self.client.submit_write(start * BLOCK_BYTES, &self.record.data(&operation)),
            Ask::Trim { start, count } => self.client.submit_trim(start * BLOCK_BYTES, bytes(count)),
            Ask::Flush => self.client.submit_flush(),
        }?;
        self.under_way.insert(cookie, operation);
        self.sent += 1;
        Ok(())
    }

    fn take_answer(&mut self) -> Result<()> {
        let reply = self.client.next_reply()?;
        let operation = self.under_way.remove(&reply.cookie).context("an answer to what is under way")?;
        if reply.error != 0 {
            self.errors += 1;
            self.record.failed(&operation);
            return Ok(());
        }
        let data = match operation.ask {
            Ask::Read { count, .. } => self.client.receive_data(count * BLOCK_BYTES as u32)?,
            _ => vec![],
        };
        self.record.acknowledged(&operation, &data);
        Ok(())
    }
}
