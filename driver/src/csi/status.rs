//! From the driver's kinds of error to gRPC codes: the only mapping, for CSI and for the control API.

use crate::error::{Error, ErrorKind};
use tonic::{Code, Status};

pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::OutOfRange => Code::OutOfRange,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        // CSI: ABORTED is "operation pending for volume", and the answer to a token that is not ours.
        ErrorKind::Busy | ErrorKind::BadToken => Code::Aborted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::new(code(error.kind), error.message)
    }
}
