//! The leaders of all groups, as they report themselves, and the time each node was last heard from.
//!
//! Routing hints, never proofs: only Raft knows the leader. Nothing here is kept on the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ropewalk_proto::ids::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;

/// The last report of a group by its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The node that leads.
    pub node: NodeId,
    /// Its Raft term.
    pub epoch: u64,
    /// The nodes whose replicas are in sync with it, including itself.
    pub in_sync: Vec<NodeId>,
    /// The first offset that can be read.
    pub log_start_offset: u64,
    /// The offset after the last committed record.
    pub high_watermark: u64,
    /// Bytes of its log; 0 if a node of an older version leads.
    pub log_bytes: u64,
}

impl LeaderInfo {
    /// True if the other nodes should hear of the difference at once.
    fn differs(&self, other: &LeaderInfo) -> bool {
        (self.node, self.epoch) != (other.node, other.epoch) || self.in_sync != other.in_sync
    }
}

/// The leaders of all groups, as known on this node.
#[derive(Debug, Clone)]
pub struct LeaderTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dead_after: Duration,
    /// Start of this process's listening.
    began: Instant,
    state: RwLock<State>,
    /// Counts the changes to this node's leaderships that others should hear of at once.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    own: NodeId,
    /// The groups that this node leads.
    local: BTreeMap<GroupId, LeaderInfo>,
    /// The groups that other nodes report to lead.
    remote: HashMap<GroupId, LeaderInfo>,
    heard: BTreeMap<NodeId, Instant>,
    /// Nodes whose disks take no writes.
    full: BTreeSet<NodeId>,
}

