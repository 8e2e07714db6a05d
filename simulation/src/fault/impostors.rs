//! Begin and end of faults of identities, and the check of the cluster's answer. A node that was not wiped,
//! damaged, or told to leave keeps its place. Of two processes on one directory, one ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault_budget::other_of;
use super::injector::{Injector, Lasting};
use super::operator::Survey;
use super::start_fault::Scene;
use super::{Fault, Identities, Operations, What};
use crate::cluster::Cluster;

/// Time within which a copy must find out that it is one.
pub(super) const COPY_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Record of what happened to the nodes' identities.
#[derive(Debug, Default)]
pub(super) struct Impostors {
    /// Nodes whose place was rightly given to another node at some time, or may have been.
    let_go: BTreeSet<usize>,
    /// Number of guests so far.
    guests: usize,
    /// Number of moves so far.
    moves: u16,
    /// Nodes that moved, until the cluster knows them at their addresses.
    moving: BTreeSet<usize>,
    /// Ids at the addresses of two nodes before they were swapped, until the cluster knows both there.
    swapping: Option<[(usize, u64); 2]>,
    wrong: Option<String>,
}

impl Impostors {
    /// Records the effect of a fault on a node's place.
    pub fn note(&mut self, what: &What) {
        match what {
            What::Disks(disks) => self.let_go.insert(disks.node()),
            What::Operations(Operations::Decommission { node }) => self.let_go.insert(*node),
            _ => false,
        };
    }

    /// Checks if the cluster knows the addresses after the last moves and the last swap.
    pub fn update(&mut self, cluster: &Cluster, survey: &Survey) {
        self.moving
            .retain(|node| !survey.nodes.contains_key(&cluster.address_of(*node)));
        let knows = |(node, former): (usize, u64)| {
            let seen = survey.node(cluster, node);
            seen.is_some_and(|seen| seen.id != former)
        };
        self.swapping
            .take_if(|former| former.iter().copied().all(knows));
    }

    /// True if this fault must wait: it affects a node's identity, and the nodes' places are not known yet.
    pub fn holds_up(&self, what: &What) -> bool {
        match what {
            // A node that loses all data while it moves comes back as a stranger at another address. The old
            // node's place is then free only after `node_lost_after_ms`, which is longer than a run waits.
            What::Disks(_) if what.loses_copies() => {
                self.swapping.is_some() || !self.moving.is_empty()
            }
            What::Operations(Operations::Drain { .. } | Operations::Decommission { .. })
            | What::Identities(_) => self.swapping.is_some(),
            What::Operations(_)
            | What::Network(_)
            | What::Processes(_)
            | What::Disks(_)
            | What::Clocks(_) => false,
        }
    }

    /// Records that this node was removed from the cluster.
    pub fn removed(&mut self, node: usize) {
        if !self.let_go.contains(&node) {
            let what = format!("node {node} lived, was not told to leave, and was removed");
            self.wrong.get_or_insert(what);
        }
    }
}

impl Injector {
    /// Description of the cluster's first wrong answer, if there is one: it removed a live node, or let a
    /// copy run on.
    pub fn wrong(&self) -> Option<&str> {
        self.impostors.wrong.as_deref()
    }

    /// True if such a fault may start now.
    pub(super) fn may_impose(&self, cluster: &Cluster, now: Duration, what: &Identities) -> bool {
        match what {
            Identities::CopiedDirectory { node } => self.may_copy(cluster, now, *node),
            Identities::SwappedAddresses { .. } => self.may_swap(cluster, now),
            Identities::MovedAddresses { .. } => !self.atlas.is_hurt(),
            Identities::TakenAddress { .. } => true,
        }
    }

    fn may_copy(&self, cluster: &Cluster, now: Duration, node: usize) -> bool {
        let survey = self.operator.survey();
        let fresh = survey.at + Duration::from_secs(2) >= now;
        let known = survey.node(cluster, node).is_some();
        fresh
            && known
            && survey.whole
            && !is_damaged(cluster, node)
            && survey.all_alive(cluster)
            && self.down.is_empty()
            && self.operator.is_idle()
            && !self.lasting.iter().any(|one| hides_the_living(&one.what))
    }

    /// True while a copy runs, if this fault could hide the original from the cluster.
    pub(super) fn would_excuse_a_copy(&self, what: &What) -> bool {
        let is_copy = |one: &Lasting| {
            matches!(
                one.what,
                What::Identities(Identities::CopiedDirectory { .. })
            )
        };
        hides_the_living(what) && self.lasting.iter().any(is_copy)
    }

