//! Hostile paths: none leads outside, none is followed, nothing that holds data is removed (T8, T10).

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

fn kubelet() -> (tempfile::TempDir, KubeletDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("pods/p1")).unwrap();
    let kubelet = KubeletDir::open(dir.path()).unwrap();
    (dir, kubelet)
}

fn text(dir: &tempfile::TempDir, below: &str) -> String {
    format!("{}/{below}", dir.path().display())
}

#[test]
fn hostile_paths_are_refused() {
    let (dir, kubelet) = kubelet();
    let outside = [
        "",
        "/",
        "relative/path",
        "/etc/passwd",
        &text(&dir, ""),
        &text(&dir, "../x"),
        &text(&dir, "pods/../../etc"),
        &text(&dir, "pods/./p1"),
        &text(&dir, "pods/p1/.."),
        &text(&dir, "pods/p1/a\0b"),
        &format!("{}x/pods", dir.path().display()),
        &text(&dir, &"x/".repeat(3000)),
    ]
    .map(str::to_owned);
    for path in outside {
        let error = kubelet.place("target_path", &path).unwrap_err();
        assert!(matches!(error, MountError::Path { field: "target_path", .. }), "{path:?}: {error}");
    }
}

#[test]
fn a_symlink_on_the_way_is_refused_wherever_it_leads() {
    let (dir, kubelet) = kubelet();
    for (name, to) in [("out", "/etc"), ("in", "pods"), ("up", "..")] {
        symlink(to, dir.path().join(name)).unwrap();
        let error = kubelet.place("target_path", &text(&dir, &format!("{name}/p1"))).unwrap_err();
        assert!(error.to_string().contains("symlink"), "{name}: {error}");
    }
}

#[test]
fn a_symlink_at_the_place_is_neither_opened_nor_used_nor_removed() {
    let (dir, kubelet) = kubelet();
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    symlink(&victim, dir.path().join("pods/p1/mount")).unwrap();
    let place = kubelet.place("target_path", &text(&dir, "pods/p1/mount")).unwrap();
    assert!(place.open().is_err());
    assert!(place.open_or_make_dir().is_err());
    assert!(place.open_or_make_file().is_err());
    assert!(place.remove().is_err());
    assert!(victim.exists());
}

#[test]
fn a_missing_parent_is_absent_and_not_made() {
    let (dir, kubelet) = kubelet();
    let error = kubelet.place("target_path", &text(&dir, "pods/p2/mount")).unwrap_err();
    assert!(matches!(error, MountError::Absent { .. }), "{error}");
    assert!(!dir.path().join("pods/p2").exists());
}

#[test]
fn directories_and_files_are_made_once_and_removed_when_empty() {
    let (dir, kubelet) = kubelet();
    let mount = kubelet.place("target_path", &text(&dir, "pods/p1/mount")).unwrap();
    assert!(mount.open().unwrap().is_none());
    assert!(mount.open_or_make_dir().unwrap().is_dir());
    assert!(mount.open_or_make_dir().unwrap().is_dir());
    assert!(matches!(mount.open_or_make_file(), Err(MountError::Occupied(_))));
    mount.remove().unwrap();
    mount.remove().unwrap();
    assert_eq!(mount.open_or_make_file().unwrap().kind(), SFlag::S_IFREG);
    assert!(matches!(mount.open_or_make_dir(), Err(MountError::Occupied(_))));
    mount.remove().unwrap();
    assert!(!dir.path().join("pods/p1/mount").exists());
}

/// T10: what is in the way is never deleted.
#[test]
fn nothing_that_holds_data_is_removed() {
    let (dir, kubelet) = kubelet();
    fs::create_dir(dir.path().join("pods/p1/mount")).unwrap();
    fs::write(dir.path().join("pods/p1/mount/data"), "x").unwrap();
    fs::write(dir.path().join("pods/p1/file"), "x").unwrap();
    for name in ["pods/p1/mount", "pods/p1/file"] {
        let place = kubelet.place("target_path", &text(&dir, name)).unwrap();
        assert!(matches!(place.remove(), Err(MountError::Occupied(_))), "{name}");
    }
    assert!(dir.path().join("pods/p1/mount/data").exists() && dir.path().join("pods/p1/file").exists());
}

/// The kubelet's directory may itself be reached by a symlink: its name counts, and its real path.
#[test]
fn both_names_of_the_kubelet_directory_lead_to_it() {
    let (dir, _) = kubelet();
    let link = dir.path().join("link");
    symlink(dir.path().join("pods"), &link).unwrap();
    let kubelet = KubeletDir::open(&link).unwrap();
    for named in [link.join("p1/m"), dir.path().join("pods/p1/m")] {
        let place = kubelet.place("target_path", named.to_str().unwrap()).unwrap();
        assert_eq!(place.real(), dir.path().canonicalize().unwrap().join("pods/p1/m"));
    }
}

/// T10: a directory that is swapped for a symlink again and again never leads outside.
#[test]
fn a_swapped_directory_never_leads_outside() {
    let (dir, kubelet) = kubelet();
    let outside = tempfile::tempdir().unwrap();
    let (pod, aside) = (dir.path().join("pods/p1"), dir.path().join("aside"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::rename(&pod, &aside).unwrap();
                symlink(outside.path(), &pod).unwrap();
                fs::remove_file(&pod).unwrap();
                fs::rename(&aside, &pod).unwrap();
            }
        });
        for _ in 0..5_000 {
            // Refused, absent or made in the real directory: all are fine.
            if let Ok(place) = kubelet.place("target_path", &text(&dir, "pods/p1/mount")) {
                let _ = place.open_or_make_dir();
                let _ = place.remove();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
