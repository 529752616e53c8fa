//! A client of the NBD front-end, from the greeting on. However its bytes are cut, it gets the same answers and asks
//! the same of the volume.
//!
//! ```text
//! | mode 1 | cut 1 | bytes of the client |     mode: 1 = read-only, 2 = small export, 4 = flags were sent before
//! ```

use crate::reach;
use ashlar_datapath::nbd_fuzz::{Conversation, converse};
use ashlar_types::ByteCount;

pub(crate) fn run(input: &[u8]) {
    let [mode, cut, client @ ..] = input else { return };
    let size = ByteCount(if mode & 2 != 0 { 4096 } else { 1 << 30 });
    let flags: &[u8] = if mode & 4 != 0 { &[0, 0, 0, 3] } else { &[] };
    let client = [flags, client].concat();
    let cut_into = |bytes: usize| -> Conversation { converse(size, mode & 1 != 0, client.chunks(bytes.max(1))) };
    let whole = cut_into(client.len());
    for request in &whole.requests {
        reach::note("request", &request.split(' ').nth(1).unwrap_or_default());
    }
    let pieces = cut_into(usize::from(*cut) + 1);
    assert_eq!(whole, pieces, "the cut makes no difference");
}
