//! `ropewalk group`.

use anyhow::bail;
use ropewalk_client::{GroupInfo, PartitionLag};
use serde::Serialize;

use super::group_rows::{GroupRow, LagRow, MemberRow, ShareRow};
use super::{Context, seek};
use crate::args::GroupCommand;
use crate::output::{Row, columns};

pub async fn run(context: Context, verb: GroupCommand) -> anyhow::Result<()> {
    let client = context.client().await?;
    let admin = client.admin();
    match verb {
        GroupCommand::List => {
            let mut groups = admin.list_groups().await?;
            groups.sort_by(|a, b| a.group.cmp(&b.group));
            let rows: Vec<GroupRow> = groups.into_iter().map(GroupRow::from).collect();
            Ok(context.output.rows(&rows)?)
        }
        GroupCommand::Describe { group } => {
            let described = Described::from(admin.describe_group(&group).await?);
            Ok(context.output.one(&described, text)?)
        }
        GroupCommand::Lag { group } => {
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
        GroupCommand::Seek(args) => seek::run(&context, &client, &args).await,
        GroupCommand::Delete { group } => {
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
    let error = lag.error.as_ref()?;
    Some(format!(
        "lag of {}/{} is unknown: {error}",
        lag.topic, lag.partition
    ))
}

#[derive(Debug, Serialize)]
struct Deleted {
    group: String,
    deleted: bool,
}

/// A group with its members and their partitions.
#[derive(Debug, Serialize)]
struct Described {
    group: String,
    generation: u64,
    coordinator: u64,
    members: Vec<MemberRow>,
    partitions: Vec<ShareRow>,
    missing_topics: Vec<String>,
}

impl From<GroupInfo> for Described {
    fn from(info: GroupInfo) -> Described {
        Described {
            group: info.group,
            generation: info.generation,
            coordinator: info.coordinator_node_id,
            members: info.members.into_iter().map(MemberRow::from).collect(),
            partitions: info.partitions.into_iter().map(ShareRow::from).collect(),
            missing_topics: info.missing_topics,
        }
    }
}

fn text(described: &Described) -> String {
    let cells = |rows: &[MemberRow]| rows.iter().map(Row::cells).collect::<Vec<_>>();
    let members = columns(MemberRow::COLUMNS, &cells(&described.members));
    let shares: Vec<Vec<String>> = described.partitions.iter().map(Row::cells).collect();
    let missing = match described.missing_topics.as_slice() {
        [] => String::new(),
        missing => format!(
            "\nmissing topics, read once they are created: {}\n",
            missing.join(", ")
        ),
    };
    format!(
        "group {}, generation {}, coordinated by node {}\n{missing}\n{members}\n\n{}",
        described.group,
        described.generation,
        described.coordinator,
        columns(ShareRow::COLUMNS, &shares)
    )
}
