//! The page of the settings: those of a node, its limits, and those of a topic.

use std::io::Write;

use clap::{Arg, Command, FromArgMatches};
use ropewalk_machines::meta::settings as topics;
use ropewalk_node::config::{Limit, Limits, Unit};
use ropewalk_proto::units;
use ropewalk_proto::v1::TopicSettings;

use super::command_line::{default, meaning, typed, variable};
use super::{check, code, table, text};
use crate::args::{self, Cli, CliCommand};
use crate::settings::{self, LIMITS_PREFIX};

const INTRODUCTION: &str = "# Settings

A node takes each setting from its flag, or else from its environment variable, the config file (`--config FILE`,
TOML), or its default. The keys of the file are on this page.

";

const LIMITS: &str = "
## Limits of a node

Keys of the table `[limits]`, as `fetch_bytes = \"8MiB\"`. They have environment variables and no flags. A number
without a unit is in ms, bytes or bytes a second, as the key says. The bounds are those that hold while all other
limits have their defaults: a node refuses limits that contradict each other.

";

const TOPICS: &str = "
## Topics

`ropewalk topic create NAME --set KEY=VALUE` sets them for a new topic, and `ropewalk topic set NAME KEY=VALUE` changes
them, except `replicas`, which is fixed at creation. Both commands refuse a value outside the bounds.

";

/// Values of a topic setting.
struct Values {
    name: &'static str,
    /// The lowest and the highest, or all of them.
    accepted: &'static [&'static str],
    /// Values just outside, or others that are refused.
    refused: &'static [&'static str],
    is_range: bool,
}

const fn range(
    name: &'static str,
    accepted: &'static [&'static str],
    refused: &'static [&'static str],
) -> Values {
    Values {
        name,
        accepted,
        refused,
        is_range: true,
    }
}

const fn one_of(name: &'static str, accepted: &'static [&'static str]) -> Values {
    Values {
        name,
        accepted,
        refused: &["nonsense"],
        is_range: false,
    }
}

/// Bounds of the topic settings. A test tries each value.
const VALUES: &[Values] = &[
    range("retention", &["1ms", "unlimited"], &["0s"]),
    range("retention_size", &["1B", "unlimited"], &["0"]),
    range(
        "segment_bytes",
        &["16KiB", "1GiB"],
        &["16383", "1073741825"],
    ),
    range("max_batch_bytes", &["1KiB", "8MiB"], &["1023", "8388609"]),
    one_of("partitioner", &["ring", "murmur2"]),
    one_of("cleanup", &["delete", "compact", "compact,delete"]),
    range("delete_horizon", &["1ms"], &["0s"]),
    range("min_compaction_lag", &["0s"], &["unlimited"]),
    range("min_dirty_percent", &["1", "100"], &["0", "101"]),
    range("max_timestamp_ahead", &["1ms", "unlimited"], &["0s"]),
    range("replicas", &["1", "7"], &["0", "8"]),
];

/// Keys that a table of the config file may have, from the refusal of another one.
fn keys() -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"xyzzy = 1\n").unwrap();
    let path = file.path().to_str().unwrap();
    let matches = args::command().get_matches_from(["ropewalk", "node", "--config", path]);
    let cli = Cli::from_arg_matches(&matches).unwrap();
    let CliCommand::Node(node) = cli.verb else {
        panic!("another command");
    };
    let error = settings::load(&node, &cli.global).unwrap_err().to_string();
    let (_, keys) = error.rsplit_once(" are ").expect(&error);
    keys.split(", ").map(str::to_owned).collect()
}

fn node_table() -> String {
    let command = args::command();
    let node = command.find_subcommand("node").unwrap();
    let argument = |key: &str| -> Arg {
        let of = |command: &Command| {
            command
                .get_arguments()
                .find(|arg| arg.get_id() == key)
                .cloned()
        };
        let found = of(node).or_else(|| of(&command));
        found.unwrap_or_else(|| panic!("{key} is a key of the file without a flag"))
    };
    let keys = keys();
    assert!(keys.len() > 10, "{keys:?}");
    let rows = keys.iter().filter(|key| *key != "limits").map(|key| {
        let arg = argument(key);
        vec![
            code(key),
            code(&typed(&arg)),
            variable(&arg),
            default(&arg),
            meaning(&arg),
        ]
    });
    let headings = ["key", "flag", "environment", "default", "meaning"];
    table(&headings, rows)
}

/// True if a node accepts a limit of this value, with the defaults of all others.
fn accepts(limit: &Limit, value: u64) -> bool {
    let name = limit.name;
    let limits = serde_json::json!({ name: value });
    serde_json::from_value::<Limits>(limits).is_ok_and(|limits| limits.check().is_ok())
}

