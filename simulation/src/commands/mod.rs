//! The simulator's commands, one per file. Each returns true if all was well.

pub mod bugs;
pub mod one;
pub mod run;
pub mod shrink;
pub mod twice;

use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use ropewalk_proto::planted_bug::PlantedBug;
use ropewalk_simulation::runner::Job;
use ropewalk_simulation::runner::faults::Faults;
use ropewalk_simulation::runner::seeds::{Disks, Seeds};
use tokio::runtime::Runtime;

/// Format of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text
    Text,
    /// One JSON document
    Json,
}

/// Duration and kinds of the faults.
#[derive(Debug, clap::Args)]
pub struct Storm {
    /// Simulated minutes with faults
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Simulated seconds with faults, instead of minutes
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// Faults to inject: all, or families (network, process, disk, clock, operation) and kinds, separated by
    /// commas
    #[arg(long, default_value_t = Faults::All)]
    pub faults: Faults,
}

impl Storm {
    pub fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(self.minutes.saturating_mul(60))
    }
}

/// Parses the name of a planted bug.
fn mistake(name: &str) -> Result<PlantedBug, String> {
    let mut all = PlantedBug::ALL.iter();
    let found = all.find(|mistake| mistake.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = PlantedBug::ALL
            .iter()
            .map(|mistake| mistake.name())
            .collect();
        format!("there is no such mistake; there are {}", names.join(", "))
    })
}

/// Seeds to run, and the settings of their runs.
#[derive(Debug, clap::Args)]
pub struct ManyArgs {
    /// Seeds: FIRST..END, or FIRST..=LAST
    #[arg(long, default_value = "1..201")]
    seeds: Seeds,
    /// Only this seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    #[command(flatten)]
    storm: Storm,
    /// Storage of the nodes: memory, rocksdb, or mixed (RocksDB for every fourth seed)
    #[arg(long, default_value = "mixed")]
    pub disk: Disks,
    /// Number of parallel runs [default: one per processor]
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Time limit of a run, in seconds of real time
    #[arg(long, default_value_t = 900)]
    pub bound: u64,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl ManyArgs {
    fn seeds(&self) -> Seeds {
        self.seed.map_or_else(|| self.seeds.clone(), Seeds::one)
    }

    fn jobs(&self) -> impl Iterator<Item = Job> + use<> {
        let Storm { faults, .. } = &self.storm;
        self.seeds().jobs(self.storm.seconds(), self.disk, faults)
    }

    fn at_once(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(processors)
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(self.bound)
    }

    /// A progress bar with a place for each seed; hidden without a terminal.
    fn bar(&self) -> anyhow::Result<ProgressBar> {
        let bar = ProgressBar::new(self.seeds().count());
        let style = "{elapsed_precise} {wide_bar} {pos}/{len} seeds, {eta} left {msg}";
        bar.set_style(ProgressStyle::with_template(style)?);
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(bar)
    }
}

/// Runtime that waits for processes.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
