//! Definition of the command line: every command, flag and environment variable. This module must not do any
//! work.

// Doc comments here are help texts, in which brackets are no links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::parse::{Address, PartitionName, Setting, duration, retention_size, retention_time};
use crate::tls::{TlsClientAuth, TlsMode};

pub use bench::{BenchArgs, BenchCommand};
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

/// Heading of the flags that every command takes.
const GLOBAL: &str = "Global options";

/// Distributed, replicated log of keyed records.
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
    pub verb: CliCommand,
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

/// Flags of every command, before or after its name.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Bootstrap servers; one reachable node is enough
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
    /// Output format [default: table on a terminal, jsonl when piped]
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Time limit of each request, including its retries, and of each record's delivery
    ///
    /// A command makes several requests in turn, so it can take several times as long. Publishing one record
    /// takes up to four times the limit.
    #[arg(long, global = true, help_heading = GLOBAL, env = "ROPEWALK_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Trusted CA certificates (PEM); commands then use TLS. For a node: the CAs of its peers and clients
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Client certificate (PEM), for nodes with --tls-client-auth required. For a node: its own certificate
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM)
    #[arg(long, global = true, help_heading = GLOBAL, hide_short_help = true, env = "ROPEWALK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// Format of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run a local cluster in one process, for development
    Dev(DevArgs),
    /// Run one node
    ///
    /// Flags take precedence over environment variables, and those over the config file.
    Node(NodeArgs),
    /// Create, list, change and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Publish records from stdin, or one record from --key and --value
    Produce(ProduceArgs),
    /// Print the records of topics
    ///
    /// Records of one partition are printed in offset order. Records of several partitions are interleaved.
    Consume(ConsumeArgs),
    /// Show consumer groups and their lag; move their offsets; delete groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Print the path of an event across topics, as a tree
    ///
    /// Each record is printed below the record that caused it. The command reads the topics up to their current
    /// ends, without an index.
    Trace(TraceArgs),
    /// List partitions; move their leaders and replicas
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// Show the cluster; drain and decommission nodes
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Benchmark the cluster
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Generate shell completions
    Completions {
        /// Shell that loads them
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Number of nodes
    #[arg(long, env = "ROPEWALK_NODES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Data directory [default: ropewalk/dev in the user's data directory]
    #[arg(long, value_name = "DIR", env = "ROPEWALK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Base port: node i serves gRPC on base+i and HTTP on base+100+i
    #[arg(long, value_name = "PORT", env = "ROPEWALK_BASE_PORT", default_value_t = 7_100, value_parser = clap::value_parser!(u16).range(1..=65_300))]
    pub base_port: u16,
    /// Delete the data of earlier runs first
    #[arg(long, env = "ROPEWALK_FRESH", value_parser = BoolishValueParser::new())]
    pub fresh: bool,
}

