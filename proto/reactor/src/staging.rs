//! Makes bytes fit for O_DIRECT: every part starts on a page border in memory and, except for the last, has whole
//! pages. Parts that do so already go as they are; runs of others are copied together into aligned buffers.

use crate::aligned::BufferPool;
use crate::limits::ALIGNMENT;
use bytes::Bytes;

/// Gives the bytes of `parts` to `push`, in order, cut for a direct write.
pub(crate) fn stage_for_direct(parts: &[Bytes], pool: &BufferPool, mut push: impl FnMut(Bytes)) {
    let mut rest = parts;
    while let Some((first, after)) = rest.split_first() {
        if is_aligned(first) {
            push(first.clone());
            rest = after;
            continue;
        }
        let run = run_to_copy(rest);
        let bytes: usize = rest[..run].iter().map(Bytes::len).sum();
        if bytes > 0 {
            push(copy_together(&rest[..run], bytes, pool));
        }
        rest = &rest[run..];
    }
}

/// How many parts to copy together: up to the first aligned one that follows a whole number of pages.
fn run_to_copy(parts: &[Bytes]) -> usize {
    let mut bytes = 0;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 && usize::is_multiple_of(bytes, ALIGNMENT) && is_aligned(part) {
            return index;
        }
        bytes += part.len();
    }
    parts.len()
}

fn is_aligned(part: &Bytes) -> bool {
    !part.is_empty() && part.len().is_multiple_of(ALIGNMENT) && (part.as_ptr() as usize).is_multiple_of(ALIGNMENT)
}

fn copy_together(parts: &[Bytes], bytes: usize, pool: &BufferPool) -> Bytes {
    let mut buffer = pool.take(bytes);
    let mut at = 0;
    for part in parts {
        buffer[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, bytes);
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(pool: &BufferPool, blocks: usize, fill: u8) -> Bytes {
        let mut buffer = pool.take(blocks * ALIGNMENT);
        buffer.fill(fill);
        buffer.freeze()
    }

    fn unaligned(bytes: usize, fill: u8) -> Bytes {
        let whole = vec![fill; bytes + 1 + ALIGNMENT];
        let skip = 1 + (whole.as_ptr() as usize).wrapping_neg() % ALIGNMENT;
        Bytes::from(whole).slice(skip..skip + bytes)
    }

    fn stage(parts: &[Bytes], pool: &BufferPool) -> Vec<Bytes> {
        let mut staged = Vec::new();
        stage_for_direct(parts, pool, |part| staged.push(part));
        assert_eq!(staged.concat(), parts.concat());
        staged
    }

    #[test]
    fn aligned_parts_are_not_copied() {
        let pool = BufferPool::new(0);
        let parts = [aligned(&pool, 1, 1), aligned(&pool, 3, 2)];
        let staged = stage(&parts, &pool);
        assert!(staged.iter().zip(&parts).all(|(staged, part)| staged.as_ptr() == part.as_ptr()));
    }

    #[test]
    fn unaligned_parts_are_copied_together_and_the_aligned_ones_around_them_are_not() {
        let pool = BufferPool::new(0);
        let parts = [
            aligned(&pool, 1, 1),
            unaligned(100, 2),
            Bytes::new(),
            unaligned(ALIGNMENT - 100, 3),
            unaligned(ALIGNMENT, 4),
            aligned(&pool, 2, 5),
        ];
        let staged = stage(&parts, &pool);
        assert_eq!(staged.iter().map(Bytes::len).collect::<Vec<_>>(), [4096, 8192, 8192]);
        assert!(staged.iter().all(is_aligned));
        assert_eq!((staged[0].as_ptr(), staged[2].as_ptr()), (parts[0].as_ptr(), parts[5].as_ptr()));
    }

    #[test]
    fn an_aligned_part_within_a_page_is_copied_along() {
        let pool = BufferPool::new(0);
        let parts = [unaligned(96, 1), aligned(&pool, 1, 2), unaligned(4000, 3)];
        let staged = stage(&parts, &pool);
        assert_eq!(staged.len(), 1);
        assert!(is_aligned(&staged[0]));
    }
}
