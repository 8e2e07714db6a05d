//! Topics of a member's subscription: those it names, and those its pattern matches now.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use ropewalk_machines::consumer_group::Group;
use ropewalk_machines::meta::view::{MetadataImage, TopicImage};
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::is_internal;
use ropewalk_proto::v1::{GroupMember, GroupTopic, TopicGrowth};
use tokio::task::yield_now;

use super::invalid;
use crate::env::cpu_bound;

/// Maximum memory of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Topics that patterns match in one view of the cluster, by pattern.
pub(super) type Matching = BTreeMap<String, BTreeSet<u64>>;

/// Compiles patterns, and returns the topics they match. This may take long. Never call it with a machine
/// locked, because its partition waits for that lock.
pub(super) async fn matching(patterns: BTreeSet<String>, view: &MetadataImage) -> Matching {
    let mut matching = Matching::new();
    for pattern in patterns {
        let topics = cpu_bound(|| matched(&pattern, view));
        matching.insert(pattern, topics);
        yield_now().await;
    }
    matching
}

/// Returns the topics that a pattern matches. The pattern compiled when its member joined.
fn matched(text: &str, view: &MetadataImage) -> BTreeSet<u64> {
    let Ok(Some(pattern)) = pattern(text) else {
        return BTreeSet::new();
    };
    let topics = view.topics.values();
    let matched = topics.filter(|topic| pattern.is_match(&topic.name));
    matched.map(|topic| topic.id.0).collect()
}

/// Returns the existing topics of a member, by name. `None` if the matches of its pattern are not known.
pub(super) fn topics_of(
    member: &GroupMember,
    view: &MetadataImage,
    matching: &Matching,
) -> Option<Vec<GroupTopic>> {
    let nothing = BTreeSet::new();
    let matched = match member.pattern.is_empty() {
        true => &nothing,
        false => matching.get(&member.pattern)?,
    };
    let wanted = |topic: &&TopicImage| {
        let named = member.topics.contains(&topic.name);
        !is_internal(&topic.name) && (named || matched.contains(&topic.id.0))
    };
    let topics = view.topics.values().filter(wanted);
    Some(topics.map(as_group_knows).collect())
}

/// Converts a topic to its form in group commands.
pub(super) fn as_group_knows(topic: &TopicImage) -> GroupTopic {
    GroupTopic {
        topic_id: topic.id.0,
        name: topic.name.clone(),
        // Partitions that the topic is growing into hold no key yet.
        partitions: topic.ring_partitions,
        growths: done(topic),
    }
}

fn done(topic: &TopicImage) -> Vec<TopicGrowth> {
    let done = |growth: &&TopicGrowth| growth.ring_version <= topic.ring_version;
    topic.growths.iter().filter(done).cloned().collect()
}

/// Returns topics that were created after this view, and that the group reads: those that the member names or
/// already has.
pub(super) fn newer(
    group: &Group,
    member: &GroupMember,
    view: &MetadataImage,
) -> impl Iterator<Item = GroupTopic> {
    let before = group.members.get(&member.member_id);
    let topics = group.topics.range(view.next_topic.0..);
    let topics = topics.filter(move |(id, topic)| {
        let has = before.is_some_and(|before| before.topic_ids.contains(id));
        has || member.topics.contains(&topic.name)
    });
    topics.map(|(id, topic)| topic.told(*id))
}

/// Compiles a regular expression for whole names; `None` for an empty one.
pub(super) fn pattern(text: &str) -> Result<Option<Regex>, WireError> {
    if text.is_empty() {
        return Ok(None);
    }
    let whole = RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(MAX_PATTERN_BYTES)
        .build();
    let reason = |error: regex::Error| error.to_string().replace('\n', " ");
    whole.map(Some).map_err(|error| {
        invalid(format!(
            "pattern {text:?} is not a valid regular expression: {}; correct it",
            reason(error)
        ))
    })
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::{GroupId, TopicId};

    use super::*;
    use ropewalk_machines::consumer_group::{Member, Topic};
    use ropewalk_machines::meta::view::PartitionImage;

    #[test]
    fn a_partition_that_its_topic_is_still_growing_into_is_given_to_nobody() {
        let growth = |ring_version, from_partitions| TopicGrowth {
            ring_version,
            from_partitions,
            to_partitions: from_partitions + 1,
            fences: Vec::new(),
        };
        let mut topic = TopicImage {
            name: "flights".to_owned(),
            id: TopicId(7),
            settings: Default::default(),
            ring_version: 2,
            ring_partitions: 2,
            growths: vec![growth(2, 1), growth(3, 2)],
            partitions: Vec::new(),
        };
        let one = |partition| PartitionImage {
            partition,
            group: GroupId(u64::from(partition)),
            replicas: Vec::new(),
            retiring: Vec::new(),
            damaged: Vec::new(),
            founding: Vec::new(),
        };
        topic.partitions.extend((0..3).map(one));
        let view = MetadataImage {
            topics: BTreeMap::from([(topic.name.clone(), topic)]),
            ..MetadataImage::default()
        };
        let member = GroupMember {
            topics: vec!["flights".to_owned()],
            ..GroupMember::default()
        };
        let found = topics_of(&member, &view, &Matching::new()).unwrap();
        assert_eq!((found[0].partitions, found[0].growths.len()), (2, 1));
    }

    #[test]
    fn a_node_that_lags_takes_no_topic_from_a_member_that_comes_back() {
        let member = GroupMember {
            member_id: "a".to_owned(),
            topics: vec!["named".to_owned()],
            ..GroupMember::default()
        };
        let topic = |name: &str| Topic {
            name: name.to_owned(),
            partitions: 1,
            growths: Vec::new(),
        };
        let known = Member {
            told: member.clone(),
            rebalance_ms: 0,
            topic_ids: vec![9],
            session: 1,
        };
        let topics = [(7, "named"), (8, "named"), (9, "had"), (10, "of others")];
        let group = Group {
            members: [("a".to_owned(), known)].into(),
            topics: topics.map(|(id, name)| (id, topic(name))).into(),
            ..Group::default()
        };
        let view = MetadataImage {
            next_topic: TopicId(8),
            ..MetadataImage::default()
        };
        let kept = newer(&group, &member, &view).map(|topic| topic.topic_id);
        assert_eq!(kept.collect::<Vec<_>>(), [8, 9]);
    }
}