/// The last accepted value on the way from an accepted to a refused one.
fn edge(limit: &Limit, mut accepted: u64, mut refused: u64) -> u64 {
    while accepted.abs_diff(refused) > 1 {
        let middle = accepted.midpoint(refused);
        match accepts(limit, middle) {
            true => accepted = middle,
            false => refused = middle,
        }
    }
    accepted
}

/// The bounds of a limit. A bound above that of 32 bits counts as none.
fn bounds(limit: &Limit, default: u64) -> String {
    let largest = u64::from(u32::MAX);
    let lowest = match accepts(limit, 0) {
        true => 0,
        false => edge(limit, default, 0),
    };
    assert!(i128::from(lowest) >= limit.lowest(), "{}", limit.name);
    let lowest = quantity(limit.unit(), lowest);
    match accepts(limit, largest.max(default)) {
        true => format!("at least {lowest}"),
        false => {
            let highest = edge(limit, default, largest);
            format!("{lowest} to {}", quantity(limit.unit(), highest))
        }
    }
}

/// A number in the largest unit that keeps it whole.
fn quantity(unit: Unit, number: u64) -> String {
    const TIMES: [(u64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    if number == 0 {
        return "0".to_owned();
    }
    match unit {
        Unit::Bytes | Unit::BytesPerSecond => units::size(number),
        Unit::Count => number.to_string(),
        Unit::Milliseconds => {
            let whole = TIMES.iter().find(|(time, _)| number.is_multiple_of(*time));
            let (time, name) = whole.copied().unwrap_or((1, "ms"));
            format!("{}{name}", number / time)
        }
    }
}

fn limits_table() -> String {
    let defaults = Limits::default();
    let rows = Limits::ALL.iter().map(|limit| {
        let default = u64::try_from(limit.value(&defaults)).unwrap();
        let unit = match limit.unit() {
            Unit::Milliseconds => "time",
            Unit::Bytes => "bytes",
            Unit::BytesPerSecond => "bytes a second",
            Unit::Count => "number",
        };
        vec![
            code(limit.name),
            code(&format!("{LIMITS_PREFIX}{}", limit.name.to_uppercase())),
            unit.to_owned(),
            code(&quantity(limit.unit(), default)),
            bounds(limit, default),
            text(limit.meaning()),
        ]
    });
    let headings = ["key", "environment", "unit", "default", "bounds", "meaning"];
    table(&headings, rows)
}

fn topics_table() -> String {
    let rows = args::topic_settings()
        .iter()
        .map(|(name, default, meaning)| {
            let of_it = |values: &&Values| values.name == *name;
            let values = VALUES.iter().find(of_it).expect(name);
            let accepted: Vec<String> = values.accepted.iter().map(|one| code(one)).collect();
            let values = match (values.is_range, accepted.len()) {
                (true, 1) => format!("at least {}", accepted[0]),
                (true, _) => accepted.join(" to "),
                (false, _) => accepted.join(", "),
            };
            vec![code(name), code(default), values, text(meaning)]
        });
    table(&["setting", "default", "values", "meaning"], rows)
}

#[test]
fn the_page_of_the_settings_is_as_the_code_says() {
    let mut page = INTRODUCTION.to_owned() + "## Node\n\n" + &node_table();
    page.push_str(LIMITS);
    page.push_str(&limits_table());
    page.push_str(TOPICS);
    page.push_str(&topics_table());
    check("settings.md", &page);
}

#[test]
fn the_bounds_of_topic_settings_are_those_of_the_cluster() {
    let replicas = |count: &str| TopicSettings {
        replicas: count.parse().unwrap(),
        ..topics::defaults()
    };
    let accepts = |name: &str, value: &str| match name {
        // Zero replicas are the default.
        "replicas" => value != "0" && topics::resolve(Some(&replicas(value))).is_ok(),
        name => topics::merge(&topics::defaults(), [(name, value)]).is_ok(),
    };
    assert_eq!(VALUES.len(), args::topic_settings().len());
    for Values {
        name,
        accepted,
        refused,
        ..
    } in VALUES
    {
        for value in *accepted {
            assert!(accepts(name, value), "{name}={value}");
        }
        for value in *refused {
            assert!(!accepts(name, value), "{name}={value}");
        }
    }
}

#[test]
fn numbers_come_in_the_largest_unit_that_keeps_them_whole() {
    let of = |unit, number| quantity(unit, number);
    assert_eq!(of(Unit::Milliseconds, 7 * 86_400_000), "7d");
    assert_eq!(of(Unit::Milliseconds, 1_500), "1500ms");
    assert_eq!(of(Unit::Bytes, 8 << 20), "8MiB");
    assert_eq!(of(Unit::BytesPerSecond, 1_023), "1023B");
    assert_eq!(of(Unit::Count, 2_000), "2000");
    assert_eq!(of(Unit::Count, 0), "0");
}
