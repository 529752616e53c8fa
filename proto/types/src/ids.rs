//! Identities. Parsed once, here, at the border; a value of these types is well-formed.

use crate::Slip;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} {text:?} is not a UUID")]
    NotUuid { what: &'static str, text: String },
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {length} bytes, at most {max} are allowed")]
    TooLong { what: &'static str, length: usize, max: usize },
    #[error(
        "{what} contains {found:?}; allowed are letters, digits, '-', '_' and '.', starting with a letter or digit"
    )]
    BadCharacter { what: &'static str, found: char },
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            pub const fn from_u128(raw: u128) -> $name {
                $name(raw)
            }

            pub fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<$name, IdError> {
                let shortened: String = text.chars().take(64).collect();
                uuid::Uuid::try_parse(text)
                    .map(|uuid| $name(uuid.as_u128()))
                    .map_err(|_| IdError::NotUuid { what: $what, text: shortened })
            }
        }
    };
}

uuid_id! {
    /// One Ashlar cluster. A disk of another cluster is refused.
    ClusterId, "cluster id"
}
uuid_id! {
    /// One volume; made by the control plane, never from a user's text.
    VolumeId, "volume id"
}
uuid_id! {
    /// One disk: a failure unit of a chunkserver.
    DiskId, "disk id"
}

uuid_id! {
    /// One snapshot of one volume.
    SnapshotId, "snapshot id"
}
uuid_id! {
    /// Snapshots of several volumes at one instant.
    GroupId, "snapshot group id"
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<$name, IdError> {
                check_name(text, $what, $max)?;
                Ok($name(text.to_owned()))
            }
        }
    };
}

name! {
    /// A Kubernetes node.
    NodeName, "node name", 253
}
name! {
    /// A failure domain above nodes.
    ZoneName, "zone name", 253
}
name! {
    /// What a user or Kubernetes calls a volume. Used as a key and for display; never as part of a path.
    VolumeName, "volume name", 128
}

fn check_name(text: &str, what: &'static str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > max {
        return Err(IdError::TooLong { what, length: text.len(), max });
    }
    let allowed = |(i, c): (usize, char)| c.is_ascii_alphanumeric() || (i > 0 && matches!(c, '-' | '_' | '.'));
    let allowed = |at: (usize, char)| allowed(at) || Slip::NameClimbs.is_on() && at.0 > 0 && at.1 == '/';
    match text.char_indices().find(|&at| !allowed(at)) {
        Some((_, found)) => Err(IdError::BadCharacter { what, found }),
        None => Ok(()),
    }
}

/// One link of one epoch, drawn at random by the datapath when it opens the link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:016x}", self.0)
    }
}

/// Number of a request within its session; a reply carries the request's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "/", "..", ".x", "a/b", "../x", "a\0b", "a b", "-x", "naïve"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(300).parse::<VolumeName>().is_err());
        assert!("pvc-0b1c.x_2".parse::<VolumeName>().is_ok());
    }

    #[test]
    fn ids_round_trip_through_text() {
        let id = VolumeId::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788);
        assert_eq!(id.to_string().parse::<VolumeId>().unwrap(), id);
        assert!("../../etc".parse::<VolumeId>().is_err());
    }
}
