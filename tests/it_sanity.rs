//! The community's conformance suite for CSI drivers (`csi-sanity` of kubernetes-csi/csi-test), against a real driver,
//! datapath and chunkservers, with real mounts.
//!
//! The suite skips by itself what a driver does not advertise. So a capability that got lost would look like a success:
//! what is skipped is compared with the list of what is not offered.

use anyhow::{Context, Result, bail, ensure};
use ashlar_tests::{Scene, on_cluster_with, run, run_ok};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const SUITE: &str = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity";
/// Room for the volumes of one specification at a time, ten where snapshots are listed, promised in full.
const DISK_SIZE: &str = "2G";
const SIZE_BYTES: u64 = 128 << 20;
const EXPANDED_BYTES: u64 = 256 << 20;
/// So small that as many as a node takes fit on a disk.
const TINY_BYTES: u64 = 1 << 20;
const ATTACH_LIMIT: &str = "node max attach limit";

/// What the suite says where it skips: services and calls that the driver does not offer.
const NOT_OFFERED: [&str; 5] = [
    "ControllerGetVolumeHealth not supported",
    "ControllerListVolumeHealth not supported",
    "NodeGetStorageHealth not supported",
    "NodeGetVolumeHealth not supported",
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
];

/// One entry of the suite's JSON report.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
    location: Location,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    file_name: String,
    line_number: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    spec_reports: Vec<Spec>,
}

/// Builds the suite, which is pinned in `tests/sanity`, beside the programs under test.
fn suite() -> Result<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("sanity");
    let here = std::env::current_exe().context("own path")?;
    let built = here.parent().context("own folder")?.join("csi-sanity");
    let missing = "the conformance suite needs Go: `deploy/install.sh test` installs it, or see https://go.dev/dl";
    let module = module.to_str().context("a path in UTF-8")?;
    let output = built.to_str().context("a path in UTF-8")?;
    run_ok("go", ["-C", module, "build", "-o", output, SUITE]).context(missing)?;
    Ok(built)
}

/// Runs the suite on node n1 and gives its report. A failure has what failed, then all that the suite printed.
fn check(scene: &Scene, name: &str, size_bytes: u64, more: &[&str]) -> Result<Vec<Spec>> {
    let socket = |daemon: &str| -> Result<String> {
        let sockets = scene.cluster.daemon(daemon)?.sockets;
        Ok(format!("unix:{}", sockets.get("csi").context("the daemon has a CSI socket")?.display()))
    };
    let kubelet = scene.cluster.daemon("node-n1")?.kubelet_dir.context("a node service has a kubelet's folder")?;
    let report = scene.files().join(format!("{name}.json"));
    let mut arguments = vec![
        format!("--csi.endpoint={}", socket("node-n1")?),
        format!("--csi.controllerendpoint={}", socket("control")?),
        format!("--csi.mountdir={}", kubelet.join("csi-mount").display()),
        format!("--csi.stagingdir={}", kubelet.join("csi-staging").display()),
        format!("--csi.testvolumesize={size_bytes}"),
        format!("--csi.testvolumeexpandsize={EXPANDED_BYTES}"),
        format!("--ginkgo.json-report={}", report.display()),
        "--ginkgo.no-color".to_owned(),
    ];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let output = run(suite()?, &arguments)?;
    let text = fs::read_to_string(&report);
    let text =
        text.with_context(|| format!("read the suite's report; it said:\n{}{}", output.stdout, output.stderr))?;
    let reports: Vec<Report> = serde_json::from_str(&text).context("understand the suite's report")?;
    let specs: Vec<Spec> = reports.into_iter().flat_map(|report| report.spec_reports).collect();
    let failed: String = specs.iter().filter_map(Spec::fault).collect();
    ensure!(output.success, "csi-sanity failed:\n{failed}{}{}", output.stderr, output.stdout);
    Ok(specs)
}

impl Spec {
    /// What went wrong, for a person.
    fn fault(&self) -> Option<String> {
        let failure = self.failure.as_ref().filter(|_| self.state != "skipped")?;
        let Location { file_name, line_number } = &failure.location;
        Some(format!("{:?}, {file_name}:{line_number}: {}\n", self.leaf_node_text, failure.message))
    }
}

fn passed(specs: &[Spec]) -> usize {
    specs.iter().filter(|spec| spec.state == "passed").count()
}

fn whole_suite(scene: &Scene, access_type: &str) -> Result<()> {
    let access = format!("--csi.testvolumeaccesstype={access_type}");
    // The limit is a test of its own, with volumes that are small enough.
    let skip = format!("--ginkgo.skip={ATTACH_LIMIT}");
    let specs = check(scene, access_type, SIZE_BYTES, &[&access, &skip])?;
    let not_offered: BTreeSet<&str> = NOT_OFFERED.into_iter().collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| spec.state == "skipped" && !spec.leaf_node_text.contains(ATTACH_LIMIT)) {
        let why = spec.failure.as_ref().map_or("", |failure| failure.message.as_str());
        let Some(known) = not_offered.get(why) else {
            bail!("{:?} was skipped, and is not on the list of what is not offered: {why:?}", spec.leaf_node_text);
        };
        *seen.entry(*known).or_default() += 1;
    }
    eprintln!("csi-sanity, {access_type}: {} passed; skipped: {seen:?}", passed(&specs));
    let offered_by_now: Vec<_> = not_offered.iter().filter(|&why| !seen.contains_key(why)).collect();
    ensure!(offered_by_now.is_empty(), "nothing was skipped for {offered_by_now:?}: take it off the list");
    ensure!(passed(&specs) > 0, "nothing was run");
    Ok(())
}

#[test]
fn the_suite_passes_on_filesystems() -> Result<()> {
    on_cluster_with("sanity-mount", DISK_SIZE, |scene| whole_suite(scene, "mount"))
}

#[test]
fn the_suite_passes_on_raw_block_volumes() -> Result<()> {
    on_cluster_with("sanity-block", DISK_SIZE, |scene| whole_suite(scene, "block"))
}

#[test]
fn a_node_takes_no_more_volumes_than_it_says() -> Result<()> {
    on_cluster_with("sanity-limit", DISK_SIZE, |scene| {
        let focus = format!("--ginkgo.focus={ATTACH_LIMIT}");
        let specs = check(scene, "limit", TINY_BYTES, &["--csi.testnodevolumeattachlimit", &focus])?;
        ensure!(passed(&specs) == 1, "the test of the limit was not run");
        Ok(())
    })
}
