//! Replicas of partitions. The metadata group keeps the nodes that should hold a partition, the replicas in its
//! Raft membership, and the damaged ones.

use std::collections::BTreeSet;

use ropewalk_proto::command::{CommandError, SETTLE_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::{MetaPartition, MoveReplicas, NodeState, ReplicaDamaged, SettleReplicas};

use super::{Apply, Outcome};
use crate::meta::frozen::MAX_RETIRING;
use crate::meta::machine::{State, state_of};

/// First version in which the metadata knows damaged replicas.
const DAMAGED_SINCE_VERSION: u32 = 2;

impl Apply for MoveReplicas {
    fn since_version(&self) -> u32 {
        1
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.move_replicas(self))
    }
}

impl Apply for SettleReplicas {
    fn since_version(&self) -> u32 {
        match self.only_with_all_wished {
            true => SETTLE_SINCE_VERSION,
            false => 1,
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.settle_replicas(self))
    }
}

impl Apply for ReplicaDamaged {
    fn since_version(&self) -> u32 {
        DAMAGED_SINCE_VERSION
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError> {
        Ok(state.replica_damaged(self))
    }
}

impl State {
    /// Sets the desired nodes. A node that holds a replica keeps it. Any other node gets a new replica, even
    /// if it has a retiring one: a replica id is used once.
    fn move_replicas(&mut self, command: &MoveReplicas) -> Outcome {
        let group = GroupId(command.group_id);
        let partition = self.topics.partition(group).ok_or_else(|| unknown(group))?;
        let held = partition.replicas.clone();
        if held
            .iter()
            .map(|r| r.node_id)
            .eq(command.node_ids.iter().copied())
        {
            return Ok(None);
        }
        if partition.retiring.len() >= MAX_RETIRING {
            return Err(WireError::new(
                ErrorCode::Overloaded,
                format!(
                    "partition of group {group} already has {MAX_RETIRING} replicas that are \
                     being removed; wait until they are gone"
                ),
            ));
        }
        self.check_nodes(group, &command.node_ids)?;
        let mut wish = Vec::with_capacity(command.node_ids.len());
        for node in &command.node_ids {
            let kept = held.iter().find(|replica| replica.node_id == *node);
            wish.push(match kept {
                Some(replica) => *replica,
                None => self.draw_replica(NodeId(*node)),
            });
        }
        if let Some(partition) = self.topics.partition_mut(group) {
            let leaving = held.into_iter().filter(|replica| !wish.contains(replica));
            partition.retiring.extend(leaving);
            partition.replicas = wish;
            self.topics.groups.touch(group);
        }
        Ok(None)
    }

