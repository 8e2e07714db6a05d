//! The leader's decision to compact a log, with the target offset. It depends on settings, the clock, and the
//! progress that replicas report. The leader writes the decision into the log as a `Compact` command.

use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::meta::settings;
use ropewalk_proto::command::{COMPACTION_SINCE_VERSION, Command};
use ropewalk_proto::ids::ReplicaId;
use ropewalk_proto::v1::TopicSettings;

use super::Progress;
use crate::partition::Partition;

/// Maximum age of the active segment of a compacted topic. The leader then ends it even if it is not full,
/// because the active segment is never compacted.
const ROLL_AFTER_MS: i64 = 3_600_000;

/// Returns true if the active segment is old enough to be ended.
pub(in crate::partition) fn roll_is_due(machine: &PartitionMachine, now_ms: i64) -> bool {
    let since_ms = machine.active_since_ms();
    since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= ROLL_AFTER_MS)
}

/// Returns the next compaction, if any: the offset below which to compact, and the offset below which
/// tombstones go. `own` is the leader's own progress; every replica is compacted up to `all_to`.
pub(super) fn next(
    machine: &PartitionMachine,
    own: &Progress,
    all_to: u64,
    settings: &TopicSettings,
    now_ms: i64,
) -> Option<(u64, u64)> {
    let asked = machine.compaction();
    // Only one compaction runs at a time: a new target would restart it.
    if !own.has_done(&asked) {
        return None;
    }
    let to_offset = next_offset(machine, own, settings, now_ms).unwrap_or(asked.to_offset);
    let waited = now_ms.saturating_sub(asked.waiting_since_ms);
    let expired = own.tombstones > 0
        && waited >= settings::delete_horizon_ms(settings)
        && asked.waiting_offset <= all_to;
    let tombstones_below = match expired {
        true => asked.waiting_offset.max(asked.tombstones_below),
        false => asked.tombstones_below,
    };
    let more = to_offset > asked.to_offset || tombstones_below > asked.tombstones_below;
    more.then_some((to_offset, tombstones_below))
}

/// Returns the end of the last segment that may be compacted, if the new part is worth it.
fn next_offset(
    machine: &PartitionMachine,
    own: &Progress,
    settings: &TopicSettings,
    now_ms: i64,
) -> Option<u64> {
    let asked = machine.compaction();
    let rested = now_ms.saturating_sub(settings.min_compaction_lag_ms);
    let ends = machine
        .segments()
        .take_while(|end| end.last_time_ms <= rested);
    let end = ends.last()?;
    let dirty_bytes = end.log_bytes.saturating_sub(asked.log_bytes);
    let all_bytes = dirty_bytes.saturating_add(own.left_bytes);
    let is_enough = u128::from(dirty_bytes) * 100
        >= u128::from(all_bytes) * u128::from(settings::min_dirty_percent(settings));
    (end.next_offset > asked.to_offset && is_enough).then_some(end.next_offset)
}

impl Partition {
    /// Proposes a compaction of the log, if one is due. Called on the leader.
    pub(in crate::partition) async fn ask_for_compaction(
        &self,
        settings: &TopicSettings,
        now_ms: i64,
    ) {
        // A node that joined later may not support compaction, although all nodes did when the topic was
        // altered.
        if self.host.view.borrow().understood < COMPACTION_SINCE_VERSION {
            return;
        }
        let own = *self.compacted.lock();
        let all_to = self.compacted_everywhere(&own);
        let next = next(&self.replica.view.machine(), &own, all_to, settings, now_ms);
        let Some((to_offset, tombstones_below)) = next else {
            return;
        };
        tracing::info!(
            partition = %self.id,
            to_offset,
            tombstones_below,
            "requesting compaction of the log"
        );
        self.housekeeping(Command::Compact {
            leader_time_ms: self.host.clock.now_ms(),
            to_offset,
            tombstones_below,
        })
        .await;
    }

    /// Returns the offset up to which all replicas of the group have reported to be compacted, learners
    /// included.
    fn compacted_everywhere(&self, own: &Progress) -> u64 {
        let members: Vec<ReplicaId> = self.with_metrics(|metrics| {
            let membership = metrics.membership_config.membership();
            membership.nodes().map(|(id, _)| *id).collect()
        });
        self.claims.retain(|replica| members.contains(&replica));
        let others = members.iter().filter(|id| **id != self.id.replica);
        let claimed = others.map(|id| self.claims.of(*id));
        claimed.min().unwrap_or(u64::MAX).min(own.to_offset)
    }
}
