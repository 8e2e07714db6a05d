//! Arguments of `ropewalk bench`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::parse::{Rate, duration, rate, size};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure publish throughput
    ///
    /// Publishes as fast as acknowledgements arrive, or at --rate.
    Produce(BenchArgs),
    /// Measure read throughput
    ///
    /// Reads the topic from its beginning, as fast as possible, for --duration at most.
    /// --record-size, --in-flight, --rate and --keys have no effect.
    Consume(BenchConsumeArgs),
    /// Measure latency at a steady publish rate
    ///
    /// Reports the time to the acknowledgement, and the time to a reader.
    Latency(BenchArgs),
}

#[derive(Debug, Clone, Args)]
pub struct BenchConsumeArgs {
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Number of consumer groups that read the topic in parallel; they are deleted afterwards
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub groups: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Existing topic
    #[arg(short, long, value_name = "TOPIC")]
    pub topic: String,
    /// Size of each value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size)]
    pub record_size: u64,
    /// Number of producers; with bench consume, of parallel readers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub producers: u16,
    /// Maximum number of unacknowledged records of each producer
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Records per second, over all producers [default: no limit; 500/s for latency]
    ///
    /// With a rate, latency counts from the intended send time.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<Rate>,
    /// Number of distinct keys [default: records without a key]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// Duration of the measurement
    #[arg(short, long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub duration: Duration,
}
