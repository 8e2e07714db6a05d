//! `ropewalk topic`.

use std::io::{self, IsTerminal, Write, stderr, stdin};
use std::time::Duration;

use anyhow::bail;
use ropewalk_client::{TopicInfo, TopicSettings};
use ropewalk_machines::meta::settings;
use ropewalk_proto::error::WireError;
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::{Instant, sleep};

use super::rows::{PartitionRow, TopicRow};
use super::{Context, topic_list};
use crate::args::{TopicCommand, TopicCreateArgs};
use crate::exit::usage;
use crate::output::{Row, bar, columns, shown};
use crate::parse::Setting;

/// Interval between two checks of a topic that grows.
const GROWN_TICK: Duration = Duration::from_millis(100);
/// Interval between two checks of a new topic.
const LED_TICK: Duration = Duration::from_millis(250);
/// Maximum length of a user's answer, in bytes.
const ANSWER_BYTES: u64 = 1_000;

pub async fn run(context: Context, verb: TopicCommand) -> anyhow::Result<()> {
    match verb {
        TopicCommand::Create(args) => create(context, args).await,
        TopicCommand::List { rates } => topic_list::run(context, rates).await,
        TopicCommand::Describe { name } => describe(context, &name).await,
        TopicCommand::Set { name, settings } => {
            let set = settings
                .into_iter()
                .map(|setting| (setting.key, setting.value));
            let topic = context
                .client()
                .await?
                .admin()
                .alter_topic(&name, set)
                .await?;
            Ok(context.output.rows(&[TopicRow::from(&topic)])?)
        }
        TopicCommand::Grow { name, partitions } => grow(context, &name, partitions).await,
        TopicCommand::Delete { name, yes } => delete(context, name, yes).await,
    }
}

/// Deletes a topic. Asks for confirmation on a terminal, but not in a script.
async fn delete(context: Context, name: String, yes: bool) -> anyhow::Result<()> {
    let client = context.client().await?;
    if !yes && stdin().is_terminal() && stderr().is_terminal() {
        let topic = context.topic(&name).await?;
        let mut answers = BufReader::new(tokio::io::stdin());
        if !confirm(&topic, &mut answers, &mut stderr()).await? {
            bail!("topic {name:?} was not deleted");
        }
    }
    client.admin().delete_topic(&name).await?;
    let done = Deleted {
        topic: name,
        deleted: true,
    };
    Ok(context
        .output
        .one(&done, |done| format!("deleted {}", done.topic))?)
}

/// Asks whether to delete a topic. Any answer other than yes means no.
async fn confirm(
    topic: &TopicInfo,
    answers: &mut (impl AsyncBufRead + Unpin),
    questions: &mut impl Write,
) -> io::Result<bool> {
    let rows = PartitionRow::of(topic);
    let records = rows.map(|row| row.high_watermark.saturating_sub(row.log_start));
    let records: u64 = records.sum();
    let name = shown(topic.name.as_bytes());
    write!(
        questions,
        "delete topic {name} and its records (about {records})? [y/N] "
    )?;
    questions.flush()?;
    let mut answer = String::new();
    answers.take(ANSWER_BYTES).read_line(&mut answer).await?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

#[derive(Debug, Serialize)]
struct Deleted {
    topic: String,
    deleted: bool,
}

/// A topic with its partitions.
#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    topic: TopicRow,
    assignment: Vec<PartitionRow>,
}

async fn create(context: Context, args: TopicCreateArgs) -> anyhow::Result<()> {
    check_flags(&args).map_err(usage)?;
    let settings = wanted(&args).map_err(|error| usage(error.message))?;
    let admin = context.client().await?.admin();
    let topic = admin
        .create_topic(&args.name, args.partitions, settings)
        .await?;
    let topic = led(&context, topic).await?;
    Ok(context.output.rows(&[TopicRow::from(&topic)])?)
}

/// Returns a new topic once all of its partitions have leaders. On a terminal, shows the number that have.
async fn led(context: &Context, mut topic: TopicInfo) -> anyhow::Result<TopicInfo> {
    let deadline = Instant::now() + context.global.timeout;
    let all = topic.partitions.len();
    let progress = bar(all as u64, "electing leaders");
    loop {
        let led = topic.partitions.iter();
        let led = led.filter(|one| one.leader_node_id.is_some()).count();
        progress.set_position(led as u64);
        if led == all {
            progress.finish_and_clear();
            return Ok(topic);
        }
        if Instant::now() + LED_TICK >= deadline {
            progress.finish_and_clear();
            bail!(
                "topic {name:?} was created, but {} of its {all} partitions have no leader yet, and accept no \
                 records; see `ropewalk partition list {name}`",
                all - led,
                name = topic.name
            );
        }
        sleep(LED_TICK).await;
        topic = context.topic(&topic.name).await?;
    }
}

