//! Parameters of volumes, as typed structs: those of a StorageClass, and those of a VolumeAttributesClass, which may
//! change later. Unknown keys are refused, and everything that is wrong is reported at once.
//!
//! | parameter | values | default | may change | meaning |
//! | --- | --- | --- | --- | --- |
//! | `replicas` | 1..=3 | 3 | no | copies of each chunk, on as many nodes |
//! | `minReplicas` | 1..=replicas | 2, at most `replicas` | if detached | below this many in-sync copies writes wait |
//! | `zones` | names, `a,b,c` | any | no | only in these zones |
//! | `spread` | node, zone, zone-preferred | node | no | which copies may share what, see [`Spread`] |
//! | `class` | critical, high, normal, low | normal | yes | which volume goes first |
//! | `iopsLimit` | 1..=10^9, `none` | none | yes | reads, writes and discards per second |
//! | `iopsBurst` | 1..=10^9, `none` | `iopsLimit` | yes | how many may go at once after a pause |
//! | `bandwidthLimit` | `4Ki`..=`1Ti`, `none` | none | yes | bytes read and written per second |
//! | `bandwidthBurst` | `4Ki`..=`1Ti`, `none` | `bandwidthLimit` | yes | how many may go at once after a pause |
//! | `csi.storage.k8s.io/…` | any | | | what Kubernetes' provisioner adds; not looked at |

mod changes;

use ashlar_catalog::Settings;
use ashlar_plan::repair;
use ashlar_types::ZoneName;
pub use changes::Changes;
use changes::Wish;
use std::collections::BTreeMap;

const REPLICAS_MAX: u8 = 3;
const REPLICAS_DEFAULT: u8 = 3;
const MIN_REPLICAS_DEFAULT: u8 = 2;
const KUBERNETES_PREFIX: &str = "csi.storage.k8s.io/";
const ZONES_MAX: usize = 32;
const KNOWN: &str = "replicas, minReplicas, zones, spread, class, iopsLimit, iopsBurst, bandwidthLimit, bandwidthBurst";
/// What a volume's copies were placed by.
const FIXED: [&str; 3] = ["replicas", "zones", "spread"];
/// Longest part of a user's text that is repeated in a message.
const SHOWN_CHARS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    pub replicas: u8,
    pub min_replicas: u8,
    /// Sorted; empty: any.
    pub zones: Vec<ZoneName>,
    pub spread: Spread,
    pub settings: Settings,
}

/// What no two copies of a volume share. Two on one node there never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// The node. Zones where that is possible, and nobody is told where it is not.
    #[default]
    Node,
    /// The zone, whatever happens: where it is not possible no volume is made, and a repair waits.
    Zone,
    /// The zone where that is possible. Where it is not, the volume's condition says so.
    ZonePreferred,
}

impl Params {
    /// For the planner, which repairs by what the volume was made by.
    pub fn wish(&self) -> repair::Wish {
        repair::Wish { zones: self.zones.clone(), spread_zones: self.spread == Spread::Zone }
    }
}

/// Parameters of a new volume, or everything that is wrong with them.
pub fn parse<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Params, Vec<String>> {
    parse_with(given, [])
}

/// The same with mutable parameters beside them, which count where a key is in both.
pub fn parse_with<'a>(
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
    mutable: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Params, Vec<String>> {
    let mut parsed = Parsed::default();
    parsed.take_all(given, true);
    parsed.take_all(mutable, false);
    let Parsed { replicas, zones, spread, changes, mut faults } = parsed;
    let replicas = replicas.unwrap_or(REPLICAS_DEFAULT);
    let min_replicas = changes.min_replicas.unwrap_or(MIN_REPLICAS_DEFAULT.min(replicas));
    if min_replicas > replicas {
        faults.push(format!("parameter minReplicas is {min_replicas}, at most replicas ({replicas}) is possible"));
    }
    if spread == Spread::Zone && !zones.is_empty() && zones.len() < usize::from(replicas) {
        faults.push(format!(
            "parameter spread is zone and needs as many zones as replicas ({replicas}), parameter zones names {}: name \
             more, or set spread to zone-preferred",
            zones.len()
        ));
    }
    let settings = changes.apply(Settings::default()).map_err(|more| faults.extend(more)).unwrap_or_default();
    if faults.is_empty() { Ok(Params { replicas, min_replicas, zones, spread, settings }) } else { Err(faults) }
}

