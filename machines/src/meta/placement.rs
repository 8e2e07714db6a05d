//! Placement of a partition's replicas: a consistent hash ring with the tightest possible bound on load.
//!
//! Every node has [`POINTS_PER_NODE`] points on the ring; a partition walks clockwise from its own point. It
//! prefers nodes in racks without a replica of the partition, then nodes that hold less, then those that the
//! walk meets first. Replicas and preferred leaders differ by at most one between nodes, and a node that
//! joins or leaves moves only its share.
//!
//! Pure, and the same on every node and in every version: SipHash-2-4 with a zero key over the big-endian
//! bytes of the ids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use hashring::HashRing;
use ropewalk_proto::ids::NodeId;

/// Points of each node on the ring.
const POINTS_PER_NODE: u32 = 32;

/// A node that can take replicas, with its present load.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The node.
    pub node: NodeId,
    /// Its rack.
    pub rack: String,
    /// Replicas it holds, of all topics.
    pub replicas: usize,
    /// Partitions whose preferred leader it is, of all topics.
    pub leaders: usize,
}

impl Slot {
    /// A node that holds nothing yet.
    pub fn new(node: NodeId, rack: &str) -> Slot {
        Slot {
            node,
            rack: rack.to_owned(),
            replicas: 0,
            leaders: 0,
        }
    }
}

/// The hash ring of a set of nodes.
#[derive(Debug)]
pub(super) struct Ring {
    ring: HashRing<Point>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    node: NodeId,
    copy: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.node.0.to_be_bytes());
        state.write(&self.copy.to_be_bytes());
    }
}

/// The position of a partition on the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub topic: u64,
    pub partition: u32,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.topic.to_be_bytes());
        state.write(&self.partition.to_be_bytes());
    }
}

impl Ring {
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Ring {
        let points = nodes
            .into_iter()
            .flat_map(|node| (0..POINTS_PER_NODE).map(move |copy| Point { node, copy }));
        let mut ring = HashRing::new();
        ring.batch_add(points.collect());
        Ring { ring }
    }

    /// The rank of each node in the clockwise walk from a partition's position.
    pub fn turns(&self, key: Key) -> BTreeMap<NodeId, usize> {
        let points = self.ring.get_with_replicas(&key, self.ring.len() + 1);
        let mut turns = BTreeMap::new();
        for point in points.unwrap_or_default() {
            let turn = turns.len();
            turns.entry(point.node).or_insert(turn);
        }
        turns
    }
}

/// The nodes of each partition of a new topic, the preferred leader first. The caller passes at least as many
/// slots as replicas.
pub fn place(topic: u64, partitions: u32, replicas: u32, slots: &[Slot]) -> Vec<Vec<NodeId>> {
    let ring = Ring::new(slots.iter().map(|slot| slot.node));
    let mut of_topic: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut led: BTreeMap<NodeId, usize> = slots.iter().map(|slot| (slot.node, 0)).collect();
    let mut places = Vec::with_capacity(partitions as usize);
    for partition in 0..partitions {
        let turns = ring.turns(Key { topic, partition });
        let turn = |slot: &Slot| turns.get(&slot.node).copied();
        let mut chosen: Vec<&Slot> = Vec::with_capacity(replicas as usize);
        for _ in 0..replicas {
            let free = slots.iter();
            let free = free.filter(|slot| chosen.iter().all(|other| other.node != slot.node));
            let best = free.min_by_key(|slot| {
                let rack_taken = chosen.iter().any(|other| other.rack == slot.rack);
                let held = of_topic.get(&slot.node).copied().unwrap_or_default();
                (rack_taken, held, held + slot.replicas, turn(slot))
            });
            let Some(best) = best else { break };
            *of_topic.entry(best.node).or_default() += 1;
            chosen.push(best);
        }
        let leader = chosen.iter().enumerate().min_by_key(|(_, slot)| {
            let leads = led.get(&slot.node).copied().unwrap_or_default();
            (leads, leads + slot.leaders, turn(slot))
        });
        if let Some(first) = leader.map(|(index, _)| index) {
            chosen[..=first].rotate_right(1);
        }
        if let Some(leader) = chosen.first() {
            *led.entry(leader.node).or_default() += 1;
        }
        places.push(chosen.iter().map(|slot| slot.node).collect());
    }
    even_leaders(places.iter_mut(), &mut led);
    places
}