impl LeaderTable {
    /// An empty table. A node not heard from for `dead_after_ms` counts as leading nothing.
    pub fn new(dead_after_ms: u64) -> LeaderTable {
        LeaderTable {
            inner: Arc::new(Inner {
                dead_after: Duration::from_millis(dead_after_ms),
                began: Instant::now(),
                state: RwLock::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// The leader of a group, unless its node has fallen silent. This node's own leaderships take precedence:
    /// its replica learns of a newer leader through Raft and then releases the group.
    pub fn get(&self, group: GroupId) -> Option<LeaderInfo> {
        let state = self.inner.state.read();
        let remote = state.remote.get(&group);
        let remote = remote.filter(|info| self.fresh(&state, info.node));
        state.local.get(&group).or(remote).cloned()
    }

    /// Sets the report of `group`. Called by the leader's room whenever its report changes.
    pub fn lead(&self, group: GroupId, info: LeaderInfo) {
        let old = self.inner.state.write().local.insert(group, info.clone());
        if old.is_none_or(|old| old.differs(&info)) {
            self.inner.changes.send_modify(|count| *count += 1);
        }
    }

    /// Called by the room that no longer leads `group`.
    pub fn release(&self, group: GroupId) {
        if self.inner.state.write().local.remove(&group).is_some() {
            self.inner.changes.send_modify(|count| *count += 1);
        }
    }

    /// The groups that this node leads.
    pub fn led(&self) -> BTreeMap<GroupId, LeaderInfo> {
        self.inner.state.read().local.clone()
    }

    /// Number of groups that this node leads.
    pub(super) fn led_count(&self) -> usize {
        self.inner.state.read().local.len()
    }

    /// True if a node was heard from within the bound. Always true for this node.
    pub fn alive(&self, node: NodeId) -> bool {
        self.fresh(&self.inner.state.read(), node)
    }

    /// True if a node was heard from within the bound, or if this process has listened for less.
    pub(super) fn may_live(&self, node: NodeId) -> bool {
        self.alive(node) || self.inner.began.elapsed() < self.inner.dead_after
    }

    /// Time at which a node was last heard from, if ever since this process began.
    pub fn last_heard(&self, node: NodeId) -> Option<Instant> {
        self.inner.state.read().heard.get(&node).copied()
    }

    /// Changes when this node begins or ceases to lead a group, or when a group's in-sync replicas change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Sets the node that owns this table.
    pub(super) fn set_own(&self, node: NodeId) {
        self.inner.state.write().own = node;
    }

    /// Records the groups that `node` reports to lead; `full` means that it leads no others. A report
    /// replaces the node's previous one, so a report forged in its name lasts only until its next one.
    pub(super) fn heard(&self, node: NodeId, leading: Vec<(GroupId, LeaderInfo)>, full: bool) {
        let mut state = self.inner.state.write();
        state.heard.insert(node, Instant::now());
        if full {
            let named: BTreeSet<GroupId> = leading.iter().map(|(group, _)| *group).collect();
            state
                .remote
                .retain(|group, info| info.node != node || named.contains(group));
        }
        for (group, info) in leading {
            let newer = state
                .remote
                .get(&group)
                .is_none_or(|known| known.node == node || known.epoch <= info.epoch);
            if newer {
                state.remote.insert(group, info);
            }
        }
    }

    /// Records `node`'s report about its disk; `full` means that the disk takes no writes.
    pub(super) fn heard_of_disk(&self, node: NodeId, full: bool) {
        let mut state = self.inner.state.write();
        if full {
            state.full.insert(node);
        } else {
            state.full.remove(&node);
        }
    }

    /// True unless another node has reported that its disk takes no writes.
    pub fn takes_writes(&self, node: NodeId) -> bool {
        !self.inner.state.read().full.contains(&node)
    }

    /// Forgets groups and nodes that no longer exist.
    pub(super) fn retain(&self, groups: impl Fn(GroupId) -> bool, nodes: impl Fn(NodeId) -> bool) {
        let mut state = self.inner.state.write();
        state
            .remote
            .retain(|group, info| groups(*group) && nodes(info.node));
        state.heard.retain(|node, _| nodes(*node));
        state.full.retain(|node| nodes(*node));
    }

    fn fresh(&self, state: &State, node: NodeId) -> bool {
        let heard = state.heard.get(&node);
        node == state.own || heard.is_some_and(|at| at.elapsed() < self.inner.dead_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn info(node: u64, epoch: u64) -> LeaderInfo {
        LeaderInfo {
            node: NodeId(node),
            epoch,
            in_sync: vec![NodeId(node)],
            log_start_offset: 0,
            high_watermark: 10,
            log_bytes: 0,
        }
    }

    fn table() -> LeaderTable {
        let table = LeaderTable::new(3_000);
        table.set_own(NodeId(1));
        table
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_falls_silent_leads_nothing_until_it_speaks_again() {
        let table = table();
        table.heard(NodeId(2), vec![(GROUP, info(2, 5))], true);
        assert_eq!(table.get(GROUP), Some(info(2, 5)));
        tokio::time::advance(Duration::from_millis(3_001)).await;
        assert!(!table.alive(NodeId(2)));
        assert_eq!(table.get(GROUP), None);
        table.heard(NodeId(2), vec![(GROUP, info(2, 5))], true);
        assert_eq!(table.get(GROUP), Some(info(2, 5)));
    }

    #[tokio::test]
    async fn the_newer_epoch_wins_whoever_speaks_last() {
        let table = table();
        table.heard(NodeId(2), vec![(GROUP, info(2, 6))], true);
        table.heard(NodeId(3), vec![(GROUP, info(3, 5))], true);
        assert_eq!(table.get(GROUP), Some(info(2, 6)));
    }

    #[tokio::test]
    async fn a_node_takes_back_an_epoch_that_was_said_in_its_name() {
        let table = table();
        table.heard(NodeId(2), vec![(GROUP, info(2, 1 << 39))], false);
        table.heard(NodeId(2), vec![(GROUP, info(2, 6))], true);
        assert_eq!(table.get(GROUP), Some(info(2, 6)));
        table.heard(NodeId(2), vec![(GROUP, info(2, 1 << 39))], false);
        table.heard(NodeId(2), Vec::new(), true);
        table.heard(NodeId(3), vec![(GROUP, info(3, 7))], true);
        assert_eq!(table.get(GROUP), Some(info(3, 7)));
    }

    #[tokio::test]
    async fn a_nodes_own_leadership_beats_what_others_say_at_any_epoch() {
        let table = table();
        table.heard(NodeId(2), vec![(GROUP, info(2, 1 << 48))], true);
        table.lead(GROUP, info(1, 4));
        assert_eq!(table.get(GROUP), Some(info(1, 4)));
        table.release(GROUP);
        assert_eq!(table.get(GROUP), Some(info(2, 1 << 48)));
    }

    #[tokio::test]
    async fn a_full_report_ends_what_it_does_not_name() {
        let table = table();
        table.heard(NodeId(2), vec![(GROUP, info(2, 6))], true);
        table.heard(NodeId(2), Vec::new(), false);
        assert_eq!(table.get(GROUP), Some(info(2, 6)));
        table.heard(NodeId(2), Vec::new(), true);
        assert_eq!(table.get(GROUP), None);
    }

    #[tokio::test]
    async fn only_what_routing_needs_at_once_counts_as_a_change() {
        let table = table();
        let changes = table.changes();
        table.lead(GROUP, info(1, 4));
        let mut moved = info(1, 4);
        moved.high_watermark = 99;
        table.lead(GROUP, moved);
        assert_eq!(*changes.borrow(), 1);
        table.lead(GROUP, info(1, 5));
        table.release(GROUP);
        table.release(GROUP);
        assert_eq!(*changes.borrow(), 3);
    }
}
