//! Snapshots, groups of them, and volumes that begin with one: the codes and the idempotency that CSI asks for.

use super::*;
use ashlar_rpc::csi::group_controller_server::GroupController;

fn snapshot(name: &str, source: &str) -> CreateSnapshotRequest {
    CreateSnapshotRequest { name: name.to_owned(), source_volume_id: source.to_owned(), ..Default::default() }
}

async fn taken(service: &ControllerService, name: &str, source: &str) -> Snapshot {
    let answer = service.create_snapshot(Request::new(snapshot(name, source))).await.unwrap();
    answer.into_inner().snapshot.unwrap()
}

fn list(volume: &str, snapshot: &str, max_entries: i32, token: &str) -> Request<ListSnapshotsRequest> {
    Request::new(ListSnapshotsRequest {
        max_entries,
        starting_token: token.to_owned(),
        source_volume_id: volume.to_owned(),
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    })
}

fn delete(id: &str) -> Request<DeleteSnapshotRequest> {
    Request::new(DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() })
}

fn get(id: &str) -> Request<GetSnapshotRequest> {
    Request::new(GetSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() })
}

fn from(source: SourceType) -> Option<VolumeContentSource> {
    Some(VolumeContentSource { r#type: Some(source) })
}

fn of_snapshot(id: &str) -> Option<VolumeContentSource> {
    from(SourceType::Snapshot(SnapshotSource { snapshot_id: id.to_owned() }))
}

fn of_volume(id: &str) -> Option<VolumeContentSource> {
    from(SourceType::Volume(VolumeSource { volume_id: id.to_owned() }))
}

#[tokio::test]
async fn a_snapshot_is_one_of_one_volume_by_each_name() {
    let (_world, service) = controller(3).await;
    let (a, b) = (created(&service, "a").await.volume_id, created(&service, "b").await.volume_id);
    let first = taken(&service, "s+1", &a).await;
    assert!(first.ready_to_use && first.source_volume_id == a && first.size_bytes == GIB as i64);
    assert!(first.creation_time.is_some_and(|time| time.seconds > 0) && first.group_snapshot_id.is_empty());
    assert_eq!(taken(&service, "s+1", &a).await, first);
    let code = |request| async { code_of(service.create_snapshot(Request::new(request)).await) };
    assert_eq!(code(snapshot("s+1", &b)).await, Code::AlreadyExists);
    assert_eq!(code(snapshot("t", "no such volume")).await, Code::NotFound);
    let wrong = CreateSnapshotRequest { parameters: [("fast".to_owned(), "1".to_owned())].into(), ..snapshot("", "") };
    let status = service.create_snapshot(Request::new(wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["name is missing", "source_volume_id is missing", "\"fast\""] {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
    let kubernetes = [("csi.storage.k8s.io/volumesnapshot/name".to_owned(), "x".to_owned())].into();
    assert_eq!(code(CreateSnapshotRequest { parameters: kubernetes, ..snapshot("t", &a) }).await, Code::Ok);
}

#[tokio::test]
async fn snapshots_are_listed_by_page_by_volume_and_by_id() {
    let (_world, service) = controller(3).await;
    let (a, b) = (created(&service, "a").await.volume_id, created(&service, "b").await.volume_id);
    let mut ids = Vec::new();
    for (name, source) in [("1", &a), ("2", &b), ("3", &a), ("4", &a), ("5", &b)] {
        ids.push(taken(&service, name, source).await.snapshot_id);
    }
    let listed = |request| async {
        let answer = service.list_snapshots(request).await.unwrap().into_inner();
        let ids = answer.entries.into_iter().map(|entry| entry.snapshot.unwrap().snapshot_id);
        (ids.collect::<Vec<_>>(), answer.next_token)
    };
    for (volume, count) in [("", 5), (a.as_str(), 3), (b.as_str(), 2), ("no such volume", 0)] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = listed(list(volume, "", 1, &token)).await;
            found.extend(page);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found.len(), count, "of {volume:?}");
        assert_eq!(listed(list(volume, "", 0, "")).await, (found, String::new()), "all at once, of {volume:?}");
    }
    assert_eq!(listed(list("", &ids[1], 0, "")).await.0, [ids[1].clone()]);
    assert_eq!(listed(list(&b, &ids[1], 0, "")).await.0, [ids[1].clone()]);
    assert!(listed(list(&a, &ids[1], 0, "")).await.0.is_empty() && listed(list("", "none", 0, "")).await.0.is_empty());
    for volume in ["", &a] {
        assert_eq!(code_of(service.list_snapshots(list(volume, "", 0, "foreign")).await), Code::Aborted);
    }
    assert_eq!(code_of(service.list_snapshots(list("", "", -1, "")).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_deleted_snapshot_is_not_there_and_may_be_deleted_again() {
    let (_world, service) = controller(3).await;
    let volume = created(&service, "a").await.volume_id;
    let shown = taken(&service, "s", &volume).await;
    let found = service.get_snapshot(get(&shown.snapshot_id)).await.unwrap().into_inner().snapshot.unwrap();
    assert_eq!(found, shown);
    for _ in 0..2 {
        assert_eq!(code_of(service.delete_snapshot(delete(&shown.snapshot_id)).await), Code::Ok);
        assert_eq!(code_of(service.get_snapshot(get(&shown.snapshot_id)).await), Code::NotFound);
    }
    assert_eq!(code_of(service.delete_snapshot(delete("../x")).await), Code::Ok);
    assert_eq!(code_of(service.delete_snapshot(delete("")).await), Code::InvalidArgument);
    assert_eq!(code_of(service.get_snapshot(get("")).await), Code::InvalidArgument);
    assert_eq!(code_of(service.get_snapshot(get("s")).await), Code::NotFound, "by id, not by name");
}

#[tokio::test]
async fn a_volume_begins_with_a_snapshot_or_a_volume_and_says_so() {
    let (_world, service) = controller(3).await;
    let source = created(&service, "a").await.volume_id;
    let id = taken(&service, "s", &source).await.snapshot_id;
    let answer = |request| service.create_volume(Request::new(request));
    for (name, content) in [("b", of_snapshot(&id)), ("c", of_volume(&source))] {
        let open =
            CreateVolumeRequest { volume_content_source: content.clone(), capacity_range: None, ..create(name, 0, 0) };
        let made = answer(open.clone()).await.unwrap().into_inner().volume.unwrap();
        assert_eq!((made.capacity_bytes, &made.content_source), (GIB as i64, &content));
        assert_eq!(answer(open).await.unwrap().into_inner().volume.unwrap(), made, "asked again it is the same");
        assert_eq!(code_of(answer(create(name, GIB as i64, 0)).await), Code::AlreadyExists, "without a source");
    }
    let with = |name: &str, content, required| CreateVolumeRequest {
        volume_content_source: content,
        ..create(name, required, 0)
    };
    assert_eq!(code_of(answer(with("d", of_snapshot(&id), 4096)).await), Code::OutOfRange);
    let limited = CreateVolumeRequest {
        capacity_range: Some(CapacityRange { required_bytes: 0, limit_bytes: GIB as i64 - 1 }),
        ..with("d", of_snapshot(&id), 0)
    };
    assert_eq!(code_of(answer(limited).await), Code::OutOfRange);
    let larger = answer(with("d", of_snapshot(&id), 2 * GIB as i64)).await.unwrap().into_inner().volume.unwrap();
    assert_eq!(larger.capacity_bytes, 2 * GIB as i64);
    let nobody = "00000000-0000-0000-0000-000000000001";
    for missing in [of_snapshot(nobody), of_volume(nobody), of_snapshot("none"), of_volume("none")] {
        assert_eq!(code_of(answer(with("e", missing, 0)).await), Code::NotFound);
    }
    for malformed in [Some(VolumeContentSource::default()), of_snapshot(""), of_volume(&"v".repeat(129))] {
        let status = answer(with("e", malformed, 0)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("volume_content_source"), "{}", status.message());
    }
}

fn group(name: &str, volumes: &[&str]) -> Request<CreateVolumeGroupSnapshotRequest> {
    let source_volume_ids = volumes.iter().map(|&id| id.to_owned()).collect();
    Request::new(CreateVolumeGroupSnapshotRequest { name: name.to_owned(), source_volume_ids, ..Default::default() })
}

#[tokio::test]
async fn a_group_is_taken_shown_and_deleted_as_one() {
    let (_world, service) = controller(3).await;
    let (a, b) = (created(&service, "a").await.volume_id, created(&service, "b").await.volume_id);
    let answer = service.create_volume_group_snapshot(group("g", &[&a, &b])).await.unwrap();
    let taken = answer.into_inner().group_snapshot.unwrap();
    let id = taken.group_snapshot_id.clone();
    assert!(taken.ready_to_use && taken.snapshots.len() == 2);
    assert!(taken.snapshots.iter().all(|member| member.ready_to_use && member.group_snapshot_id == id));
    let again = service.create_volume_group_snapshot(group("g", &[&b, &a])).await.unwrap().into_inner();
    assert_eq!(again.group_snapshot.unwrap(), taken);
    assert_eq!(code_of(service.create_volume_group_snapshot(group("g", &[&a])).await), Code::AlreadyExists);
    assert_eq!(code_of(service.create_volume_group_snapshot(group("h", &[&a, "none"])).await), Code::NotFound);
    for wrong in [group("", &[&a]), group("h", &[]), group("h", &[""]), group("h", &[&a, &a]), group("h", &["v"; 33])] {
        assert_eq!(code_of(service.create_volume_group_snapshot(wrong).await), Code::InvalidArgument);
    }
    let member = taken.snapshots[0].snapshot_id.clone();
    assert_eq!(code_of(service.delete_snapshot(delete(&member)).await), Code::FailedPrecondition);

    let members: Vec<String> = taken.snapshots.iter().rev().map(|member| member.snapshot_id.clone()).collect();
    let get = |id: &str, members: &[String]| {
        service.get_volume_group_snapshot(Request::new(GetVolumeGroupSnapshotRequest {
            group_snapshot_id: id.to_owned(),
            snapshot_ids: members.to_vec(),
            ..Default::default()
        }))
    };
    let delete = |id: &str, members: &[String]| {
        service.delete_volume_group_snapshot(Request::new(DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: id.to_owned(),
            snapshot_ids: members.to_vec(),
            ..Default::default()
        }))
    };
    assert_eq!(get(&id, &members).await.unwrap().into_inner().group_snapshot.unwrap(), taken);
    assert_eq!(code_of(get(&id, &members[..1]).await), Code::InvalidArgument);
    assert_eq!(code_of(delete(&id, &members[..1]).await), Code::InvalidArgument);
    assert_eq!(code_of(get("", &[]).await), Code::InvalidArgument);
    assert_eq!(code_of(delete("", &[]).await), Code::InvalidArgument);
    for _ in 0..2 {
        assert_eq!(code_of(delete(&id, &members).await), Code::Ok);
        assert_eq!(code_of(get(&id, &members).await), Code::NotFound);
    }
    assert!(service.list_snapshots(list("", "", 0, "")).await.unwrap().into_inner().entries.is_empty());
}
