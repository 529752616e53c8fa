//! The table against a model: a volume that is an array of bytes.

use super::*;
use proptest::prelude::*;

const BLOCKS: usize = 8;

/// A volume that performs operations in the order in which they were given, as late as the test wants.
struct Model {
    content: Vec<u8>,
    queue: VecDeque<(Tag, GuestOp)>,
}

impl Model {
    fn step(&mut self) -> Option<(Tag, GuestResult)> {
        let (tag, op) = self.queue.pop_front()?;
        let range = |start: BlockIndex, bytes: u64| {
            let start = start.byte_offset().0 as usize;
            start..start + bytes as usize
        };
        let result = match op {
            GuestOp::Read { start, count, .. } => Bytes::copy_from_slice(&self.content[range(start, count.bytes().0)]),
            GuestOp::Write { start, data } => {
                assert!(data.len().is_multiple_of(BLOCK_BYTES as usize));
                self.content[range(start, data.len() as u64)].copy_from_slice(&data);
                Bytes::new()
            }
            GuestOp::Discard { start, count } => {
                self.content[range(start, count.bytes().0)].fill(0);
                Bytes::new()
            }
            GuestOp::Flush => Bytes::new(),
        };
        Some((tag, Ok(result)))
    }
}

fn request(kind: u8, offset: usize, bytes: usize, fill: u8) -> GuestRequest {
    let size = BLOCKS * BLOCK_BYTES as usize;
    let offset = offset % size;
    let bytes = 1 + bytes % (size - offset);
    let (at, count) = (ByteOffset(offset as u64), ByteCount(bytes as u64));
    match kind % 4 {
        0 => GuestRequest::Read { offset: at, bytes: count },
        1 => GuestRequest::Write { offset: at, data: Bytes::from(vec![fill; bytes]) },
        2 => GuestRequest::Zero { offset: at, bytes: count },
        _ => GuestRequest::Trim { offset: at, bytes: count },
    }
}

/// What the request does to plain bytes; the bytes that a read must give.
fn apply(plain: &mut [u8], request: &GuestRequest) -> Option<Vec<u8>> {
    match request {
        GuestRequest::Read { offset, bytes } => {
            return Some(plain[offset.0 as usize..(offset.0 + bytes.0) as usize].to_vec());
        }
        GuestRequest::Write { offset, data } => plain[offset.0 as usize..][..data.len()].copy_from_slice(data),
        GuestRequest::Zero { offset, bytes } => plain[offset.0 as usize..][..bytes.0 as usize].fill(0),
        GuestRequest::Trim { offset, bytes } => {
            if let Some((start, count)) = within(*offset, *bytes) {
                plain[start.byte_offset().0 as usize..][..count.bytes().0 as usize].fill(0);
            }
        }
        GuestRequest::Flush => {}
    }
    None
}

proptest! {
    #[test]
    fn requests_one_after_the_other_act_like_plain_bytes(
        requests in prop::collection::vec((any::<u8>(), any::<usize>(), any::<usize>(), any::<u8>()), 1..40)
    ) {
        let (mut table, mut plain) = (GuestTable::default(), vec![7; BLOCKS * BLOCK_BYTES as usize]);
        let mut model = Model { content: plain.clone(), queue: VecDeque::new() };
        for (i, &(kind, offset, bytes, fill)) in requests.iter().enumerate() {
            let request = request(kind, offset, bytes, fill);
            let expected = apply(&mut plain, &request);
            let (mut operations, mut done) = (Vec::new(), Vec::new());
            if let Some(result) = table.submit(RequestKey(i as u64), request, &mut operations) {
                done.push((RequestKey(i as u64), result));
            }
            model.queue.extend(operations.drain(..));
            while let Some((tag, result)) = model.step() {
                table.complete(tag, result, &mut operations, &mut done);
                model.queue.extend(operations.drain(..));
            }
            prop_assert_eq!(done.len(), 1);
            prop_assert_eq!(done[0].0, RequestKey(i as u64));
            if let Some(expected) = expected {
                prop_assert_eq!(&done[0].1.as_ref().unwrap()[..], &expected[..]);
            }
            prop_assert!(model.content == plain);
        }
        prop_assert!(table.waiting.is_empty() && table.held.is_empty() && table.reading.is_none());
    }

    /// Many at once: every change is there in the end, as if they had come one after the other.
    #[test]
    fn a_partial_write_never_undoes_a_later_one(
        requests in prop::collection::vec((1u8..4, any::<usize>(), 0usize..9000, any::<u8>()), 1..20),
        steps in prop::collection::vec(0usize..3, 20)
    ) {
        let (mut table, mut plain) = (GuestTable::default(), vec![7; BLOCKS * BLOCK_BYTES as usize]);
        let mut model = Model { content: plain.clone(), queue: VecDeque::new() };
        let (mut operations, mut done) = (Vec::new(), Vec::new());
        for (i, &(kind, offset, bytes, fill)) in requests.iter().enumerate() {
            let request = request(kind, offset, bytes, fill);
            apply(&mut plain, &request);
            if let Some(result) = table.submit(RequestKey(i as u64), request, &mut operations) {
                done.push((RequestKey(i as u64), result));
            }
            model.queue.extend(operations.drain(..));
            for _ in 0..steps[i] {
                if let Some((tag, result)) = model.step() {
                    table.complete(tag, result, &mut operations, &mut done);
                    model.queue.extend(operations.drain(..));
                }
            }
        }
        while let Some((tag, result)) = model.step() {
            table.complete(tag, result, &mut operations, &mut done);
            model.queue.extend(operations.drain(..));
        }
        prop_assert_eq!(done.len(), requests.len());
        prop_assert!(model.content == plain);
    }
}

#[test]
fn an_error_of_an_edge_fails_the_request_and_frees_those_behind() {
    let (mut table, mut operations, mut done) = (GuestTable::default(), Vec::new(), Vec::new());
    let half = |offset| GuestRequest::Write { offset: ByteOffset(offset), data: Bytes::from_static(&[1; 6000]) };
    assert!(table.submit(RequestKey(1), half(100), &mut operations).is_none());
    assert!(table.submit(RequestKey(2), half(4096 * 4), &mut operations).is_none());
    assert_eq!(operations.len(), 2, "the second waits");
    table.complete(operations[0].0, Err(GuestError::Lost), &mut operations, &mut done);
    assert_eq!(done, [(RequestKey(1), Err(GuestError::Lost))]);
    assert!(operations.len() > 2, "the second goes on");
}
