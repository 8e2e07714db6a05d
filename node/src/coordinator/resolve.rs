//! What a member's subscription means: the topics it names, and those its pattern matches now.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::is_internal;
use ropewalk_proto::v1::{GroupMember, GroupTopic, TopicGrowth};

use tokio::task::yield_now;

use super::invalid;
use crate::cluster::view::{ClusterView, TopicView};
use crate::env::busy;

/// The most memory a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The topics that patterns match in one picture of the cluster, by pattern.
pub(super) type Matching = BTreeMap<String, BTreeSet<u64>>;

/// Compiles patterns, and says what they match. This may take long: never while a machine is held, which
/// its partition waits for.
pub(super) async fn matching(patterns: BTreeSet<String>, view: &ClusterView) -> Matching {
    let mut matching = Matching::new();
    for pattern in patterns {
        let topics = busy(|| matched(&pattern, view));
        matching.insert(pattern, topics);
        yield_now().await;
    }
    matching
}

/// The topics that a pattern matches; it compiled when its member joined.
fn matched(text: &str, view: &ClusterView) -> BTreeSet<u64> {
    let Ok(Some(pattern)) = pattern(text) else {
        return BTreeSet::new();
    };
    let topics = view.topics.values();
    let matched = topics.filter(|topic| pattern.is_match(&topic.name));
    matched.map(|topic| topic.id.0).collect()
}

/// The topics of a member that there are, by name. None if what its pattern matches is not known.
pub(super) fn topics_of(
    member: &GroupMember,
    view: &ClusterView,
    matching: &Matching,
) -> Option<Vec<GroupTopic>> {
    let nothing = BTreeSet::new();
    let matched = match member.pattern.is_empty() {
        true => &nothing,
        false => matching.get(&member.pattern)?,
    };
    let wanted = |topic: &&TopicView| {
        let named = member.topics.contains(&topic.name);
        !is_internal(&topic.name) && (named || matched.contains(&topic.id.0))
    };
    let topics = view.topics.values().filter(wanted);
    let topics = topics.map(|topic| GroupTopic {
        topic_id: topic.id.0,
        name: topic.name.clone(),
        // Those that the topic is growing into hold no key yet.
        partitions: topic.ring_partitions,
        growths: done(topic),
    });
    Some(topics.collect())
}

fn done(topic: &TopicView) -> Vec<TopicGrowth> {
    let done = |growth: &&TopicGrowth| growth.ring_version <= topic.ring_version;
    topic.growths.iter().filter(done).cloned().collect()
}

/// A regular expression for whole names; none for the empty one.
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
            "the pattern {text:?} is no regular expression: {}",
            reason(error)
        ))
    })
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::{GroupId, TopicId};

    use super::*;
    use crate::cluster::view::PartitionView;

    #[test]
    fn a_partition_that_its_topic_is_still_growing_into_is_given_to_nobody() {
        let growth = |ring_version, from_partitions| TopicGrowth {
            ring_version,
            from_partitions,
            to_partitions: from_partitions + 1,
            fences: Vec::new(),
        };
        let mut topic = TopicView {
            name: "flights".to_owned(),
            id: TopicId(7),
            settings: Default::default(),
            ring_version: 2,
            ring_partitions: 2,
            growths: vec![growth(2, 1), growth(3, 2)],
            partitions: Vec::new(),
        };
        let one = |partition| PartitionView {
            partition,
            group: GroupId(u64::from(partition)),
            replicas: Vec::new(),
            retiring: Vec::new(),
            damaged: Vec::new(),
            founding: Vec::new(),
        };
        topic.partitions.extend((0..3).map(one));
        let view = ClusterView {
            topics: BTreeMap::from([(topic.name.clone(), topic)]),
            ..ClusterView::default()
        };
        let member = GroupMember {
            topics: vec!["flights".to_owned()],
            ..GroupMember::default()
        };
        let found = topics_of(&member, &view, &Matching::new()).unwrap();
        assert_eq!((found[0].partitions, found[0].growths.len()), (2, 1));
    }
}
