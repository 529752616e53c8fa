//! What an NBD client says, for tests.

use super::{Cookie, NbdOrigin};
use ashlar_reactor::LinkId;
use ashlar_types::ByteCount;

/// Of a request that came on the link.
pub(crate) fn origin(link: LinkId) -> NbdOrigin {
    NbdOrigin { link, cookie: Cookie(0), read_at: None, bytes: ByteCount(0) }
}

/// Header of a request.
pub(crate) fn request(kind: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}
