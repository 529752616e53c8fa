//! A volume that has grown in the catalog grows here: first its writer, then what programs see of it. In this order a
//! request beyond the old end never reaches a writer that does not know of it.

use super::{Attachment, Attachments, blocking, finish, with_causes};

use crate::frontend::Frontend;
use crate::runtime::{Command, Granted};
use ashlar_types::{ByteCount, VolumeId};
use tonic::Status;

impl Attachments {
    /// Takes over the size that the catalog has, and has the device follow. Gives the size.
    pub(crate) async fn expand(&self, volume: String) -> Result<ByteCount, Status> {
        let this = self.clone();
        finish(async move {
            let id = this.resolve(&volume).await?;
            let slot = this.slot(id);
            let mut slot = slot.lock().await;
            match &mut *slot {
                Some(attachment) => this.expand_slot(id, attachment).await,
                None => Err(Status::not_found(format!("volume {id} is not attached here"))),
            }
        })
        .await
    }

    async fn expand_slot(&self, id: VolumeId, attachment: &mut Attachment) -> Result<ByteCount, Status> {
        let Granted { record, addresses, .. } = self.shared.control.record(&id.to_string()).await?;
        let wanted = record.size;
        let size = self.ask(|done| Command::Grow { volume: id, record, addresses, done }).await?;
        let size = size.ok_or_else(|| Status::not_found(format!("volume {id} is not attached here")))?;
        if size < wanted {
            return Err(Status::failed_precondition(format!(
                "the volume has {size} bytes here and {wanted} in the catalog, whose record it does not take over"
            )));
        }
        attachment.size = size;
        let Some(Frontend::FuseLoop(_)) = &attachment.frontend else { return Ok(size) };
        let Some(Frontend::FuseLoop(fuse_loop)) = attachment.frontend.take() else { unreachable!("looked at above") };
        let (fuse_loop, grown) = blocking(move || {
            let grown = fuse_loop.grow(size);
            (fuse_loop, grown)
        })
        .await;
        attachment.frontend = Some(Frontend::FuseLoop(fuse_loop));
        grown.map(|()| size).map_err(|error| Status::unavailable(with_causes(&error)))
    }
}
