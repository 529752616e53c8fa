//! What can go wrong in a round, drawn from the seed.

use crate::arena::{ALL, Arena, NODES, Way, Wire};
use anyhow::Result;
use ashlar_sim::Rng;
use std::fmt;
use std::time::Duration;

/// A writer is deaf or stopped for at least this long: longer than its lease (2 s).
const LONG_MIN_MS: u64 = 2_200;
const LONG_MAX_MS: u64 = 3_000;
const BRIEF_MIN_MS: u64 = 30;
const BRIEF_MAX_MS: u64 = 900;

/// What a daemon or a piece of network suffers; it lasts until the round heals it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill { daemon: String },
    PauseBriefly { daemon: String, length: Duration },
    PauseLong { daemon: String, length: Duration },
    Cut { what: &'static str, wires: Vec<Wire>, length: Duration },
    PowerCut,
}

/// Kinds that a long run must have seen, as the report names them.
pub const KINDS: [&str; 17] = [
    "kill chunkserver",
    "kill datapath",
    "kill control",
    "kill node service",
    "pause chunkserver",
    "pause datapath",
    "pause control",
    "pause beyond lease",
    "cut one link",
    "cut chunkserver off",
    "cut datapath off",
    "cut control off",
    "split nodes",
    "power cut",
    "kill what returns",
    "move volume",
    "usurp volume",
];

impl Fault {
    pub fn draw(rng: &mut Rng) -> Fault {
        let node = *rng.pick(&NODES);
        let on_node = |kind: &str| format!("{kind}-{node}");
        match rng.below(100) {
            0..14 => Fault::Kill { daemon: on_node("chunkserver") },
            14..26 => Fault::Kill { daemon: on_node("datapath") },
            26..33 => Fault::Kill { daemon: "control".to_owned() },
            33..35 => Fault::Kill { daemon: on_node("node") },
            35..52 => {
                let daemon = match rng.below(10) {
                    0..5 => on_node("chunkserver"),
                    5..9 => on_node("datapath"),
                    _ => "control".to_owned(),
                };
                Fault::PauseBriefly { daemon, length: millis(rng, BRIEF_MIN_MS, BRIEF_MAX_MS) }
            }
            52..62 => {
                let daemon = if rng.coin() { on_node("chunkserver") } else { on_node("datapath") };
                Fault::PauseLong { daemon, length: millis(rng, LONG_MIN_MS, LONG_MAX_MS) }
            }
            62..94 => Fault::draw_cut(rng, node),
            _ => Fault::PowerCut,
        }
    }

    fn draw_cut(rng: &mut Rng, node: &str) -> Fault {
        let way = *rng.pick(&[Way::ToServer, Way::FromServer, Way::Both]);
        let length = if rng.below(4) == 0 { millis(rng, LONG_MIN_MS, LONG_MAX_MS) } else { Duration::ZERO };
        let cut = |what, wires| Fault::Cut { what, wires, length };
        let (chunkserver, datapath) = (format!("chunkserver-{node}"), format!("datapath-{node}"));
        match rng.below(5) {
            0 => {
                let client = format!("datapath-{}", rng.pick(&NODES));
                cut("cut one link", vec![Wire { client, server: chunkserver, way }])
            }
            1 => {
                let mut wires: Vec<Wire> =
                    NODES.iter().map(|other| wire(&format!("datapath-{other}"), &chunkserver, way)).collect();
                if rng.coin() {
                    wires.push(wire(&chunkserver, "control", Way::Both));
                }
                cut("cut chunkserver off", wires)
            }
            2 => {
                let mut wires = datapath_and_control(&datapath);
                if rng.coin() {
                    wires.extend(NODES.iter().map(|other| wire(&datapath, &format!("chunkserver-{other}"), way)));
                }
                cut("cut datapath off", wires)
            }
            3 => {
                let mut wires = vec![];
                for other in NODES {
                    wires.extend(datapath_and_control(&format!("datapath-{other}")));
                    wires.push(wire(&format!("chunkserver-{other}"), "control", Way::Both));
                }
                cut("cut control off", wires)
            }
            _ => cut("split nodes", split(node, way, rng.coin())),
        }
    }

