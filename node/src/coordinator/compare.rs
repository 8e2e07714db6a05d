//! Comparison of groups with the topics that exist: grown, created and deleted ones.
//!
//! **A group that loses topics gives their room back before it gains others.** The loss is a command of its
//! own, and adds no bytes. So it passes in a full group, and the gain that follows finds the room.
//!
//! **A change counts as made only once it is written.** Until then, its group is compared again after a pause
//! that grows, or at once when the group gets smaller or the metadata changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_machines::consumer_group::{Group, Groups};
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_proto::v1::{GroupTopic, MemberTopics, TopicsChanged, group_command};
use tokio::time::Instant;

use super::group_reaper::Due;
use super::resolve::{self, Matching};

/// Pause after the first change of a group that was not written.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Maximum pause until a change is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Version of the metadata, and the leader epoch of the groups' partition.
type Version = (u64, u64);

/// Comparisons of the groups of one partition.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Version that all groups were last compared with.
    version: Option<Version>,
    /// Groups to compare again with the same version.
    pending: BTreeMap<String, Pending>,
}

/// A group whose change is not written yet.
#[derive(Debug)]
struct Pending {
    /// Time of the next comparison.
    at: Instant,
    /// Pause if the change is not written.
    pause: Duration,
    /// Size of the group at the last comparison.
    bytes: u64,
    /// True if another change follows once this one is written.
    more: bool,
}

/// A change of a group's topics.
#[derive(Debug, PartialEq)]
struct Change {
    topics: TopicsChanged,
    /// True if the group only loses topics, and gains others afterwards.
    more: bool,
}

impl Compared {
    /// Returns the patterns of the groups to compare; `None` if there are no such groups.
    pub fn patterns(
        &self,
        groups: &Groups,
        version: Version,
        now: Instant,
    ) -> Option<BTreeSet<String>> {
        if self.version == Some(version) && self.pending.is_empty() {
            return None;
        }
        let due = groups
            .iter()
            .filter(|(name, group)| self.is_due(name, group, version, now));
        let mut due = due.map(|(_, group)| group).peekable();
        if self.version == Some(version) && due.peek().is_none() {
            return None;
        }
        let members = due.flat_map(|group| group.members.values());
        let patterns = members.map(|member| &member.told.pattern);
        let patterns = patterns.filter(|pattern| !pattern.is_empty());
        Some(patterns.cloned().collect())
    }

    fn is_due(&self, name: &str, group: &Group, version: Version, now: Instant) -> bool {
        if self.version != Some(version) {
            return true;
        }
        let pending = self.pending.get(name);
        pending.is_some_and(|pending| now >= pending.at || group.size.bytes() < pending.bytes)
    }

    /// Compares the groups that are due, and returns their changes.
    pub fn compare(
        &mut self,
        groups: &Groups,
        view: &MetadataImage,
        matching: &Matching,
        version: Version,
        now: Instant,
    ) -> Vec<Due> {
        let exists: BTreeSet<u64> = view.topics.values().map(|topic| topic.id.0).collect();
        let mut changes = Vec::new();
        for (name, group) in groups.iter() {
            if !self.is_due(name, group, version, now) {
                continue;
            }
            let change = match compare(group, view, matching, &exists) {
                Some(None) => {
                    self.pending.remove(name);
                    continue;
                }
                Some(Some(change)) => Some(change),
                // A member joined meanwhile with a pattern of its own: the next round knows its topics.
                None => None,
            };
            let before = self.pending.get(name);
            let pending = Pending {
                at: now,
                pause: before.map_or(FIRST_PAUSE, |before| before.pause),
                bytes: group.size.bytes(),
                more: change.as_ref().is_some_and(|change| change.more),
            };
            self.pending.insert(name.to_owned(), pending);
            let kind = change.map(|change| group_command::Kind::Topics(change.topics));
            changes.extend(kind.map(|kind| (name.to_owned(), kind)));
        }
        self.version = Some(version);
        self.pending.retain(|name, _| groups.get(name).is_some());
        changes
    }

    /// Records the outcome of a change.
    pub fn written(&mut self, group: &str, is_written: bool, now: Instant) {
        let Some(pending) = self.pending.get_mut(group) else {
            return;
        };
        if !is_written {
            pending.at = now + pending.pause;
            pending.pause = (pending.pause * 2).min(LONGEST_PAUSE);
        } else if pending.more {
            pending.at = now;
            pending.pause = FIRST_PAUSE;
        } else {
            self.pending.remove(group);
        }
    }
}

