//! Voters are kept: a node deletes a replica only after the group has removed it. Otherwise entries that
//! counted the voter are no longer on a majority, and no replica knows.
//!
//! The memberships that count are those of `acknowledged-is-durable`. A membership without the replica may be
//! on disks that cannot be seen now. The check therefore judges only a lasting state, and only while all
//! disks are seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_proto::ids::{GroupId, ReplicaId};

use super::acknowledged_is_durable::configs;
use super::{Check, Now};
use crate::history::{Call, Event};
use crate::observe::Image;

/// Longer than the time for which a look may miss writes under way.
const STAYS_SO: Duration = Duration::from_secs(10);

/// The check.
#[derive(Debug, Default)]
pub struct VotersAreKept {
    held: BTreeMap<ReplicaId, Held>,
    /// Topics that a client asked to delete.
    deleted: BTreeSet<u32>,
}

#[derive(Debug)]
struct Held {
    group: GroupId,
    host: String,
    losses: u64,
    gone_since: Option<Duration>,
}

impl Check for VotersAreKept {
    fn name(&self) -> &'static str {
        "voters-are-kept"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        self.hear(now);
        let hosts = self.see(now);
        let mut let_go = Vec::new();
        for (id, held) in &self.held {
            let Some(since) = held.gone_since else {
                continue;
            };
            if !self.votes(*id, held.group, now) {
                let_go.push(*id);
                continue;
            }
            let mut holders = self.held.values().filter(|one| one.group == held.group);
            let all_seen = holders.all(|one| hosts.contains(one.host.as_str()));
            if all_seen && now.look.at >= since + STAYS_SO {
                return Err(format!(
                    "replica {id} of group {} is gone from {} since {since:?}, and votes: {:?}",
                    held.group,
                    held.host,
                    configs_of(held.group, now)
                ));
            }
        }
        for id in let_go {
            self.held.remove(&id);
        }
        Ok(())
    }
}

impl VotersAreKept {
    fn hear(&mut self, now: &Now<'_>) {
        let deleted = now.news.iter().filter_map(|(_, event)| match event {
            Event::Called {
                call: Call::DeleteTopic { topic },
                ..
            } => Some(*topic),
            _ => None,
        });
        self.deleted.extend(deleted);
    }

    /// Takes note of present and missing replicas. Returns the hosts that were seen.
    fn see<'a>(&mut self, now: &Now<'a>) -> BTreeSet<&'a str> {
        let mut losses = BTreeMap::new();
        let mut there = BTreeSet::new();
        for replica in now.look.of(Image::Live) {
            let intact = (!replica.on_damaged_disk).then_some(replica.losses);
            losses.insert(replica.host.as_str(), intact);
            there.insert(replica.seen.replica);
            let held = Held {
                group: replica.seen.group,
                host: replica.host.clone(),
                losses: replica.losses,
                gone_since: None,
            };
            self.held.insert(replica.seen.replica, held);
        }
        // A loss of the disk is the fault's doing.
        self.held.retain(|id, held| {
            let intact = losses.get(held.host.as_str());
            if intact.is_some() && !there.contains(id) {
                held.gone_since.get_or_insert(now.look.at);
            }
            intact.is_none_or(|losses| *losses == Some(held.losses))
        });
        losses.into_keys().collect()
    }

    fn votes(&self, replica: ReplicaId, group: GroupId, now: &Now<'_>) -> bool {
        let place = now.truth.group(group).and_then(|group| group.place);
        let exists = place.is_some_and(|place| !self.deleted.contains(&place.topic));
        let configs = configs_of(group, now);
        let votes = |sets: &Vec<BTreeSet<_>>| sets.iter().any(|set| set.contains(&replica));
        exists && !configs.is_empty() && configs.iter().all(votes)
    }
}

fn configs_of(id: GroupId, now: &Now<'_>) -> Vec<Vec<BTreeSet<ReplicaId>>> {
    let group = now.truth.group(id);
    group.map_or_else(Vec::new, |group| configs(group, id, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::{GROUP, PLACE, Story, place, replica, voters};

    /// Three voters, of which the third is missing for a long time. `change` alters the state after that.
    fn story(log: &[&[u64]], change: impl FnOnce(&mut Story)) -> Result<(), String> {
        let mut check = VotersAreKept::default();
        let entries: Vec<_> = (0..)
            .zip(log)
            .map(|(index, ids)| voters(1, index, ids))
            .collect();
        let mut story = Story::default();
        story.truth.name(GROUP, PLACE);
        let with = |id: u64| {
            replica(id, |seen| {
                seen.entries.clone_from(&entries);
                seen.committed = place(1, 0);
            })
        };
        story.look.replicas = (1..=3).map(with).collect();
        story.learn();
        story.look(&mut check)?;
        // Its host is still there, and holds another replica.
        story.look.replicas[2].seen.replica = ReplicaId(9);
        change(&mut story);
        for at in [1, 5, 11, 12] {
            story.look.at = Duration::from_secs(at);
            story.look(&mut check)?;
        }
        Ok(())
    }

    #[test]
    fn a_voter_that_is_deleted_is_found() {
        let judged = story(&[&[1, 2, 3]], |_| {});
        assert!(judged.is_err_and(|what| what.contains("replica 3")));
    }

    #[test]
    fn one_that_was_let_go_first_passes() {
        assert_eq!(story(&[&[1, 2, 3], &[1, 2, 4]], |_| {}), Ok(()));
    }

    #[test]
    fn one_that_a_fault_destroyed_passes_and_one_of_a_group_that_can_not_be_seen() {
        let lost = |story: &mut Story| story.look.replicas[2].losses = 1;
        assert_eq!(story(&[&[1, 2, 3]], lost), Ok(()));
        let damaged = |story: &mut Story| story.look.replicas[2].on_damaged_disk = true;
        assert_eq!(story(&[&[1, 2, 3]], damaged), Ok(()));
        let hidden = |story: &mut Story| drop(story.look.replicas.remove(0));
        assert_eq!(story(&[&[1, 2, 3]], hidden), Ok(()));
    }
}
