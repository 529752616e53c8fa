//! Block front-ends: how programs on the node see a volume.
//!
//! | front-end | device | where requests run |
//! | --- | --- | --- |
//! | NBD | a Unix socket, `nbd+unix:///?socket=PATH` | on the I/O thread, over the reactor's raw links |
//! | FUSE + loop | `/dev/loopN` on a file that FUSE serves | FUSE threads hand them to the I/O thread |
//!
//! ublk takes its place beside these two: a queue per I/O thread on the same ring, with requests handed to the same
//! [`Origin`].

pub(crate) mod fuse;
pub(crate) mod leftovers;
pub(crate) mod loopdev;
pub(crate) mod nbd;
pub(crate) mod reclaim;

use fuse::{FuseLoop, FuseReply};
use nbd::NbdOrigin;

/// A front-end that is up, as the thread that brings them up and down knows it.
pub(crate) enum Frontend {
    /// Lives on the I/O thread.
    Nbd,
    FuseLoop(FuseLoop),
    /// Nobody sees the volume: it is attached so that its members return.
    None,
}

impl Frontend {
    /// False if its block device was taken away by hand.
    pub(crate) fn has_device(&self) -> bool {
        match self {
            Frontend::Nbd | Frontend::None => true,
            Frontend::FuseLoop(fuse_loop) => fuse_loop.has_device(),
        }
    }
}

/// Who waits for a request.
pub(crate) enum Origin {
    Nbd(NbdOrigin),
    Fuse(FuseReply),
}
