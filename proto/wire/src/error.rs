//! Why bytes from a peer were not believed.

/// One reason per variant; all are final for the link they came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    #[error("magic {0:#010x} is not Ashlar's")]
    Magic(u32),
    #[error("protocol version {0} is not spoken here")]
    Version(u8),
    #[error("opcode {0} is unknown")]
    Opcode(u8),
    #[error("a reserved field is not zero")]
    Reserved,
    #[error("header checksum does not match")]
    HeaderChecksum,
    #[error("body checksum does not match")]
    BodyChecksum,
    #[error("body of {0} bytes is above the limit")]
    BodyTooLong(u32),
    #[error("data of {0} bytes is above the limit or not whole blocks")]
    DataLength(u32),
    #[error("body ends early")]
    Truncated,
    #[error("{0} bytes are left over at the end of the body")]
    TrailingBytes(usize),
    #[error("field {0} is out of range")]
    Field(&'static str),
}
