//! MULTI_NODE_READER_ONLY, as the sidecars ask for it.

use super::*;

fn for_many(access: &VolumeCapability) -> VolumeCapability {
    VolumeCapability { access_mode: Some(AccessMode { mode: Mode::MultiNodeReaderOnly as i32 }), ..access.clone() }
}

fn publish_for_many(volume_id: &str, node_id: &str) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest { volume_capability: Some(for_many(&block())), ..publish(volume_id, node_id) }
}

#[tokio::test]
async fn a_volume_that_nobody_can_write_to_needs_something_to_read() {
    let (_world, service) = controller(3).await;
    let asked = |volume_capabilities| CreateVolumeRequest { volume_capabilities, ..create("a", 4096, 0) };
    let create = |request| service.create_volume(Request::new(request));
    let filesystem = mount("ext4", Mode::SingleNodeWriter);
    let only_read = asked(vec![for_many(&block()), for_many(&filesystem)]);
    let bad = CreateVolumeRequest { name: String::new(), ..only_read.clone() };
    let status = create(bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("nobody could ever write") && status.message().contains("name"), "{status}");
    let source = SourceType::Snapshot(SnapshotSource { snapshot_id: uuid::Uuid::new_v4().to_string() });
    let volume_content_source = Some(VolumeContentSource { r#type: Some(source) });
    let of_nothing = CreateVolumeRequest { volume_content_source, ..only_read };
    assert_eq!(code_of(create(of_nothing).await), Code::NotFound, "the request itself is in order");
    create(asked(vec![for_many(&block()), block()])).await.expect("first written, then read by many");
}

#[tokio::test]
async fn many_nodes_are_published_and_listed_and_leave_alone_or_together() {
    let (_world, service) = controller(3).await;
    let id = created(&service, "a").await.volume_id;
    let publish_on = |request| service.controller_publish_volume(Request::new(request));
    for node in ["n3", "n1", "n3"] {
        publish_on(publish_for_many(&id, node)).await.unwrap();
    }
    assert_eq!(code_of(publish_on(publish(&id, "n2")).await), Code::FailedPrecondition);
    assert_eq!(code_of(publish_on(publish(&id, "n1")).await), Code::AlreadyExists);
    assert_eq!(code_of(publish_on(publish_for_many(&id, "n9")).await), Code::NotFound);
    let published = async || {
        let get = ControllerGetVolumeRequest { volume_id: id.clone() };
        let got = service.controller_get_volume(Request::new(get)).await.unwrap().into_inner();
        let list = ListVolumesRequest::default();
        let listed = service.list_volumes(Request::new(list)).await.unwrap().into_inner().entries.remove(0);
        let nodes = got.status.unwrap().published_node_ids;
        assert_eq!(listed.status.unwrap().published_node_ids, nodes);
        nodes
    };
    assert_eq!(published().await, ["n1", "n3"]);
    let delete = || DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() };
    assert_eq!(code_of(service.delete_volume(Request::new(delete())).await), Code::FailedPrecondition);
    let validated = ValidateVolumeCapabilitiesRequest {
        volume_id: id.clone(),
        volume_capabilities: vec![for_many(&block())],
        ..Default::default()
    };
    let validated = service.validate_volume_capabilities(Request::new(validated)).await.unwrap().into_inner();
    assert!(validated.confirmed.is_some());
}
