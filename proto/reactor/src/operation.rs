//! The operations that a ring can have in flight. Each owns whatever the kernel touches for it: descriptor, buffers,
//! iovecs, address.
//!
//! Invariant: `Operation::entry` gives an entry whose pointers lead only to heap memory that the operation owns, that
//! does not move when the operation is moved, and that nobody else writes. So an operation that is kept until its
//! completion keeps its entry sound.

use crate::aligned::AlignedBuf;
use crate::limits::IOVECS_MAX;
use crate::waker::Waker;
use crate::{LinkId, ListenerId};
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::collections::VecDeque;
use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

pub(crate) enum Operation {
    Read(ReadOp),
    Write(WriteOp),
    Flush(FlushOp),
    Accept(AcceptOp),
    Connect(ConnectOp),
    Receive(ReceiveOp),
    Send(SendOp),
    WatchEnd(WatchEndOp),
    Wake(WakeOp),
}

/// A file with what matters for its buffers.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    /// Opened with O_DIRECT: memory, offset and length must be aligned.
    pub(crate) direct: bool,
}

pub(crate) struct ReadOp {
    pub(crate) file: Rc<OpenFile>,
    pub(crate) token: u64,
    pub(crate) offset: u64,
    /// As long as what was asked for; `done` bytes are there.
    pub(crate) buffer: AlignedBuf,
    pub(crate) done: usize,
}

pub(crate) struct WriteOp {
    pub(crate) file: Rc<OpenFile>,
    pub(crate) token: u64,
    /// Where `parts` begin, after what is written already.
    pub(crate) offset: u64,
    pub(crate) parts: Parts,
    pub(crate) durable: bool,
}

pub(crate) struct FlushOp {
    pub(crate) file: Rc<OpenFile>,
    pub(crate) token: u64,
}

pub(crate) struct AcceptOp {
    pub(crate) listener: ListenerId,
    pub(crate) socket: Rc<OwnedFd>,
}

pub(crate) struct ConnectOp {
    pub(crate) link: LinkId,
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) address: Box<SockaddrStorage>,
}

pub(crate) struct ReceiveOp {
    pub(crate) link: LinkId,
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) buffer: AlignedBuf,
    /// Received is after these bytes of the buffer, and no more than so many.
    pub(crate) filled: usize,
    pub(crate) bytes_max: usize,
    /// The buffer is the data part of a frame, and all of it is awaited.
    pub(crate) direct: bool,
    /// The socket was seen empty: wait for it before trying.
    pub(crate) poll_first: bool,
}

pub(crate) struct SendOp {
    pub(crate) link: LinkId,
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) parts: Parts,
    header: Box<libc::msghdr>,
}

/// Waits until the peer ends the connection, without taking what it has sent.
pub(crate) struct WatchEndOp {
    pub(crate) link: LinkId,
    pub(crate) socket: Rc<OwnedFd>,
}

pub(crate) struct WakeOp {
    pub(crate) waker: Waker,
    pub(crate) count: Box<[u8; 8]>,
}

impl SendOp {
    pub(crate) fn new(link: LinkId, socket: Rc<OwnedFd>) -> SendOp {
        // SAFETY: needed because `msghdr` has private padding on some C libraries. Sound: a struct of integers and
        // raw pointers, for which all zeros is a value (no name, no control data, no iovecs).
        let header = Box::new(unsafe { mem::zeroed::<libc::msghdr>() });
        SendOp { link, socket, parts: Parts::new(), header }
    }
}

