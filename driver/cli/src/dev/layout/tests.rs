//! The directory of a development cluster: kept, checked, and never taken from somebody else.

use super::*;

#[test]
fn a_cluster_keeps_its_id_and_ports() {
    let dir = tempfile::tempdir().unwrap();
    let made = Layout::open_or_create(dir.path(), Wish { nodes: Some(2), ..Wish::default() }).unwrap();
    let again = Layout::open_or_create(dir.path(), Wish::default()).unwrap();
    assert_eq!(made.file, again.file);
    assert_eq!(again.file.nodes.len(), 2);
    let mut ports: Vec<u16> = vec![made.file.control.listen.port(), made.file.control.metrics.port()];
    for node in &made.file.nodes {
        ports.extend(
            [node.chunkserver_data, node.chunkserver_rpc, node.chunkserver_metrics].map(|address| address.port()),
        );
        ports.extend([node.datapath_rpc, node.datapath_metrics, node.node_metrics].map(|address| address.port()));
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), CONTROL_PORTS + 2 * NODE_PORTS);
}

#[test]
fn a_cluster_that_exists_must_agree_with_the_wish() {
    let dir = tempfile::tempdir().unwrap();
    Layout::open_or_create(dir.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
    let wishes = [
        Wish { nodes: Some(3), ..Wish::default() },
        Wish { disk_size: Some(ByteCount(1 << 30)), ..Wish::default() },
        Wish { journal_size: Some(ByteCount(1 << 20)), ..Wish::default() },
        Wish { rebuild_grace_ms: Some(5), ..Wish::default() },
        Wish { control_options: &["--copy-limit-mib=64".to_owned()], ..Wish::default() },
        Wish { scrub_period: Some("5s"), ..Wish::default() },
    ];
    for wish in wishes {
        assert!(Layout::open_or_create(dir.path(), wish).is_err(), "{wish:?}");
    }
}

#[test]
fn a_given_disk_is_kept_and_is_of_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let disk = |node: &str, path: &str| [(node.to_owned(), path.to_owned())];
    let unknown = disk("n3", "/dev/null");
    let wish = Wish { nodes: Some(2), disks: &unknown, ..Wish::default() };
    assert!(Layout::open_or_create(dir.path(), wish).unwrap_err().to_string().contains("n1, n2"));

    let given = disk("n2", "/elsewhere/disk");
    let wish = Wish { nodes: Some(2), disks: &given, ..Wish::default() };
    let layout = Layout::open_or_create(dir.path(), wish).unwrap();
    let [first, second] = &layout.file.nodes[..] else { panic!("two nodes") };
    assert!(layout.disk(first).starts_with(&layout.dir));
    assert_eq!(layout.disk(second), Path::new("/elsewhere/disk"));
    assert_eq!(layout.index_parent(second), None);
    assert!(!layout.is_formatted(second));
    fs::write(layout.formatted_mark(second), []).unwrap();
    assert!(layout.is_formatted(second) && !layout.is_formatted(first));

    assert!(Layout::open_or_create(dir.path(), Wish::default()).is_ok());
    let other = disk("n2", "/elsewhere/other");
    assert!(Layout::open_or_create(dir.path(), Wish { disks: &other, ..Wish::default() }).is_err());
    let late = disk("n1", "/elsewhere/disk");
    assert!(Layout::open_or_create(dir.path(), Wish { disks: &late, ..Wish::default() }).is_err());
}

#[test]
fn a_directory_with_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    for refusal in [
        Layout::refuse_foreign(dir.path()).unwrap_err(),
        Layout::open_or_create(dir.path(), Wish::default()).unwrap_err(),
    ] {
        assert!(refusal.to_string().contains("thesis.tex"), "{refusal}");
    }
    assert!(Layout::open(dir.path()).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_or_foreign_cluster_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
    let path = layout.dir.join(CLUSTER_FILE);
    let whole = fs::read_to_string(&path).unwrap();
    let changed = [
        whole[..whole.len() / 2].to_owned(),
        whole.replace("ashlar-dev-cluster", "another"),
        whole.replace("\"version\": 1", "\"version\": 2"),
        whole.replace("\"cluster\"", "\"clusters\""),
        String::new(),
    ];
    for text in changed {
        fs::write(&path, &text).unwrap();
        assert!(Layout::open(dir.path()).is_err(), "{text}");
    }
}

#[test]
fn a_directory_whose_sockets_would_be_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120));
    let error = Layout::open_or_create(&long, Wish::default()).unwrap_err().to_string();
    assert!(error.contains("shorter --dir"), "{error}");
}

#[test]
fn only_one_command_works_on_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let held = Layout::lock(dir.path()).unwrap();
    assert!(Layout::lock(dir.path()).is_err());
    drop(held);
    assert!(Layout::lock(dir.path()).is_ok());
}

#[test]
fn what_a_command_left_that_was_cut_off_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".lock"), "").unwrap();
    fs::write(dir.path().join("cluster.partial"), "{").unwrap();
    Layout::open_or_create(dir.path(), Wish { nodes: Some(1), ..Wish::default() }).unwrap();
    fs::remove_dir(dir.path().join("logs")).unwrap();
    Layout::open_or_create(dir.path(), Wish::default()).unwrap();
    assert!(dir.path().join("logs").exists());
}
