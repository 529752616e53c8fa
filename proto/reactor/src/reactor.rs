//! The loop: hands out what was asked for, waits, and turns what the kernel says into completions.
//!
//! ```text
//!            caller ── read/write/flush/send/connect.. ──► submission queue ─┐
//!              ▲                                                             │ one io_uring_enter per turn
//!              └── Vec<Completion> ◄── finish_* ◄── completion queue ◄───────┘
//! ```
//!
//! - One thread: a reactor is made, used and dropped on the same one (the kernel insists; the type is not `Send`).
//! - The only deadlines are those of connecting, lingering and paused accepting: none is on the way of a request.
//! - Memory is bounded by what callers ask for: operations in flight are theirs, a link adds a receive buffer and at
//!   most one frame.

mod files;
mod inner;
mod links;
mod listeners;

use crate::aligned::BufferPool;
use crate::clock;
use crate::frames::RawFrame;
use crate::limits::{INNER_TURNS_MAX, REAPED_BESIDE_INNER_MAX};
use crate::link::Link;
use crate::operation::{OpenFile, Operation, WakeOp};
use crate::ring::{Done, Ring};
use crate::slab::Slab;
use crate::spin::Spin;
use crate::waker::Waker;
use crate::{Completion, LinkId, ListenerId, ReactorConfig, ReactorError};
use ashlar_types::{Duration, Instant};
use inner::InnerEnd;
use listeners::Listener;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;

pub struct Reactor {
    ring: Ring,
    pool: BufferPool,
    waker: Waker,
    spin: Spin,
    links_max: usize,
    files: Slab<Rc<OpenFile>>,
    listeners: Slab<Listener>,
    links: Slab<Link>,
    /// Ends of connections of the reactor with itself.
    inner: Slab<InnerEnd>,
    /// Links that may have something to send.
    to_send: Vec<LinkId>,
    deadlines: BTreeSet<(Instant, Deadline)>,
    /// Room for the frames of one receive.
    frames: Vec<RawFrame>,
    /// Turns since the kernel was last asked.
    inner_turns: u32,
    /// Completions since the last wait.
    ready: Vec<Completion>,
    stats: ReactorStats,
    /// Not `Send`: the ring belongs to the thread that made it.
    thread: PhantomData<*const ()>,
}

/// What the reactor has to do by itself at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Deadline {
    GiveUp(LinkId),
    AcceptAgain(ListenerId),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorStats {
    /// System calls into the ring.
    pub enters: u64,
    /// Operations that completed.
    pub operations: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Calls with a name whose thing was gone already, as happens when a link ends while its caller still works for
    /// it.
    pub stale_calls: u64,
}

impl Reactor {
    /// A loop for the calling thread.
    pub fn new(config: ReactorConfig) -> Result<Reactor, ReactorError> {
        let mut ring = Ring::new(config.ring_entries).map_err(ReactorError::Ring)?;
        let waker = Waker::new().map_err(ReactorError::Wake)?;
        ring.start(Operation::Wake(WakeOp { waker: waker.clone(), count: Box::new([0; 8]) }));
        Ok(Reactor {
            ring,
            pool: BufferPool::new(config.pool_bytes_max),
            waker,
            spin: Spin::new(config.spin_max),
            links_max: config.links_max,
            files: Slab::new(),
            listeners: Slab::new(),
            links: Slab::new(),
            inner: Slab::new_upper(),
            to_send: Vec::new(),
            deadlines: BTreeSet::new(),
            frames: Vec::new(),
            inner_turns: 0,
            ready: Vec::new(),
            stats: ReactorStats::default(),
            thread: PhantomData,
        })
    }

    /// For other threads, to make `wait` return with [`Completion::Woken`].
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The present instant; the clock that `wait` goes by.
    pub fn now(&self) -> Instant {
        clock::now()
    }

