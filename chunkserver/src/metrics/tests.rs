//! Tests of `metrics`.

use super::*;
use crate::serve::Traffic;
use ashlar_types::{ByteCount, DiskId};

#[test]
fn every_disk_and_failure_shows() {
    let disk = |number: u128, failure: Option<&str>| DiskSnapshot {
        id: Some(DiskId::from_u128(number)),
        path: "/d".into(),
        capacity: ByteCount(1 << 30),
        free: ByteCount(1 << 20),
        failure: failure.map(str::to_owned),
        status: Some(EngineStatus::default()),
        traffic: Traffic { writes: 7, written_bytes: 4096, ..Traffic::default() },
    };
    let snapshot = HostSnapshot {
        disks: vec![disk(1, None), disk(2, Some("write error"))],
        links: LinkCounts { open: 3, protocol_errors: 2, ..LinkCounts::default() },
        events: vec![],
    };
    let health = Health { is_failing: true, temperature_celsius: Some(-3), ..Health::default() };
    let smart = BTreeMap::from([("/d".into(), Report { device: None, health: Ok(health) })]);
    let text = encode(&snapshot, &smart).unwrap();
    let one = DiskId::from_u128(1);
    for line in [
        format!("ashlar_chunkserver_writes_total{{disk=\"{one}\"}} 7"),
        format!("ashlar_chunkserver_written_bytes_total{{disk=\"{one}\"}} 4096"),
        format!("ashlar_chunkserver_disk_free_bytes{{disk=\"{one}\"}} 1048576"),
        format!("ashlar_chunkserver_smart_failing{{disk=\"{one}\"}} 1"),
        format!("ashlar_chunkserver_smart_temperature_celsius{{disk=\"{one}\"}} -3"),
        "ashlar_chunkserver_failed_disks 1".to_owned(),
        "ashlar_chunkserver_links 3".to_owned(),
        "ashlar_chunkserver_protocol_errors_total 2".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("smart_wear_percent{"), "what is not told has no series");
}
