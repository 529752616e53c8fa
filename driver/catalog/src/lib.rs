//! The catalog: the control plane's durable state (DESIGN §4), in terms of the domain, over the seam [`MetaStore`].
//!
//! ```text
//! Catalog   volumes · clones · records · snapshots · use · nodes · disks · claims · events   domain words
//!    │
//! MetaStore   commit (compare → put, delete) · read (ranges) · watch · lease           what etcd can do, and no more
//!    │
//! RocksStore   one thread, one synced write batch per transaction                      embedded, one process
//! ```
//! Nothing here decides: the rules of change are in `ashlar-plan`; here they become compare-and-swap transactions.
#![forbid(unsafe_code)]

mod catalog;
mod choices;
mod document;
mod error;
mod events;
mod forgotten;
mod groups;
mod keys;
mod registry;
mod removal;
mod rocks;
mod settings;
mod snapshots;
mod store;
mod tombstones;
mod volumes;

pub use catalog::Catalog;
pub use choices::{Choice, LEFT_OUT_MAX, LeftOut};
pub use error::{CatalogError, CatalogErrorKind};
pub use events::{EVENTS_KEPT, Event, EventFeed};
pub use forgotten::Forgotten;
pub use groups::{GROUP_VOLUMES_MAX, GroupInfo, GroupPage, StoredGroup};
pub use registry::{Claims, Disk, DiskFate, Node};
pub use removal::{GIVEN_UP_MAX, RemovedDisk};
pub use rocks::RocksStore;
pub use settings::{Class, Limit, Settings};
pub use snapshots::{Content, SnapshotInfo, SnapshotPage, StoredSnapshot};
pub use store::{
    Compare, Expected, KeyRange, KeyValue, LeaseId, MetaStore, Op, Outcome, Reading, Revision, TRANSACTION_OPS_MAX,
    Transaction, Watch, WatchEvent,
};
pub use tombstones::Tombstone;
pub use volumes::{ContentSource, DataLoss, Source, StoredVolume, UseState, Volume, VolumePage};
