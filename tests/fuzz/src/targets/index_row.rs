//! One row of a chunkserver's index. What decodes encodes to the same value: no field is ignored.
//!
//! ```text
//! | mode 1 | key bytes 1 | key | value without its checksum |         mode: 1 = the checksum and version are right
//! ```

use super::journal_batch::SLOTS;
use crate::reach;
use ashlar_engine::fuzz;
use ashlar_types::Crc32;

pub(crate) fn run(input: &[u8]) {
    let [mode, key_bytes, rest @ ..] = input else { return };
    let (key, body) = rest.split_at(usize::from(*key_bytes).min(rest.len()));
    let mut value = body.to_vec();
    if mode & 1 != 0 {
        seal_value(key, &mut value);
    }
    if let Some(encoded) = fuzz::index_row(key, &value, SLOTS) {
        reach::note("row", &char::from(key[0]).to_string());
        assert_eq!(encoded, value, "a row survives");
    }
}

/// Version and checksum as they must be.
pub(crate) fn seal_value(key: &[u8], value: &mut Vec<u8>) {
    if let Some(version) = value.first_mut() {
        *version = fuzz::INDEX_VERSION;
    }
    let crc = Crc32::of_parts(&[key, value]);
    value.extend_from_slice(&crc.0.to_le_bytes());
}
