//! CSI SnapshotMetadata: which ranges a snapshot holds, and which changed between two, read from the replicas while
//! they are streamed.
//!
//! ```text
//!   request ──► checked ──► catalog: snapshots, record ──► a thread walks the replicas ──► batches ──► the catalog
//!                                                                                         still has them? ──► caller
//! ```
//! Ranges are VARIABLE_LENGTH: adjoining blocks, data or zeros, are one range. The first begins at the starting offset,
//! rounded down to a block, if that lies within a range. A stream has at least one message, so that the capacity is
//! told of a snapshot that holds nothing. Secrets are never looked at.

use super::status::code;
use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::SnapshotInfo;
use ashlar_changes::{ChangesError, Replicas, Scope, Span, Step, Walk};
use ashlar_rpc::csi::snapshot_metadata_server::SnapshotMetadata;
use ashlar_rpc::csi::*;
use ashlar_types::{BLOCK_BYTES, BlockIndex, Lsn, SnapshotId, VolumeId};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// Ranges of one message at most: about 200 KiB.
const RANGES_PER_MESSAGE_MAX: usize = 8192;
/// Streams at a time: each has a thread and a connection.
const STREAMS_MAX: usize = 16;
/// Longest id that CSI allows.
const ID_BYTES_MAX: usize = 128;
/// Of an id that is repeated in an error.
const SHOWN_CHARS_MAX: usize = 64;
/// Messages that wait for their caller.
const MESSAGES_WAITING_MAX: usize = 2;

#[derive(Clone, Debug)]
pub struct MetadataService {
    control: Arc<Control>,
    streams: Arc<Semaphore>,
}

type Stream<T> = ReceiverStream<std::result::Result<T, Status>>;

/// What a request asks for, whichever it is.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    base: Option<String>,
    target: String,
    from: BlockIndex,
    starting_offset: u64,
    per_message: usize,
}

/// Snapshots that exist, and whom to ask about them.
struct Found {
    volume: VolumeId,
    snapshots: Vec<SnapshotId>,
    scope: Scope,
    replicas: Replicas,
}

/// The ranges of one message.
struct Batch {
    ranges: Vec<BlockMetadata>,
    capacity: i64,
}

/// What a walk tells. One that tells no end has not come to it.
enum Told {
    Batch(Batch),
    End,
}

