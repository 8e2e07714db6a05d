//! Groups from the pairs of a disk or a checkpoint, in any order.
//!
//! **Parts that do not fit together are damage.** The pairs of an entry are written together. So no log leads
//! to a part without its header, or to an assignment to a member that does not exist.

use std::collections::BTreeMap;

use crate::machine::MachineError;
use bytes::Bytes;
use prost::Message;
use ropewalk_proto::v1::GroupState;

use super::keys::Key;
use super::layout::Layout;
use super::{Group, Groups, Member, PartitionAssignment, Topic};

/// Groups that are being loaded.
#[derive(Debug, Default)]
pub struct Loader {
    by_name: BTreeMap<String, Loading>,
}

/// A group, with the kinds of its pairs so far.
#[derive(Debug, Default)]
struct Loading {
    group: Group,
    whole: bool,
    header: bool,
    parts: bool,
}

impl Loader {
    /// Loads one stored pair.
    ///
    /// # Errors
    /// `Damaged` for a pair that no group has.
    pub fn load(&mut self, key: &[u8], value: &Bytes) -> Result<(), MachineError> {
        let key = Key::decode(key)?;
        let name = key.group();
        let loading = self.by_name.entry(name.to_owned()).or_default();
        let group = &mut loading.group;
        let known = match key {
            Key::Position(_, place) => {
                group.positions.set(place, decode(value)?);
                return Ok(());
            }
            Key::Whole(_) => {
                loading.whole = true;
                group.take_whole(decode(value)?);
                return Ok(());
            }
            Key::Header(_) => {
                loading.header = true;
                group.take_header(&decode(value)?)
            }
            Key::Member(_, id) => only(decode(value)?, |state| &mut state.members).map(|member| {
                group
                    .members
                    .set(id.to_owned(), Member::from_state(id, member));
            }),
            Key::Topic(_, id) => only(decode(value)?, |state| &mut state.topics)
                .map(|topic| group.topics.set(id, Topic::from(topic))),
            Key::Begun(_, id) => only(decode(value)?, |state| &mut state.begun)
                .map(|begun| group.begun.set(id, begun.partitions)),
            Key::PartitionAssignment(_, place) => only(decode(value)?, |state| &mut state.shares)
                .map(|share| group.shares.set(place, PartitionAssignment::from(share))),
        };
        loading.parts = true;
        known.ok_or_else(|| damaged(name, "a part is not one value of its kind"))
    }

    /// Returns the groups, once all pairs are loaded.
    ///
    /// # Errors
    /// `Damaged` for a group whose pairs do not fit together.
    pub fn finish(self) -> Result<Groups, MachineError> {
        let mut groups = Groups::default();
        for (name, loading) in self.by_name {
            let mut group = loading.group;
            match (loading.whole, loading.header) {
                (true, false) if !loading.parts => group.layout = Some(Layout::Whole),
                (false, true) => {
                    group.layout = Some(Layout::Parts);
                    check(&name, &group)?;
                }
                (false, false) => return Err(damaged(&name, "it has no header")),
                _ => return Err(damaged(&name, "it is there whole and in parts")),
            }
            group.measure(&name);
            group.written();
            groups.bytes += group.size.bytes();
            groups.by_name.insert(name, group);
        }
        Ok(groups)
    }
}

/// Checks that each partition of the group's topics has an assignment, to members of the group.
fn check(name: &str, group: &Group) -> Result<(), MachineError> {
    for (place, share) in &group.shares {
        let topic = group.topics.get(&place.topic_id);
        if topic.is_none_or(|topic| place.partition >= topic.partitions) {
            let of = format!(
                "partition {} of topic {} is assigned, and the group does not read it",
                place.partition, place.topic_id
            );
            return Err(damaged(name, &of));
        }
        let mut named = share.owner.iter().chain(&share.target);
        if let Some(id) = named.find(|id| !group.members.contains_key(*id)) {
            let of = format!(
                "partition {} of topic {} is assigned to {id}, which is no member",
                place.partition, place.topic_id
            );
            return Err(damaged(name, &of));
        }
    }
    let partitions = group.topics.values();
    let partitions: u64 = partitions.map(|topic| u64::from(topic.partitions)).sum();
    match group.shares.len() as u64 == partitions {
        true => Ok(()),
        false => Err(damaged(
            name,
            &format!(
                "{} of its {partitions} partitions have an assignment",
                group.shares.len()
            ),
        )),
    }
}

/// Takes the one value of a part out of its state, which must hold nothing else.
fn only<T>(mut state: GroupState, list: impl FnOnce(&mut GroupState) -> &mut Vec<T>) -> Option<T> {
    let mut values = std::mem::take(list(&mut state));
    let one = values.pop()?;
    (values.is_empty() && state == GroupState::default()).then_some(one)
}

fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, MachineError> {
    M::decode(bytes.clone()).map_err(|error| {
        MachineError::Damaged(format!("a group's value that does not parse: {error}"))
    })
}

fn damaged(group: &str, why: &str) -> MachineError {
    MachineError::Damaged(format!("group {group}: {why}"))
}
