//! Additions to the flags: examples for every command and the topic settings, for `--help`, and names in the
//! cluster, for shell completion.

use std::fmt::Write;

use clap::{Command, CommandFactory};
use clap_complete::engine::ArgValueCandidates;

use super::Cli;
use super::examples::EXAMPLES;
use crate::commands::completions;

/// Commands that take topic settings as `key=value`.
const WITH_SETTINGS: [&str; 2] = ["topic create", "topic set"];

/// Topic settings: name, default, meaning.
const SETTINGS: [(&str, &str, &str); 11] = [
    ("retention", "7d", "Retention time of records, or unlimited"),
    (
        "retention_size",
        "unlimited",
        "Retention size of each partition, or unlimited",
    ),
    (
        "segment_bytes",
        "64MiB",
        "Segment size; retention removes whole segments",
    ),
    (
        "max_batch_bytes",
        "1MiB",
        "Maximum size of a batch, and so of a record",
    ),
    (
        "partitioner",
        "ring",
        "Mapping of keys to partitions: ring, or murmur2 as in Kafka",
    ),
    (
        "cleanup",
        "delete",
        "Cleanup of old records: delete, compact (last record of each key), or compact,delete",
    ),
    (
        "delete_horizon",
        "1d",
        "With compact: minimum time for which a tombstone stays readable",
    ),
    (
        "min_compaction_lag",
        "0s",
        "With compact: minimum age of a record before compaction",
    ),
    (
        "min_dirty_percent",
        "50",
        "With compact: minimum percentage of new records in the log",
    ),
    (
        "max_timestamp_ahead",
        "1h",
        "Maximum lead of a record's timestamp over the leader's clock",
    ),
    (
        "replicas",
        "3",
        "Replicas of each partition; set by --replicas at creation only",
    ),
];

/// The whole command line.
pub fn command() -> Command {
    complete(Cli::command(), "")
}

/// The topic settings, for the reference.
#[cfg(test)]
pub fn topic_settings() -> &'static [(&'static str, &'static str, &'static str)] {
    &SETTINGS
}

/// Adds examples to a command and all of its subcommands. `path` is its name, without the program.
fn complete(command: Command, path: &str) -> Command {
    let names = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned());
    let names: Vec<String> = names.collect();
    let mut command = match text(path) {
        text if text.is_empty() => command,
        text => command.after_long_help(text),
    };
    let offers = offers(path);
    // The argument changes in place: if it were removed and added again, it would move to the end of the
    // line.
    command = command.mut_args(|arg| {
        let found = offers.iter().find(|(id, _)| arg.get_id() == *id);
        match found.map(|(_, offered)| offered.clone()) {
            Some(offered) => arg.add(offered),
            None => arg,
        }
    });
    for name in names {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(name, |verb| complete(verb, path.trim_start()));
    }
    command
}

/// Arguments whose values are names in the cluster.
fn offers(path: &str) -> Vec<(&'static str, ArgValueCandidates)> {
    let mut offers = vec![
        ("topic", completions::topics()),
        ("topics", completions::topics()),
        ("group", completions::groups()),
    ];
    if path.starts_with("topic ") && path != "topic create" {
        offers.push(("name", completions::topics()));
    }
    offers
}

