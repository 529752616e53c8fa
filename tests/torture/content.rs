//! The content of a block says which write made it: volume, number of the block, stamp of the write, and words that
//! follow from all three to the block's end.

use ashlar_sim::Stamp;

pub const BLOCK_BYTES: usize = 4096;
const WORDS: u64 = BLOCK_BYTES as u64 / 8;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Adds the content of one block.
pub fn append(data: &mut Vec<u8>, volume: u64, block: u64, stamp: Stamp) {
    data.extend([volume, block, stamp.0].into_iter().flat_map(u64::to_le_bytes));
    let seed = (volume << 48 ^ block << 24 ^ stamp.0).wrapping_mul(MIX);
    data.extend((3..WORDS).flat_map(|at| (seed.rotate_left(at as u32 % 64) ^ at).to_le_bytes()));
}

/// Which write a block's bytes come from, [`Stamp::ZERO`] for zeros; or, as text, what they are instead.
pub fn stamp_of(volume: u64, block: u64, bytes: &[u8]) -> Result<Stamp, String> {
    assert_eq!(bytes.len(), BLOCK_BYTES);
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(Stamp::ZERO);
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
    let [of_volume, of_block, stamp] = [0, 1, 2].map(word);
    let mut whole = Vec::with_capacity(BLOCK_BYTES);
    append(&mut whole, of_volume, of_block, Stamp(stamp));
    if bytes != whole {
        let sectors: Vec<usize> =
            (0..BLOCK_BYTES / 512).filter(|at| bytes[at * 512..][..512] != whole[at * 512..][..512]).collect();
        return Err(format!("torn: begins as write {stamp}, sectors {sectors:?} are another's"));
    }
    if (of_volume, of_block) != (volume, block) || stamp == 0 {
        return Err(format!("foreign: it is block {of_block} of volume {of_volume}, write {stamp}"));
    }
    Ok(Stamp(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_write_and_a_foreign_or_torn_one_is_noticed() {
        let block = |volume, block, stamp| {
            let mut bytes = vec![];
            append(&mut bytes, volume, block, Stamp(stamp));
            bytes
        };
        assert_eq!(stamp_of(1, 2, &block(1, 2, 77)), Ok(Stamp(77)));
        assert_eq!(stamp_of(1, 2, &[0; BLOCK_BYTES]), Ok(Stamp::ZERO));
        assert!(stamp_of(1, 3, &block(1, 2, 77)).unwrap_err().contains("foreign"));
        assert!(stamp_of(2, 2, &block(1, 2, 77)).unwrap_err().contains("foreign"));
        let mut torn = block(1, 2, 78);
        torn[1024..1536].copy_from_slice(&block(1, 2, 77)[1024..1536]);
        assert!(stamp_of(1, 2, &torn).unwrap_err().contains("sectors [2]"));
        torn[1024..1536].fill(0);
        assert!(stamp_of(1, 2, &torn).is_err());
    }
}