/// Changes of a volume that there is, or everything that is wrong with them.
pub fn parse_changes<'a>(mutable: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Changes, Vec<String>> {
    let mut parsed = Parsed::default();
    parsed.take_all(mutable, false);
    if parsed.faults.is_empty() { Ok(parsed.changes) } else { Err(parsed.faults) }
}

/// What is wrong with parameters where there are none of ours: snapshots and their groups have nothing to set.
pub fn refuse_all<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    let sorted: BTreeMap<_, _> = given.into_iter().collect();
    let ours = sorted.keys().filter(|key| !key.starts_with(KUBERNETES_PREFIX));
    ours.map(|key| format!("parameter {:?} is not known, and none is: leave it out", shown(key))).collect()
}

#[derive(Default)]
struct Parsed {
    replicas: Option<u8>,
    zones: Vec<ZoneName>,
    spread: Spread,
    changes: Changes,
    faults: Vec<String>,
}

impl Parsed {
    /// Sorted, so that the same request is answered with the same words.
    fn take_all<'a>(&mut self, given: impl IntoIterator<Item = (&'a String, &'a String)>, is_new: bool) {
        for (key, value) in given.into_iter().collect::<BTreeMap<_, _>>() {
            if key.starts_with(KUBERNETES_PREFIX) {
                continue;
            }
            if FIXED.contains(&key.as_str()) && !is_new {
                self.faults.push(format!("parameter {key} is fixed when a volume is made and cannot change"));
            } else if let Err(allowed) = self.take(key, value) {
                self.faults.push(match allowed {
                    Some(allowed) => format!("parameter {key} is {:?}, allowed is {allowed}", shown(value)),
                    None => format!("parameter {:?} is not known, known are {KNOWN}", shown(key)),
                });
            }
        }
    }

    /// The error says what is allowed; none: the key is not known.
    fn take(&mut self, key: &str, value: &str) -> Result<(), Option<String>> {
        let changes = &mut self.changes;
        match key {
            "replicas" => self.replicas = Some(replicas(value)?),
            "zones" => self.zones = zones(value)?,
            "spread" => self.spread = spread(value)?,
            "minReplicas" => changes.min_replicas = Some(replicas(value)?),
            "class" => changes.class = Some(changes::class(value)?),
            "iopsLimit" => changes.iops_limit = Wish::operations(value)?,
            "iopsBurst" => changes.iops_burst = Wish::operations(value)?,
            "bandwidthLimit" => changes.bandwidth_limit = Wish::bytes(value)?,
            "bandwidthBurst" => changes.bandwidth_burst = Wish::bytes(value)?,
            _ => return Err(None),
        }
        Ok(())
    }
}

fn replicas(value: &str) -> Result<u8, String> {
    let number = value.parse::<u8>().ok().filter(|number| (1..=REPLICAS_MAX).contains(number));
    number.ok_or_else(|| format!("1 to {REPLICAS_MAX}"))
}

fn zones(value: &str) -> Result<Vec<ZoneName>, String> {
    let named = value.split(',').map(|name| name.parse().ok()).collect::<Option<Vec<ZoneName>>>();
    let mut zones = named.unwrap_or_default();
    zones.sort();
    let is_set = zones.windows(2).all(|pair| pair[0] != pair[1]);
    let fits = (1..=ZONES_MAX).contains(&zones.len()) && is_set;
    if fits { Ok(zones) } else { Err(format!("1 to {ZONES_MAX} names of zones such as a,b,c, none twice")) }
}

fn spread(value: &str) -> Result<Spread, String> {
    match value {
        "node" => Ok(Spread::Node),
        "zone" => Ok(Spread::Zone),
        "zone-preferred" => Ok(Spread::ZonePreferred),
        _ => Err("node, zone or zone-preferred".to_owned()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