/// Compares one group. `None` if the matches of a member's pattern are not known.
fn compare(
    group: &Group,
    view: &MetadataImage,
    matching: &Matching,
    exists: &BTreeSet<u64>,
) -> Option<Option<Change>> {
    let mut topics: BTreeMap<u64, GroupTopic> = BTreeMap::new();
    let mut members = Vec::new();
    let (mut loses, mut gains) = (false, false);
    for (id, member) in &group.members {
        let found = resolve::topics_of(&member.told, view, matching)?;
        // Topics created after this view are kept.
        let newer = member
            .topic_ids
            .iter()
            .filter(|id| **id >= view.next_topic.0);
        let topic_ids: BTreeSet<u64> = found
            .iter()
            .map(|topic| topic.topic_id)
            .chain(newer.copied())
            .collect();
        let known: BTreeSet<u64> = member.topic_ids.iter().copied().collect();
        loses |= !known.is_subset(&topic_ids);
        gains |= !topic_ids.is_subset(&known);
        topics.extend(found.into_iter().map(|topic| (topic.topic_id, topic)));
        members.push(MemberTopics {
            member_id: id.clone(),
            topic_ids: topic_ids.into_iter().collect(),
        });
    }
    for (id, known) in &group.topics {
        match topics.get_mut(id) {
            Some(topic) => {
                gains |= topic.partitions > known.partitions;
                topic.partitions = topic.partitions.max(known.partitions);
            }
            None if *id >= view.next_topic.0 => {
                topics.insert(*id, known.told(*id));
            }
            None => {}
        }
    }
    let known = group.positions.keys().map(|place| place.topic_id);
    let known = known.chain(group.begun.keys().copied());
    let gone: BTreeSet<u64> = known
        .filter(|id| *id < view.next_topic.0 && !exists.contains(id))
        .collect();
    let all = TopicsChanged {
        topics: topics.into_values().collect(),
        members,
        gone_topic_ids: gone.into_iter().collect(),
    };
    if loses || !all.gone_topic_ids.is_empty() {
        return Some(Some(Change {
            topics: loss(group, all),
            more: gains,
        }));
    }
    Some(gains.then_some(Change {
        topics: all,
        more: false,
    }))
}