    /// Page-aligned buffers. Data that is written to a disk or sent from such a buffer is not copied on the way.
    pub fn buffer_pool(&self) -> &BufferPool {
        &self.pool
    }

    pub fn stats(&self) -> ReactorStats {
        ReactorStats { enters: self.ring.enters, ..self.stats }
    }

    /// Operations that the kernel has, those of the reactor itself (receives, accepts, the wake-up) included.
    pub fn operations_in_flight(&self) -> usize {
        self.ring.in_flight()
    }

    /// What was said within the reactor goes before what the kernel has: each thing that the kernel did is followed to
    /// its end, which may be the next thing that it is asked for. So a disk that answered much at once is soon at work
    /// again. Not for ever: users may go on talking.
    fn goes_on_within(&self) -> bool {
        !self.ready.is_empty() && self.inner_turns < INNER_TURNS_MAX
    }

    /// Appends what completes; hands everything asked for to the kernel, once what goes on within the reactor is done.
    /// Returns when there is at least one completion, or at `deadline` without; `Instant::FAR` waits for ever. After an
    /// error nothing completes any more.
    pub fn wait(&mut self, deadline: Instant, out: &mut Vec<Completion>) -> Result<(), ReactorError> {
        loop {
            self.start_sends();
            if self.goes_on_within() {
                self.inner_turns += 1;
            } else {
                self.inner_turns = 0;
                self.enter(deadline).map_err(ReactorError::Enter)?;
                self.reap();
            }
            let now = clock::now();
            self.meet_deadlines(now);
            let idle = self.ready.is_empty();
            out.append(&mut self.ready);
            if !idle || now >= deadline {
                return Ok(());
            }
        }
    }

    fn reap(&mut self) {
        let most = if self.inner.is_empty() { usize::MAX } else { REAPED_BESIDE_INNER_MAX };
        for _ in 0..most {
            let Some(done) = self.ring.reap() else { return };
            self.stats.operations += 1;
            self.finish(done);
        }
    }

    fn enter(&mut self, deadline: Instant) -> std::io::Result<()> {
        if !self.ready.is_empty() {
            return self.ring.enter(Some(Duration::ZERO), Duration::ZERO);
        }
        let first_own = self.deadlines.first().map_or(Instant::FAR, |&(instant, _)| instant);
        let until = deadline.min(first_own);
        let began = clock::now();
        let timeout = (until != Instant::FAR).then(|| until.since(began));
        self.ring.enter(timeout, self.spin.budget())?;
        if timeout != Some(Duration::ZERO) {
            self.spin.waited(clock::now().since(began));
        }
        Ok(())
    }

    fn finish(&mut self, done: Done) {
        let Done { key, operation, result, accepted, socket_has_more } = done;
        match operation {
            Operation::Read(read) => self.finish_read(read, result),
            Operation::Write(write) => self.finish_write(write, result),
            Operation::Flush(flush) => self.finish_flush(flush, result),
            Operation::Accept(accept) => self.finish_accept(accept, result, accepted),
            Operation::Connect(connect) => self.finish_connect(connect, result),
            Operation::Receive(receive) => self.finish_receive(receive, key, result, socket_has_more),
            Operation::Send(send) => self.finish_send(send, key, result),
            Operation::WatchEnd(watch) => self.finish_watch_end(&watch, key),
            Operation::Wake(wake) => self.finish_wake(wake),
        }
    }

    fn finish_wake(&mut self, wake: WakeOp) {
        self.ring.start(Operation::Wake(wake));
        self.waker.clear();
        self.ready.push(Completion::Woken);
    }

    fn meet_deadlines(&mut self, now: Instant) {
        while let Some(&(instant, deadline)) = self.deadlines.first() {
            if instant > now {
                return;
            }
            self.deadlines.pop_first();
            match deadline {
                Deadline::GiveUp(link) => self.give_up(link),
                Deadline::AcceptAgain(listener) => self.start_accept(listener),
            }
        }
    }
}
