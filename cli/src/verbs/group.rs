//! `ropewalk group`.

use anyhow::bail;
use ropewalk_client::SeekGroup;
use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::{GroupInfo, PartitionLag};
use serde::Serialize;

use super::Context;
use super::group_rows::{GroupRow, LagRow, MemberRow, ShareRow};
use super::span;
use crate::args::GroupVerb;
use crate::output::{Row, columns};

pub async fn run(context: Context, verb: GroupVerb) -> anyhow::Result<()> {
    let client = context.client().await?;
    let admin = client.admin();
    match verb {
        GroupVerb::List => {
            let mut groups = admin.list_groups().await?;
            groups.sort_by(|a, b| a.group.cmp(&b.group));
            let rows: Vec<GroupRow> = groups.into_iter().map(GroupRow::from).collect();
            Ok(context.output.rows(&rows)?)
        }
        GroupVerb::Describe { group } => {
            let described = Described::from(admin.describe_group(&group).await?);
            Ok(context.output.one(&described, text)?)
        }
        GroupVerb::Lag { group } => {
            let lag = admin.group_lag(&group).await?;
            let failed = lag.iter().find_map(failed);
            let asked = lag.into_iter().filter(|lag| lag.error.is_none());
            let rows: Vec<LagRow> = asked.map(|lag| LagRow::of(&group, lag)).collect();
            context.output.rows(&rows)?;
            match failed {
                Some(failed) => bail!("{failed}"),
                None => Ok(()),
            }
        }
        GroupVerb::Seek {
            group,
            topic,
            to,
            partition,
        } => {
            let place = span::place(to);
            let to = match partition {
                None => SeekGroup::All(place),
                Some(partition) => {
                    let offset = client.offset(&topic, partition, place).await?;
                    SeekGroup::Partitions(vec![(partition, offset)])
                }
            };
            let moved = admin.seek_group(&group, &topic, to).await?;
            let rows: Vec<Moved> = moved
                .into_iter()
                .map(|(partition, committed)| Moved {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition,
                    committed,
                })
                .collect();
            Ok(context.output.rows(&rows)?)
        }
        GroupVerb::Delete { group } => {
            admin.delete_group(&group).await?;
            let done = Deleted {
                group,
                deleted: true,
            };
            Ok(context
                .output
                .one(&done, |done| format!("deleted {}", done.group))?)
        }
    }
}

fn failed(lag: &PartitionLag) -> Option<String> {
    let error = WireError::from(lag.error.clone()?);
    Some(format!(
        "the lag of {}/{} is not known: {}",
        lag.topic, lag.partition, error.message
    ))
}

#[derive(Debug, Serialize)]
struct Deleted {
    group: String,
    deleted: bool,
}

/// Where a group goes on now.
#[derive(Debug, Serialize)]
struct Moved {
    group: String,
    topic: String,
    partition: u32,
    committed: u64,
}

impl Row for Moved {
    const COLUMNS: &'static [&'static str] = &["group", "topic", "partition", "committed"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            self.committed.to_string(),
        ]
    }
}

/// A group with its members, and who reads what.
#[derive(Debug, Serialize)]
struct Described {
    group: String,
    generation: u64,
    coordinator: u64,
    members: Vec<MemberRow>,
    partitions: Vec<ShareRow>,
}

impl From<GroupInfo> for Described {
    fn from(info: GroupInfo) -> Described {
        Described {
            group: info.group,
            generation: info.generation,
            coordinator: info.coordinator_node_id,
            members: info.members.into_iter().map(MemberRow::from).collect(),
            partitions: info.partitions.into_iter().map(ShareRow::from).collect(),
        }
    }
}

fn text(described: &Described) -> String {
    let cells = |rows: &[MemberRow]| rows.iter().map(Row::cells).collect::<Vec<_>>();
    let members = columns(MemberRow::COLUMNS, &cells(&described.members));
    let shares: Vec<Vec<String>> = described.partitions.iter().map(Row::cells).collect();
    format!(
        "group {}, generation {}, coordinated by node {}\n\n{members}\n\n{}",
        described.group,
        described.generation,
        described.coordinator,
        columns(ShareRow::COLUMNS, &shares)
    )
}
