//! What changes about an attached volume: how it is served, and what the catalog says of it.

use super::Attachments;
use crate::runtime::Command;
use crate::settings::Settings;
use ashlar_rpc::control;
use ashlar_types::VolumeId;
use tonic::Status;

impl Attachments {
    /// Changes how a volume is served. Waits for no operation: an attach that is under way takes it up as well.
    pub(crate) async fn modify(&self, volume: &str, settings: Option<&control::Settings>) -> Result<(), Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let id: VolumeId = volume.parse().map_err(|error| invalid(&error))?;
        let settings = settings.ok_or_else(|| invalid(&"the settings are missing"))?;
        let settings = Settings::from_proto(settings).map_err(|error| invalid(&error))?;
        match self.ask(|done| Command::Modify { volume: id, settings, done }).await? {
            true => Ok(()),
            false => Err(Status::not_found("the volume is not attached here")),
        }
    }

    /// The catalog has a newer record of the volume than its writer knows.
    pub(crate) async fn refresh(&self, volume: &str) {
        let Ok(volume) = volume.parse::<VolumeId>() else {
            tracing::warn!(volume, "the control plane names a volume that can be none");
            return;
        };
        if self.shared.runtime.send(Command::Refresh { volume }).await.is_err() {
            tracing::debug!("the I/O thread has ended: there is nobody to tell");
        }
    }
}
