//! Why replicas lie where they lie.

use super::filled;
use ashlar_rpc::control;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Choices {
    pub replicas: Vec<Choice>,
}

#[derive(Debug, Serialize)]
pub struct Choice {
    pub disk: String,
    pub node: String,
    /// None: nobody chose, or it was not kept.
    pub chosen_ms: Option<u64>,
    pub occasion: String,
    /// What spoke for the disk.
    pub taken: Option<String>,
    pub left_out: Vec<LeftOut>,
    /// Disks that were left out beside these.
    pub more: u32,
}

#[derive(Debug, Serialize)]
pub struct LeftOut {
    pub disk: String,
    pub node: String,
    pub reason: String,
}

impl Choices {
    pub fn of(choices: control::VolumeChoices) -> Choices {
        let left_out = |left: control::LeftOutDisk| LeftOut { disk: left.disk, node: left.node, reason: left.reason };
        let choice = |choice: control::ReplicaChoice| Choice {
            disk: choice.disk,
            node: choice.node,
            chosen_ms: Some(choice.chosen_ms).filter(|&ms| ms > 0),
            occasion: choice.occasion,
            taken: filled(choice.taken),
            left_out: choice.left_out.into_iter().map(left_out).collect(),
            more: choice.more,
        };
        Choices { replicas: choices.replicas.into_iter().map(choice).collect() }
    }
}
