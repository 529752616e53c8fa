//! CSI's SnapshotMetadata on real daemons, as a backup program calls it: on the controller's socket.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::csi::plugin_capability::{self, service};
use ashlar_rpc::csi::{
    BlockMetadataType, GetMetadataAllocatedRequest, GetMetadataDeltaRequest, GetPluginCapabilitiesRequest,
};
use ashlar_tests::{Kubelet, NbdClient, Scene, nbd_socket, on_cluster};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tonic::{Code, Status};

const SIZE_BYTES: i64 = 192 << 20;
const BLOCK: i64 = 4096;

/// Ranges in blocks, as they came: a list for each message.
type Messages = Vec<Vec<(i64, i64)>>;

#[derive(Deserialize)]
struct Snapshot {
    id: String,
}

/// Each message, checked and reduced to its ranges.
macro_rules! collect {
    ($answer:expr) => {{
        let mut stream = $answer?.into_inner();
        let mut messages = Messages::new();
        while let Some(message) = stream.message().await? {
            let kind = message.block_metadata_type();
            assert_eq!((kind, message.volume_capacity_bytes), (BlockMetadataType::VariableLength, SIZE_BYTES));
            let ranges = message.block_metadata.iter();
            messages.push(ranges.map(|range| (range.byte_offset / BLOCK, range.size_bytes / BLOCK)).collect());
        }
        Ok(messages)
    }};
}

fn allocated(kubelet: &Kubelet, id: &str, starting_offset: i64, max_results: i32) -> Result<Messages, Status> {
    kubelet.block_on(async {
        let mut client = kubelet.snapshot_metadata().await.expect("the socket is there");
        let snapshot_id = id.to_owned();
        let request = GetMetadataAllocatedRequest { snapshot_id, starting_offset, max_results, ..Default::default() };
        collect!(client.get_metadata_allocated(request).await)
    })
}

fn delta(kubelet: &Kubelet, ids: [&str; 2], starting_offset: i64, max_results: i32) -> Result<Messages, Status> {
    kubelet.block_on(async {
        let mut client = kubelet.snapshot_metadata().await.expect("the socket is there");
        let [base_snapshot_id, target_snapshot_id] = ids.map(str::to_owned);
        let secrets = Default::default();
        let request =
            GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, starting_offset, max_results, secrets };
        collect!(client.get_metadata_delta(request).await)
    })
}

fn take(scene: &Scene, volume: &str, name: &str) -> Result<String> {
    Ok(scene.cluster.cli_json::<Snapshot>(&["snapshot", "create", volume, name])?.id)
}

fn write(client: &mut NbdClient, block: u64, blocks: usize) -> Result<()> {
    client.write(block * BLOCK as u64, &vec![7; blocks * BLOCK as usize])
}

