//! The ring and what is in flight on it. The only place that hands memory to the kernel.
//!
//! - An operation is in `in_flight` from `start` until its one completion is reaped; until then nobody else has it.
//!   Every operation completes exactly once (none is multishot), so a reaped operation's memory is no longer the
//!   kernel's.
//! - A ring is dropped only after everything in flight has completed; what could not be waited for is leaked, never
//!   freed.
//! - An entry that does not fit the submission queue waits in `overflow`, in order; `overflow.len() <= in flight +
//!   cancels`.

use crate::clock;
use crate::operation::Operation;
use crate::slab::{Key, Slab};
use ashlar_types::Duration;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::hint;
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};

/// Name of an operation in flight.
pub(crate) type OpKey = Key;

/// `user_data` of cancellations, whose own results do not matter: what they cancel completes by itself.
const CANCEL: u64 = u64::MAX;

pub(crate) struct Ring {
    uring: IoUring,
    in_flight: Slab<Operation>,
    overflow: VecDeque<squeue::Entry>,
    pub(crate) enters: u64,
    is_modern: bool,
}

/// An operation that the kernel is done with.
pub(crate) struct Done {
    pub(crate) key: OpKey,
    pub(crate) operation: Operation,
    /// Not negative as `Ok`.
    pub(crate) result: io::Result<usize>,
    /// The connection, if this was an accept that succeeded.
    pub(crate) accepted: Option<OwnedFd>,
    /// A receive left more in the socket.
    pub(crate) socket_has_more: bool,
}

impl Ring {
    pub(crate) fn new(entries: u32) -> io::Result<Ring> {
        match modern(entries) {
            Ok(uring) => Ring::on(uring, true),
            Err(error) => {
                tracing::info!(%error, "the kernel is older than Linux 6.1, use the ring without deferred task work");
                Ring::on(IoUring::new(entries)?, false)
            }
        }
    }

    fn on(uring: IoUring, is_modern: bool) -> io::Result<Ring> {
        let params = uring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is older than Linux 5.11"));
        }
        Ok(Ring { uring, in_flight: Slab::new(), overflow: VecDeque::new(), enters: 0, is_modern })
    }

    /// The kernel is Linux 6.1 or newer.
    pub(crate) fn is_modern(&self) -> bool {
        self.is_modern
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Hands the operation to the kernel with the next `enter`.
    pub(crate) fn start(&mut self, operation: Operation) -> OpKey {
        let key = self.in_flight.insert(operation);
        let operation = self.in_flight.get_mut(key).expect("inserted above");
        let entry = operation.entry().user_data(key.to_u64());
        self.push(entry);
        key
    }

    /// Asks the kernel to end the operation soon. It still completes, once, in its own way.
    pub(crate) fn cancel(&mut self, key: OpKey) {
        if self.in_flight.get(key).is_some() {
            self.push(opcode::AsyncCancel::new(key.to_u64()).build().user_data(CANCEL));
        }
    }

    /// Submits everything and, if nothing has completed, waits: `spin` awake, then asleep, in all no longer than
    /// `timeout` (`None`: for ever).
    pub(crate) fn enter(&mut self, timeout: Option<Duration>, spin: Duration) -> io::Result<()> {
        self.fill_from_overflow();
        let must_wait = timeout != Some(Duration::ZERO) && self.overflow.is_empty() && !self.has_completed();
        if !must_wait {
            return self.submit();
        }
        if !spin.is_zero() {
            self.submit()?;
            if self.spin(timeout.map_or(spin, |timeout| timeout.min(spin)))? {
                return Ok(());
            }
        }
        let timespec = timeout.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        self.enters += 1;
        ignore_transient(self.uring.submitter().submit_with_args(1, &args))
    }

    /// The next operation that has completed.
    pub(crate) fn reap(&mut self) -> Option<Done> {
        loop {
            let completed = self.uring.completion().next()?;
            if completed.user_data() == CANCEL {
                continue;
            }
            let key = Key::from_u64(completed.user_data());
            let operation = self.in_flight.remove(key).expect("an operation completes once");
            let result = match completed.result() {
                count if count >= 0 => Ok(count as usize),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
            let accepted = match (&operation, &result) {
                // SAFETY: needed because the ring gives a bare number. Sound: an accept's result is a descriptor that
                // the kernel has just made for this process, and that nobody else knows.
                (Operation::Accept(_), Ok(_)) => Some(unsafe { OwnedFd::from_raw_fd(completed.result()) }),
                _ => None,
            };
            let socket_has_more = cqueue::sock_nonempty(completed.flags());
            return Some(Done { key, operation, result, accepted, socket_has_more });
        }
    }

    fn has_completed(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// True when something has completed within `longest`.
    fn spin(&mut self, longest: Duration) -> io::Result<bool> {
        let until = clock::now() + longest;
        while clock::now() < until {
            // With deferred task work completions are posted by an enter only; the flag tells that one is worth it.
            if self.uring.submission().taskrun() {
                self.submit()?;
            }
            if self.has_completed() {
                return Ok(true);
            }
            hint::spin_loop();
        }
        Ok(false)
    }

    /// One system call that does not wait; none when there is nothing to hand over in either direction.
    fn submit(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enters += 1;
        ignore_transient(self.uring.submit())
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.overflow.push_back(entry);
        self.fill_from_overflow();
        if !self.overflow.is_empty() {
            // The queue is full: empty it. If the kernel cannot take entries now, they wait, and `enter` reports a
            // ring that is broken.
            self.enters += 1;
            if self.uring.submit().is_ok() {
                self.fill_from_overflow();
            }
        }
    }

    fn fill_from_overflow(&mut self) {
        let mut queue = self.uring.submission();
        while !queue.is_full() {
            let Some(entry) = self.overflow.pop_front() else { return };
            // SAFETY: needed because the kernel follows the entry's pointers. Sound: they lead to memory that the
            // entry's operation owns (invariant of `operation`), and the operation stays in `in_flight` until the
            // kernel is done with it; a cancellation has no pointers.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("the queue is not full");
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let keys: Vec<Key> = self.in_flight.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.cancel(key);
        }
        while !self.in_flight.is_empty() {
            if let Err(error) = self.enter(None, Duration::ZERO) {
                tracing::error!(%error, operations = self.in_flight.len(), "leak what a broken ring has in flight");
                mem::forget(mem::replace(&mut self.in_flight, Slab::new()));
                return;
            }
            while self.reap().is_some() {}
        }
    }
}

/// One thread submits, and completions are worked off when it asks for them, not by interrupting it.
fn modern(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries.saturating_mul(4))
        .setup_clamp()
        .build(entries)
}

/// Errors after which the caller looks for completions and enters again.
fn ignore_transient(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // A signal; the time is over; the completion queue must be emptied first; no memory for now.
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
