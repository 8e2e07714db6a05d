//! Start offsets of a group. In partitions that a topic had when the group first used it, members choose the
//! start offset. The group reads a later partition from offset 0, since all of its records came after the
//! group. Lookups of the end of a partition must never come in, because it moves meanwhile.

use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{GroupPositionState, GroupTopic, MemberJoins, group_command};

use super::{Group, TopicPartitionId};

impl Group {
    /// Records the partitions that a command names, before it is applied, and gives those that came after the
    /// group an offset of 0.
    pub(super) fn begin(&mut self, kind: &group_command::Kind, now_ms: i64) {
        let (topics, joins) = match kind {
            group_command::Kind::Joins(joins) => (joins.topics.as_slice(), Some(joins)),
            group_command::Kind::Topics(changed) => (changed.topics.as_slice(), None),
            group_command::Kind::Committed(committed) => (committed.topic.as_slice(), None),
            _ => return,
        };
        let by_operator = matches!(kind, group_command::Kind::Committed(_));
        for topic in topics {
            let awaited = match joins {
                Some(joins) => self.awaits(topic, joins),
                // Subscriptions stay as they were: only the topic can be new.
                None => !by_operator,
            };
            self.begin_topic(topic, awaited, now_ms);
        }
    }

    fn begin_topic(&mut self, topic: &GroupTopic, awaited: bool, now_ms: i64) {
        let known = self.begun.get(&topic.topic_id).copied();
        let first = known.or_else(|| self.begun_before_rules(topic));
        let first = first.unwrap_or(match awaited {
            true => 0,
            false => topic.partitions,
        });
        let last = first.max(topic.partitions);
        self.begun.set(topic.topic_id, last);
        if is_planted(PlantedBug::GrowthBeginsAtTheEnd) {
            return;
        }
        let places = (first..last).map(|partition| TopicPartitionId {
            topic_id: topic.topic_id,
            partition,
        });
        for place in places {
            if !self.positions.contains_key(&place) {
                let position = GroupPositionState {
                    offset: 0,
                    committed_ms: now_ms,
                    note: String::new(),
                };
                self.positions.set(place, position);
            }
        }
    }

    /// Number of partitions with a start offset before rule 1 counted them. These are the partitions that
    /// members read, or those the topic had at the group's last commit.
    fn begun_before_rules(&self, topic: &GroupTopic) -> Option<u32> {
        if let Some(known) = self.topics.get(&topic.topic_id) {
            return Some(known.partitions);
        }
        let of_topic = |partition| TopicPartitionId {
            topic_id: topic.topic_id,
            partition,
        };
        let mut read = self.positions.range(of_topic(0)..=of_topic(u32::MAX));
        let (highest, _) = read.next_back()?;
        let grew_from = topic.growths.iter().map(|growth| growth.from_partitions);
        let grew_from = grew_from.filter(|from| *from > highest.partition).min();
        Some(grew_from.unwrap_or(topic.partitions))
    }

    /// True if a member subscribed to a topic before the topic existed, by its name or by the pattern that
    /// matches it now.
    fn awaits(&self, topic: &GroupTopic, joins: &MemberJoins) -> bool {
        let Some(joining) = &joins.member else {
            return false;
        };
        let by_pattern = !joining.pattern.is_empty() && !joining.topics.contains(&topic.name);
        self.members.values().any(|member| {
            member.told.topics.contains(&topic.name)
                || by_pattern && member.told.pattern == joining.pattern
        })
    }
}
