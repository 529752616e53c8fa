//! The codes that CSI asks for, and streams of a volume that no writer ever had: they ask no chunkserver.

use super::*;
use crate::control::tests::{GIB, World, node};
use tokio_stream::StreamExt;

async fn service() -> (World, MetadataService) {
    let world = World::with_nodes(3).await;
    let service = MetadataService::new(world.control.clone());
    (world, service)
}

async fn taken(world: &World, volume: &str, name: &str) -> String {
    let found = world.control.catalog.volume_by_name(&volume.parse().unwrap()).await.unwrap();
    let id = match found {
        Some(seen) => seen.volume.id(),
        None => world.create(volume).await.volume.id(),
    };
    world.control.create_snapshot(&name.parse().unwrap(), id).await.unwrap().snapshot.id.to_string()
}

fn allocated(snapshot_id: &str, starting_offset: i64, max_results: i32) -> Request<GetMetadataAllocatedRequest> {
    let snapshot_id = snapshot_id.to_owned();
    Request::new(GetMetadataAllocatedRequest { snapshot_id, starting_offset, max_results, ..Default::default() })
}

fn delta(base: &str, target: &str) -> Request<GetMetadataDeltaRequest> {
    let (base_snapshot_id, target_snapshot_id) = (base.to_owned(), target.to_owned());
    Request::new(GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, ..Default::default() })
}

/// Code, and whether the message holds the words.
fn refused<T>(answer: std::result::Result<Response<Stream<T>>, Status>, words: &str) -> Code {
    let status = answer.map(|_| ()).expect_err("it is refused");
    assert!(status.message().contains(words), "{:?} does not say {words:?}", status.message());
    status.code()
}

#[tokio::test]
async fn wrong_fields_are_named_all_at_once() {
    let (_world, service) = service().await;
    let answer = service.get_metadata_allocated(allocated("", -1, -2)).await;
    assert_eq!(refused(answer, "max_results is -2"), Code::InvalidArgument);
    let answer = service.get_metadata_allocated(allocated("", -1, -2)).await;
    assert_eq!(refused(answer, "snapshot_id is missing: name a snapshot"), Code::InvalidArgument);
    let answer = service.get_metadata_allocated(allocated(&"x".repeat(129), 0, 0)).await;
    assert_eq!(refused(answer, "snapshot_id has 129 bytes"), Code::InvalidArgument);
    let answer = service.get_metadata_delta(delta("", "")).await;
    assert_eq!(refused(answer, "target_snapshot_id is missing"), Code::InvalidArgument);
}

#[tokio::test]
async fn snapshots_that_are_not_there_are_not_found_and_those_being_taken_are_not_ready() {
    let (world, service) = service().await;
    let kept = taken(&world, "a", "kept").await;
    let gone = taken(&world, "a", "gone").await;
    world.control.delete_snapshot(gone.parse().unwrap()).await.unwrap();
    for absent in [gone.as_str(), "not-an-id", "00000000-0000-0000-0000-000000000001"] {
        assert_eq!(
            refused(service.get_metadata_allocated(allocated(absent, 0, 0)).await, "snapshot_id"),
            Code::NotFound
        );
        assert_eq!(refused(service.get_metadata_delta(delta(absent, &kept)).await, "base_snapshot_id"), Code::NotFound);
        assert_eq!(refused(service.get_metadata_delta(delta(&kept, absent)).await, "target_snapshot"), Code::NotFound);
    }
    let id = world.control.find_snapshot("kept").await.unwrap().snapshot.volume;
    world.play_datapath("n1", Some(Status::unavailable("not now"))).await;
    world.control.reserve(id, &node("n1")).await.unwrap();
    world.control.grant(id, &node("n1")).await.unwrap();
    world.control.create_snapshot(&"begun".parse().unwrap(), id).await.unwrap_err();
    let begun = world.control.find_snapshot("begun").await.unwrap().snapshot.id.to_string();
    let answer = service.get_metadata_allocated(allocated(&begun, 0, 0)).await;
    assert_eq!(refused(answer, "ready_to_use"), Code::FailedPrecondition);
}