    fn check_nodes(&self, group: GroupId, nodes: &[u64]) -> Result<(), WireError> {
        let (topic, number) = self
            .topics
            .groups
            .get(&group)
            .ok_or_else(|| unknown(group))?;
        let settings = self
            .topics
            .by_name
            .get(topic)
            .and_then(|t| t.settings.as_ref());
        let replicas = settings.map_or(0, |settings| settings.replicas) as usize;
        let distinct: BTreeSet<u64> = nodes.iter().copied().collect();
        if nodes.len() != replicas || distinct.len() != replicas {
            return Err(WireError::new(
                ErrorCode::InvalidRequest,
                format!(
                    "partition {topic}/{number} has {replicas} replicas; name that number of \
                     different nodes"
                ),
            ));
        }
        let partition = self.topics.partition(group).ok_or_else(|| unknown(group))?;
        for &node in nodes {
            let holds = partition.replicas.iter().any(|r| r.node_id == node);
            let state = self.nodes.by_id.get(&NodeId(node)).map(state_of);
            match state {
                None | Some(NodeState::Removed) => {
                    return Err(WireError::new(
                        ErrorCode::UnknownNode,
                        format!(
                            "partition {topic}/{number} cannot move to node {node}, which does \
                             not exist; `ropewalk cluster status` lists the nodes"
                        ),
                    ));
                }
                Some(NodeState::Decommissioning) if !holds => {
                    return Err(WireError::new(
                        ErrorCode::Unsafe,
                        format!(
                            "partition {topic}/{number} cannot move to node {node}, which is \
                             being decommissioned; name another node or recommission that one"
                        ),
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes retiring replicas that are no longer in the reported membership. Ignores a membership without
    /// all desired replicas, if the command asks for that. Until the membership has them all, a leader with
    /// an older view may still add a retiring replica.
    fn settle_replicas(&mut self, command: &SettleReplicas) -> Outcome {
        let group = GroupId(command.group_id);
        let partition = self.topics.partition_mut(group);
        let partition = partition.ok_or_else(|| unknown(group))?;
        let before = partition.retiring.len();
        let members = &command.replica_ids;
        let mut wished = partition.replicas.iter();
        if command.only_with_all_wished && wished.any(|wish| !members.contains(&wish.replica_id)) {
            return Ok(None);
        }
        partition
            .retiring
            .retain(|replica| members.contains(&replica.replica_id));
        if partition.retiring.len() != before {
            forget_gone(partition);
            self.topics.groups.touch(group);
            self.replace_damaged(group);
        }
        Ok(None)
    }

    /// Marks a replica as damaged until it is gone.
    fn replica_damaged(&mut self, command: &ReplicaDamaged) -> Outcome {
        let group = GroupId(command.group_id);
        let partition = self.topics.partition_mut(group);
        let partition = partition.ok_or_else(|| unknown(group))?;
        let replica = command.replica_id;
        let mut held = partition.replicas.iter().chain(&partition.retiring);
        let news = !partition.damaged.contains(&replica);
        if news && held.any(|held| held.replica_id == replica) {
            partition.damaged.push(replica);
            self.topics.groups.touch(group);
            self.replace_damaged(group);
        }
        Ok(None)
    }

    /// Replaces each damaged replica in the desired state by a new one on the same node. Replaces none if a
    /// majority may be damaged: the group could not change its membership, and the damaged replicas hold the
    /// only data.
    fn replace_damaged(&mut self, group: GroupId) {
        let Some(partition) = self.topics.partition(group) else {
            return;
        };
        if beyond_repair(partition) {
            return;
        }
        let damaged = partition.replicas.iter();
        let damaged = damaged.filter(|replica| partition.damaged.contains(&replica.replica_id));
        let room = MAX_RETIRING.saturating_sub(partition.retiring.len());
        let damaged: Vec<_> = damaged.copied().take(room).collect();
        for old in damaged {
            let fresh = self.draw_replica(NodeId(old.node_id));
            let Some(partition) = self.topics.partition_mut(group) else {
                return;
            };
            let replicas = partition.replicas.iter_mut();
            for replica in replicas.filter(|replica| **replica == old) {
                *replica = fresh;
            }
            partition.retiring.push(old);
            self.topics.groups.touch(group);
        }
    }
}

/// True if the nodes without damaged replicas of a partition may fall short of a majority. It counts nodes,
/// not replicas: a damaged successor of a damaged replica adds nothing.
fn beyond_repair(partition: &MetaPartition) -> bool {
    let held = partition.replicas.iter().chain(&partition.retiring);
    let damaged = held.filter(|replica| partition.damaged.contains(&replica.replica_id));
    let nodes: BTreeSet<u64> = damaged.map(|replica| replica.node_id).collect();
    nodes.len() * 2 >= partition.replicas.len()
}

/// Drops the marks of damaged replicas that are neither desired nor retiring.
fn forget_gone(partition: &mut MetaPartition) {
    let held = partition.replicas.iter().chain(&partition.retiring);
    let held: BTreeSet<u64> = held.map(|replica| replica.replica_id).collect();
    partition.damaged.retain(|replica| held.contains(replica));
}

fn unknown(group: GroupId) -> WireError {
    WireError::new(
        ErrorCode::UnknownPartition,
        format!("partition of group {group} does not exist; its topic may have been deleted"),
    )
}