impl Operation {
    /// The ring's entry for this operation, from where it stands: after a part was done, for the rest.
    pub(crate) fn entry(&mut self) -> squeue::Entry {
        match self {
            Operation::Read(read) => {
                let rest = &mut read.buffer[read.done..];
                opcode::Read::new(types::Fd(read.file.file.as_raw_fd()), rest.as_mut_ptr(), rest.len() as u32)
                    .offset(read.offset + read.done as u64)
                    .build()
            }
            Operation::Write(write) => {
                let iovecs = write.parts.fill_iovecs();
                opcode::Writev::new(types::Fd(write.file.file.as_raw_fd()), iovecs.as_ptr(), iovecs.len() as u32)
                    .offset(write.offset)
                    .rw_flags(if write.durable { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            Operation::Flush(flush) => {
                opcode::Fsync::new(types::Fd(flush.file.file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build()
            }
            Operation::Accept(accept) => {
                let (address, address_bytes) = (std::ptr::null_mut(), std::ptr::null_mut());
                opcode::Accept::new(types::Fd(accept.socket.as_raw_fd()), address, address_bytes)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Operation::Connect(connect) => {
                let address = &connect.address;
                opcode::Connect::new(types::Fd(connect.socket.as_raw_fd()), address.as_ptr(), address.len()).build()
            }
            Operation::Receive(receive) => receive.entry(),
            Operation::Send(send) => send.entry(),
            Operation::WatchEnd(watch) => {
                // Errors and a hang-up are told unasked.
                opcode::PollAdd::new(types::Fd(watch.socket.as_raw_fd()), libc::POLLRDHUP as u32).build()
            }
            Operation::Wake(wake) => {
                let count = &mut wake.count;
                opcode::Read::new(types::Fd(wake.waker.raw_fd()), count.as_mut_ptr(), count.len() as u32).build()
            }
        }
    }
}

impl ReceiveOp {
    fn entry(&mut self) -> squeue::Entry {
        let rest = &mut self.buffer[self.filled..][..self.bytes_max];
        opcode::Recv::new(types::Fd(self.socket.as_raw_fd()), rest.as_mut_ptr(), rest.len() as u32)
            .flags(if self.direct { libc::MSG_WAITALL } else { 0 })
            .ioprio(if self.poll_first { RECEIVE_POLL_FIRST } else { 0 })
            .build()
    }
}

/// IORING_RECVSEND_POLL_FIRST.
const RECEIVE_POLL_FIRST: u16 = 1;

impl SendOp {
    fn entry(&mut self) -> squeue::Entry {
        let iovecs = self.parts.fill_iovecs();
        self.header.msg_iov = iovecs.as_ptr().cast_mut();
        self.header.msg_iovlen = iovecs.len() as _;
        opcode::SendMsg::new(types::Fd(self.socket.as_raw_fd()), &raw const *self.header)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
            .build()
    }
}

/// Bytes to write or send, in order; what is done is cut off from the front.
pub(crate) struct Parts {
    parts: VecDeque<Bytes>,
    bytes: usize,
    /// Room for the kernel's view of the first parts; valid between `fill_iovecs` and the next call.
    iovecs: Vec<libc::iovec>,
}

impl Parts {
    pub(crate) fn new() -> Parts {
        Parts { parts: VecDeque::new(), bytes: 0, iovecs: Vec::new() }
    }

    pub(crate) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.bytes, "more done than there was to do");
        self.bytes -= bytes;
        while bytes > 0 {
            let first = self.parts.front_mut().expect("parts hold their bytes");
            if bytes < first.len() {
                drop(first.split_to(bytes));
                return;
            }
            bytes -= first.len();
            self.parts.pop_front();
        }
    }

    fn fill_iovecs(&mut self) -> &[libc::iovec] {
        let views = self.parts.iter().take(IOVECS_MAX);
        self.iovecs.clear();
        self.iovecs
            .extend(views.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }));
        &self.iovecs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_cut_off_from_the_front() {
        let mut parts = Parts::new();
        for part in ["abc", "", "de", "fghi"] {
            parts.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!((parts.bytes(), parts.fill_iovecs().len()), (9, 3));
        parts.advance(4);
        assert_eq!(parts.parts, ["e", "fghi"]);
        parts.advance(1);
        assert_eq!(parts.parts, ["fghi"]);
        parts.advance(4);
        assert!(parts.is_empty() && parts.fill_iovecs().is_empty());
    }
}