impl MetadataService {
    pub fn new(control: Arc<Control>) -> MetadataService {
        MetadataService { control, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    async fn stream<T: Send + 'static>(
        &self,
        method: &'static str,
        asked: Result<Asked>,
        message: fn(Batch) -> T,
    ) -> std::result::Result<Response<Stream<T>>, Status> {
        let begun = match asked {
            Ok(asked) => self.begin(asked, message).await,
            Err(error) => Err(error),
        };
        let outcome = begun.as_ref().map_or_else(|error| code(error.kind), |_| Code::Ok);
        self.control.metrics.count_csi(method, outcome);
        begun.map(Response::new).map_err(|error| {
            tracing::warn!(method, code = ?outcome, %error, "CSI request refused");
            error.into()
        })
    }

    async fn begin<T: Send + 'static>(&self, asked: Asked, message: fn(Batch) -> T) -> Result<Stream<T>> {
        let found = self.find(&asked).await?;
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{STREAMS_MAX} snapshots are being listed already: ask again when one has ended");
            Error::new(ErrorKind::Unavailable, text)
        })?;
        let Found { volume, snapshots, scope, replicas } = found;
        let (walked, batches) = mpsc::channel(1);
        let (answers, stream) = mpsc::channel(MESSAGES_WAITING_MAX);
        tokio::task::spawn_blocking(move || walk_to_the_end(scope, &asked, replicas, &walked, permit));
        let control = self.control.clone();
        tokio::spawn(async move { hand_on(&control, volume, &snapshots, batches, answers, message).await });
        Ok(ReceiverStream::new(stream))
    }

    async fn find(&self, asked: &Asked) -> Result<Found> {
        let base = match &asked.base {
            Some(base) => Some(self.snapshot("base_snapshot_id", base).await?),
            None => None,
        };
        let field = if base.is_some() { "target_snapshot_id" } else { "snapshot_id" };
        let target = self.snapshot(field, &asked.target).await?;
        if let Some(other) = base.as_ref().filter(|base| base.volume != target.volume) {
            let text = format!(
                "base_snapshot_id is of volume {}, target_snapshot_id of volume {}: name two snapshots of one volume",
                other.volume, target.volume
            );
            return Err(Error::invalid(text));
        }
        let record = self.control.volume(target.volume).await?.volume.record;
        let point = |id: SnapshotId| -> Result<Lsn> {
            record.snapshot(id).map(|kept| kept.point).ok_or_else(|| Error::not_found(format_args!("snapshot {id}")))
        };
        let to = point(target.id)?;
        let from = base.as_ref().map(|base| point(base.id)).transpose()?;
        if from.is_some_and(|from| from > to) {
            let text = "base_snapshot_id was taken after target_snapshot_id: swap them";
            return Err(Error::invalid(text));
        }
        let size = target.size;
        if asked.starting_offset > size.0 {
            let text = format!(
                "starting_offset is {}, the volume has {size} bytes: it may be at most that",
                asked.starting_offset
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let addresses = self.control.registry.addresses(&record).await;
        let addresses = record.members.iter().map(|member| addresses.of(member.disk)).collect();
        let snapshots = base.iter().map(|base| base.id).chain([target.id]).collect();
        let scope = Scope { base: from, target: to, size };
        Ok(Found { volume: target.volume, snapshots, scope, replicas: Replicas::new(record, addresses) })
    }

    async fn snapshot(&self, field: &str, text: &str) -> Result<SnapshotInfo> {
        let gone = || Error::not_found(format_args!("snapshot {} of {field}", shown(text)));
        // What is no id of ours names no snapshot.
        let id: SnapshotId = text.parse().map_err(|_| gone())?;
        let found = self.control.catalog.snapshot(id).await?.ok_or_else(gone)?.snapshot;
        match found.is_ready {
            true => Ok(found),
            false => Err(Error::precondition(format!(
                "snapshot {id} of {field} is not ready: wait until CreateSnapshot says ready_to_use"
            ))),
        }
    }
}

/// On a thread of its own: replicas are asked in turn, and the caller may be slow.
fn walk_to_the_end(
    scope: Scope,
    asked: &Asked,
    mut replicas: Replicas,
    told: &mpsc::Sender<Result<Told>>,
    _permit: OwnedSemaphorePermit,
) {
    let ended = walk(scope, asked, &mut replicas, told).map(|()| Told::End);
    // Nobody hears it if the caller has gone.
    let _gone = told.blocking_send(ended);
}

fn walk(scope: Scope, asked: &Asked, replicas: &mut Replicas, told: &mpsc::Sender<Result<Told>>) -> Result<()> {
    let capacity = signed(scope.size.0);
    let mut walk = Walk::of_ranges(scope, asked.from);
    let mut ranges = Vec::new();
    let mut has_told = false;
    loop {
        let step = walk.step(replicas).map_err(unreadable)?;
        if let Step::Span(span) = step {
            ranges.push(range(span));
        }
        let is_last = step == Step::End;
        if ranges.len() >= asked.per_message || is_last && !(has_told && ranges.is_empty()) {
            let batch = Batch { ranges: std::mem::take(&mut ranges), capacity };
            has_told = told.blocking_send(Ok(Told::Batch(batch))).is_ok();
        }
        if is_last || told.is_closed() {
            return Ok(());
        }
    }
}

fn range(span: Span) -> BlockMetadata {
    BlockMetadata { byte_offset: signed(span.offset().0), size_bytes: signed(span.length().0) }
}

fn unreadable(error: ChangesError) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{error}; ask again from the end of the last range"))
}