/// Adds partitions, and returns once keys map to them.
async fn grow(context: Context, name: &str, partitions: u32) -> anyhow::Result<()> {
    let admin = context.client().await?.admin();
    let mut topic = admin.grow_topic(name, partitions).await?;
    let deadline = Instant::now() + context.global.timeout;
    while topic.is_growing {
        if Instant::now() + GROWN_TICK >= deadline {
            bail!(
                "topic {name:?} has {partitions} partitions, but no keys map to the new ones yet: each old \
                 partition needs a leader first; see `ropewalk partition list {name}`"
            );
        }
        sleep(GROWN_TICK).await;
        topic = context.topic(name).await?;
    }
    Ok(context.output.rows(&[TopicRow::from(&topic)])?)
}

/// Rejects settings that have a flag of their own.
fn check_flags(args: &TopicCreateArgs) -> Result<(), String> {
    let mut given = args.settings.iter();
    let flag = |one: &&Setting| ["partitions", "replicas"].contains(&one.key.as_str());
    match given.find(flag) {
        Some(Setting { key, value }) => Err(format!(
            "{key} is not a topic setting; pass --{key} {value}"
        )),
        None => Ok(()),
    }
}

/// The requested settings, with defaults for the others.
fn wanted(args: &TopicCreateArgs) -> Result<TopicSettings, WireError> {
    let set = args
        .settings
        .iter()
        .map(|one| (one.key.as_str(), one.value.as_str()));
    let mut wanted = settings::merge(&settings::defaults(), set)?;
    wanted.replicas = args.replicas;
    wanted.retention_ms = args.retention.unwrap_or(wanted.retention_ms);
    wanted.retention_bytes = args.retention_size.unwrap_or(wanted.retention_bytes);
    Ok(wanted.into())
}

async fn describe(context: Context, name: &str) -> anyhow::Result<()> {
    let topic = context.topic(name).await?;
    let described = Described {
        topic: TopicRow::from(&topic),
        assignment: PartitionRow::of(&topic).collect(),
    };
    Ok(context.output.one(&described, text)?)
}

/// Formats the topic, all of its settings, and its partitions.
fn text(described: &Described) -> String {
    let topic = columns(TopicRow::COLUMNS, &[described.topic.cells()]);
    let settings = described.topic.settings().into_iter();
    let settings: Vec<Vec<String>> = settings
        .map(|one| {
            vec![
                one.name.to_owned(),
                one.value,
                one.default.unwrap_or_default(),
            ]
        })
        .collect();
    let settings = columns(&["setting", "value", "instead of"], &settings);
    let rows: Vec<Vec<String>> = described.assignment.iter().map(Row::cells).collect();
    let partitions = columns(PartitionRow::COLUMNS, &rows);
    format!("{topic}\n\n{settings}\n\n{partitions}")
}

impl Context {
    /// One topic, as the cluster reports it.
    pub async fn topic(&self, name: &str) -> anyhow::Result<TopicInfo> {
        let found = self.client().await?.admin().topic(name).await?;
        found.ok_or_else(|| NoTopic(name.to_owned()).into())
    }
}

/// The topic does not exist.
#[derive(Debug, thiserror::Error)]
#[error("topic {0:?} does not exist; create it with `ropewalk topic create {0}`")]
pub struct NoTopic(pub String);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, CliCommand};

    #[tokio::test]
    async fn only_a_clear_yes_deletes() {
        let mut topic = TopicInfo::default();
        topic.name = "flights\u{1b}".into();
        for (answer, deletes) in [
            ("y\n", true),
            ("YES\n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("flights\n", false),
        ] {
            let mut question = Vec::new();
            let done = confirm(&topic, &mut answer.as_bytes(), &mut question).await;
            assert_eq!(done.unwrap(), deletes, "{answer:?}");
            let question = String::from_utf8(question).unwrap();
            assert!(question.contains("topic flights\\u{1b} and"), "{question}");
        }
    }

    #[test]
    fn what_a_flag_gives_is_no_setting_of_a_new_topic() {
        let check = |set: &str| {
            let line = ["ropewalk", "topic", "create", "t", "--set", set];
            match Cli::parse_from(line).verb {
                CliCommand::Topic(TopicCommand::Create(args)) => check_flags(&args),
                other => panic!("{other:?}"),
            }
        };
        for (set, says) in [
            ("replicas=1", "--replicas 1"),
            ("partitions=6", "--partitions 6"),
        ] {
            let error = check(set).unwrap_err();
            assert!(error.ends_with(says), "{error}");
        }
        assert_eq!(check("retention=1h"), Ok(()));
        let grown = ["ropewalk", "topic", "grow", "t", "-p", "6"];
        assert!(Cli::try_parse_from(grown).is_ok());
    }
}
