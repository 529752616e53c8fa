//! Bytes that came from a client and are not yet understood, in the pieces in which they came.
//!
//! `len` is the sum of the pieces; no piece is empty. Bytes are copied only where what is taken lies across pieces.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

#[derive(Default)]
pub(crate) struct Input {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Input {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the first `N` bytes and leaves them; `None` if there are fewer.
    pub(super) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        let mut head = [0; N];
        let mut filled = 0;
        for piece in &self.pieces {
            let part = piece.len().min(N - filled);
            head[filled..filled + part].copy_from_slice(&piece[..part]);
            filled += part;
            if filled == N {
                return Some(head);
            }
        }
        (N == 0).then_some(head)
    }

    /// Takes the first `count` bytes; `None`, and nothing taken, if there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.len < count {
            return None;
        }
        self.len -= count;
        if count == 0 {
            return Some(Bytes::new());
        }
        let first = self.pieces.front_mut().expect("pieces hold len bytes");
        if first.len() > count {
            return Some(first.split_to(count));
        }
        if first.len() == count {
            return self.pieces.pop_front();
        }
        Some(self.gather(count))
    }

    fn gather(&mut self, count: usize) -> Bytes {
        let mut gathered = BytesMut::with_capacity(count);
        while gathered.len() < count {
            let first = self.pieces.front_mut().expect("pieces hold len bytes");
            let part = first.len().min(count - gathered.len());
            gathered.extend_from_slice(&first.split_to(part));
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        gathered.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_they_were_cut() {
        let whole: Vec<u8> = (0..200).collect();
        for cut in [1, 3, 7, 100, 200] {
            let mut input = Input::default();
            whole.chunks(cut).for_each(|piece| input.push(Bytes::copy_from_slice(piece)));
            assert_eq!(input.peek::<10>().unwrap(), whole[..10]);
            assert_eq!(input.take(10).unwrap(), &whole[..10]);
            assert_eq!(input.take(0).unwrap(), &[][..]);
            assert!(input.take(191).is_none());
            assert_eq!(input.take(190).unwrap(), &whole[10..]);
            assert_eq!((input.len(), input.peek::<1>()), (0, None));
        }
    }
}
