//! Tests of `smart`: the JSON of smartctl, as its devices give it.

use super::*;

/// As an NVMe drive tells of itself, shortened.
const NVME: &str = r#"{
  "json_format_version": [1, 0],
  "smartctl": {"version": [7, 4], "argv": ["smartctl", "--json=c", "/dev/nvme0n1"], "exit_status": 0},
  "device": {"name": "/dev/nvme0n1", "type": "nvme", "protocol": "NVMe"},
  "smart_status": {"passed": true, "nvme": {"value": 0}},
  "nvme_smart_health_information_log": {
    "critical_warning": 0, "temperature": 36, "available_spare": 100, "available_spare_threshold": 5,
    "percentage_used": 3, "power_on_hours": 4711, "media_errors": 2, "num_err_log_entries": 9
  },
  "temperature": {"current": 36},
  "power_on_time": {"hours": 4711}
}"#;

/// As a SATA drive that gives notice does.
const ATA: &str = r#"{
  "json_format_version": [1, 0],
  "smartctl": {"version": [7, 2], "exit_status": 24, "messages": []},
  "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
  "smart_status": {"passed": false},
  "ata_smart_attributes": {"revision": 16, "table": [
    {"id": 5, "name": "Reallocated_Sector_Ct", "value": 4, "thresh": 10, "when_failed": "now",
     "raw": {"value": 3021, "string": "3021"}},
    {"id": 9, "name": "Power_On_Hours", "value": 59, "raw": {"value": 36055, "string": "36055"}},
    {"id": 187, "name": "Reported_Uncorrect", "value": 90, "raw": {"value": 10, "string": "10"}},
    {"id": 197, "name": "Current_Pending_Sector", "value": 100, "raw": {"value": 8, "string": "8"}}
  ]},
  "power_on_time": {"hours": 36055},
  "temperature": {"current": 41}
}"#;

/// As a virtual disk is answered for.
const VIRTUAL: &str = r#"{
  "json_format_version": [1, 0],
  "smartctl": {"version": [7, 4], "exit_status": 1, "messages": [
    {"string": "/dev/vda: Unable to detect device type", "severity": "error"}
  ]}
}"#;

#[test]
fn an_nvme_drive_tells_of_wear_and_media_errors() {
    let expected = Health {
        is_failing: false,
        temperature_celsius: Some(36),
        wear_percent: Some(3),
        media_errors: Some(2),
        reallocated_sectors: None,
        pending_sectors: None,
        power_on_hours: Some(4711),
    };
    assert_eq!(parse(NVME.as_bytes()), Ok(expected));
}

#[test]
fn a_sata_drive_tells_of_sectors_and_gives_notice() {
    let expected = Health {
        is_failing: true,
        temperature_celsius: Some(41),
        wear_percent: None,
        media_errors: Some(10),
        reallocated_sectors: Some(3021),
        pending_sectors: Some(8),
        power_on_hours: Some(36055),
    };
    assert_eq!(parse(ATA.as_bytes()), Ok(expected));
}

#[test]
fn a_device_without_smart_says_why() {
    assert_eq!(parse(VIRTUAL.as_bytes()), Err("/dev/vda: Unable to detect device type".to_owned()));
    assert_eq!(parse(b"{}"), Err("the device has no SMART".to_owned()));
}

#[test]
fn a_verdict_alone_is_enough() {
    let health = parse(br#"{"smart_status": {"passed": true}, "temperature": {}}"#).unwrap();
    assert_eq!(health, Health::default());
}

#[test]
fn what_is_no_json_or_of_another_shape_is_refused() {
    let texts = ["", "smartctl 7.4", "[]", r#"{"smart_status": 1}"#, r#"{"smart_status": {"passed": "yes"}}"#];
    for text in texts {
        assert!(parse(text.as_bytes()).unwrap_err().starts_with("smartctl printed what is not understood"), "{text}");
    }
    for cut in 0..ATA.len() {
        assert!(parse(&ATA.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}
