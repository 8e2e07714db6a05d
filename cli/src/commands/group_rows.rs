//! Printed rows of consumer groups. The JSON names here are part of the contract.

use ropewalk_client::{GroupMember, GroupPartition, GroupSummary, PartitionLag};
use serde::Serialize;

use crate::output::Row;

/// Placeholder of an empty cell.
const NONE: &str = "-";

/// A group.
#[derive(Debug, Serialize)]
pub struct GroupRow {
    pub group: String,
    pub members: u32,
    pub generation: u64,
    pub topics: Vec<String>,
}

impl From<GroupSummary> for GroupRow {
    fn from(summary: GroupSummary) -> GroupRow {
        GroupRow {
            group: summary.group,
            members: summary.members,
            generation: summary.generation,
            topics: summary.topics,
        }
    }
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] = &["group", "members", "generation", "topics"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.members.to_string(),
            self.generation.to_string(),
            self.topics.join(","),
        ]
    }
}

/// A member of a group.
#[derive(Debug, Serialize)]
pub struct MemberRow {
    pub member: String,
    pub instance: Option<String>,
    pub client: String,
    pub topics: Vec<String>,
    pub pattern: Option<String>,
    pub session_ms: u32,
}

impl From<GroupMember> for MemberRow {
    fn from(member: GroupMember) -> MemberRow {
        MemberRow {
            member: member.member_id,
            instance: member.instance_id,
            client: member.client,
            topics: member.topics,
            pattern: member.pattern,
            session_ms: u32::try_from(member.session_timeout.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl Row for MemberRow {
    const COLUMNS: &'static [&'static str] = &["member", "instance", "client", "reads"];

    fn cells(&self) -> Vec<String> {
        let pattern = self.pattern.iter().map(|pattern| format!("/{pattern}/"));
        let reads: Vec<String> = self.topics.iter().cloned().chain(pattern).collect();
        vec![
            self.member.clone(),
            self.instance.clone().unwrap_or_else(|| NONE.into()),
            self.client.clone(),
            reads.join(","),
        ]
    }
}

/// A partition in a group: its member, and its committed offset.
#[derive(Debug, Serialize)]
pub struct ShareRow {
    /// For a deleted topic, its former name; none if no node knows it.
    pub topic: Option<String>,
    pub topic_id: u64,
    pub deleted: bool,
    pub partition: u32,
    pub member: Option<String>,
    pub next_member: Option<String>,
    pub committed: Option<u64>,
    pub committed_at_ms: Option<i64>,
}

impl From<GroupPartition> for ShareRow {
    fn from(share: GroupPartition) -> ShareRow {
        ShareRow {
            deleted: share.topic.is_none(),
            topic: share.topic.or(share.deleted_topic),
            topic_id: share.topic_id,
            partition: share.partition,
            member: share.member_id,
            next_member: share.next_member_id,
            committed: share.committed,
            committed_at_ms: share.committed_at_ms,
        }
    }
}

impl ShareRow {
    fn topic_cell(&self) -> String {
        match (&self.topic, self.deleted) {
            (Some(name), false) => name.clone(),
            (Some(name), true) => format!("{name} (deleted)"),
            (None, _) => format!("(deleted topic, id {})", self.topic_id),
        }
    }
}

impl Row for ShareRow {
    const COLUMNS: &'static [&'static str] =
        &["topic", "partition", "member", "next_member", "committed"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic_cell(),
            self.partition.to_string(),
            self.member.clone().unwrap_or_else(|| NONE.into()),
            self.next_member.clone().unwrap_or_else(|| NONE.into()),
            number(self.committed),
        ]
    }
}

/// Lag of a group in a partition.
#[derive(Debug, Serialize)]
pub struct LagRow {
    pub group: String,
    pub topic: String,
    pub partition: u32,
    pub committed: Option<u64>,
    pub high_watermark: u64,
    pub lag_records: u64,
    pub lag_seconds: f64,
    pub member: Option<String>,
}

impl LagRow {
    pub fn of(group: &str, lag: PartitionLag) -> LagRow {
        LagRow {
            group: group.to_owned(),
            topic: lag.topic,
            partition: lag.partition,
            committed: lag.committed,
            high_watermark: lag.high_watermark,
            lag_records: lag.lag_records,
            lag_seconds: lag.lag_ms as f64 / 1_000.0,
            member: lag.member_id,
        }
    }
}

impl Row for LagRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partition",
        "committed",
        "high_watermark",
        "lag_records",
        "lag_seconds",
        "member",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            number(self.committed),
            self.high_watermark.to_string(),
            self.lag_records.to_string(),
            format!("{:.1}", self.lag_seconds),
            self.member.clone().unwrap_or_else(|| NONE.into()),
        ]
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| NONE.into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::v1;

    use super::*;

    #[test]
    fn a_lag_reads_as_the_contract_says() {
        let lag = v1::PartitionLag {
            topic: "flights".into(),
            partition: 3,
            committed: Some(40),
            high_watermark: 42,
            lag_records: 2,
            lag_ms: 1_500,
            ..Default::default()
        };
        let expected = concat!(
            r#"{"group":"billing","topic":"flights","partition":3,"committed":40,"high_watermark":42,"#,
            r#""lag_records":2,"lag_seconds":1.5,"member":null}"#
        );
        let row = LagRow::of("billing", lag.into());
        assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    }
    #[test]
    fn a_partition_of_a_deleted_topic_says_so_in_every_format() {
        let share = |topic: &str, deleted_topic: &str| {
            let share = v1::GroupPartition {
                topic: topic.into(),
                topic_id: 7,
                deleted_topic: deleted_topic.into(),
                ..Default::default()
            };
            ShareRow::from(GroupPartition::from(share))
        };
        let shown = |row: &ShareRow| {
            let json = serde_json::to_value(row).unwrap();
            let name = json["topic"].as_str().map(str::to_owned);
            (row.cells().remove(0), name, json["deleted"] == true)
        };
        let name = |name: &str| Some(name.to_owned());
        let there = shown(&share("flights", ""));
        assert_eq!(there, ("flights".into(), name("flights"), false));
        let gone = shown(&share("", "flights"));
        assert_eq!(gone, ("flights (deleted)".into(), name("flights"), true));
        // An older node sends no name, nor does a group that has forgotten it.
        let nameless = shown(&share("", ""));
        assert_eq!(nameless, ("(deleted topic, id 7)".into(), None, true));
    }
}