/// Hands on what was walked, as long as the snapshots are there: what is read of one that is gone may be newer.
async fn hand_on<T>(
    control: &Control,
    volume: VolumeId,
    snapshots: &[SnapshotId],
    mut steps: mpsc::Receiver<Result<Told>>,
    answers: mpsc::Sender<std::result::Result<T, Status>>,
    message: fn(Batch) -> T,
) {
    loop {
        let step = tokio::select! {
            step = steps.recv() => step,
            // The walk ends when nobody takes what it tells.
            () = answers.closed() => return,
        };
        let step = step.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "the listing broke off")));
        let still_there = check_still_there(control, volume, snapshots).await;
        let (answer, is_last) = match still_there.and(step) {
            Ok(Told::End) => return,
            Ok(Told::Batch(batch)) => (Ok(message(batch)), false),
            Err(error) => {
                tracing::warn!(%volume, %error, "snapshot metadata broken off");
                (Err(error.into()), true)
            }
        };
        if answers.send(answer).await.is_err() || is_last {
            return;
        }
    }
}

async fn check_still_there(control: &Control, volume: VolumeId, snapshots: &[SnapshotId]) -> Result<()> {
    let record = control.volume(volume).await?.volume.record;
    match snapshots.iter().find(|id| record.snapshot(**id).is_none()) {
        Some(gone) => Err(Error::not_found(format_args!("snapshot {gone}, deleted while it was listed,"))),
        None => Ok(()),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Everything that is wrong with a request is told at once.
fn asked(ids: &[(&str, &str)], starting_offset: i64, max_results: i32) -> Result<(BlockIndex, u64, usize)> {
    let mut faults = Vec::new();
    for (field, id) in ids {
        match id.len() {
            0 => faults.push(format!("{field} is missing: name a snapshot by the id that CreateSnapshot gave")),
            length if length > ID_BYTES_MAX => {
                faults.push(format!("{field} has {length} bytes, at most {ID_BYTES_MAX} are allowed"));
            }
            _ => {}
        }
    }
    let offset = u64::try_from(starting_offset)
        .inspect_err(|_| faults.push(format!("starting_offset is {starting_offset}: it may not be negative")));
    let results = usize::try_from(max_results)
        .inspect_err(|_| faults.push(format!("max_results is {max_results}: it may not be negative; 0 is no limit")));
    match (offset, results) {
        (Ok(offset), Ok(results)) if faults.is_empty() => {
            let per_message = if results == 0 { RANGES_PER_MESSAGE_MAX } else { results.min(RANGES_PER_MESSAGE_MAX) };
            Ok((BlockIndex(offset / BLOCK_BYTES), offset, per_message))
        }
        _ => Err(Error::invalid_all(&faults)),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl TryFrom<GetMetadataAllocatedRequest> for Asked {
    type Error = Error;

    fn try_from(request: GetMetadataAllocatedRequest) -> Result<Asked> {
        let ids = [("snapshot_id", request.snapshot_id.as_str())];
        let (from, starting_offset, per_message) = asked(&ids, request.starting_offset, request.max_results)?;
        Ok(Asked { base: None, target: request.snapshot_id, from, starting_offset, per_message })
    }
}

impl TryFrom<GetMetadataDeltaRequest> for Asked {
    type Error = Error;

    fn try_from(request: GetMetadataDeltaRequest) -> Result<Asked> {
        let ids = [
            ("base_snapshot_id", request.base_snapshot_id.as_str()),
            ("target_snapshot_id", request.target_snapshot_id.as_str()),
        ];
        let (from, starting_offset, per_message) = asked(&ids, request.starting_offset, request.max_results)?;
        let (base, target) = (Some(request.base_snapshot_id), request.target_snapshot_id);
        Ok(Asked { base, target, from, starting_offset, per_message })
    }
}

#[tonic::async_trait]
impl SnapshotMetadata for MetadataService {
    type GetMetadataAllocatedStream = Stream<GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Stream<GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> std::result::Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let message = |Batch { ranges, capacity }| GetMetadataAllocatedResponse {
            block_metadata_type: BlockMetadataType::VariableLength as i32,
            volume_capacity_bytes: capacity,
            block_metadata: ranges,
        };
        self.stream("GetMetadataAllocated", request.into_inner().try_into(), message).await
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> std::result::Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let message = |Batch { ranges, capacity }| GetMetadataDeltaResponse {
            block_metadata_type: BlockMetadataType::VariableLength as i32,
            volume_capacity_bytes: capacity,
            block_metadata: ranges,
        };
        self.stream("GetMetadataDelta", request.into_inner().try_into(), message).await
    }
}

#[cfg(test)]
mod tests;
