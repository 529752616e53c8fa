//! What a CSI request asks for, checked: names, sizes, capabilities, topology. Everything that is wrong is reported
//! together.

use super::super::{TOPOLOGY_NODE, TOPOLOGY_ZONE};
use crate::control::volumes::{NewVolume, SizeRange};
use crate::csi::params;
use crate::error::{Error, ErrorKind, Result};
use crate::mount::{FsType, Group, MountOptions};
use ashlar_catalog::{ContentSource, Node};
use ashlar_rpc::csi::volume_capability::{AccessType, access_mode::Mode};
use ashlar_rpc::csi::volume_content_source::Type as SourceType;
use ashlar_rpc::csi::{
    CapacityRange, CreateVolumeRequest, Topology, TopologyRequirement, VolumeCapability, VolumeContentSource,
};
use ashlar_types::{BLOCK_BYTES, NodeName, VolumeName};
use std::collections::HashMap;

const FILESYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// Longest part of a caller's text that is repeated in a message.
const SHOWN_CHARS_MAX: usize = 64;

pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Longest texts that CSI allows.
const TEXT_BYTES_MAX: usize = 128;
const NODE_ID_BYTES_MAX: usize = 256;
const ESCAPED_PREFIX: &str = "csi.";
/// Of all keys and values of a map together, by CSI.
const MAP_BYTES_MAX: usize = 4096;

pub(super) fn volume_id(text: &str) -> Result<()> {
    required_id("volume_id", text)
}

pub(super) fn required_id(field: &str, text: &str) -> Result<()> {
    required(field, text, TEXT_BYTES_MAX)
}

pub(super) fn node_id(text: &str) -> Result<()> {
    required("node_id", text, NODE_ID_BYTES_MAX)
}

fn required(field: &str, text: &str, bytes_max: usize) -> Result<()> {
    match text.len() {
        0 => Err(Error::invalid(format!("{field} is missing"))),
        length if length > bytes_max => {
            Err(Error::invalid(format!("{field} has {length} bytes, at most {bytes_max} are allowed")))
        }
        _ => Ok(()),
    }
}

/// CSI lets a name hold nearly every character; ours is a key. One that holds others, or looks like the result, is
/// escaped byte by byte, so that two names never become one.
pub(super) fn name(text: &str) -> Result<VolumeName> {
    required("name", text, TEXT_BYTES_MAX)?;
    let banned = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if let Some(found) = text.chars().find(banned) {
        return Err(Error::invalid(format!("name contains the control character {found:?}")));
    }
    let plain = Some(text).filter(|text| !text.starts_with(ESCAPED_PREFIX)).and_then(|text| text.parse().ok());
    if let Some(plain) = plain {
        return Ok(plain);
    }
    let mut escaped = ESCAPED_PREFIX.to_owned();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("_{other:02x}")),
        }
    }
    escaped.parse().map_err(|error| Error::invalid(format!("name, written as {ESCAPED_PREFIX}...: {error}")))
}

pub(super) fn map_fault(field: &str, map: &HashMap<String, String>) -> Option<String> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    (bytes > MAP_BYTES_MAX).then(|| format!("{field} has {bytes} bytes, at most {MAP_BYTES_MAX} are allowed"))
}

/// The size that a volume is to have after it was expanded. Without `required_bytes` any size up to the limit will do.
pub(super) fn size_after(range: &CapacityRange) -> Result<SizeRange> {
    match (range.required_bytes, range.limit_bytes) {
        (0, 0) => Err(Error::invalid("capacity_range has neither required_bytes nor limit_bytes")),
        (0, limit) => SizeRange::between(BLOCK_BYTES as i64, limit),
        (required, limit) => SizeRange::between(required, limit),
    }
}

pub(super) fn new_volume(request: CreateVolumeRequest, known_nodes: &[Node]) -> Result<NewVolume> {
    let mut faults = Vec::new();
    let name = name(&request.name).map_err(|fault| faults.push(fault.message)).ok();
    let range = request.capacity_range.unwrap_or_default();
    let size = match SizeRange::between(range.required_bytes, range.limit_bytes) {
        Err(error) if error.kind == ErrorKind::InvalidArgument => {
            faults.push(error.message);
            None
        }
        other => Some(other),
    };
    if request.volume_capabilities.is_empty() {
        faults.push("volume_capabilities is empty".to_owned());
    }
    faults.extend(capability_faults(&request.volume_capabilities));
    faults.extend(emptiness_fault(&request));
    faults.extend(map_fault("parameters", &request.parameters));
    faults.extend(map_fault("mutable_parameters", &request.mutable_parameters));
    let params = params::parse_with(&request.parameters, &request.mutable_parameters);
    let params = params.map_err(|more| faults.extend(more)).ok();
    let source = match &request.volume_content_source {
        Some(source) => content_source(source).map(Some),
        None => Ok(None),
    };
    let source = match source {
        Err(error) if error.kind == ErrorKind::InvalidArgument => {
            faults.push(error.message);
            None
        }
        other => Some(other),
    };
    let places = match &request.accessibility_requirements {
        Some(requirement) => places(requirement, known_nodes),
        None => Ok(Places::default()),
    };
    let places = match places {
        Err(error) if error.kind == ErrorKind::InvalidArgument => {
            faults.push(error.message);
            None
        }
        other => Some(other),
    };
    let (Some(name), Some(size), Some(params), Some(source), Some(places), true) =
        (name, size, params, source, places, faults.is_empty())
    else {
        return Err(Error::invalid_all(&faults));
    };
    let Places { first_nodes, allowed_nodes } = places?;
    let parameters = request.parameters.into_iter().chain(request.mutable_parameters).collect();
    Ok(NewVolume { name, size: size?, params, parameters, first_nodes, allowed_nodes, source: source? })
}

