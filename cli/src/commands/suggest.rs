//! Suggestion of the intended topic for a misspelt name.

use std::time::Duration;

use anyhow::anyhow;
use ropewalk_client::{Error, ErrorCode};
use tokio::time::timeout;

use super::Context;
use super::topic::NoTopic;
use crate::args::{BenchCommand, CliCommand, GroupCommand, PartitionCommand, TopicCommand};
use crate::exit::one_line;

/// Minimum similarity of two names, from 0 to 1, for a suggestion.
const ALIKE: f64 = 0.85;
/// Time limit for a request that only improves an error message.
const WITHIN: Duration = Duration::from_secs(2);

/// The topics that a command names and that must exist.
pub fn topics(verb: &CliCommand) -> Vec<String> {
    let one = |topic: &String| vec![topic.clone()];
    match verb {
        CliCommand::Topic(
            TopicCommand::Describe { name }
            | TopicCommand::Set { name, .. }
            | TopicCommand::Grow { name, .. }
            | TopicCommand::Delete { name, .. },
        ) => one(name),
        CliCommand::Produce(args) => one(&args.topic),
        CliCommand::Consume(args) => args.topics.clone(),
        CliCommand::Trace(args) => args.topics.clone(),
        CliCommand::Group(GroupCommand::Seek(args)) => one(&args.topic),
        CliCommand::Partition(PartitionCommand::List { topic }) => topic.iter().cloned().collect(),
        CliCommand::Partition(
            PartitionCommand::Transfer { partition, .. } | PartitionCommand::Move { partition, .. },
        ) => one(&partition.topic),
        CliCommand::Bench(BenchCommand::Produce(args) | BenchCommand::Latency(args)) => {
            one(&args.topic)
        }
        CliCommand::Bench(BenchCommand::Consume(args)) => one(&args.bench.topic),
        _ => Vec::new(),
    }
}

/// True if a command failed because the topic does not exist.
pub fn is_unknown_topic(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let client = cause.downcast_ref::<Error>();
        let unknown = client.is_some_and(|error| error.code() == Some(ErrorCode::UnknownTopic));
        unknown || cause.is::<NoTopic>()
    })
}

/// Adds a suggestion to the error, if a topic of the cluster has a similar name.
pub async fn with_near_topic(
    context: &Context,
    named: &[String],
    error: anyhow::Error,
) -> anyhow::Error {
    let known = async { anyhow::Ok(context.client().await?.admin().topics().await?) };
    let Ok(Ok(known)) = timeout(WITHIN, known).await else {
        return error;
    };
    let known: Vec<&str> = known.iter().map(|topic| topic.name.as_str()).collect();
    let missing = named.iter().filter(|name| !known.contains(&name.as_str()));
    let Some(near) = missing.filter_map(|name| near(name, &known)).next() else {
        return error;
    };
    anyhow!("{}; did you mean {near:?}?", one_line(&error))
}

/// The known name most similar to the given one, if it is similar enough.
fn near<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &&'a str| {
        let folded = known.to_lowercase();
        (strsim::jaro_winkler(&name.to_lowercase(), &folded), *known)
    };
    let alike = known.iter().map(likeness);
    let alike = alike.filter(|(likeness, _)| *likeness >= ALIKE);
    let best = alike.max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_no_other() {
        let known = ["flights", "flight-events", "orders"];
        assert_eq!(near("fligths", &known), Some("flights"));
        assert_eq!(near("Flights", &known), Some("flights"));
        assert_eq!(near("order", &known), Some("orders"));
        assert_eq!(near("payments", &known), None);
    }
}
