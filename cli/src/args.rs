//! The command line as clap sees it: every verb, flag and environment variable. This module must not do any
//! work.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::parse::{Address, PartitionName, Setting, duration, retention_size, retention_time};
use crate::tls::{TlsClientAuth, TlsMode};

pub use bench::{BenchArgs, BenchVerb};
pub use help::command;
#[cfg(test)]
pub use help::topic_settings;
pub use records::{
    CompressionArg, ConsumeArgs, GroupSeekArgs, InputFormat, ProduceArgs, TraceArgs,
};

mod bench;
mod examples;
mod help;
mod records;

/// Heading of the flags that every verb takes.
const GLOBAL: &str = "Global options";

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

/// Version, with the commit if the build named one: a build needs no git.
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    commit().map_or(version.to_owned(), |commit| {
        format!("{version} (commit {commit})")
    })
}

/// Commit of the build, if the build named one.
pub fn commit() -> Option<&'static str> {
    option_env!("ROPEWALK_COMMIT").filter(|commit| !commit.is_empty())
}

/// Flags every verb takes, before or after it.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Nodes to reach the cluster through; one living one is enough
    #[arg(
        short,
        long,
        global = true, help_heading = GLOBAL,
        env = "ROPEWALK_BOOTSTRAP",
        value_name = "HOST:PORT[,…]",
        default_value = "127.0.0.1:7101",
        value_delimiter = ','
    )]
    pub bootstrap: Vec<Address>,
    /// How results are printed [default: table on a terminal, jsonl when piped]
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// How long one request may take, all its retries included
    #[arg(long, global = true, help_heading = GLOBAL, env = "ROPEWALK_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// CAs whose nodes are trusted (PEM); connections are then TLS. For a node: CAs of its peers and clients
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show (PEM); nodes ask for one with --tls-client-auth required. For a node: its own
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_KEY", value_name = "FILE")]
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
    /// Publish records: one a line of stdin, or one of --key and --value
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
        shell: Shell,
    },
    /// Print the version
    Version,
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
    /// Port for probes alone: health without TLS, served also while clients fill --http; off unless given
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_PROBES")]
    pub probes: Option<Address>,
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
    /// All topics, with the records and bytes they hold
    #[command(visible_alias = "ls")]
    List {
        /// Also what comes in a second, measured for this long
        #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "3s", value_parser = duration)]
        rates: Option<Duration>,
    },
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
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
    },
    /// Delete a topic and every record in it; asks first on a terminal
    #[command(visible_alias = "rm")]
    Delete {
        /// The topic
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct TopicCreateArgs {
    /// Letters, digits, dots, dashes, underscores; at most 249. Names that begin with _ are refused: they
    /// are the cluster's own
    pub name: String,
    /// How many partitions
    #[arg(short, long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// On how many nodes each record is kept
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// How long records are kept; `unlimited` for ever [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = retention_time)]
    pub retention: Option<i64>,
    /// How many bytes of records a partition keeps; `unlimited` for all [default: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = retention_size)]
    pub retention_size: Option<i64>,
    /// Any other setting; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
}

#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// All consumer groups
    #[command(visible_alias = "ls")]
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
    #[command(visible_alias = "rm")]
    Delete {
        /// The group
        group: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum PartitionVerb {
    /// Leaders, replicas and offsets of each partition
    #[command(visible_alias = "ls")]
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
    ///
    /// While all nodes live it looks again for 3 s, so that a partition made a moment ago is no failure.
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