/// What is no id of ours names nothing that exists.
fn content_source(source: &VolumeContentSource) -> Result<ContentSource> {
    match &source.r#type {
        None => Err(Error::invalid(
            "volume_content_source names neither a snapshot nor a volume: name one, or leave it out",
        )),
        Some(SourceType::Snapshot(source)) => {
            let id = &source.snapshot_id;
            required_id("volume_content_source.snapshot.snapshot_id", id)?;
            let id = id.parse().map_err(|_| Error::not_found(format_args!("source snapshot {}", shown(id))))?;
            Ok(ContentSource::Snapshot(id))
        }
        Some(SourceType::Volume(source)) => {
            let id = &source.volume_id;
            required_id("volume_content_source.volume.volume_id", id)?;
            let id = id.parse().map_err(|_| Error::not_found(format_args!("source volume {}", shown(id))))?;
            Ok(ContentSource::Volume(id))
        }
    }
}

/// Where a volume's data should begin, and where it may be used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    first_nodes: Vec<NodeName>,
    /// Empty: everywhere, also on nodes that come later.
    allowed_nodes: Vec<NodeName>,
}

/// A requirement that names every node limits nothing: without strict topology Kubernetes sends all of them.
fn places(requirement: &TopologyRequirement, known_nodes: &[Node]) -> Result<Places> {
    let expand = |topologies: &[Topology]| -> Result<Vec<NodeName>> {
        let mut nodes = Vec::new();
        for topology in topologies {
            let more = nodes_in(topology, known_nodes)?;
            nodes.extend(more.into_iter().filter(|node| !nodes.contains(node)).collect::<Vec<_>>());
        }
        Ok(nodes)
    };
    let (requisite, preferred) = (expand(&requirement.requisite)?, expand(&requirement.preferred)?);
    if requisite.is_empty() && !requirement.requisite.is_empty() {
        let text = "none of the required topologies is of a node that has reported";
        return Err(Error::new(ErrorKind::Exhausted, text));
    }
    if requisite.is_empty() || known_nodes.iter().all(|node| requisite.contains(&node.name)) {
        return Ok(Places { first_nodes: preferred, allowed_nodes: Vec::new() });
    }
    let mut first_nodes: Vec<NodeName> = preferred.into_iter().filter(|node| requisite.contains(node)).collect();
    first_nodes.extend(requisite.iter().filter(|node| !first_nodes.contains(node)).cloned().collect::<Vec<_>>());
    let mut allowed_nodes = requisite;
    allowed_nodes.sort();
    Ok(Places { first_nodes, allowed_nodes })
}

/// The known nodes that a topology describes.
pub(super) fn nodes_in(topology: &Topology, known_nodes: &[Node]) -> Result<Vec<NodeName>> {
    if let Some(key) = topology.segments.keys().find(|key| ![TOPOLOGY_NODE, TOPOLOGY_ZONE].contains(&key.as_str())) {
        return Err(Error::invalid(format!(
            "topology key {:?} is not one of ours: {TOPOLOGY_NODE}, {TOPOLOGY_ZONE}",
            shown(key)
        )));
    }
    let wanted = |node: &&Node| {
        let of = |key: &str, is: Option<&str>| topology.segments.get(key).is_none_or(|asked| is == Some(asked));
        of(TOPOLOGY_NODE, Some(node.name.as_str())) && of(TOPOLOGY_ZONE, node.zone.as_ref().map(|zone| zone.as_str()))
    };
    Ok(known_nodes.iter().filter(wanted).map(|node| node.name.clone()).collect())
}

/// What is wrong with the capabilities, each for itself.
pub(super) fn capability_faults(capabilities: &[VolumeCapability]) -> Vec<String> {
    capabilities.iter().flat_map(faults_of).collect()
}

