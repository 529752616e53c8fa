//! What the control plane, which sees all volumes, wants of those that are attached here: how fast returning disks are
//! filled, and who shall go.

use super::Attachments;
use crate::runtime::Command;
use ashlar_rpc::control::VolumeSteer;
use ashlar_types::{DiskId, VolumeId};
use ashlar_volume::Event;
use tonic::Status;

impl Attachments {
    /// Everything is looked at before anything is done.
    pub(crate) async fn steer(&self, volumes: &[VolumeSteer]) -> Result<(), Status> {
        let commands = volumes.iter().map(commands).collect::<Result<Vec<_>, Status>>()?;
        for command in commands.into_iter().flatten() {
            self.send(command).await?;
        }
        Ok(())
    }
}

fn commands(steer: &VolumeSteer) -> Result<impl Iterator<Item = Command> + use<>, Status> {
    let invalid = |error: ashlar_types::IdError| Status::invalid_argument(error.to_string());
    let volume: VolumeId = steer.volume.parse().map_err(invalid)?;
    let let_go = steer.let_go_disks.iter().map(|disk| disk.parse().map_err(invalid));
    let let_go = let_go.collect::<Result<Vec<DiskId>, Status>>()?;
    let refresh = steer.newer_record.then_some(Command::Refresh { volume });
    let source = (!steer.copy_source_disk.is_empty()).then(|| steer.copy_source_disk.parse().map_err(invalid));
    let source = source.transpose()?;
    let rate = steer.copy_bytes_per_second;
    let pace = rate.map(|rate| Event::Pace { bytes_per_second: Some(rate), source });
    let words: Vec<Event> = pace.into_iter().chain(let_go.into_iter().map(|disk| Event::LetGo { disk })).collect();
    let steer = (!words.is_empty()).then_some(Command::Steer { volume, words });
    Ok(refresh.into_iter().chain(steer))
}
