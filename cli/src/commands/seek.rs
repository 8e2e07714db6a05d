//! `ropewalk group seek`: moves a group's committed offsets, or shows their new values.

use std::collections::BTreeMap;

use anyhow::bail;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ropewalk_client::{Client, ErrorCode, GroupInfo, Offset, SeekGroup};
use serde::Serialize;

use super::{Context, range};
use crate::args::GroupSeekArgs;
use crate::output::Row;

/// Maximum number of concurrent offset lookups.
const ASKED_AT_ONCE: usize = 32;

pub async fn run(context: &Context, client: &Client, args: &GroupSeekArgs) -> anyhow::Result<()> {
    // The time is fixed once, for all partitions.
    let place = range::place(args.to);
    if args.dry_run {
        let planned = plan(client, args, place).await?;
        return Ok(context.output.rows(&planned)?);
    }
    let to = match args.partition {
        None => SeekGroup::All(place),
        Some(partition) => {
            let offset = client.offset(&args.topic, partition, place).await?;
            SeekGroup::Partitions(vec![(partition, offset)])
        }
    };
    let admin = client.admin();
    let (group, topic) = (args.group.as_str(), args.topic.as_str());
    let moved = match args.create {
        true => admin.seek_or_create_group(group, topic, to).await?,
        false => admin.seek_group(group, topic, to).await?,
    };
    let rows: Vec<Moved> = moved
        .into_iter()
        .map(|(partition, committed)| Moved {
            group: args.group.clone(),
            topic: args.topic.clone(),
            partition,
            committed,
        })
        .collect();
    Ok(context.output.rows(&rows)?)
}

/// Target offset of each partition. Sends only lookups, since an older node could take a dry run for a real
/// move.
async fn plan(
    client: &Client,
    args: &GroupSeekArgs,
    place: Offset,
) -> anyhow::Result<Vec<Planned>> {
    let group = known(client, args).await?;
    if !group.members.is_empty() {
        bail!(
            "group {} has {} members; stop them before you move its offsets",
            args.group,
            group.members.len()
        );
    }
    let here = group.partitions.into_iter();
    let here = here.filter(|one| one.topic.as_ref() == Some(&args.topic));
    let committed: BTreeMap<u32, Option<u64>> =
        here.map(|one| (one.partition, one.committed)).collect();
    let all = range::partitions(client, &args.topic).await?;
    let wanted = match args.partition {
        None => all,
        Some(partition) => vec![partition],
    };
    stream::iter(wanted)
        .map(|partition| async move { Ok((partition, target(client, args, partition, place).await?)) })
        .buffered(ASKED_AT_ONCE)
        .map_ok(|(partition, to)| Planned {
            group: args.group.clone(),
            topic: args.topic.clone(),
            partition,
            committed: committed.get(&partition).copied().flatten(),
            to,
        })
        .try_collect()
        .await
}

/// The current group; an empty one if it would be created.
async fn known(client: &Client, args: &GroupSeekArgs) -> anyhow::Result<GroupInfo> {
    match client.admin().describe_group(&args.group).await {
        Err(error) if args.create && error.code() == Some(ErrorCode::UnknownGroup) => {
            Ok(GroupInfo::default())
        }
        described => Ok(described?),
    }
}

async fn target(
    client: &Client,
    args: &GroupSeekArgs,
    partition: u32,
    place: Offset,
) -> anyhow::Result<u64> {
    let topic = args.topic.as_str();
    let Offset::At(offset) = place else {
        return Ok(client.offset(topic, partition, place).await?);
    };
    let end = client.offset(topic, partition, Offset::End).await?;
    if offset > end {
        bail!(
            "offset {offset} is past the end of {topic}/{partition}, which is {end}; seek to the end instead"
        );
    }
    Ok(offset)
}

/// A group's new committed offset in a partition.
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

/// A group's committed offset in a partition, and its target offset.
#[derive(Debug, Serialize)]
struct Planned {
    group: String,
    topic: String,
    partition: u32,
    committed: Option<u64>,
    to: u64,
}

impl Row for Planned {
    const COLUMNS: &'static [&'static str] = &["group", "topic", "partition", "committed", "to"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            self.committed
                .map_or_else(|| "-".to_owned(), |at| at.to_string()),
            self.to.to_string(),
        ]
    }
}