/// Reduces a change to the topics that the group has already, as it knows them. It adds no bytes.
fn loss(group: &Group, all: TopicsChanged) -> TopicsChanged {
    let known = all.topics.iter().filter_map(|topic| {
        let known = group.topics.get(&topic.topic_id)?;
        Some(known.told(topic.topic_id))
    });
    let topics = known.collect();
    let members = all.members.into_iter().map(|mut told| {
        let member = group.members.get(&told.member_id);
        told.topic_ids
            .retain(|id| member.is_some_and(|member| member.topic_ids.contains(id)));
        told
    });
    TopicsChanged {
        topics,
        members: members.collect(),
        gone_topic_ids: all.gone_topic_ids,
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_machines::consumer_group::{Member, Topic, TopicPartitionId};
    use ropewalk_machines::meta::view::TopicImage;
    use ropewalk_proto::command::GROUP_RULES;
    use ropewalk_proto::ids::TopicId;
    use ropewalk_proto::v1::{GroupCommand, GroupMember, MemberJoins, TopicSettings};

    use super::*;

    const GROUP: &str = "billing";
    const EPOCH: u64 = 1;

    /// A group that reads topic 9.
    fn group() -> Group {
        let member = Member {
            told: GroupMember {
                topics: vec!["new".to_owned()],
                ..GroupMember::default()
            },
            rebalance_ms: 0,
            topic_ids: vec![9],
            session: 1,
        };
        let topic = Topic {
            name: "new".to_owned(),
            partitions: 2,
            growths: Vec::new(),
        };
        let place = TopicPartitionId {
            topic_id: 9,
            partition: 0,
        };
        Group {
            members: [("a".to_owned(), member)].into(),
            topics: [(9, topic)].into(),
            positions: [(place, Default::default())].into(),
            ..Group::default()
        }
    }

    /// The change of that group on a node whose metadata has all topics below this one, and these exist.
    fn seen(next_topic: u64, topics: &[(u64, &str)]) -> Option<Change> {
        let view = view(next_topic, topics);
        let exists = topics.iter().map(|(id, _)| *id).collect();
        compare(&group(), &view, &Matching::new(), &exists).expect("no pattern")
    }

    fn view(next_topic: u64, topics: &[(u64, &str)]) -> MetadataImage {
        let topics = topics.iter().map(|(id, name)| {
            let topic = TopicImage {
                name: (*name).to_owned(),
                id: TopicId(*id),
                settings: TopicSettings::default(),
                ring_version: 1,
                ring_partitions: 2,
                growths: Vec::new(),
                partitions: Vec::new(),
            };
            (topic.name.clone(), topic)
        });
        MetadataImage {
            next_topic: TopicId(next_topic),
            topics: topics.collect(),
            ..MetadataImage::default()
        }
    }

    /// Groups of which one waits for the topic `new`, with this client name.
    fn waiting(client: &str) -> Groups {
        let mut groups = Groups::default();
        let joins = MemberJoins {
            member: Some(GroupMember {
                member_id: "a".to_owned(),
                client: client.to_owned(),
                topics: vec!["new".to_owned()],
                ..GroupMember::default()
            }),
            ..MemberJoins::default()
        };
        let command = GroupCommand {
            group: GROUP.to_owned(),
            kind: Some(group_command::Kind::Joins(joins)),
            rules: GROUP_RULES,
            ..GroupCommand::default()
        };
        let reply = groups.apply(&command, &mut Vec::new());
        assert!(reply.expect("a known kind").changed);
        groups
    }

    fn changes(compared: &mut Compared, groups: &Groups, applied: u64, now: Instant) -> usize {
        let version = (applied, EPOCH);
        match compared.patterns(groups, version, now) {
            Some(patterns) => {
                assert!(patterns.is_empty());
                let view = view(10, &[(9, "new")]);
                let changes = compared.compare(groups, &view, &Matching::new(), version, now);
                changes.len()
            }
            None => 0,
        }
    }

    #[test]
    fn a_topic_is_gone_only_for_who_would_know_of_it() {
        assert_eq!(
            seen(9, &[]),
            None,
            "it was made after this picture was taken"
        );
        let changed = seen(10, &[]).expect("it was deleted");
        assert_eq!(changed.topics.gone_topic_ids, [9]);
        assert_eq!(changed.topics.members[0].topic_ids, [0; 0]);
        assert!(!changed.more);
    }

    #[test]
    fn a_group_loses_the_topics_that_are_gone_before_it_gains_others() {
        let first = seen(11, &[(10, "new")]).expect("the topic is another one");
        assert!(first.more);
        assert!(first.topics.topics.is_empty());
        assert_eq!(first.topics.gone_topic_ids, [9]);
        assert_eq!(first.topics.members[0].topic_ids, [0; 0]);
    }

    #[test]
    fn a_change_that_is_not_written_is_found_again_after_pauses_that_grow() {
        let (groups, mut now) = (waiting(""), Instant::now());
        let mut compared = Compared::default();
        assert_eq!(changes(&mut compared, &groups, 1, now), 1);
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            compared.written(GROUP, false, now);
            let early = now + pause - Duration::from_millis(1);
            assert_eq!(changes(&mut compared, &groups, 1, early), 0, "{pause:?}");
            now += pause;
            assert_eq!(changes(&mut compared, &groups, 1, now), 1, "{pause:?}");
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(pause, LONGEST_PAUSE);
        compared.written(GROUP, true, now);
        let later = now + LONGEST_PAUSE;
        assert_eq!(
            changes(&mut compared, &groups, 1, later),
            0,
            "it is written"
        );
    }

    #[test]
    fn a_smaller_group_and_other_metadata_wait_for_no_pause() {
        let (large, now) = (waiting("a-long-name"), Instant::now());
        let mut compared = Compared::default();
        assert_eq!(changes(&mut compared, &large, 1, now), 1);
        compared.written(GROUP, false, now);
        assert_eq!(changes(&mut compared, &large, 1, now), 0);
        assert_eq!(changes(&mut compared, &large, 2, now), 1, "the metadata");
        compared.written(GROUP, false, now);
        assert_eq!(changes(&mut compared, &large, 2, now), 0);
        let small = waiting("");
        assert_eq!(changes(&mut compared, &small, 2, now), 1, "the size");
        compared.written(GROUP, false, now);
        assert_eq!(changes(&mut compared, &small, 2, now), 0);
    }

    #[test]
    fn a_loss_that_is_written_is_followed_by_the_gain_in_the_next_round() {
        let (groups, now) = (waiting(""), Instant::now());
        let mut compared = Compared::default();
        assert_eq!(changes(&mut compared, &groups, 1, now), 1);
        compared.pending.get_mut(GROUP).expect("it waits").more = true;
        compared.written(GROUP, true, now);
        assert_eq!(changes(&mut compared, &groups, 1, now), 1);
    }
}
