//! Room for the state of groups. Bytes that commands in flight will add count as if they were stored, so that
//! concurrent commands fit no better than consecutive ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ropewalk_machines::consumer_group::{Groups, TopicPartitionId};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::units;
use ropewalk_proto::v1::{GroupPosition, PositionsCommitted, group_command};

use super::Coordinator;
use crate::config::Limits;
use crate::partition::Partition;

/// Bytes that commands in flight will add, by partition of the internal topic. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<BTreeMap<GroupId, Adding>>>);

/// Bytes that commands of one partition will add.
#[derive(Debug, Default)]
struct Adding {
    /// Bytes of all groups.
    bytes: u64,
    /// Bytes by group.
    groups: BTreeMap<String, u64>,
}

/// Room kept for one command until its outcome is known.
#[derive(Debug)]
pub(super) struct Reserved {
    under_way: UnderWay,
    partition: GroupId,
    group: String,
    bytes: u64,
}

/// Offsets of a commit that fit, the room kept for them, and those that do not fit.
pub(super) struct Fitting {
    pub committed: PositionsCommitted,
    pub room: Option<Reserved>,
    pub refused: Vec<(TopicPartitionId, WireError)>,
}

impl UnderWay {
    /// Keeps room for this many more bytes, if there is some.
    fn reserve(
        &self,
        partition: GroupId,
        groups: &Groups,
        group: &str,
        bytes: u64,
        limits: &Limits,
    ) -> Result<Reserved, WireError> {
        let mut under_way = self.0.lock();
        let adding = under_way.entry(partition).or_default();
        let of_group = adding.groups.get(group).copied().unwrap_or(0);
        let size = groups.get(group).map_or(0, |known| known.size.bytes());
        let needed = size + of_group + bytes;
        let in_all = groups.bytes() + adding.bytes + bytes;
        if needed > limits.group_bytes {
            return Err(full_group(group, needed, limits.group_bytes));
        }
        if in_all > limits.coordinator_group_bytes {
            return Err(full_coordinator(
                group,
                bytes,
                in_all,
                limits.coordinator_group_bytes,
            ));
        }
        adding.bytes += bytes;
        *adding.groups.entry(group.to_owned()).or_default() += bytes;
        Ok(Reserved {
            under_way: self.clone(),
            partition,
            group: group.to_owned(),
            bytes,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut under_way = self.under_way.0.lock();
        let Some(adding) = under_way.get_mut(&self.partition) else {
            return;
        };
        adding.bytes = adding.bytes.saturating_sub(self.bytes);
        if let Some(of_group) = adding.groups.get_mut(&self.group) {
            *of_group = of_group.saturating_sub(self.bytes);
            if *of_group == 0 {
                adding.groups.remove(&self.group);
            }
        }
        if adding.groups.is_empty() {
            under_way.remove(&self.partition);
        }
    }
}

impl Coordinator {
    /// Reserves room for the bytes that a command adds to a group. A command that adds none needs no room,
    /// and passes even after a bound was lowered.
    pub(super) fn reserve(
        &self,
        partition: &Partition,
        group: &str,
        kind: &group_command::Kind,
    ) -> Result<Option<Reserved>, WireError> {
        self.reserve_bytes(partition, group, |groups| groups.growth(group, kind))
    }

    fn reserve_bytes(
        &self,
        partition: &Partition,
        group: &str,
        growth: impl FnOnce(&Groups) -> u64,
    ) -> Result<Option<Reserved>, WireError> {
        let reserved = partition.with_groups(|groups| {
            let bytes = growth(groups);
            (bytes > 0).then(|| {
                let under_way = &self.0.under_way;
                under_way.reserve(partition.raft_group(), groups, group, bytes, &self.0.limits)
            })
        });
        let Some(Err(error)) = &reserved else {
            return reserved.transpose();
        };
        if let Some(left_out) = self.0.metrics.valves.group_full.pass() {
            tracing::warn!(
                group,
                %error,
                left_out,
                "consumer group is full: its coordinator refuses to store more"
            );
        }
        reserved.transpose()
    }

    /// Splits a member's commit by the room there is. Offsets that take no more bytes than before always fit.
    pub(super) fn fitting(
        &self,
        partition: &Partition,
        group: &str,
        committed: PositionsCommitted,
    ) -> Fitting {
        let growth = |groups: &Groups| groups.growth_by_commit(group, &committed);
        let error = match self.reserve_bytes(partition, group, growth) {
            Ok(room) => {
                return Fitting {
                    committed,
                    room,
                    refused: Vec::new(),
                };
            }
            Err(error) => error,
        };
        let (growing, positions): (Vec<_>, Vec<_>) = partition.with_groups(|groups| {
            let known = groups.get(group);
            let grows =
                |position: &GroupPosition| known.is_none_or(|known| known.grows_by(position));
            committed.positions.into_iter().partition(grows)
        });
        let refused = growing.iter().map(TopicPartitionId::from);
        Fitting {
            committed: PositionsCommitted {
                positions,
                ..committed
            },
            room: None,
            refused: refused.map(|place| (place, error.clone())).collect(),
        }
    }
}

fn full_group(group: &str, needed: u64, bound: u64) -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        format!(
            "group {group} would store {needed} bytes, over the limit of {} (group_bytes); use \
             shorter notes, or fewer topics, partitions or members",
            units::size(bound)
        ),
    )
}

fn full_coordinator(group: &str, bytes: u64, in_all: u64, bound: u64) -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        format!(
            "group {group} needs {bytes} more bytes, and the groups of its coordinator would \
             store {in_all}, over the limit of {} (coordinator_group_bytes); delete unused \
             groups, or use shorter notes or fewer topics",
            units::size(bound)
        ),
    )
}
