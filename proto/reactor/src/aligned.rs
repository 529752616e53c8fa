//! Page-aligned buffers from a bounded pool: what a disk and a socket can both work on without a copy.
//!
//! - Sizes are 4 KiB, 8 KiB .. 1 MiB; a larger request is allocated alone and freed after use.
//! - The pool keeps at most `free_bytes_max` for reuse. What is out is bounded by who takes: links and operations in
//!   flight.
//! - A buffer may be dropped on any thread: the free lists are behind a lock that is held for a push or a pop.
//! - A reused buffer holds old bytes. Whoever takes one fills what it hands on.

use crate::limits::{ALIGNMENT, POOLED_BYTES_MAX};
use bytes::Bytes;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

const CLASSES: usize = (POOLED_BYTES_MAX / ALIGNMENT).ilog2() as usize + 1;

/// Where buffers come from. Clones share one pool.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Mutex<FreeLists>>,
}

struct FreeLists {
    by_class: [Vec<Memory>; CLASSES],
    free_bytes: usize,
    free_bytes_max: usize,
}

impl BufferPool {
    pub fn new(free_bytes_max: usize) -> BufferPool {
        let by_class = std::array::from_fn(|_| Vec::new());
        BufferPool { shared: Arc::new(Mutex::new(FreeLists { by_class, free_bytes: 0, free_bytes_max })) }
    }

    /// A buffer of `bytes` bytes (at least one), of any content.
    pub fn take(&self, bytes: usize) -> AlignedBuf {
        assert!(bytes > 0, "a buffer has at least one byte");
        let memory = class_of(bytes).and_then(|class| self.lists(|lists| lists.pop(class)));
        let memory = memory.unwrap_or_else(|| Memory::allocate(size_for(bytes)));
        AlignedBuf { memory: Some(memory), bytes, pool: self.clone() }
    }

    /// Bytes that wait for reuse.
    pub fn free_bytes(&self) -> usize {
        self.lists(|lists| lists.free_bytes)
    }

    fn lists<R>(&self, use_lists: impl FnOnce(&mut FreeLists) -> R) -> R {
        // Every change of the lists is complete or not begun when a panic could come, so a poisoned lock guards sound
        // lists.
        use_lists(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FreeLists {
    fn pop(&mut self, class: usize) -> Option<Memory> {
        let memory = self.by_class[class].pop()?;
        self.free_bytes -= memory.bytes;
        Some(memory)
    }

    /// Gives the memory back when there is no room for it.
    fn push(&mut self, memory: Memory) -> Option<Memory> {
        let class = class_of(memory.bytes).filter(|_| self.free_bytes + memory.bytes <= self.free_bytes_max);
        let Some(class) = class else { return Some(memory) };
        self.free_bytes += memory.bytes;
        self.by_class[class].push(memory);
        None
    }
}

/// The class whose buffers are the smallest that hold `bytes`; none when it is larger than what is pooled.
fn class_of(bytes: usize) -> Option<usize> {
    (bytes <= POOLED_BYTES_MAX).then(|| (size_for(bytes) / ALIGNMENT).ilog2() as usize)
}

fn size_for(bytes: usize) -> usize {
    let pages = bytes.div_ceil(ALIGNMENT);
    if bytes <= POOLED_BYTES_MAX { pages.next_power_of_two() * ALIGNMENT } else { pages * ALIGNMENT }
}

/// A page-aligned buffer that returns to its pool when it is dropped.
pub struct AlignedBuf {
    /// `Some` until the drop.
    memory: Option<Memory>,
    bytes: usize,
    pool: BufferPool,
}

impl AlignedBuf {
    /// Forgets what follows the first `bytes` bytes.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
    }

    /// The content as shared bytes, without a copy. The buffer returns to its pool when the last share is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("memory is taken by drop only")
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let memory = self.memory();
        debug_assert!(self.bytes <= memory.bytes);
        // SAFETY: needed to see allocated memory as a slice. Sound: `memory` is a live allocation of `memory.bytes >=
        // self.bytes` bytes, initialised (zeroed at allocation), owned by this buffer alone and borrowed as long as
        // `self` is.
        unsafe { slice::from_raw_parts(memory.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = (self.memory().start, self.bytes);
        // SAFETY: needed and sound as in `deref`; `&mut self` makes the borrow the only one.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), bytes) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.bytes)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        let surplus = self.memory.take().and_then(|memory| self.pool.lists(|lists| lists.push(memory)));
        // Freed here, after the lock.
        drop(surplus);
    }
}

/// One allocation, aligned to `ALIGNMENT`, initialised.
struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: needed because a raw pointer is not `Send` by itself. Sound: `Memory` owns its allocation alone, and the
// global allocator takes memory back on any thread.
unsafe impl Send for Memory {}
// SAFETY: needed because frozen buffers are shared between threads. Sound: through `&Memory` the bytes can only be
// read.
unsafe impl Sync for Memory {}

impl Memory {
    fn allocate(bytes: usize) -> Memory {
        let layout = Memory::layout(bytes);
        // SAFETY: needed because safe collections do not align to a page. Sound: the layout's size is not zero
        // (`size_for` gives at least `ALIGNMENT`).
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Memory { start, bytes }
    }

    fn layout(bytes: usize) -> Layout {
        assert!(bytes > 0);
        Layout::from_size_align(bytes, ALIGNMENT).expect("a buffer's size is far below isize::MAX")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: needed to give back what `allocate` took. Sound: the same layout as there, and this is the only
        // owner.
        unsafe { dealloc(self.start.as_ptr(), Memory::layout(self.bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_hold_what_was_asked_for() {
        let pool = BufferPool::new(1 << 20);
        for bytes in [1, 4096, 4097, 65536, POOLED_BYTES_MAX, POOLED_BYTES_MAX + 1] {
            let mut buffer = pool.take(bytes);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.len(), bytes);
            buffer.fill(7);
            assert!(buffer.freeze().iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn a_dropped_buffer_is_reused_even_from_another_thread() {
        let pool = BufferPool::new(1 << 20);
        let bytes = pool.take(8000).freeze();
        let address = bytes.as_ptr() as usize;
        std::thread::spawn(move || drop(bytes)).join().unwrap();
        assert_eq!(pool.free_bytes(), 8192);
        assert_eq!(pool.take(5000).as_ptr() as usize, address);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let pool = BufferPool::new(3 * 4096);
        let taken: Vec<AlignedBuf> = (0..5).map(|_| pool.take(4096)).collect();
        drop(taken);
        assert_eq!(pool.free_bytes(), 3 * 4096);
        drop(pool.take(POOLED_BYTES_MAX * 2));
        assert_eq!(pool.free_bytes(), 3 * 4096);
    }
}
