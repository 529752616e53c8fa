//! What a CSI request asks for, checked: names, sizes, capabilities, topology. Everything that is wrong is reported
//! together.

use super::super::{TOPOLOGY_NODE, TOPOLOGY_ZONE};
use crate::control::volumes::{NewVolume, SizeRange};
use crate::csi::params;
use crate::error::{Error, ErrorKind, Result};
use ashlar_catalog::Node;
use ashlar_rpc::csi::volume_capability::{AccessType, access_mode::Mode};
use ashlar_rpc::csi::{CreateVolumeRequest, Topology, TopologyRequirement, VolumeCapability};
use ashlar_types::NodeName;

const FILESYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// Longest part of a caller's text that is repeated in a message.
const SHOWN_CHARS_MAX: usize = 64;

pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

pub(super) fn required(field: &str, text: &str) -> Result<()> {
    if text.is_empty() { Err(Error::invalid(format!("{field} is missing"))) } else { Ok(()) }
}

pub(super) fn new_volume(request: CreateVolumeRequest, known_nodes: &[Node]) -> Result<NewVolume> {
    let mut faults = Vec::new();
    let name = request.name.parse().map_err(|error| faults.push(format!("name: {error}"))).ok();
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
    let params = params::parse(&request.parameters).map_err(|more| faults.extend(more)).ok();
    faults.extend(
        request.mutable_parameters.keys().map(|key| format!("mutable parameter {:?} is not known", shown(key))),
    );
    if request.volume_content_source.is_some() {
        faults.push("volume_content_source is not offered".to_owned());
    }
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
    let (Some(name), Some(size), Some(params), Some(places), true) = (name, size, params, places, faults.is_empty())
    else {
        return Err(Error::invalid_all(&faults));
    };
    let Places { first_nodes, allowed_nodes } = places?;
    let parameters = request.parameters.into_iter().collect();
    Ok(NewVolume { name, size: size?, params, parameters, first_nodes, allowed_nodes })
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
        }
    }
    match capability.access_mode.as_ref().map(|access| access.mode()) {
        Some(Mode::SingleNodeWriter | Mode::SingleNodeReaderOnly) => {}
        None | Some(Mode::Unknown) => faults.push("access_mode is missing".to_owned()),
        Some(other) => faults.push(format!("access mode {} is not offered", other.as_str_name())),
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn node(name: &str, zone: &str) -> Node {
        let address = String::new();
        Node {
            name: name.parse().unwrap(),
            zone: Some(zone.parse().unwrap()),
            datapath_rpc: address.clone(),
            chunkserver_rpc: address.clone(),
            chunkserver_data: address,
        }
    }

    fn topology(segments: &[(&str, &str)]) -> Topology {
        Topology { segments: segments.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect::<HashMap<_, _>>() }
    }

    fn names(nodes: &[NodeName]) -> Vec<&str> {
        nodes.iter().map(NodeName::as_str).collect()
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
