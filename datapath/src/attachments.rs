//! Bringing volumes up and down: grant, volume, front-end, and the way back. One operation per volume at a time.
//!
//! ```text
//!            attach: grant ─► open (fence, reconcile) ─► front-end up ─► device     (a reader: record, no grant)
//!   (none) ◄─────────────────────────────────────────────────────────────► Attached
//!            detach: front-end down (refused while in use) ─► drain ─► catalog says clean
//! ```
//!
//! - Both are idempotent: an attached volume gives the same device again, one that is not attached is detached.
//! - An operation goes on when its caller goes away, so nothing is left half done; it has its own deadlines.
//! - Never is a volume closed while its front-end is up, except when the process ends or the caller forces it.

mod expand;
mod modify;
mod snapshot;
mod steer;

use crate::config::Config;
use crate::control::ControlPlane;
use crate::frontend::Frontend;
use crate::frontend::fuse::{FuseError, FuseLoop};
use crate::runtime::{ClientsConnected, Command, Ended, Granted, OpenFailure, Role, RuntimeHandle};
use ashlar_rpc::control::{self, Device};
use ashlar_types::{ByteCount, Duration, Epoch, VolumeId};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;
use tonic::Status;

/// How long a volume that does not serve yet may stand still. One that copies goes on for as long as that takes:
/// begun again, it would copy the same again.
const SERVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long draining and closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same when what is not drained then is let go of.
const LAST_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Attachments {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    control: ControlPlane,
    runtime: RuntimeHandle,
    slots: Mutex<HashMap<VolumeId, Slot>>,
    /// For reports, which wait for no operation.
    devices: Mutex<HashMap<VolumeId, Device>>,
    /// The process ends: nothing that takes long is waited for.
    ending: AtomicBool,
}

/// Held by the operation that is under way.
type Slot = Arc<AsyncMutex<Option<Attachment>>>;

struct Attachment {
    epoch: Epoch,
    size: ByteCount,
    role: Role,
    read_only: bool,
    /// None while a detach has not come to its end.
    frontend: Option<Frontend>,
}

/// How much a detach may take upon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetachMode {
    /// Refused while the device is in use, or the volume cannot be drained.
    Clean,
    /// The device goes even if it is in use; what cannot be drained is let go of.
    Force,
    /// The process ends: refused while the device is in use; what cannot be drained is let go of.
    Exit,
}

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) frontend: control::Frontend,
    pub(crate) role: Role,
    /// Always of a reader.
    pub(crate) read_only: bool,
}

impl Attachments {
    pub(crate) fn new(config: Arc<Config>, control: ControlPlane, runtime: RuntimeHandle) -> Attachments {
        let (slots, devices, ending) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Attachments { shared: Arc::new(Shared { config, control, runtime, slots, devices, ending }) }
    }

    /// `volume` is a name or an id.
    pub(crate) async fn attach(&self, volume: String, wish: Wish) -> Result<Device, Status> {
        let this = self.clone();
        finish(async move {
            let id = this.resolve(&volume).await?;
            let slot = this.slot(id);
            let mut slot = slot.lock().await;
            this.attach_slot(id, wish, &mut slot).await
        })
        .await
    }

    pub(crate) async fn detach(&self, volume: String, mode: DetachMode) -> Result<(), Status> {
        let this = self.clone();
        finish(async move {
            let id = this.resolve(&volume).await?;
            let slot = this.slot(id);
            let mut slot = slot.lock().await;
            this.detach_slot(id, mode, &mut slot).await
        })
        .await
    }

    /// State and figures of every volume.
    pub(crate) async fn report(&self) -> Result<Vec<control::AttachedVolume>, Ended> {
        let mut volumes = self.shared.runtime.ask(|done| Command::Report { done }).await?;
        let devices = self.shared.devices.lock().unwrap_or_else(PoisonError::into_inner);
        for volume in &mut volumes {
            volume.device = volume.volume.parse().ok().and_then(|id: VolumeId| devices.get(&id).cloned());
        }
        Ok(volumes)
    }

    /// The process ends: closes what nobody uses, lets go of the rest as a crash would.
    pub(crate) async fn shut_down(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        let slots: Vec<(VolumeId, Slot)> = {
            let slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().map(|(id, slot)| (*id, slot.clone())).collect()
        };
        let mut closing = tokio::task::JoinSet::new();
        for (id, slot) in slots {
            let this = self.clone();
            closing.spawn(async move { this.exit_slot(id, &mut *slot.lock().await).await });
        }
        closing.join_all().await;
    }

