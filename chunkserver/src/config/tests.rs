//! Tests of `config`.

use super::*;
use clap::Parser;

const CLUSTER: &str = "6a1d6f0e-3c55-4a5e-9d1b-0c9be0b5a001";

fn run(more: &[&str]) -> Result<RunConfig, Error> {
    let base = ["ashlar-chunkserver", "run", "--cluster", CLUSTER, "--node", "node-a", "--disk", "/disks/one"];
    let arguments = Arguments::try_parse_from(base.iter().chain(more)).expect("flags parse");
    match arguments.command()? {
        Command::Run(config) => Ok(config),
        other => panic!("not a run: {other:?}"),
    }
}

#[test]
fn ports_are_loopback_unless_the_insecure_flag_is_given() {
    assert!(run(&[]).unwrap().listen.ip().is_loopback());
    assert!(run(&["--listen", "127.9.9.9:0", "--rpc-listen", "[::1]:0"]).is_ok());
    for flag in ["--listen", "--rpc-listen", "--metrics-listen"] {
        for address in ["0.0.0.0:1", "192.168.1.1:1", "[::]:1"] {
            assert!(matches!(run(&[flag, address]), Err(Error::NotLoopback { .. })), "{flag} {address}");
            assert!(run(&[flag, address, "--insecure-allow-any-address"]).is_ok());
        }
    }
}

#[test]
fn disks_that_share_a_path_or_an_index_are_refused() {
    assert!(matches!(run(&["--disk", "/disks/one"]), Err(Error::Config(_))));
    assert_eq!(run(&["--disk", "/other/one"]).unwrap().disks.len(), 2);
    assert!(matches!(run(&["--disk", "/other/one", "--index", "/fast"]), Err(Error::Config(_))));
}

#[test]
fn an_index_is_beside_its_disk_or_in_the_directory_given() {
    let paths = DiskPaths { disk: PathBuf::from("/d/one.img"), index_parent: None };
    assert_eq!(paths.index(), Path::new("/d/one.img.index"));
    let paths = DiskPaths { index_parent: Some(PathBuf::from("/fast")), ..paths };
    assert_eq!(paths.index(), Path::new("/fast/one.img.index"));
}

#[test]
fn sizes_are_powers_of_1024() {
    for (text, bytes) in [("4096", 4096), ("8K", 8192), ("2MiB", 2 << 20), ("8G", 8 << 30), ("1Ti", 1 << 40)] {
        assert_eq!(text.parse::<Size>(), Ok(Size(ByteCount(bytes))), "{text}");
    }
    for text in ["", "G", "8X", "-1", "99999999999999T", "1.5G"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
}

#[test]
fn scrub_takes_a_fortnight_unless_told_otherwise_and_can_be_switched_off() {
    let day = Duration::from_secs(86_400);
    assert_eq!(run(&[]).unwrap().scrub_period, Some(14 * day));
    for (text, period) in [("0", None), ("1s", Some(day / 86_400)), ("90m", Some(day / 16)), ("36h", Some(day * 3 / 2))]
    {
        assert_eq!(run(&["--scrub-period", text]).unwrap().scrub_period, period, "{text}");
    }
    for text in ["", "d", "5", "-1d", "0d", "1.5h", "3651d", "99999999999999999d", "4Ä"] {
        assert!(matches!(run(&[&format!("--scrub-period={text}")]), Err(Error::Config(_))), "{text}");
    }
}

#[test]
fn flags_win_over_the_file_and_unknown_names_in_it_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chunkserver.toml");
    let path_text = path.to_str().unwrap();
    std::fs::write(&path, "node = \"from-file\"\nzone = \"z1\"\nlisten = \"127.0.0.1:7000\"\n").unwrap();
    let config = run(&["--config", path_text]).unwrap();
    assert_eq!(config.node.as_str(), "node-a");
    assert_eq!(config.zone.unwrap().as_str(), "z1");
    assert_eq!(config.listen.port(), 7000);
    std::fs::write(&path, "lisen = \"127.0.0.1:7000\"\n").unwrap();
    assert!(matches!(run(&["--config", path_text]), Err(Error::Config(_))));
}

#[test]
fn bad_names_and_addresses_are_refused() {
    assert!(matches!(run(&["--zone", "../z"]), Err(Error::Config(_))));
    assert!(matches!(run(&["--control", "unix:/x"]), Err(Error::Config(_))));
}
