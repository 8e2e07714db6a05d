//! The choice of the next moves: away from nodes that are lost or leaving, and onto nodes that hold less than
//! their share.
//!
//! Pure. It sets no pace: the controller starts as many moves at a time as it allows, and asks again.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::NodeState;

use super::placement::{Key, Ring, Slot, even_leaders, next_slot};
use super::view::MetadataImage;

/// The moves to make next: each a group and its desired nodes, the preferred leader first. `lost` are nodes
/// that have been silent for too long. Replicas on lost or leaving nodes move first. Then come moves that
/// even out the replicas of each node, then those that even out the preferred leaders.
pub fn rebalance(view: &MetadataImage, lost: &BTreeSet<NodeId>) -> Vec<(GroupId, Vec<NodeId>)> {
    let mut plan = Plan::of(view, lost);
    plan.replace_bad();
    if plan.moves().is_empty() {
        plan.share_out();
    }
    if plan.moves().is_empty() && plan.partitions.iter().all(|p| !p.moving) {
        plan.share_leaders();
    }
    plan.moves()
}

#[derive(Debug)]
struct Plan {
    partitions: Vec<Partition>,
    /// The nodes that can take replicas.
    slots: Vec<Slot>,
    racks: BTreeMap<NodeId, String>,
    /// The nodes that may keep the replicas they hold.
    keep: BTreeSet<NodeId>,
    ring: Ring,
}

#[derive(Debug)]
struct Partition {
    group: GroupId,
    key: Key,
    was: Vec<NodeId>,
    now: Vec<NodeId>,
    /// True if a move is already in progress.
    moving: bool,
}

impl Plan {
    fn of(view: &MetadataImage, lost: &BTreeSet<NodeId>) -> Plan {
        let live = view.nodes.values().filter(|node| !lost.contains(&node.id));
        let active = live.clone().filter(|node| node.state == NodeState::Active);
        let mut slots: Vec<Slot> = active.map(|n| Slot::new(n.id, &n.rack)).collect();
        let staying =
            live.filter(|node| matches!(node.state, NodeState::Active | NodeState::Draining));
        let partitions = partitions(view);
        for slot in &mut slots {
            let holds = partitions.iter().filter(|p| p.now.contains(&slot.node));
            slot.replicas = holds.count();
        }
        Plan {
            ring: Ring::new(slots.iter().map(|slot| slot.node)),
            keep: staying.map(|node| node.id).collect(),
            racks: view
                .nodes
                .values()
                .map(|n| (n.id, n.rack.clone()))
                .collect(),
            partitions,
            slots,
        }
    }

    fn moves(&self) -> Vec<(GroupId, Vec<NodeId>)> {
        let changed = self.partitions.iter().filter(|p| p.was != p.now);
        changed.map(|p| (p.group, p.now.clone())).collect()
    }

    /// Reassigns the replicas on nodes that are lost or leaving to the remaining ones.
    fn replace_bad(&mut self) {
        for partition in &mut self.partitions {
            for position in 0..partition.now.len() {
                let bad = partition.now.get(position);
                if bad.is_none_or(|node| self.keep.contains(node)) {
                    continue;
                }
                let others = partition.now.iter().enumerate();
                let others = others.filter(|(other, _)| *other != position);
                let racks = others.filter_map(|(_, node)| self.racks.get(node));
                let racks = racks.map(String::as_str).collect();
                let turns = self.ring.turns(partition.key);
                let best = next_slot(&mut self.slots, &partition.now, &racks, &turns);
                if let Some(slot) = best
                    && let Some(place) = partition.now.get_mut(position)
                {
                    *place = slot.node;
                    slot.replicas += 1;
                }
            }
        }
    }

    /// Moves replicas, one by one, from the nodes with the most to those with the fewest.
    fn share_out(&mut self) {
        let even = |slots: &[Slot]| {
            let most = slots.iter().map(|slot| slot.replicas).max();
            let least = slots.iter().map(|slot| slot.replicas).min();
            most.unwrap_or_default() < least.unwrap_or_default() + 2
        };
        if even(&self.slots) {
            return;
        }
        let turns = self.partitions.iter().map(|p| self.ring.turns(p.key));
        let turns: Vec<_> = turns.collect();
        while !even(&self.slots) && self.move_one(&turns) {}
    }

    /// Moves one replica from a node with many to one with few. False if no replica can move.
    fn move_one(&mut self, turns: &[BTreeMap<NodeId, usize>]) -> bool {
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|&slot| self.slots[slot].replicas);
        for &to in &order {
            for &from in order.iter().rev() {
                let (from_slot, to_slot) = (&self.slots[from], &self.slots[to]);
                if from_slot.replicas < to_slot.replicas + 2 {
                    break;
                }
                let (from_node, to_node) = (from_slot.node, to_slot.node);
                let best = self
                    .partitions
                    .iter()
                    .enumerate()
                    .filter_map(|(index, partition)| {
                        let rank = self.rank(partition, from_node, to_node)?;
                        let turn = turns.get(index).and_then(|turns| turns.get(&to_node));
                        Some(((rank, turn.copied()), index))
                    })
                    .min();
                if let Some((_, index)) = best {
                    let now = &mut self.partitions[index].now;
                    for node in now.iter_mut().filter(|node| **node == from_node) {
                        *node = to_node;
                    }
                    self.slots[from].replicas -= 1;
                    self.slots[to].replicas += 1;
                    return true;
                }
            }
        }
        false
    }

    /// Cost of moving a replica of a partition between two nodes, lower is better; `None` if it must not
    /// move.
    fn rank(&self, partition: &Partition, from: NodeId, to: NodeId) -> Option<(bool, bool)> {
        let now = &partition.now;
        if partition.moving || !now.contains(&from) || now.contains(&to) {
            return None;
        }
        let moved = now
            .iter()
            .map(|node| if *node == from { to } else { *node });
        let before = self.racks_of(now.iter().copied());
        let after = self.racks_of(moved);
        (after >= before).then_some((after == before, now.first() == Some(&from)))
    }

    fn racks_of(&self, nodes: impl Iterator<Item = NodeId>) -> usize {
        let racks: BTreeSet<_> = nodes.map(|node| self.racks.get(&node)).collect();
        racks.len()
    }

    fn share_leaders(&mut self) {
        let mut led: BTreeMap<NodeId, usize> = self.slots.iter().map(|s| (s.node, 0)).collect();
        for partition in &self.partitions {
            if let Some(count) = partition.now.first().and_then(|node| led.get_mut(node)) {
                *count += 1;
            }
        }
        even_leaders(self.partitions.iter_mut().map(|p| &mut p.now), &mut led);
    }
}

fn partitions(view: &MetadataImage) -> Vec<Partition> {
    let mut partitions = Vec::new();
    for topic in view.topics.values() {
        for partition in &topic.partitions {
            let nodes: Vec<NodeId> = partition.replicas.iter().map(|place| place.node).collect();
            partitions.push(Partition {
                group: partition.group,
                key: Key {
                    topic: topic.id.0,
                    partition: partition.partition,
                },
                was: nodes.clone(),
                now: nodes,
                moving: !partition.retiring.is_empty(),
            });
        }
    }
    partitions
}