fn text(path: &str) -> String {
    let mut text = String::new();
    if WITH_SETTINGS.contains(&path) {
        text.push_str("Settings:\n");
        for (name, default, meaning) in SETTINGS {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<19} {meaning} [default: {default}]");
        }
        text.push('\n');
    }
    let found = EXAMPLES.iter().find(|(verb, _)| *verb == path);
    let Some((_, examples)) = found else {
        return text;
    };
    text.push_str("Examples:");
    for (what, line) in examples {
        let _ = write!(text, "\n  # {what}\n  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use ropewalk_machines::meta::settings;

    use super::*;

    /// Every command with its path, including commands that only group others.
    fn verbs(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name())
                .trim_start()
                .to_owned();
            verbs(verb, &path, found);
            found.push((path, verb.clone()));
        }
    }

    fn all() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        verbs(&command(), "", &mut found);
        found
    }

    #[test]
    fn the_help_of_every_verb_has_two_examples_of_it() {
        let known = all();
        assert!(known.len() > 30, "{}", known.len());
        for (path, mut verb) in all() {
            let help = verb.render_long_help().to_string();
            let (_, examples) = help.split_once("Examples:").unwrap_or_default();
            let of_it = |line: &&str| line.contains(&format!("ropewalk {path}"));
            let count = examples.lines().filter(of_it).count();
            assert!(count >= 2, "ropewalk {path}: {count} examples\n{help}");
        }
        for (path, _) in EXAMPLES {
            let exists = path.is_empty() || known.iter().any(|(verb, _)| verb == path);
            assert!(exists, "{path} is not a command");
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for (path, examples) in EXAMPLES {
            for (_, line) in examples {
                for words in calls(line) {
                    let parsed = command().try_get_matches_from(&words);
                    assert!(parsed.is_ok(), "{path}: {words:?}: {}", parsed.unwrap_err());
                }
            }
        }
    }

    #[test]
    fn what_is_added_for_completion_leaves_positional_arguments_in_their_order() {
        fn positionals(command: &Command) -> Vec<String> {
            let ids = command
                .get_positionals()
                .map(|arg| arg.get_id().to_string());
            ids.collect()
        }
        let mut plain = Vec::new();
        verbs(&Cli::command(), "", &mut plain);
        for ((path, verb), (same, completed)) in plain.iter().zip(all()) {
            assert_eq!(*path, same);
            assert_eq!(positionals(verb), positionals(&completed), "{path}");
        }
        let line = "ropewalk group seek billing flights --to end";
        let seek = command().get_matches_from(line.split(' '));
        let (_, group) = seek.subcommand().unwrap();
        let (_, seek) = group.subcommand().unwrap();
        let given = |id: &str| seek.get_one::<String>(id).cloned();
        assert_eq!(given("group").as_deref(), Some("billing"));
        assert_eq!(given("topic").as_deref(), Some("flights"));
    }

    /// The words of each call of the program in a shell line.
    fn calls(line: &str) -> Vec<Vec<String>> {
        let mut calls = vec![Vec::new()];
        let (mut word, mut quoted, mut begun) = (String::new(), false, false);
        for character in line.chars().chain([' ']) {
            match character {
                '\'' => (quoted, begun) = (!quoted, true),
                _ if quoted => word.push(character),
                ' ' | '|' | '<' | '>' | '(' | ')' | '&' => {
                    if std::mem::take(&mut begun) {
                        calls.last_mut().unwrap().push(std::mem::take(&mut word));
                    }
                    if character != ' ' {
                        calls.push(Vec::new());
                    }
                }
                _ => {
                    word.push(character);
                    begun = true;
                }
            }
        }
        calls.retain(|words| words.first().is_some_and(|first| first == "ropewalk"));
        assert!(!calls.is_empty(), "{line} calls nothing");
        calls
    }

    #[test]
    fn the_settings_listed_are_all_there_are() {
        let nonsense = [("nonsense", "1")];
        let error = settings::merge(&settings::defaults(), nonsense).unwrap_err();
        let (_, known) = error.message.split_once("settings are ").unwrap();
        let known = known.replace(" and ", ", ");
        let known: Vec<&str> = known.split(", ").map(str::trim).collect();
        let listed: Vec<&str> = SETTINGS.iter().map(|(name, _, _)| *name).collect();
        for name in &known {
            assert!(listed.contains(name), "{name} is not listed");
        }
        assert_eq!(listed.len(), known.len() + 1, "replicas is the other one");
        let defaults = SETTINGS.iter().filter(|(name, _, _)| *name != "replicas");
        let defaults = defaults.map(|(name, default, _)| (*name, *default));
        settings::merge(&settings::defaults(), defaults).unwrap();
    }

    #[test]
    fn the_short_help_is_short_and_global_flags_have_a_heading_of_their_own() {
        let mut produce = all()
            .into_iter()
            .find(|(path, _)| path == "produce")
            .unwrap()
            .1;
        let mut whole = command();
        whole.build();
        let built = whole.find_subcommand_mut("produce").unwrap();
        let long = built.render_long_help().to_string();
        let (own, global) = long.split_once("Global options:").unwrap();
        assert!(
            own.contains("--key-separator") && !own.contains("--bootstrap"),
            "{long}"
        );
        assert!(
            global.contains("--bootstrap") && global.contains("--tls-ca"),
            "{long}"
        );
        let short = built.render_help().to_string();
        assert!(
            !short.contains("Examples:") && !short.contains("--tls-ca"),
            "{short}"
        );
        assert!(short.lines().count() < produce.render_long_help().to_string().lines().count());
    }
}
