//! What a member's subscription means: the topics it names, and those its pattern matches now.

use regex::{Regex, RegexBuilder};
use ropewalk_proto::error::WireError;
use ropewalk_proto::ids::is_internal;
use ropewalk_proto::v1::{GroupMember, GroupTopic, TopicGrowth};

use super::invalid;
use crate::cluster::view::{ClusterView, TopicView};

/// The most memory a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The topics of a member that there are, by name.
pub(super) fn topics_of(member: &GroupMember, view: &ClusterView) -> Vec<GroupTopic> {
    // It compiled when the member joined.
    let pattern = pattern(&member.pattern).ok().flatten();
    let matches = |topic: &&TopicView| {
        let named = member.topics.contains(&topic.name);
        let matched = || {
            pattern
                .as_ref()
                .is_some_and(|pattern| pattern.is_match(&topic.name))
        };
        !is_internal(&topic.name) && (named || matched())
    };
    let topics = view.topics.values().filter(matches);
    let topics = topics.map(|topic| GroupTopic {
        topic_id: topic.id.0,
        name: topic.name.clone(),
        // Those that the topic is growing into hold no key yet.
        partitions: topic.ring_partitions,
        growths: done(topic),
    });
    topics.collect()
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
