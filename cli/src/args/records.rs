//! Arguments of the commands that read and write records, and that move groups in them.

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, ValueEnum};
use ropewalk_client::OnUnreadable;

use crate::parse::{HeaderArg, RecordFormat, StartAt, TopicPattern};

#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// Topic name
    pub topic: String,
    /// Format of stdin
    #[arg(short, long, value_name = "FORMAT", default_value = "lines")]
    pub input: InputFormat,
    /// Separator between key and value; if omitted, each line is a value with no key
    #[arg(long, value_name = "SEPARATOR", value_parser = NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// Key of the record of --value or --tombstone
    #[arg(short, long, value_name = "KEY", requires = "one")]
    pub key: Option<String>,
    /// Publish one record with this value, instead of reading stdin
    #[arg(
        short,
        long,
        value_name = "VALUE",
        group = "one",
        allow_hyphen_values = true
    )]
    pub value: Option<String>,
    /// Publish one record without a value
    ///
    /// In a compacted topic, a tombstone deletes the earlier records of the key.
    #[arg(long, group = "one", requires = "key")]
    pub tombstone: bool,
    /// Header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE")]
    pub headers: Vec<HeaderArg>,
    /// Partition of every record [default: by key]
    #[arg(short, long, value_name = "PARTITION")]
    pub partition: Option<u32>,
    /// Publish each record to the partition in its JSON line, instead of by key
    #[arg(long, conflicts_with = "partition")]
    pub keep_partitions: bool,
    /// Compression of batches
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    pub compression: CompressionArg,
}

/// Format of the records on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// One value per line, or a key and a value; every byte before the line feed is kept, carriage returns too
    Lines,
    /// One JSON object per line, as printed by `consume -o jsonl`; empty lines and a leading byte order mark
    /// are skipped
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    None,
    Lz4,
    Zstd,
    Snappy,
    Gzip,
}

/// Arguments of `ropewalk consume`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["topics", "pattern"]).required(true))]
pub struct ConsumeArgs {
    /// Topic names
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Read all topics whose full name matches
    ///
    /// Without --group, only topics that exist at the start are read.
    #[arg(long, value_name = "REGEX")]
    pub pattern: Option<TopicPattern>,
    /// Output format of each record, for example '%k %v\n'
    ///
    /// Fields: %t topic, %p partition, %o offset, %k key, %v value, %h headers, %T time, %% a percent sign.
    /// Escapes: \n, \t, \r, \0 and \\ as in C. Bytes are printed unchanged. A null prints nothing.
    #[arg(long, value_name = "TEXT")]
    pub format: Option<RecordFormat>,
    /// Read as a member of this consumer group
    ///
    /// The member starts at the group's committed offsets, shares the partitions with the other members, and
    /// commits the records that it printed. Without --follow, it waits at most 10 s for partitions of other
    /// members. Records that the reader of a pipe did not read are not committed, and are delivered again. A
    /// reader such as head reads more than it shows: use -n instead.
    #[arg(short, long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Start: beginning, end, @OFFSET, a timestamp (2026-01-31T00:00:00Z) or a relative time (-1h)
    ///
    /// With --group, the start offset for partitions without a committed offset.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    pub from: StartAt,
    /// Only this partition [default: all]
    #[arg(short, long, value_name = "PARTITION", conflicts_with_all = ["group", "pattern"])]
    pub partition: Option<u32>,
    /// Maximum number of records to print
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Continue with new records, instead of stopping at the end of the topic
    ///
    /// Without this flag, the command stops at the end offsets of its start. With it, partitions that are added
    /// to a topic are read from their beginning.
    #[arg(short, long)]
    pub follow: bool,
    /// Only records that match, for example: type == 'order.placed' && json.total > 100
    ///
    /// With --group, non-matching records are committed as read.
    #[arg(long, value_name = "CEL", value_parser = NonEmptyStringValueParser::new())]
    pub filter: Option<String>,
    /// Skip unreadable batches with a warning, instead of stopping with an error
    #[arg(long)]
    pub skip_unreadable: bool,
}

impl ConsumeArgs {
    /// The policy for a batch that can't be read.
    pub fn unreadable(&self) -> OnUnreadable {
        match self.skip_unreadable {
            true => OnUnreadable::Skip,
            false => OnUnreadable::Fail,
        }
    }
}

#[derive(Debug, Args)]
pub struct GroupSeekArgs {
    /// Group name
    pub group: String,
    /// Topic name
    pub topic: String,
    /// New position: beginning, end, @OFFSET, a timestamp (2026-01-31T00:00:00Z) or a relative time (-1h)
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub to: StartAt,
    /// Only this partition [default: all]
    #[arg(short, long, value_name = "PARTITION")]
    pub partition: Option<u32>,
    /// Create the group if it does not exist; its first member starts at the position
    #[arg(long)]
    pub create: bool,
    /// Show the current and the new offsets without a change
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `ropewalk trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Correlation id, or the id of an event
    #[arg(value_name = "CORRELATION-ID", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Only this topic; may be repeated [default: all]
    #[arg(short, long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Start: beginning, a timestamp (2026-01-31T00:00:00Z) or a relative time (-1h)
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    pub from: StartAt,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn consume_without_a_topic_is_told_of_patterns_too() {
        let error = Cli::try_parse_from(["ropewalk", "consume"]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("TOPIC") && error.contains("--pattern"),
            "{error}"
        );
        for right in [vec!["t"], vec!["t", "u"], vec!["--pattern", "t.*"]] {
            let line = [vec!["ropewalk", "consume"], right].concat();
            assert!(Cli::try_parse_from(&line).is_ok(), "{line:?}");
        }
        let both = ["ropewalk", "consume", "t", "--pattern", "t.*"];
        assert!(Cli::try_parse_from(both).is_err());
    }
}