fn faults_of(capability: &VolumeCapability) -> Vec<String> {
    let mut faults = Vec::new();
    match &capability.access_type {
        None => faults.push("access_type is missing: block or mount".to_owned()),
        Some(AccessType::Block(_)) => {}
        Some(AccessType::Mount(mount)) => {
            if !mount.fs_type.is_empty() && !FILESYSTEMS.contains(&mount.fs_type.as_str()) {
                faults.push(format!(
                    "fs_type {:?} is not offered, offered are {}",
                    shown(&mount.fs_type),
                    FILESYSTEMS.join(" and ")
                ));
            }
            // CSI's limit is on all flags together.
            let flags: usize = mount.mount_flags.iter().map(String::len).sum();
            if flags > MAP_BYTES_MAX {
                faults.push(format!("mount_flags have {flags} bytes, at most {MAP_BYTES_MAX} are allowed"));
            }
            let fs_type = mount.fs_type.parse().unwrap_or(FsType::DEFAULT);
            faults.extend(MountOptions::parse(fs_type, &mount.mount_flags).err().map(|fault| fault.to_string()));
            if !mount.volume_mount_group.is_empty() {
                faults.extend(mount.volume_mount_group.parse::<Group>().err().map(|fault| fault.to_string()));
            }
        }
    }
    match capability.access_mode.as_ref().map(|access| access.mode()) {
        Some(
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter
            | Mode::MultiNodeReaderOnly,
        ) => {}
        None | Some(Mode::Unknown) => faults.push("access_mode is missing".to_owned()),
        Some(other) => faults.push(format!(
            "access mode {} is not offered: one node writes to a volume at a time, ask for a SINGLE_NODE mode, or for \
             MULTI_NODE_READER_ONLY",
            other.as_str_name()
        )),
    }
    faults
}

/// For one node of many, none of which may write.
pub(super) fn reads_beside_others(capability: &VolumeCapability) -> bool {
    capability.access_mode.as_ref().is_some_and(|access| access.mode() == Mode::MultiNodeReaderOnly)
}

/// A volume must do for every capability that is asked for. One that nobody may ever write to needs something to read.
fn emptiness_fault(request: &CreateVolumeRequest) -> Option<String> {
    let capabilities = &request.volume_capabilities;
    let only_read = !capabilities.is_empty() && capabilities.iter().all(reads_beside_others);
    (only_read && request.volume_content_source.is_none()).then(|| {
        "access mode MULTI_NODE_READER_ONLY alone needs a volume_content_source: nobody could ever write to the volume"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, zone: &str) -> Node {
        let address = String::new();
        Node {
            name: name.parse().unwrap(),
            zone: Some(zone.parse().unwrap()),
            datapath_rpc: address.clone(),
            chunkserver_rpc: address.clone(),
            chunkserver_data: address,
            is_draining: false,
        }
    }

    fn topology(segments: &[(&str, &str)]) -> Topology {
        Topology { segments: segments.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect::<HashMap<_, _>>() }
    }

    fn names(nodes: &[NodeName]) -> Vec<&str> {
        nodes.iter().map(NodeName::as_str).collect()
    }

    #[test]
    fn every_name_that_csi_allows_becomes_one_of_ours_and_no_two_the_same() {
        let name = |text: &str| super::name(text).map(|name| name.to_string());
        assert_eq!(name("pvc-1").unwrap(), "pvc-1");
        assert_eq!(name("a+1").unwrap(), "csi.a_2b1");
        assert_eq!(name("é/..").unwrap(), "csi._c3_a9_2f..");
        assert_eq!(name("csi.a_2b1").unwrap(), "csi.csi.a_5f2b1", "what looks escaped is escaped again");
        for bad in ["", "a\0b", "a\u{7f}", "a\u{9f}", &"x".repeat(129), &"é".repeat(64)] {
            let fault = name(bad).unwrap_err();
            assert!(fault.kind == ErrorKind::InvalidArgument && fault.message.starts_with("name"), "{bad:?}: {fault}");
        }
    }

    #[test]
    fn a_requirement_that_names_every_node_limits_nothing() {
        let known = [node("a", "x"), node("b", "x")];
        let requisite = vec![topology(&[(TOPOLOGY_NODE, "a")]), topology(&[(TOPOLOGY_NODE, "b")])];
        let preferred = vec![topology(&[(TOPOLOGY_NODE, "b")])];
        let all = places(&TopologyRequirement { requisite: requisite.clone(), preferred }, &known).unwrap();
        assert_eq!((names(&all.first_nodes), names(&all.allowed_nodes)), (vec!["b"], vec![]));
        let one =
            places(&TopologyRequirement { requisite: requisite[..1].to_vec(), preferred: vec![] }, &known).unwrap();
        assert_eq!((names(&one.first_nodes), names(&one.allowed_nodes)), (vec!["a"], vec!["a"]));
    }

    #[test]
    fn zones_expand_to_their_nodes_and_foreign_keys_are_refused() {
        let known = [node("a", "x"), node("b", "y"), node("c", "y")];
        assert_eq!(names(&nodes_in(&topology(&[(TOPOLOGY_ZONE, "y")]), &known).unwrap()), ["b", "c"]);
        assert_eq!(names(&nodes_in(&topology(&[(TOPOLOGY_ZONE, "y"), (TOPOLOGY_NODE, "c")]), &known).unwrap()), ["c"]);
        assert_eq!(
            nodes_in(&topology(&[("kubernetes.io/zone", "y")]), &known).unwrap_err().kind,
            ErrorKind::InvalidArgument
        );
        let unknown = TopologyRequirement { requisite: vec![topology(&[(TOPOLOGY_NODE, "z")])], preferred: vec![] };
        assert_eq!(places(&unknown, &known).unwrap_err().kind, ErrorKind::Exhausted);
    }
}