/// The best node for one more replica of a partition. The nodes in `taken`, in the racks of `racks`, hold the
/// others.
pub(super) fn next_slot<'a>(
    slots: &'a mut [Slot],
    taken: &[NodeId],
    racks: &BTreeSet<&str>,
    turns: &BTreeMap<NodeId, usize>,
) -> Option<&'a mut Slot> {
    let free = slots.iter_mut().filter(|slot| !taken.contains(&slot.node));
    free.min_by_key(|slot| {
        let rack_taken = racks.contains(slot.rack.as_str());
        (rack_taken, slot.replicas, turns.get(&slot.node).copied())
    })
}

/// Reorders each partition's nodes, the first of which is its preferred leader. It ends when no node leads
/// two partitions more than another that could take one over, directly or through a chain.
pub(super) fn even_leaders<'a>(
    places: impl Iterator<Item = &'a mut Vec<NodeId>>,
    led: &mut BTreeMap<NodeId, usize>,
) {
    let mut places: Vec<&mut Vec<NodeId>> = places.collect();
    loop {
        let mut by_load: Vec<(usize, NodeId)> = led.iter().map(|(n, count)| (*count, *n)).collect();
        by_load.sort_unstable_by(|a, b| b.cmp(a));
        let chain = by_load
            .iter()
            .find_map(|(_, from)| chain_from(*from, &places, led));
        let Some(chain) = chain else { return };
        // From the far end of the chain, so that each partition still has the leader that the chain expects.
        for (partition, to) in chain.into_iter().rev() {
            let Some(nodes) = places.get_mut(partition) else {
                return;
            };
            let Some(position) = nodes.iter().position(|node| *node == to) else {
                return;
            };
            let from = nodes.first().copied();
            nodes.swap(0, position);
            for (node, change) in [(from, -1), (Some(to), 1)] {
                if let Some(count) = node.and_then(|node| led.get_mut(&node)) {
                    *count = count.saturating_add_signed(change);
                }
            }
        }
    }
}

/// A chain of partitions and their new leaders that takes one partition from `from` and gives one to a node
/// that leads at least two fewer. The new leader of one partition gives up the next one.
fn chain_from(
    from: NodeId,
    places: &[&mut Vec<NodeId>],
    led: &BTreeMap<NodeId, usize>,
) -> Option<Vec<(usize, NodeId)>> {
    let most = *led.get(&from)?;
    if led.values().all(|count| count + 2 > most) {
        return None;
    }
    let mut edges: BTreeMap<NodeId, BTreeMap<NodeId, usize>> = BTreeMap::new();
    for (partition, nodes) in places.iter().enumerate() {
        let Some((leader, others)) = nodes.split_first() else {
            continue;
        };
        for other in others.iter().filter(|other| led.contains_key(other)) {
            let to = edges.entry(*leader).or_default();
            to.entry(*other).or_insert(partition);
        }
    }
    let mut came_by: BTreeMap<NodeId, (NodeId, usize)> = BTreeMap::new();
    let mut seen = BTreeSet::from([from]);
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if led.get(&node).is_some_and(|count| count + 2 <= most) {
            return Some(walk_back(from, node, &came_by));
        }
        for (next, partition) in edges.get(&node).into_iter().flatten() {
            if seen.insert(*next) {
                came_by.insert(*next, (node, *partition));
                queue.push_back(*next);
            }
        }
    }
    None
}

fn walk_back(
    from: NodeId,
    to: NodeId,
    came_by: &BTreeMap<NodeId, (NodeId, usize)>,
) -> Vec<(usize, NodeId)> {
    let mut chain = Vec::new();
    let mut node = to;
    while node != from {
        let Some((previous, partition)) = came_by.get(&node) else {
            break;
        };
        chain.push((*partition, node));
        node = *previous;
    }
    chain.reverse();
    chain
}
