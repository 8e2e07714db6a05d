//! The preferred leader: the first replica that the metadata names, as long as it can lead.

use std::time::Duration;

use ropewalk_machines::meta::view::ReplicaPlacement;
use ropewalk_proto::ids::{NodeId, ReplicaId};
use tokio::time::Instant;

use crate::raft::ReplicationStatus;

/// Time that the preferred replica must have been fit to lead before leadership moves to it. So a node that
/// is often down does not move leadership each time.
const FIT_FOR: Duration = Duration::from_secs(10);

/// Tracks how long the preferred replica has been fit.
#[derive(Debug, Default)]
pub(super) struct PreferredLeader {
    fit_since: Option<(ReplicaId, Instant)>,
}

impl PreferredLeader {
    /// Returns the replica to transfer leadership to, if any. `may_lead` returns true for nodes that should
    /// lead at all.
    pub(super) fn heir(
        &mut self,
        places: &[ReplicaPlacement],
        group: &ReplicationStatus,
        may_lead: impl Fn(NodeId) -> bool,
    ) -> Option<ReplicaId> {
        let fit =
            |place: &&ReplicaPlacement| may_lead(place.node) && group.could_lead(place.replica);
        let own = places.iter().find(|place| place.replica == group.own)?;
        if !may_lead(own.node) {
            return places
                .iter()
                .filter(fit)
                .map(|place| place.replica)
                .find(|heir| *heir != group.own);
        }
        let preferred = places.first().filter(fit).map(|place| place.replica);
        let Some(preferred) = preferred.filter(|preferred| *preferred != group.own) else {
            self.reset();
            return None;
        };
        match self.fit_since {
            Some((same, since)) if same == preferred => {
                (since.elapsed() >= FIT_FOR).then_some(preferred)
            }
            _ => {
                self.fit_since = Some((preferred, Instant::now()));
                None
            }
        }
    }

    /// Starts over, because the preferred replica is not fit, or has just become the leader.
    pub(super) fn reset(&mut self) {
        self.fit_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<ReplicaPlacement> {
        (1..=3)
            .map(|n| ReplicaPlacement {
                replica: ReplicaId(n),
                node: NodeId(n),
            })
            .collect()
    }

    fn led_by(own: u64, in_sync: &[u64]) -> ReplicationStatus {
        ReplicationStatus {
            own: ReplicaId(own),
            voters: (1..=3).map(ReplicaId).collect(),
            settled: (1..=3).map(ReplicaId).collect(),
            members: Default::default(),
            since: None,
            quiet: true,
            half_way_to: None,
            in_sync: in_sync.iter().copied().map(ReplicaId).collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_preferred_replica_gets_the_lead_back_once_it_has_been_fit_for_a_while() {
        let mut balance = PreferredLeader::default();
        let group = led_by(2, &[1, 2, 3]);
        assert_eq!(balance.heir(&places(), &group, |_| true), None);
        tokio::time::advance(FIT_FOR).await;
        assert_eq!(balance.heir(&places(), &led_by(2, &[2, 3]), |_| true), None);
        assert_eq!(balance.heir(&places(), &group, |_| true), None);
        tokio::time::advance(FIT_FOR).await;
        assert_eq!(
            balance.heir(&places(), &group, |_| true),
            Some(ReplicaId(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_node_hands_over_at_once_and_is_given_nothing() {
        let mut balance = PreferredLeader::default();
        let drains = |node| move |other: NodeId| other != NodeId(node);
        assert_eq!(
            balance.heir(&places(), &led_by(1, &[1, 3]), drains(1)),
            Some(ReplicaId(3))
        );
        tokio::time::advance(FIT_FOR).await;
        assert_eq!(
            balance.heir(&places(), &led_by(3, &[1, 2, 3]), drains(1)),
            None
        );
    }
}
