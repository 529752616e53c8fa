//! Size of the one file: told by the thread that expands a volume, read by those that serve the kernel.

use ashlar_types::ByteCount;
use std::sync::atomic::{AtomicU64, Ordering};

/// Never becomes less, so whoever reads an older one refuses a request at most.
pub(super) struct FileSize(AtomicU64);

impl FileSize {
    pub(super) fn new(size: ByteCount) -> FileSize {
        FileSize(AtomicU64::new(size.0))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn grow(&self, size: ByteCount) {
        self.0.fetch_max(size.0, Ordering::Relaxed);
    }
}