fn offers_it(kubelet: &Kubelet) -> Result<bool> {
    kubelet.block_on(async {
        let mut identity = kubelet.identity().await?;
        let answer = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await?.into_inner();
        let wanted = service::Type::SnapshotMetadataService as i32;
        let wanted = plugin_capability::Type::Service(plugin_capability::Service { r#type: wanted });
        Ok(answer.capabilities.iter().any(|capability| capability.r#type == Some(wanted)))
    })
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<Code> {
    match answer {
        Ok(answer) => anyhow::bail!("{answer:?} was not refused"),
        Err(status) => Ok(status.code()),
    }
}

#[test]
fn ranges_are_streamed_from_any_offset_in_messages_of_any_size() -> Result<()> {
    on_cluster("metadata", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        ensure!(offers_it(&kubelet)?, "Identity says so");
        scene.cluster.cli(&["volume", "create", "v", "--size", "192M", "--node", "n1"])?;
        let empty = take(scene, "v", "empty")?;
        ensure!(allocated(&kubelet, &empty, 0, 0)? == [vec![]], "a message tells the capacity of an empty snapshot");
        let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach("v", "n1", "nbd")?)?)?;
        write(&mut client, 10, 6)?;
        write(&mut client, 16384 - 2, 4)?;
        write(&mut client, 40000, 1)?;
        let first = take(scene, "v", "first")?;
        write(&mut client, 11, 2)?;
        client.submit_trim(13 * BLOCK as u64, BLOCK as u32)?;
        ensure!(client.next_reply()?.error == 0, "a trim is answered");
        write(&mut client, 50 * 256, 1)?;
        let second = take(scene, "v", "second")?;
        write(&mut client, 0, 300)?;

        let all = vec![(10, 6), (16382, 4), (40000, 1)];
        ensure!(allocated(&kubelet, &first, 0, 0)? == std::slice::from_ref(&all));
        ensure!(allocated(&kubelet, &first, 0, 2)? == [all[..2].to_vec(), all[2..].to_vec()]);
        ensure!(allocated(&kubelet, &first, 0, 3)? == [all.clone()], "no empty message follows");
        let later = [vec![(12, 4), (16382, 4), (40000, 1)]];
        for offset in [12 * BLOCK, 12 * BLOCK + 1, 13 * BLOCK - 1] {
            ensure!(allocated(&kubelet, &first, offset, 0)? == later, "offsets are rounded down to a block");
        }
        ensure!(allocated(&kubelet, &first, 40001 * BLOCK, 0)? == [vec![]]);
        let allocated_then = [vec![(10, 3), (14, 2), (12800, 1), (16382, 4), (40000, 1)]];
        ensure!(allocated(&kubelet, &second, 0, 0)? == allocated_then, "what was discarded is not allocated");
        let changed = [vec![(11, 3), (12800, 1)]];
        ensure!(delta(&kubelet, [&first, &second], 0, 0)? == changed, "data and zeros are one range");
        ensure!(delta(&kubelet, [&first, &second], 13 * BLOCK + 7, 1)? == [vec![(13, 1)], vec![(12800, 1)]]);
        ensure!(delta(&kubelet, [&empty, &first], 0, 0)? == [all]);
        ensure!(delta(&kubelet, [&first, &first], 0, 0)? == [vec![]]);

        scene.cluster.kill("chunkserver-n1", Signal::SIGKILL)?;
        ensure!(delta(&kubelet, [&first, &second], 0, 0)? == changed, "another replica answers");
        scene.cluster.start("chunkserver-n1")?;
        refusals(scene, &kubelet, &first, &second)?;
        client.close()?;
        scene.cluster.detach("v").context("detach")
    })
}

fn refusals(scene: &Scene, kubelet: &Kubelet, first: &str, second: &str) -> Result<()> {
    ensure!(code(delta(kubelet, [second, first], 0, 0))? == Code::InvalidArgument, "swapped");
    ensure!(code(delta(kubelet, [first, ""], 0, 0))? == Code::InvalidArgument, "empty");
    ensure!(code(allocated(kubelet, first, -1, 0))? == Code::InvalidArgument, "negative");
    ensure!(code(allocated(kubelet, first, SIZE_BYTES + 1, 0))? == Code::OutOfRange, "beyond the end");
    ensure!(allocated(kubelet, first, SIZE_BYTES, 0)? == [vec![]], "the end itself");
    scene.cluster.cli(&["volume", "create", "w", "--size", "192M", "--node", "n1"])?;
    let other = take(scene, "w", "other")?;
    ensure!(code(delta(kubelet, [first, &other], 0, 0))? == Code::InvalidArgument, "of two volumes");
    scene.cluster.cli(&["snapshot", "delete", "first"])?;
    ensure!(code(allocated(kubelet, first, 0, 0))? == Code::NotFound, "deleted");
    ensure!(code(delta(kubelet, [first, second], 0, 0))? == Code::NotFound, "deleted");
    ensure!(code(allocated(kubelet, "no-id-of-ours", 0, 0))? == Code::NotFound, "foreign");
    Ok(())
}
