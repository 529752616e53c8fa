//! The engine of one disk.

use crate::{Action, EngineConfig, EngineStatus, Event, Superblock};
use ashlar_types::Instant;

/// Why a disk cannot be taken into service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("configuration: {0}")]
    Config(&'static str),
    #[error("the index belongs to another disk")]
    ForeignIndex,
    #[error("the index is damaged: {0}")]
    DamagedIndex(String),
}

/// One disk: journal, slots and the replicas on it.
pub struct Engine {
    status: EngineStatus,
}

impl Engine {
    /// `index` is everything that the index holds, in ascending order of the keys; empty for a disk just formatted.
    pub fn new(
        config: EngineConfig,
        superblock: Superblock,
        index: Vec<(Vec<u8>, Vec<u8>)>,
        now: Instant,
    ) -> Result<Engine, RecoverError> {
        let _ = (superblock, index, now);
        config.fault().map_or(Ok(Engine { status: EngineStatus::default() }), |fault| Err(RecoverError::Config(fault)))
    }

    /// Begins the replay of the journal. Called once, before the first event.
    pub fn start(&mut self, out: &mut Vec<Action>) {
        let _ = out;
    }

    /// Handles one event; what is to be done about it is added to `out`.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        let _ = (now, event, out);
    }

    /// When `Event::Tick` is due at the latest; `Instant::FAR` when only other events matter.
    pub fn next_deadline(&self) -> Instant {
        Instant::FAR
    }

    pub fn status(&self) -> EngineStatus {
        self.status.clone()
    }
}
