//! What can be asked of the simulator, a file a verb. Each says whether all was well.

pub mod one;
pub mod run;
pub mod shrink;
pub mod twice;

use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use ropewalk_simulation::runner::seeds::{Disks, Seeds};
use tokio::runtime::Runtime;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

/// Which seeds to run, and how.
#[derive(Debug, clap::Args)]
pub struct ManyArgs {
    /// The seeds: FIRST..END, or FIRST..=LAST
    #[arg(long)]
    pub seeds: Seeds,
    /// How long faults fall, in simulated seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What nodes store on: memory, rocksdb, or mixed, which is RocksDB for every fourth seed
    #[arg(long, default_value = "memory")]
    pub disk: Disks,
    /// Seeds under way at once; the processors' number if not given
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Seconds by the wall after which a run counts as hanging
    #[arg(long, default_value_t = 900)]
    pub bound: u64,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl ManyArgs {
    fn at_once(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(processors)
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(self.bound)
    }

    /// A bar with a place for each seed; nothing where nobody looks.
    fn bar(&self) -> anyhow::Result<ProgressBar> {
        let bar = ProgressBar::new(self.seeds.count());
        let style = "{elapsed_precise} {wide_bar} {pos}/{len} seeds, {eta} left {msg}";
        bar.set_style(ProgressStyle::with_template(style)?);
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(bar)
    }
}

/// What waits for processes.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
