//! What a device says of itself comes to the control API and the metrics, by a program that stands in for smartctl.

use crate::daemon::{Daemon, Disks, text};
use crate::ports::get;
use ashlar_rpc::control::chunkserver_client::ChunkserverClient;
use ashlar_rpc::control::{ChunkserverStatusRequest, DiskSmart};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// As soon as the chunkserver has asked.
fn told(daemon: &Daemon) -> DiskSmart {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("http://{}", daemon.address("rpc_address"));
    runtime.block_on(async {
        let mut client = ChunkserverClient::connect(url).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = client.status(ChunkserverStatusRequest::default()).await.unwrap().into_inner();
            match &status.disks[0].smart {
                Some(smart) => return smart.clone(),
                None => assert!(Instant::now() < deadline, "nothing is told"),
            }
            tokio::task::yield_now().await;
        }
    })
}

#[test]
fn the_verdict_of_a_device_is_told_and_so_is_why_there_is_none() {
    let disks = Disks::format(1, 64);
    let without = Daemon::start(&disks, &["--smartctl", "/nowhere/smartctl"]).unwrap();
    let none = told(&without);
    // A test's folder may lie on a filesystem that has no device.
    if none.device.is_empty() {
        assert!(none.none.contains("without a block device"), "{none:?}");
        return;
    }
    assert!(none.none.contains("install smartmontools"), "{none:?}");
    without.terminate();

    let program = disks.dir.path().join("smartctl");
    let printed =
        r#"{"smart_status": {"passed": false}, "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 9}}]}}"#;
    std::fs::write(&program, format!("#!/bin/sh\necho '{printed}'\nexit 8\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start(&disks, &["--smartctl", text(&program)]).unwrap();
    let smart = told(&daemon);
    assert!(smart.failing && smart.none.is_empty() && smart.device == none.device, "{smart:?}");
    assert_eq!((smart.reallocated_sectors, smart.wear_percent), (Some(9), None));
    let metrics = get(daemon.address("metrics_address"), "/metrics");
    assert!(metrics.contains("ashlar_chunkserver_smart_failing{") && metrics.contains("} 1\n"), "{metrics}");
    assert!(!metrics.contains("smart_wear_percent{"), "{metrics}");
}
