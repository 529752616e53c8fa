//! Partner sets: which nodes share volumes. A volume is lost only if all nodes of one such set lose their disk at once,
//! so few sets mean few combinations of failures that lose anything (copysets); as many partners as there are nodes
//! mean that a lost node is copied from and to everywhere. The bound on partners (scatter width) is between the two.

use ashlar_types::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// The partner sets that are in use.
#[derive(Clone, Debug)]
pub struct Partners {
    of: BTreeMap<NodeName, BTreeSet<NodeName>>,
    sets: BTreeSet<Vec<NodeName>>,
    max: usize,
}

impl Default for Partners {
    /// None are in use, and there may be any number.
    fn default() -> Partners {
        Partners::new(usize::MAX)
    }
}

impl Partners {
    /// A node shall have at most `max` partners.
    pub fn new(max: usize) -> Partners {
        Partners { of: BTreeMap::new(), sets: BTreeSet::new(), max }
    }

    /// These nodes hold a volume together.
    pub fn add(&mut self, nodes: &[&NodeName]) {
        let set: BTreeSet<&NodeName> = nodes.iter().copied().collect();
        for &node in &set {
            let partners = self.of.entry(node.clone()).or_default();
            partners.extend(set.iter().filter(|other| **other != node).map(|&other| other.clone()));
        }
        self.sets.insert(set.into_iter().cloned().collect());
    }

    /// How many partners the node has.
    pub fn width(&self, node: &NodeName) -> usize {
        self.of.get(node).map_or(0, BTreeSet::len)
    }

    pub fn set_count(&self) -> usize {
        self.sets.len()
    }

    /// How many pairs would become partners although one of the two has as many as it may, were `node` to join these.
    pub(super) fn above_bound(&self, node: &NodeName, others: &[&NodeName]) -> usize {
        let full = |node: &NodeName| self.width(node) >= self.max;
        let known = |other: &NodeName| self.of.get(node).is_some_and(|partners| partners.contains(other));
        others.iter().filter(|other| !known(other) && (full(node) || full(other))).count()
    }

    /// Whether no volume has just these nodes.
    pub(super) fn is_new(&self, node: &NodeName, others: &[&NodeName]) -> bool {
        let set: BTreeSet<&NodeName> = others.iter().copied().chain([node]).collect();
        !self.sets.contains(&set.into_iter().cloned().collect::<Vec<NodeName>>())
    }
}