    /// True once no operation addresses a node by its id, and no wiped node has yet to come back under
    /// another id.
    fn may_swap(&self, cluster: &Cluster, now: Duration) -> bool {
        let survey = self.operator.survey();
        let mut lasting = self.lasting.iter();
        survey.at + Duration::from_secs(2) >= now
            && survey.all_alive(cluster)
            && self.operator.is_idle()
            && !self.atlas.is_mending()
            && !lasting.any(|one| matches!(one.what, What::Operations(_)))
    }

    /// Starts the fault. None of the nodes stays down.
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
                let copy = scene.machine(*node).directory().copy(&guest, seed);
                scene
                    .cluster
                    .invite(scene.sim, &guest, seed, Some(copy), None);
            }
            Identities::MovedAddresses { nodes } => {
                self.impostors.moves += 1;
                let moves = self.impostors.moves;
                self.relocate(scene, nodes, moves);
            }
            Identities::SwappedAddresses { nodes } => self.swap(scene, *nodes),
        }
        self.count(what.kind());
        Vec::new()
    }

    /// Ends the fault; `in_time` if it lasted for its full time.
    pub(super) fn expose(&mut self, scene: &mut Scene<'_, '_>, what: &Identities, in_time: bool) {
        match what {
            Identities::TakenAddress { .. } => {
                scene.cluster.dismiss(scene.sim);
            }
            Identities::CopiedDirectory { node } => {
                let ended = scene.cluster.dismiss(scene.sim);
                let mut reasons = ended.iter().flatten();
                let refused = reasons.any(|why| why.contains("this data directory is a copy"));
                if in_time && !refused {
                    let what =
                        format!("a copy of node {node}'s directory ran beside it: {ended:?}");
                    self.impostors.wrong.get_or_insert(what);
                }
            }
            Identities::MovedAddresses { nodes } => self.relocate(scene, nodes, 0),
            Identities::SwappedAddresses { .. } => {}
        }
    }

    /// Swaps the addresses of two nodes. Addresses belong to hosts here, so each node starts on the other's
    /// data directory.
    fn swap(&mut self, scene: &mut Scene<'_, '_>, nodes: [usize; 2]) {
        let survey = self.operator.survey();
        let id = |node| survey.node(scene.cluster, node).map_or(0, |seen| seen.id);
        self.impostors.swapping = Some(nodes.map(|node| (node, id(node))));
        let stopped = self.take_down(scene, &nodes, false);
        scene.cluster.exchange(nodes[0], nodes[1]);
        self.atlas.exchanged(nodes);
        let let_go = self.impostors.let_go.iter();
        self.impostors.let_go = let_go.map(|node| other_of(nodes, *node)).collect();
        for node in nodes {
            // A slow or full disk stays with its host.
            let fault = self.lasting_disk_fault(node);
            scene.machine(node).disk().set_fault(fault);
        }
        for node in stopped {
            self.down.remove(&node);
            scene.bring_up(node);
        }
    }

    fn next_guest(&mut self) -> String {
        self.impostors.guests += 1;
        format!("guest-{}", self.impostors.guests)
    }

    /// Stops the nodes that are up, all at once, and restarts them at their present addresses.
    fn relocate(&mut self, scene: &mut Scene<'_, '_>, nodes: &[usize], offset: u16) {
        let stopped = self.take_down(scene, nodes, false);
        for node in nodes {
            scene.cluster.relocate(*node, offset);
            self.impostors.moving.insert(*node);
        }
        for node in stopped {
            self.down.remove(&node);
            scene.bring_up(node);
        }
    }
}

/// True if the node's disk was damaged since it was new. A copy of it may be set aside: the guest then has no data
/// and no identity, and rightly joins the cluster as a new node, which a dismissal would take from it for good.
fn is_damaged(cluster: &Cluster, node: usize) -> bool {
    cluster
        .machine(cluster.name(node))
        .disk()
        .setbacks()
        .damaged
}

/// True for a fault that may keep the cluster from knowing that a node lives. The cluster would then rightly
/// accept a copy in the node's place.
fn hides_the_living(what: &What) -> bool {
    match what {
        What::Operations(operation) => matches!(operation, Operations::Decommission { .. }),
        what => !matches!(what, What::Clocks(_)),
    }
}

/// Duration of such a fault.
pub(super) fn lasts(fault: &Fault, what: &Identities) -> Duration {
    match what {
        Identities::CopiedDirectory { .. } => COPY_ENDS_WITHIN,
        _ => Duration::from_millis(fault.for_ms),
    }
}
