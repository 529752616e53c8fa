//! Waking a loop from other threads: an eventfd that the loop reads through its ring.
//!
//! `pending` saves system calls: while a wake-up is on its way, further ones are no-ops. The loop clears it before it
//! reports `Woken`, so whoever queues something and then wakes is seen: either its own wake-up follows, or the one on
//! its way is reported after the queueing.

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes a loop report [`crate::Completion::Woken`]. Cheap to clone, for any thread; outlives the loop harmlessly.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    eventfd: EventFd,
    pending: AtomicBool,
}

impl Waker {
    /// What the caller queued before this call is there when the loop reports `Woken`.
    pub fn wake(&self) {
        if self.shared.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        loop {
            match self.shared.eventfd.write(1) {
                Ok(_) => return,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("write to an eventfd that is open: {errno}"),
            }
        }
    }

    pub(crate) fn new() -> io::Result<Waker> {
        // Not EFD_NONBLOCK: with it the ring's read would fail instead of waiting.
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Waker { shared: Arc::new(Shared { eventfd, pending: AtomicBool::new(false) }) })
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }

    /// The loop is about to report `Woken`.
    pub(crate) fn clear(&self) {
        self.shared.pending.swap(false, Ordering::AcqRel);
    }
}