/// Settings of one node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Config file (TOML)
    ///
    /// Its keys are the names of these flags (data_dir, listen, …), and a table [limits].
    #[arg(long, value_name = "FILE", env = "ROPEWALK_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data directory; also holds the identity of the node [required]
    #[arg(long, value_name = "DIR", env = "ROPEWALK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen address for clients and other nodes (gRPC) [required]
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_LISTEN")]
    pub listen: Option<Address>,
    /// Address at which clients and other nodes reach this node [default: --listen]
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_ADVERTISE")]
    pub advertise: Option<Address>,
    /// Listen address for metrics and health (HTTP) [default: off]
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_HTTP")]
    pub http: Option<Address>,
    /// Listen address for health probes without TLS [default: off]
    ///
    /// Serves health only. It also answers while clients hold all connections of --http.
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_PROBES")]
    pub probes: Option<Address>,
    /// Second listen address, for external clients [default: off]
    ///
    /// External clients cannot reach --advertise: for example, clients outside Kubernetes.
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_EXTERNAL_LISTEN")]
    pub external_listen: Option<Address>,
    /// Address at which external clients reach --external-listen
    ///
    /// Clients on this port receive the external addresses of all nodes.
    #[arg(long, value_name = "HOST:PORT", env = "ROPEWALK_EXTERNAL_ADVERTISE")]
    pub external_advertise: Option<Address>,
    /// Seed nodes: the same list on all initial nodes
    ///
    /// The initial nodes form the cluster together. A node that joins later needs one reachable seed.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "ROPEWALK_SEEDS",
        value_delimiter = ','
    )]
    pub seeds: Option<Vec<Address>>,
    /// Rack or zone of the node; replicas are spread across racks
    #[arg(long, env = "ROPEWALK_RACK")]
    pub rack: Option<String>,
    /// TLS on the ports of the node [default: off]
    #[arg(long, value_name = "MODE", env = "ROPEWALK_TLS_MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Client certificates on the gRPC ports [default: none]
    ///
    /// With "required", each TLS connection must present a certificate signed by a CA of --tls-ca.
    #[arg(
        long,
        value_name = "none|required",
        hide_possible_values = true,
        env = "ROPEWALK_TLS_CLIENT_AUTH"
    )]
    pub tls_client_auth: Option<TlsClientAuth>,
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create(TopicCreateArgs),
    /// List topics with their record counts and sizes
    #[command(visible_alias = "ls")]
    List {
        /// Also show incoming rates, measured over this time (3s if no time is given)
        #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "3s", value_parser = duration)]
        rates: Option<Duration>,
    },
    /// Show the settings and partitions of a topic
    Describe {
        /// Topic name
        name: String,
    },
    /// Change settings of a topic
    Set {
        /// Topic name
        name: String,
        /// Settings to change
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<Setting>,
    },
    /// Add partitions to a topic
    ///
    /// The records of each key keep their order.
    Grow {
        /// Topic name
        name: String,
        /// New total number of partitions
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
    },
    /// Delete a topic and all its records
    ///
    /// On a terminal, the command asks for confirmation.
    #[command(visible_alias = "rm")]
    Delete {
        /// Topic name
        name: String,
        /// Skip the confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct TopicCreateArgs {
    /// Topic name
    ///
    /// At most 249 letters, digits, dots, dashes and underscores. Names that begin with _ are reserved for the
    /// cluster.
    pub name: String,
    /// Number of partitions
    #[arg(short, long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Number of replicas of each partition
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// Retention time, or unlimited [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = retention_time)]
    pub retention: Option<i64>,
    /// Retention size of each partition, or unlimited [default: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = retention_size)]
    pub retention_size: Option<i64>,
    /// Topic setting; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List consumer groups
    #[command(visible_alias = "ls")]
    List,
    /// Show the members of a group and their partitions
    Describe {
        /// Group name
        group: String,
    },
    /// Show the lag of a group by partition, in records and in seconds
    Lag {
        /// Group name
        group: String,
    },
    /// Move the committed offsets of a group in a topic; the group must have no members
    Seek(GroupSeekArgs),
    /// Delete a group and its committed offsets; the group must have no members
    #[command(visible_alias = "rm")]
    Delete {
        /// Group name
        group: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum PartitionCommand {
    /// List the leader, replicas and offsets of each partition
    #[command(visible_alias = "ls")]
    List {
        /// Only partitions of this topic
        topic: Option<String>,
    },
    /// Transfer the leadership of a partition to another replica
    Transfer {
        /// Partition
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: PartitionName,
        /// Id of the new leader
        #[arg(long, value_name = "NODE")]
        to: u64,
    },
    /// Move the replicas of a partition to other nodes
    Move {
        /// Partition
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: PartitionName,
        /// Ids of the new replica nodes, as many as the topic has replicas; the first is the preferred leader
        #[arg(long, value_name = "NODE,…", required = true, value_delimiter = ',')]
        replicas: Vec<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// List the nodes and their state
    Status,
    /// Exit 0 only if every partition has a leader and all replicas are in sync
    ///
    /// While all nodes are up, the command repeats the check for 3 s, so that a new partition has time to start.
    Health {
        /// Time to wait until the cluster is healthy
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Move all leaderships off a node, before maintenance
    Drain {
        /// Node id
        node: u64,
    },
    /// Move all replicas off a node, then remove it permanently
    Decommission {
        /// Node id
        node: u64,
        /// Wait until the node is removed
        #[arg(long)]
        wait: bool,
    },
    /// Cancel a drain, or a decommission in progress
    Recommission {
        /// Node id
        node: u64,
    },
}
