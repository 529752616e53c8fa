//! Keeps the kernel from waiting for us while we wait for it.
//!
//! When memory is short, an allocation may have to wait until dirty pages are written back; if these belong to a file
//! system on one of our devices, the write-back waits for us. A task that is marked as an I/O flusher allocates
//! without such waits (prctl(2)).

use std::io;

/// linux/prctl.h, since Linux 5.6.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Marks the calling thread, and with it every thread that it starts later. To be called before there are any others.
pub(crate) fn mark_as_io_flusher() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: needed because no safe wrapper exists. Sound: this prctl takes integers only and touches no memory of
    // ours.
    match unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
