//! The targets, one file each.

pub(crate) mod control_api;
pub(crate) mod engine_events;
pub(crate) mod engine_recover;
pub(crate) mod export_stream;
pub(crate) mod index_row;
pub(crate) mod journal_batch;
pub(crate) mod names;
pub(crate) mod nbd;
pub(crate) mod superblock;
pub(crate) mod volume_events;
pub(crate) mod wire_message;
pub(crate) mod wire_stream;
