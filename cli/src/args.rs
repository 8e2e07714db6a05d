//! The command line as clap sees it: every verb, flag and environment variable, and nothing that
//! does work.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ropewalk_client::Unreadable;

use crate::parse::{
    Address, HeaderArg, PartitionName, Rate, Setting, StartAt, duration, rate, retention_size,
    retention_time, size,
};
use crate::tls::{TlsClientAuth, TlsMode};

/// A replicated log: keyed records, in order, on the disks of a majority.
#[derive(Debug, Parser)]
#[command(
    name = "ropewalk",
    version = version(),
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The version, and the commit if whoever built this said which: a build needs no git.
fn version() -> String {
    let commit = option_env!("ROPEWALK_COMMIT").filter(|commit| !commit.is_empty());
    let version = env!("CARGO_PKG_VERSION");
    commit.map_or(version.to_owned(), |commit| {
        format!("{version} (commit {commit})")
    })
}

/// Flags every verb takes, before or after it.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Nodes to reach the cluster through; one living one is enough
    #[arg(
        long,
        global = true,
        env = "ROPEWALK_BOOTSTRAP",
        value_name = "HOST:PORT[,…]",
        default_value = "127.0.0.1:7101",
        value_delimiter = ','
    )]
    pub bootstrap: Vec<Address>,
    /// How results are printed [default: table on a terminal, jsonl when piped]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// How long one request may take, all its retries included
    #[arg(long, global = true, env = "ROPEWALK_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// CAs whose nodes are trusted (PEM); connections are then TLS. For a node: CAs of its peers and clients
    #[arg(long, global = true, env = "ROPEWALK_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show (PEM); nodes ask for one with --tls-client-auth required. For a node: its own
    #[arg(long, global = true, env = "ROPEWALK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, global = true, env = "ROPEWALK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a cluster in this process, to develop against
    Dev(DevArgs),
    /// Run one node
    Node(NodeArgs),
    /// Create, show, change and delete topics
    #[command(subcommand)]
    Topic(TopicVerb),
    /// Publish one record a line from stdin
    Produce(ProduceArgs),
    /// Print records
    Consume(ConsumeArgs),
    /// Show consumer groups and how far they are behind, move and delete them
    #[command(subcommand)]
    Group(GroupVerb),
    /// Print the path of an event across topics: each record below the one that caused it
    Trace(TraceArgs),
    /// Show partitions, move their leaders and replicas
    #[command(subcommand)]
    Partition(PartitionVerb),
    /// Show the cluster, take nodes out and in
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Measure the cluster
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Print completions for a shell
    Completions {
        /// The shell to print them for
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, env = "ROPEWALK_NODES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Where the nodes keep their data [default: ropewalk/dev in the user's data directory]
    #[arg(long, value_name = "DIR", env = "ROPEWALK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Node i listens on base+i (gRPC) and base+100+i (HTTP)
    #[arg(long, env = "ROPEWALK_BASE_PORT", default_value_t = 7_100, value_parser = clap::value_parser!(u16).range(1..=65_300))]
    pub base_port: u16,
    /// Delete what earlier runs left in the data directory
    #[arg(long, env = "ROPEWALK_FRESH", value_parser = BoolishValueParser::new())]
    pub fresh: bool,
}

/// One node. What is not given here comes from the environment, then from the file.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// A TOML file with these flags as keys (data_dir, listen, …) and a table [limits]
    #[arg(long, value_name = "FILE", env = "ROPEWALK_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the node keeps its data and its identity
    #[arg(long, value_name = "DIR", env = "ROPEWALK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients and other nodes are served (gRPC)
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_LISTEN")]
    pub listen: Option<Address>,
    /// The address others reach this node at [default: that of --listen]
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_ADVERTISE")]
    pub advertise: Option<Address>,
    /// Where metrics and health are served; off unless given
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_HTTP")]
    pub http: Option<Address>,
    /// A second port, for clients that don't reach --advertise, as from outside of Kubernetes; off unless given
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_EXTERNAL_LISTEN")]
    pub external_listen: Option<Address>,
    /// The address those clients reach that port at; they are told this one of every node
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_EXTERNAL_ADVERTISE")]
    pub external_advertise: Option<Address>,
    /// The same list on every first node forms the cluster; a later node names any living one
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "ROPEWALK_SEEDS",
        value_delimiter = ','
    )]
    pub seeds: Option<Vec<Address>>,
    /// The rack (zone) this node stands in; replicas are spread over racks
    #[arg(long, env = "ROPEWALK_RACK")]
    pub rack: Option<String>,
    /// Whether the ports take TLS [default: off]
    #[arg(long, value_name = "MODE", env = "ROPEWALK_TLS_MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Whether those who connect to --listen show a certificate [default: none]
    #[arg(long, value_name = "WHETHER", env = "ROPEWALK_TLS_CLIENT_AUTH")]
    pub tls_client_auth: Option<TlsClientAuth>,
}