    pub fn kind(&self) -> &'static str {
        let (daemon, kinds) = match self {
            Fault::Cut { what, .. } => return what,
            Fault::PowerCut => return "power cut",
            Fault::PauseLong { .. } => return "pause beyond lease",
            Fault::Kill { daemon } => (daemon, &KINDS[0..4]),
            Fault::PauseBriefly { daemon, .. } => (daemon, &KINDS[4..7]),
        };
        let program = daemon.split('-').next().unwrap_or_default();
        kinds.iter().find(|kind| kind.contains(program)).expect("each of these daemons has a kind")
    }

    /// How long it must last at least.
    pub fn length(&self) -> Duration {
        match self {
            Fault::PauseBriefly { length, .. } | Fault::PauseLong { length, .. } | Fault::Cut { length, .. } => *length,
            _ => Duration::ZERO,
        }
    }

    pub fn strike(&self, arena: &mut Arena) -> Result<()> {
        match self {
            Fault::Kill { daemon } => arena.kill(daemon),
            Fault::PauseBriefly { daemon, .. } | Fault::PauseLong { daemon, .. } => arena.pause(daemon),
            Fault::Cut { wires, .. } => wires.iter().try_for_each(|wire| arena.cut(wire)),
            Fault::PowerCut => arena.kill(ALL),
        }
    }
}

/// The datapath asks the control plane, and the control plane calls the datapath.
pub fn datapath_and_control(datapath: &str) -> Vec<Wire> {
    vec![wire(datapath, "control", Way::Both), wire("control", datapath, Way::Both)]
}

pub fn wire(client: &str, server: &str, way: Way) -> Wire {
    Wire { client: client.to_owned(), server: server.to_owned(), way }
}

/// One node here, the others there; the control plane is on either side.
fn split(alone: &str, way: Way, control_is_there: bool) -> Vec<Wire> {
    let mut wires = vec![];
    for other in NODES.into_iter().filter(|other| *other != alone) {
        wires.push(wire(&format!("datapath-{alone}"), &format!("chunkserver-{other}"), way));
        wires.push(wire(&format!("datapath-{other}"), &format!("chunkserver-{alone}"), way));
        if !control_is_there {
            wires.extend(datapath_and_control(&format!("datapath-{other}")));
            wires.push(wire(&format!("chunkserver-{other}"), "control", Way::Both));
        }
    }
    if control_is_there {
        wires.extend(datapath_and_control(&format!("datapath-{alone}")));
        wires.push(wire(&format!("chunkserver-{alone}"), "control", Way::Both));
    }
    wires
}

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.range(low, high))
}

/// Nothing for a fault that lasts until something shows.
fn at_least(length: Duration) -> String {
    if length.is_zero() { String::new() } else { format!(" for {} ms at least", length.as_millis()) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { daemon } => write!(f, "SIGKILL {daemon}"),
            Fault::PauseBriefly { daemon, .. } | Fault::PauseLong { daemon, .. } => {
                write!(f, "SIGSTOP {daemon}{}", at_least(self.length()))
            }
            Fault::Cut { what, wires, length } => {
                let wires: Vec<String> = wires.iter().map(Wire::to_string).collect();
                write!(f, "{what}{}: {}", at_least(*length), wires.join(", "))
            }
            Fault::PowerCut => f.write_str("SIGKILL everything"),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.way {
            Way::ToServer => "-/->",
            Way::FromServer => "<-/-",
            Way::Both => "</>",
        };
        write!(f, "{} {arrow} {}", self.client, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_drawn_and_has_its_place_in_the_report() {
        let mut rng = Rng::named(1, "faults");
        let drawn: BTreeSet<&str> = (0..10_000).map(|_| Fault::draw(&mut rng).kind()).collect();
        // The last three are the rounds' own.
        let expected: BTreeSet<&str> = KINDS[..14].iter().copied().collect();
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_split_leaves_no_wire_between_the_sides() {
        for control_is_there in [false, true] {
            let wires = split("n1", Way::Both, control_is_there);
            let alone = |daemon: &str| daemon.ends_with("-n1") || (daemon == "control" && !control_is_there);
            assert!(wires.iter().all(|wire| alone(&wire.client) != alone(&wire.server)), "{wires:?}");
            assert_eq!(wires.len(), 4 + if control_is_there { 3 } else { 6 });
        }
    }
}
