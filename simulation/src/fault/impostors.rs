//! Begin and end of faults of identities, and the check of the cluster's answer: a node that was not wiped,
//! damaged, or told to leave keeps its place, and of two processes on one directory one ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::injector::Injector;
use super::strike::Scene;
use super::{Fault, Identities, Operations, What};
use crate::cluster::Cluster;

/// Nothing else may go wrong for this long while a directory is copied: a cluster that can't know that the
/// original lives would rightly take the copy for it.
const QUIET: Duration = Duration::from_secs(8);
/// Bound of the time in which a copy must find out that it is one.
pub(super) const COPY_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Record of what happened to the nodes' identities.
#[derive(Debug, Default)]
pub(super) struct Impostors {
    /// Nodes whose place was rightly given to another at some time, or may have been.
    let_go: BTreeSet<usize>,
    /// Number of guests so far.
    guests: usize,
    /// Number of moves so far.
    moves: u16,
    wrong: Option<String>,
}

impl Impostors {
    /// Takes in what a fault means for a node's place.
    pub fn note(&mut self, what: &What) {
        match what {
            What::Disks(disks) => self.let_go.insert(disks.node()),
            What::Operations(Operations::Decommission { node }) => self.let_go.insert(*node),
            _ => false,
        };
    }

    /// This node was removed from the cluster.
    pub fn removed(&mut self, node: usize) {
        if !self.let_go.contains(&node) {
            let what = format!("node {node} lived, was not told to leave, and was removed");
            self.wrong.get_or_insert(what);
        }
    }
}

impl Injector {
    /// Description of a wrong the cluster did to a node's identity, if it did one.
    pub fn wrong(&self) -> Option<&str> {
        self.impostors.wrong.as_deref()
    }

    /// True if such a fault may fall now.
    pub(super) fn may_impose(&self, cluster: &Cluster, now: Duration, what: &Identities) -> bool {
        let Identities::CopiedDirectory { node } = what else {
            return true;
        };
        let harmless = |what: &What| matches!(what, What::Operations(_) | What::Clocks(_));
        let until = (now + QUIET, u64::MAX);
        let coming = self.coming.range(..until).map(|(_, fault)| &fault.what);
        let mut others = coming.filter(|other| **other != What::Identities(what.clone()));
        let survey = self.operator.survey();
        let fresh = survey.at + Duration::from_secs(2) >= now;
        let known = survey.node(cluster, *node).is_some();
        fresh
            && known
            && survey.whole
            && survey.all_alive(cluster)
            && self.down.is_empty()
            && self.lasting.iter().all(|one| harmless(&one.what))
            && others.all(harmless)
    }

    /// Brings the fault. None of the nodes stays down.
    pub(super) fn impose(&mut self, scene: &mut Scene<'_, '_>, what: &Identities) -> Vec<usize> {
        match what {
            Identities::TakenAddress { node } => {
                let guest = self.next_guest();
                let seed = self.impostors.guests as u64;
                let at = scene.cluster.address_of(*node);
                scene
                    .cluster
                    .invite(scene.sim, &guest, seed, None, Some(at));
            }
            Identities::CopiedDirectory { node } => {
                let guest = self.next_guest();
                let seed = self.impostors.guests as u64;
                let disk = scene.machine(*node).disk().copy(seed);
                scene
                    .cluster
                    .invite(scene.sim, &guest, seed, Some(disk), None);
            }
            Identities::MovedAddresses { nodes } => {
                self.impostors.moves += 1;
                let moves = self.impostors.moves;
                self.relocate(scene, nodes, moves);
            }
        }
        self.count(what.kind());
        Vec::new()
    }

    /// It is over; `in_time` if it lasted for as long as it was to.
    pub(super) fn expose(&mut self, scene: &mut Scene<'_, '_>, what: &Identities, in_time: bool) {
        match what {
            Identities::TakenAddress { .. } => {
                scene.cluster.dismiss(scene.sim);
            }
            Identities::CopiedDirectory { node } => {
                let ended = scene.cluster.dismiss(scene.sim);
                let mut reasons = ended.iter().flatten();
                let refused = reasons.any(|why| why.contains("copy of this data directory"));
                if in_time && !refused {
                    let what =
                        format!("a copy of node {node}'s directory ran beside it: {ended:?}");
                    self.impostors.wrong.get_or_insert(what);
                }
            }
            Identities::MovedAddresses { nodes } => self.relocate(scene, nodes, 0),
        }
    }

    fn next_guest(&mut self) -> String {
        self.impostors.guests += 1;
        format!("guest-{}", self.impostors.guests)
    }

    /// Stops those that are up, all at once, and starts them again where they are now.
    fn relocate(&mut self, scene: &mut Scene<'_, '_>, nodes: &[usize], offset: u16) {
        let stopped = self.take_down(scene, nodes, false);
        for node in nodes {
            scene.cluster.relocate(*node, offset);
        }
        for node in stopped {
            self.down.remove(&node);
            scene.bring_up(node);
        }
    }
}

/// Duration of such a fault.
pub(super) fn lasts(fault: &Fault, what: &Identities) -> Duration {
    match what {
        Identities::CopiedDirectory { .. } => COPY_ENDS_WITHIN,
        _ => Duration::from_millis(fault.for_ms),
    }
}
