//! Tests of `watch`, with programs that are no smartctl. One test, one after the other: a program that was just written
//! cannot be run while another thread starts one.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("smartctl");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn whatever_the_program_does_something_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let device = Path::new("/dev/x");
    let asked = r#"[ "$*" = "--json=c --info --health --attributes /dev/x" ] || exit 9"#;
    let printed = r#"echo '{"smart_status": {"passed": false}, "temperature": {"current": 55}}'; exit 8"#;
    let tells = program(folder.path(), &format!("{asked}\n{printed}"));
    let health = ask(&tells, device, TIMEOUT).await.unwrap();
    assert_eq!((health.is_failing, health.temperature_celsius), (true, Some(55)), "whatever it exits with");

    let missing = ask(Path::new("/nowhere/smartctl"), device, TIMEOUT).await.unwrap_err();
    assert!(missing.contains("install smartmontools"), "{missing}");

    let hangs = program(folder.path(), "exec sleep 1000");
    let given_up = ask(&hangs, device, Duration::from_millis(50)).await.unwrap_err();
    assert!(given_up.ends_with("took more than 50ms"), "{given_up}");
}
