//! Every bound of the reactor, and how they relate.

use ashlar_wire::limits::{BODY_BYTES_MAX, DATA_BYTES_MAX, HEADER_BYTES};

/// Alignment of buffers, of direct reads and of direct writes: a page, and Ashlar's block.
pub const ALIGNMENT: usize = 4096;
/// Largest buffer that the pool keeps for reuse. Larger ones are allocated and freed.
pub const POOLED_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one read.
pub const READ_BYTES_MAX: usize = 64 << 20;
/// Most bytes of one write.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// Most iovecs of one system call (the kernel's UIO_MAXIOV). Longer writes are continued.
pub(crate) const IOVECS_MAX: usize = 1024;
/// What one receive takes when nothing larger is awaited.
pub(crate) const RECEIVE_BYTES: usize = 64 << 10;
/// What one receive takes after a frame with large data: the next one's header and body, so that its data too can be
/// received into its own buffer.
pub(crate) const HEAD_RECEIVE_BYTES: usize = 1 << 10;
/// Data of a frame that lacks at least this much is received into its own buffer, without a copy.
pub(crate) const DIRECT_RECEIVE_BYTES_MIN: usize = 16 << 10;
/// Raw bytes up to here are copied out of the receive buffer; with more the buffer itself is handed over.
pub(crate) const RAW_COPY_BYTES_MAX: usize = 16 << 10;
/// Operations that end in one turn while the reactor has connections with itself.
pub(crate) const REAPED_BESIDE_INNER_MAX: usize = 4;
/// Turns after which the kernel is asked although something goes on within the reactor. From a front-end's request to
/// the disk and from there to its answer it takes about six.
pub(crate) const INNER_TURNS_MAX: u32 = 16;
/// How long a link that is being closed waits for its peer to take the last bytes.
pub(crate) const LINGER_MS: u64 = 2000;
/// A TCP link on which nothing moves for so long is asked by the kernel whether its peer is there, so often, at this
/// interval; without an answer it ends.
pub(crate) const KEEPALIVE_IDLE_SECONDS: u32 = 30;
pub(crate) const KEEPALIVE_INTERVAL_SECONDS: u32 = 10;
pub(crate) const KEEPALIVE_PROBES: u32 = 3;
/// Pause after an accept that failed for want of resources.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 100;

const _: () = assert!(POOLED_BYTES_MAX >= DATA_BYTES_MAX, "the data of every frame comes from the pool");
const _: () = assert!(RECEIVE_BYTES <= POOLED_BYTES_MAX);
const _: () = assert!(RAW_COPY_BYTES_MAX <= RECEIVE_BYTES);
const _: () = assert!(RECEIVE_BYTES >= HEAD_RECEIVE_BYTES && HEAD_RECEIVE_BYTES >= HEADER_BYTES);
const _: () = assert!(READ_BYTES_MAX <= u32::MAX as usize, "a length fits the ring's 32 bits");
const _: () = assert!(BODY_BYTES_MAX <= u32::MAX as usize);