    async fn exit_slot(&self, id: VolumeId, slot: &mut Option<Attachment>) {
        let Err(status) = self.detach_slot(id, DetachMode::Exit, slot).await else { return };
        tracing::warn!(volume = %id, %status, "the volume stays dirty");
        if let Some(Attachment { frontend: Some(Frontend::FuseLoop(fuse_loop)), .. }) = slot.take() {
            blocking(move || fuse_loop.abandon()).await;
        }
    }

    /// Only what is not an id needs the control plane.
    async fn resolve(&self, volume: &str) -> Result<VolumeId, Status> {
        match volume.parse() {
            Ok(id) => Ok(id),
            Err(_) => Ok(self.shared.control.record(volume).await?.record.volume),
        }
    }

    fn slot(&self, id: VolumeId) -> Slot {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody holds and that are empty go, so that the map stays as small as what is attached.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|slot| slot.is_some()));
        slots.entry(id).or_default().clone()
    }

    // ----- attach

    async fn attach_slot(&self, id: VolumeId, wish: Wish, slot: &mut Option<Attachment>) -> Result<Device, Status> {
        if slot.is_some() && self.has_ended(id).await? {
            // A newer writer took the volume away: this attachment can only give errors.
            self.detach_slot(id, DetachMode::Clean, slot).await?;
        }
        if let Some(attachment) = slot {
            return self.same_device(id, wish, attachment).await;
        }
        let granted = match wish.role {
            Role::Writer => self.shared.control.grant(&id.to_string()).await?,
            Role::Reader => self.shared.control.read(&id.to_string()).await?,
        };
        let size = granted.record.size;
        let epoch = self.open(id, granted, wish.role).await?;
        *slot = Some(Attachment { epoch, size, role: wish.role, read_only: wish.read_only, frontend: None });
        match self.bring_up(id, wish, epoch, size).await {
            Ok((frontend, device)) => {
                slot.as_mut().expect("set above").frontend = Some(frontend);
                Ok(self.remember(id, device))
            }
            Err(status) => {
                if let Err(status) = self.close(id, DetachMode::Force).await {
                    tracing::warn!(volume = %id, %status, "close a volume whose front-end did not come up");
                }
                *slot = None;
                Err(status)
            }
        }
    }

    async fn same_device(&self, id: VolumeId, wish: Wish, attachment: &mut Attachment) -> Result<Device, Status> {
        let kind = match &attachment.frontend {
            None => return Err(Status::failed_precondition("the volume is being detached")),
            Some(Frontend::Nbd) => control::Frontend::Nbd,
            Some(Frontend::FuseLoop(_)) => control::Frontend::Fuse,
            Some(Frontend::None) => control::Frontend::None,
        };
        let has = Wish { frontend: kind, role: attachment.role, read_only: attachment.read_only };
        if has != wish {
            let access = match (has.role, has.read_only) {
                (Role::Reader, _) => "as one of its readers",
                (Role::Writer, true) => "read-only",
                (Role::Writer, false) => "read-write",
            };
            let kind = kind.as_str_name();
            return Err(Status::failed_precondition(format!("the volume is attached already as {kind}, {access}")));
        }
        let lost = attachment.frontend.take_if(|frontend| !frontend.has_device());
        if let Some(frontend) = lost {
            // Somebody detached the device by hand.
            let down = self.take_down(id, frontend, DetachMode::Clean).await;
            if let Err((frontend, status)) = down {
                attachment.frontend = frontend;
                return Err(status);
            }
            let (frontend, device) = self.bring_up(id, wish, attachment.epoch, attachment.size).await?;
            attachment.frontend = Some(frontend);
            self.remember(id, device);
        }
        self.device(id).ok_or_else(|| Status::internal("an attached volume has no device"))
    }

    async fn open(&self, id: VolumeId, granted: Granted, role: Role) -> Result<Epoch, Status> {
        if granted.record.volume != id {
            return Err(Status::internal(format!("the control plane granted volume {}", granted.record.volume)));
        }
        let (done, served) = oneshot::channel();
        self.send(Command::Open { granted, role, done }).await?;
        let progress = || async {
            match self.shared.ending.load(Ordering::Relaxed) {
                true => Ok(None),
                false => self.ask(|done| Command::Progress { volume: id, done }).await,
            }
        };
        match answer_of_busy(served, SERVE_TIMEOUT, progress).await? {
            Some(Ok(Ok(epoch))) => Ok(epoch),
            Some(Ok(Err(failure @ (OpenFailure::AlreadyOpen | OpenFailure::TooMany)))) => {
                Err(Status::failed_precondition(failure.to_string()))
            }
            Some(Ok(Err(failure))) => {
                self.ask(|done| Command::Abandon { volume: id, done }).await?;
                Err(Status::aborted(failure.to_string()))
            }
            Some(Err(_)) => Err(Status::unavailable(Ended.to_string())),
            None => {
                let reason = self.ask(|done| Command::Abandon { volume: id, done }).await?;
                let reason = reason.unwrap_or_else(|| "its replicas do not answer".to_owned());
                let seconds = SERVE_TIMEOUT.as_secs();
                Err(Status::unavailable(format!("the volume does not serve and stood still for {seconds} s: {reason}")))
            }
        }
    }

    async fn bring_up(
        &self,
        id: VolumeId,
        wish: Wish,
        epoch: Epoch,
        size: ByteCount,
    ) -> Result<(Frontend, Device), Status> {
        let device = |path: String| Device { path, frontend: wish.frontend as i32, epoch: epoch.number() };
        match wish.frontend {
            control::Frontend::Nbd => {
                let path = self.shared.config.run_dir.join("nbd").join(format!("{id}.sock"));
                let listening = path.clone();
                let read_only = wish.read_only;
                let served =
                    self.ask(|done| Command::ServeNbd { volume: id, path: listening, read_only, done }).await?;
                served.map_err(|error| Status::internal(format!("listen at {}: {error}", path.display())))?;
                Ok((Frontend::Nbd, device(nbd_uri(&path))))
            }
            control::Frontend::Fuse => {
                let mount_point: PathBuf = self.shared.config.run_dir.join("fuse").join(id.to_string());
                let runtime = self.shared.runtime.clone();
                let up = blocking(move || FuseLoop::bring_up(runtime, (id, epoch), size, wish.read_only, &mount_point))
                    .await;
                let fuse_loop = up.map_err(|error| Status::internal(with_causes(&error)))?;
                let path = fuse_loop.device_path().display().to_string();
                Ok((Frontend::FuseLoop(fuse_loop), device(path)))
            }
            control::Frontend::None => Ok((Frontend::None, device(String::new()))),
            control::Frontend::Unspecified => Err(Status::invalid_argument("the front-end is missing")),
        }
    }

    // ----- detach

    async fn detach_slot(&self, id: VolumeId, mode: DetachMode, slot: &mut Option<Attachment>) -> Result<(), Status> {
        let Some(attachment) = slot else { return Ok(()) };
        if let Some(frontend) = attachment.frontend.take() {
            if let Err((frontend, status)) = self.take_down(id, frontend, mode).await {
                attachment.frontend = frontend;
                return Err(status);
            }
            self.devices().remove(&id);
        }
        self.close(id, mode).await?;
        *slot = None;
        Ok(())
    }

    /// With an error, gives the front-end back, which is up still.
    async fn take_down(
        &self,
        id: VolumeId,
        frontend: Frontend,
        mode: DetachMode,
    ) -> Result<(), (Option<Frontend>, Status)> {
        let force = mode == DetachMode::Force;
        match frontend {
            Frontend::None => Ok(()),
            Frontend::Nbd => match self.ask(|done| Command::StopNbd { volume: id, force, done }).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(connected @ ClientsConnected(_))) => {
                    Err((Some(Frontend::Nbd), Status::failed_precondition(connected.to_string())))
                }
                Err(status) => Err((Some(Frontend::Nbd), status)),
            },
            Frontend::FuseLoop(mut fuse_loop) => {
                let down = move || {
                    let down = take_down_fuse(&mut fuse_loop, force);
                    (fuse_loop, down)
                };
                match blocking(down).await {
                    (_, Ok(())) => Ok(()),
                    (fuse_loop, Err(error)) if force => {
                        tracing::warn!(volume = %id, error = with_causes(&error), "let go of a device by force");
                        blocking(move || fuse_loop.abandon()).await;
                        Ok(())
                    }
                    (fuse_loop, Err(error)) => {
                        let status = Status::failed_precondition(with_causes(&error));
                        Err((Some(Frontend::FuseLoop(fuse_loop)), status))
                    }
                }
            }
        }
    }

    /// Drains and closes the volume. If that cannot be done in time and `mode` allows it, lets go of it as a crash
    /// would.
    async fn close(&self, id: VolumeId, mode: DetachMode) -> Result<(), Status> {
        let (done, closed) = oneshot::channel();
        self.send(Command::Detach { volume: id, done }).await?;
        let is_clean = mode == DetachMode::Clean;
        match timeout(if is_clean { CLOSE_TIMEOUT } else { LAST_CLOSE_TIMEOUT }, closed).await {
            Ok(Ok(detached)) => {
                tracing::info!(volume = %id, ?detached, "detached");
                Ok(())
            }
            Ok(Err(_)) => Err(Status::unavailable(Ended.to_string())),
            Err(_) if is_clean => {
                Err(Status::deadline_exceeded("the volume could not be drained and closed in time; try again"))
            }
            Err(_) => {
                self.ask(|done| Command::Abandon { volume: id, done }).await?;
                tracing::warn!(volume = %id, "let go of the volume without closing it");
                Ok(())
            }
        }
    }

    // -----

    async fn has_ended(&self, id: VolumeId) -> Result<bool, Status> {
        let volumes = self.ask(|done| Command::Report { done }).await?;
        let id = id.to_string();
        Ok(!volumes.iter().any(|volume| volume.volume == id && volume.phase != crate::runtime::PHASE_FENCED))
    }

    fn device(&self, id: VolumeId) -> Option<Device> {
        self.devices().get(&id).cloned()
    }

    fn remember(&self, id: VolumeId, device: Device) -> Device {
        self.devices().insert(id, device.clone());
        device
    }

    fn devices(&self) -> std::sync::MutexGuard<'_, HashMap<VolumeId, Device>> {
        self.shared.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, command: Command) -> Result<(), Status> {
        self.shared.runtime.send(command).await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Status> {
        self.shared.runtime.ask(make).await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn take_down_fuse(fuse_loop: &mut FuseLoop, force: bool) -> Result<(), FuseError> {
    if !force {
        fuse_loop.check_unused()?;
    }
    fuse_loop.take_down()
}

/// Runs the operation to its end even if the caller goes away.
async fn finish<T: Send + 'static>(
    operation: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(operation).await {
        Ok(result) => result,
        Err(error) => Err(Status::internal(format!("the operation ended early: {error}"))),
    }
}

/// Waits for the answer while `progress` has risen from one `pause` to the next. `None`: it stands still, or is gone.
async fn answer_of_busy<T, F: Future<Output = Result<Option<u64>, Status>>>(
    mut answer: oneshot::Receiver<T>,
    pause: Duration,
    progress: impl Fn() -> F,
) -> Result<Option<Result<T, oneshot::error::RecvError>>, Status> {
    let mut before = 0;
    loop {
        if let Ok(answered) = timeout(pause, &mut answer).await {
            return Ok(Some(answered));
        }
        match progress().await? {
            Some(now) if now > before => before = now,
            _ => return Ok(None),
        }
    }
}

/// Runs what mounts, executes and waits beside the gRPC thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The URI of an NBD server at a Unix socket (the NBD project's doc/uri.md).
fn nbd_uri(socket: &Path) -> String {
    let mut uri = String::from("nbd+unix:///?socket=");
    for &byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => write!(uri, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    uri
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("a string takes everything");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_waited_for_and_what_stands_still_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wait = |rises_until: u64, answered_at: u64| {
            let (done, answer) = oneshot::channel();
            let (done, asked) = (Mutex::new(Some(done)), Mutex::new(0));
            let progress = || async {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                if *asked == answered_at {
                    done.lock().unwrap().take().unwrap().send("served").unwrap();
                }
                Ok(Some(rises_until.min(*asked)))
            };
            let waited = runtime.block_on(answer_of_busy(answer, Duration::from_millis(1), progress)).unwrap();
            waited.map(Result::unwrap)
        };
        assert_eq!(wait(10, 9), Some("served"));
        assert_eq!(wait(3, 9), None);
        assert_eq!(wait(0, 9), None);
    }

    #[test]
    fn sockets_with_odd_names_make_good_uris() {
        assert_eq!(nbd_uri(Path::new("/run/a-1/x.sock")), "nbd+unix:///?socket=/run/a-1/x.sock");
        assert_eq!(nbd_uri(Path::new("/run/a b?#")), "nbd+unix:///?socket=/run/a%20b%3F%23");
    }
}