#[tokio::test]
async fn snapshots_of_two_volumes_or_in_the_wrong_order_have_no_delta() {
    let (world, service) = service().await;
    let (first, other) = (taken(&world, "a", "first").await, taken(&world, "b", "other").await);
    let answer = service.get_metadata_delta(delta(&first, &other)).await;
    assert_eq!(refused(answer, "two snapshots of one volume"), Code::InvalidArgument);
    // A writer that served and went lies between the two.
    let id = world.control.find_snapshot("first").await.unwrap().snapshot.volume;
    let seen = world.control.volume(id).await.unwrap();
    let mut next = seen.volume.record.clone();
    next.version += 1;
    next.epoch = next.epoch.next().unwrap();
    next.served = next.epoch;
    world.control.catalog.change_record(&seen, next, Vec::new()).await.unwrap();
    let second = taken(&world, "a", "second").await;
    let answer = service.get_metadata_delta(delta(&second, &first)).await;
    assert_eq!(refused(answer, "swap them"), Code::InvalidArgument);
}

#[tokio::test]
async fn offsets_beyond_the_end_are_out_of_range_and_the_end_itself_is_an_empty_stream() {
    let (world, service) = service().await;
    let id = taken(&world, "a", "s").await;
    let answer = service.get_metadata_allocated(allocated(&id, GIB as i64 + 1, 0)).await;
    assert_eq!(refused(answer, "starting_offset"), Code::OutOfRange);
    for offset in [0, GIB as i64] {
        let answer = service.get_metadata_allocated(allocated(&id, offset, 0)).await.unwrap().into_inner();
        let messages: Vec<_> = answer.map(|message| message.unwrap()).collect().await;
        let expected = GetMetadataAllocatedResponse {
            block_metadata_type: BlockMetadataType::VariableLength as i32,
            volume_capacity_bytes: GIB as i64,
            block_metadata: vec![],
        };
        assert_eq!(messages, [expected]);
    }
    let answer = service.get_metadata_delta(delta(&id, &id)).await.unwrap().into_inner();
    let messages: Vec<_> = answer.map(|message| message.unwrap()).collect().await;
    assert!(messages.len() == 1 && messages[0].block_metadata.is_empty());
}

#[tokio::test]
async fn more_streams_than_there_may_be_are_refused_until_one_ends() {
    let (world, service) = service().await;
    let id = taken(&world, "a", "s").await;
    let held = service.streams.clone().try_acquire_many_owned(STREAMS_MAX as u32).unwrap();
    let answer = service.get_metadata_allocated(allocated(&id, 0, 0)).await;
    assert_eq!(refused(answer, "ask again"), Code::Unavailable);
    drop(held);
    assert!(service.get_metadata_allocated(allocated(&id, 0, 0)).await.is_ok());
}

#[tokio::test]
async fn a_caller_that_goes_ends_the_listing() {
    let (world, _service) = service().await;
    let id: SnapshotId = taken(&world, "a", "s").await.parse().unwrap();
    let volume = world.control.find_snapshot("s").await.unwrap().snapshot.volume;
    let (steps, told) = mpsc::channel::<Result<Told>>(1);
    let (answers, stream) = mpsc::channel::<std::result::Result<i64, Status>>(1);
    drop(stream);
    hand_on(&world.control, volume, &[id], told, answers, |batch| batch.capacity).await;
    assert!(steps.is_closed(), "what walks is told");
}

/// A walk that tells no end, and one whose snapshot goes meanwhile.
#[tokio::test]
async fn a_listing_that_breaks_off_ends_with_an_error() {
    let (world, _service) = service().await;
    let id: SnapshotId = taken(&world, "a", "s").await.parse().unwrap();
    let volume = world.control.find_snapshot("s").await.unwrap().snapshot.volume;
    for (delete, code) in [(false, Code::Internal), (true, Code::NotFound)] {
        let (steps, told) = mpsc::channel(1);
        let (answers, mut stream) = mpsc::channel(4);
        if delete {
            world.control.delete_snapshot(id).await.unwrap();
        }
        steps.send(Ok(Told::Batch(Batch { ranges: vec![], capacity: 1 }))).await.ok().unwrap();
        drop(steps);
        hand_on(&world.control, volume, &[id], told, answers, |batch| batch.capacity).await;
        if !delete {
            assert_eq!(stream.recv().await.unwrap().unwrap(), 1);
        }
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code(), code);
    }
}
