//! The verbs that read and write records and move groups in them, as clap sees them.

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, ValueEnum};
use ropewalk_client::OnUnreadable;

use crate::parse::{HeaderArg, RecordFormat, StartAt, TopicPattern};

#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    pub topic: String,
    /// Format of stdin
    #[arg(short, long, value_name = "FORMAT", default_value = "lines")]
    pub input: InputFormat,
    /// Text between key and value; without it a line is a value without a key
    #[arg(long, value_name = "S", value_parser = NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// Publish one record with this key, and read nothing from stdin
    #[arg(short, long, value_name = "K", requires = "one")]
    pub key: Option<String>,
    /// The value of that one record
    #[arg(
        short,
        long,
        value_name = "V",
        group = "one",
        allow_hyphen_values = true
    )]
    pub value: Option<String>,
    /// Publish one record without a value: in a compacted topic it deletes what the key had
    #[arg(long, group = "one", requires = "key")]
    pub tombstone: bool,
    /// A header for every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "K=V")]
    pub headers: Vec<HeaderArg>,
    /// The partition for every record [default: by key]
    #[arg(short, long, value_name = "P")]
    pub partition: Option<u32>,
    /// Publish each record to the partition its line of jsonl names [default: by key]
    #[arg(long, conflicts_with = "partition")]
    pub keep_partitions: bool,
    /// Compression of batches
    #[arg(short = 'z', long, default_value = "none")]
    pub compression: CompressionArg,
}

/// Format of the records on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A value a line, or a key and a value; all bytes but the line feed are kept, a carriage return before it
    /// too
    Lines,
    /// A JSON object a line, as `consume -o jsonl` prints it; empty lines and a byte order mark at the beginning
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

/// Records of one partition come in its order; those of several partitions are mixed.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["topics", "pattern"]).required(true))]
pub struct ConsumeArgs {
    /// The topics
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Read all topics whose whole name matches; without a group those that exist at the start
    #[arg(long, value_name = "REGEX")]
    pub pattern: Option<TopicPattern>,
    /// Print each record like this: %t topic, %p partition, %o offset, %k key, %v value, %h headers,
    /// %T time, %% a percent sign; \n, \t, \r, \0 and \\ as in C. Bytes are printed as they are, and
    /// nothing for a null
    #[arg(long, value_name = "TEXT")]
    pub format: Option<RecordFormat>,
    /// Read as a member of this consumer group: continue from its committed offsets, share the partitions
    /// with its other members, and commit what was printed. Without --follow, partitions of other members are
    /// waited for at most 10 s. Through a pipe, what its reader left unread when it ended comes again. A reader
    /// such as head takes more than it shows: use -n
    #[arg(short, long, value_name = "G")]
    pub group: Option<String>,
    /// beginning, end, @OFFSET, a time (2026-01-31T00:00:00Z), or how long ago (-1h); of a group, where it
    /// begins in partitions it has no position in
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    pub from: StartAt,
    /// Only this partition [default: all]
    #[arg(short, long, value_name = "P", conflicts_with_all = ["group", "pattern"])]
    pub partition: Option<u32>,
    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Go on with records as they are published, instead of stopping at the end as of the start. Partitions
    /// that a topic gains are read from their beginning
    #[arg(short, long)]
    pub follow: bool,
    /// Only records for which this is true: type == 'order.placed' && json.total > 100. A group passes the
    /// others as read
    #[arg(long, value_name = "CEL", value_parser = NonEmptyStringValueParser::new())]
    pub filter: Option<String>,
    /// Skip batches that can't be read, with a warning for each, instead of stopping there
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
    /// The group
    pub group: String,
    /// The topic
    pub topic: String,
    /// beginning, end, @OFFSET, a time (2026-01-31T00:00:00Z), or how long ago (-1h)
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: StartAt,
    /// Only this partition [default: all]
    #[arg(short, long, value_name = "P")]
    pub partition: Option<u32>,
    /// Create the group if it does not exist: its first member begins there
    #[arg(long)]
    pub create: bool,
    /// Show where the positions are and where they would go, and move nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Reads topics up to their ends as of the start; there is no index.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Correlation id of the events, or the id of one of them
    #[arg(value_name = "CORRELATION-ID", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Only this topic; may be repeated [default: all]
    #[arg(short, long = "topic", value_name = "T")]
    pub topics: Vec<String>,
    /// beginning, a time (2026-01-31T00:00:00Z), or how long ago (-1h)
    #[arg(
        long,
        value_name = "WHEN",
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
