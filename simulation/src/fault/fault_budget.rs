//! Copies that may be lost at a time. Every run stays recoverable in principle, so that "not recovered" is
//! always a bug of the cluster.
//!
//! A wipe or damage hits one node alone. It requires that every partition and the metadata have three
//! replicas, all of them in sync. After a wipe the next loss may occur once the node is back under another id
//! and everything is in sync again. Damage may stay unread, so after it only the same node may be hurt, until
//! it is wiped. A fault that may not occur yet is postponed. Crashes and power losses may hit all nodes.

use std::time::Duration;

use super::operator::Survey;
use crate::cluster::Cluster;

/// Maximum age of the survey that a decision relies on.
const FRESH: Duration = Duration::from_secs(3);
/// Fewest replicas with which a copy may be lost.
pub(super) const REPLICAS: usize = 3;

/// The node that is hurt, if one is.
#[derive(Debug, Default)]
pub(super) struct FaultBudget {
    hurt: Option<Hurt>,
}

#[derive(Debug)]
struct Hurt {
    node: usize,
    /// Id of the node that lost everything, and the time of the loss; none while it is only damaged.
    wiped: Option<(u64, Duration)>,
}

impl FaultBudget {
    /// True if a copy on this node may be lost now.
    pub fn may_lose(&self, cluster: &Cluster, survey: &Survey, now: Duration, node: usize) -> bool {
        if survey.node(cluster, node).is_none() {
            return false;
        }
        match &self.hurt {
            Some(hurt) => hurt.node == node && hurt.wiped.is_none(),
            None => {
                survey.at + FRESH >= now
                    && survey.whole
                    && survey.all_alive(cluster)
                    && survey.fewest_replicas >= REPLICAS
            }
        }
    }

    /// Records that something on this node is damaged.
    pub fn damaged(&mut self, node: usize) {
        self.hurt = Some(Hurt { node, wiped: None });
    }

    /// Records that this node lost everything.
    pub fn wiped(&mut self, cluster: &Cluster, survey: &Survey, now: Duration, node: usize) {
        let id = survey.node(cluster, node).map_or(0, |seen| seen.id);
        self.hurt = Some(Hurt {
            node,
            wiped: Some((id, now)),
        });
    }

    /// True while a copy is lost, or may be found lost.
    pub fn is_hurt(&self) -> bool {
        self.hurt.is_some()
    }

    /// True while a node that lost everything has not come back as another.
    pub fn is_mending(&self) -> bool {
        self.hurt.as_ref().is_some_and(|hurt| hurt.wiped.is_some())
    }

    /// Records that these two nodes exchanged their disks.
    pub fn exchanged(&mut self, nodes: [usize; 2]) {
        if let Some(hurt) = &mut self.hurt {
            hurt.node = other_of(nodes, hurt.node);
        }
    }

    /// Clears the loss once it has been made good.
    pub fn update(&mut self, cluster: &Cluster, survey: &Survey) {
        let Some(hurt) = &self.hurt else {
            return;
        };
        let Some((former, since)) = hurt.wiped else {
            return;
        };
        let successor = survey.node(cluster, hurt.node);
        let is_back = successor.is_some_and(|seen| seen.id != former && seen.alive);
        if is_back && survey.at > since && survey.whole && survey.all_alive(cluster) {
            self.hurt = None;
        }
    }
}

/// Node that has a node's disk after these two exchanged theirs.
pub(super) fn other_of([one, other]: [usize; 2], node: usize) -> usize {
    match node {
        node if node == one => other,
        node if node == other => one,
        node => node,
    }
}
