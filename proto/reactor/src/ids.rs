//! Names of what a reactor holds. A name is never reused: one that outlived its thing names nothing, and calls with
//! it do nothing.

use crate::slab::Key;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub(crate) Key);

        impl $name {
            /// The name as a number, for maps and logs outside of the reactor.
            pub fn as_u64(self) -> u64 {
                self.0.to_u64()
            }

            /// The name that [`Self::as_u64`] gave.
            pub fn from_u64(number: u64) -> Self {
                Self(Key::from_u64(number))
            }
        }
    };
}

id! {
    /// A file or block device.
    FileId
}
id! {
    /// A socket that takes connections.
    ListenerId
}
id! {
    /// One connection.
    LinkId
}

impl LinkId {
    /// An end of a connection of the reactor with itself.
    pub(crate) fn is_inner(self) -> bool {
        self.0.is_upper()
    }
}