#[derive(Debug, Subcommand)]
pub enum TopicVerb {
    /// Create a topic
    Create(TopicCreateArgs),
    /// All topics
    List,
    /// One topic: its settings and partitions
    Describe {
        /// The topic
        name: String,
    },
    /// Change a setting
    Set {
        /// The topic
        name: String,
        /// What to change, to what
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<Setting>,
    },
    /// Give a topic more partitions; the records of each key keep their order
    Grow {
        /// The topic
        name: String,
        /// How many it shall have in all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
    },
    /// Delete a topic and every record in it
    Delete {
        /// The topic
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct TopicCreateArgs {
    /// Letters, digits, dots, dashes, underscores; at most 249
    pub name: String,
    /// How many partitions
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// On how many nodes each record is kept
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// How long records are kept; `unlimited` for ever [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = retention_time)]
    pub retention: Option<i64>,
    /// How many bytes of records a partition keeps; `unlimited` for all [default: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = retention_size)]
    pub retention_size: Option<i64>,
    /// Any other setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
}

#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    pub topic: String,
    /// What stands between key and value; without it a line is a value without a key
    #[arg(long, value_name = "S", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// A header for every record; may be repeated
    #[arg(long = "header", value_name = "K=V")]
    pub headers: Vec<HeaderArg>,
    /// The partition for every record [default: by key]
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// How batches are compressed
    #[arg(long, default_value = "none")]
    pub compression: CompressionArg,
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
pub struct ConsumeArgs {
    /// The topic
    pub topic: String,
    /// Read as a member of this consumer group: go on where it stands, share the partitions with its other
    /// members, and commit what was printed. Without --follow, partitions of other members are waited for at
    /// most 10 s. Through a pipe, what its reader left unread when it ended comes again
    #[arg(long, value_name = "G")]
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
    #[arg(long, value_name = "P", conflicts_with = "group")]
    pub partition: Option<u32>,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Go on with records as they are published, instead of stopping at the end that stood at the start.
    /// Partitions that the topic gains are read from their beginning
    #[arg(long)]
    pub follow: bool,
    /// Only records for which this is true: type == 'order.placed' && json.total > 100. A group passes the
    /// others as read
    #[arg(long, value_name = "CEL", value_parser = NonEmptyStringValueParser::new())]
    pub filter: Option<String>,
    /// Go past batches that nobody can read, with a warning for each, instead of stopping there
    #[arg(long)]
    pub skip_unreadable: bool,
}

impl ConsumeArgs {
    /// The policy for a batch that can't be read.
    pub fn unreadable(&self) -> Unreadable {
        match self.skip_unreadable {
            true => Unreadable::Skip,
            false => Unreadable::Fail,
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
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// Create the group if it does not exist: its first member begins there
    #[arg(long)]
    pub create: bool,
    /// Show where the positions are and where they would go, and move nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// All consumer groups
    List,
    /// One group: its members, and who reads what
    Describe {
        /// The group
        group: String,
    },
    /// How far a group is behind, in records and in seconds, partition by partition
    Lag {
        /// The group
        group: String,
    },
    /// Move a group's positions in a topic; it must have no members
    Seek(GroupSeekArgs),
    /// Forget a group and its positions; it must have no members
    Delete {
        /// The group
        group: String,
    },
}

/// Topics are read up to the ends that stand at the start; there is no index.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What the events belong to: their correlation id, or the id of one of them
    #[arg(value_name = "CORRELATION-ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub id: String,
    /// Only this topic; may be repeated [default: all]
    #[arg(long = "topic", value_name = "T")]
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

#[derive(Debug, Subcommand)]
pub enum PartitionVerb {
    /// Leaders, replicas and offsets of each partition
    List {
        /// Only this topic
        topic: Option<String>,
    },
    /// Move a partition's leadership to another of its replicas
    Transfer {
        /// The partition
        #[arg(value_name = "TOPIC/P")]
        partition: PartitionName,
        /// The node that shall lead
        #[arg(long, value_name = "NODE")]
        to: u64,
    },
    /// Move a partition's replicas to other nodes
    Move {
        /// The partition
        #[arg(value_name = "TOPIC/P")]
        partition: PartitionName,
        /// The nodes that shall hold it; the first is preferred as leader
        #[arg(long, value_name = "NODE,…", required = true, value_delimiter = ',')]
        replicas: Vec<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// One line a node
    Status,
    /// Exit 0 only when every partition has a leader and all replicas are in sync
    Health {
        /// Wait this long for it to become so
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Move a node's leaderships away, before maintenance
    Drain {
        /// The node's id
        node: u64,
    },
    /// Move a node's replicas elsewhere and take it out for ever
    Decommission {
        /// The node's id
        node: u64,
        /// Return only when it is out
        #[arg(long)]
        wait: bool,
    },
    /// End a drain or a decommission that is not done yet
    Recommission {
        /// The node's id
        node: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum BenchVerb {
    /// Publish as fast as acknowledgements come, or at a rate
    Produce(BenchArgs),
    /// Read what the topic holds, from its beginning, as fast as it comes
    Consume(BenchConsumeArgs),
    /// Publish at a steady rate; time to the acknowledgement, and to a reader
    Latency(BenchArgs),
}

#[derive(Debug, Clone, Args)]
pub struct BenchConsumeArgs {
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Read it all as so many consumer groups at once, which are deleted in the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub groups: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The topic; it must exist
    #[arg(long)]
    pub topic: String,
    /// Bytes of each value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size)]
    pub record_size: u64,
    /// Producers (or, for consume, readers at a time)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub producers: u16,
    /// Records each producer has under way at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Records a second, over all producers; latency then counts from the intended time
    /// [default: no limit; 500/s for latency]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<Rate>,
    /// How many different keys [default: records have no key]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub duration: Duration,
}
