//! `ropewalk bench` as clap sees it.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::parse::{Rate, duration, rate, size};

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
    /// Read it all as this many consumer groups at once; they are deleted in the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub groups: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The topic; it must exist
    #[arg(short, long, value_name = "TOPIC")]
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
    /// Number of different keys [default: records have no key]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// Time to measure
    #[arg(short, long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub duration: Duration,
}
