//! `one` and `replay`: a run in this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ropewalk_simulation::disk::DiskKind;
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::run::Outcome;
use ropewalk_simulation::runner::Job;
use ropewalk_simulation::runner::in_process::here;
use ropewalk_simulation::trace::{Story, Trace};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::{Output, Storm};
use crate::interpose;

/// The run: that of a seed, or of a plan in a file.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Seed of the run
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    #[command(flatten)]
    storm: Storm,
    /// Storage of the nodes: memory or rocksdb
    #[arg(long, default_value_t = DiskKind::Memory)]
    disk: DiskKind,
    /// JSON file of the plan, instead of the seed's plan
    #[arg(long, conflicts_with_all = ["seed", "seconds", "minutes", "faults", "disk"])]
    plan: Option<PathBuf>,
    /// Known bug to plant in the code
    #[cfg(feature = "mistakes")]
    #[arg(long, value_parser = super::mistake)]
    mistake: Option<ropewalk_proto::planted_bug::PlantedBug>,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// File for the trace: one event per line
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: Which,
}

impl Which {
    fn make_mistake(&self) {
        #[cfg(feature = "mistakes")]
        if let Some(mistake) = self.mistake {
            ropewalk_proto::planted_bug::plant(mistake);
        }
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        match (&self.plan, self.seed) {
            (Some(path), _) => read_plan(path),
            (None, Some(seed)) => Ok(self.job(seed).plan()),
            (None, None) => bail!("a seed or a plan is needed"),
        }
    }

    fn job(&self, seed: u64) -> Job {
        Job {
            seed,
            seconds: self.storm.seconds(),
            disk: self.disk,
            faults: self.storm.faults.clone(),
        }
    }
}

/// Reads a plan from a file.
fn read_plan(path: &Path) -> anyhow::Result<Plan> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("the plan {} can't be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no plan", path.display()))
}

pub fn run(args: Args) -> anyhow::Result<bool> {
    args.which.make_mistake();
    let plan = args.which.plan()?;
    let trace = args.trace.as_deref().map(Trace::create).transpose();
    let trace = trace.context("the trace can't be written")?;
    match &trace {
        Some(trace) => listen(trace.clone().with_filter(Trace::filter())),
        None => listen(
            tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_filter(EnvFilter::from_default_env()),
        ),
    }
    let outcome = here(&plan, || interpose::draw_from(plan.seed));
    if let Some(trace) = trace {
        trace.finish().context("the trace can't be written")?;
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&outcome)?),
        Output::Text => tell(&outcome),
    }
    Ok(outcome.violations.is_empty())
}

pub fn replay(args: ReplayArgs) -> anyhow::Result<bool> {
    args.which.make_mistake();
    let plan = args.which.plan()?;
    let story = Story::new(Box::new(io::BufWriter::new(io::stdout())));
    listen(story.clone().with_filter(Story::filter()));
    let outcome = here(&plan, || interpose::draw_from(plan.seed));
    story.finish().context("the story can't be written")?;
    tell(&outcome);
    Ok(outcome.violations.is_empty())
}

/// Sends all log events of this process to one layer.
fn listen<L>(layer: L)
where
    L: Layer<Registry> + Send + Sync,
    Registry: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::registry().with(layer).init();
}

fn tell(outcome: &Outcome) {
    println!(
        "seed {}: {:.1} s, {} records acknowledged, {} unknown, {} refused; whole again after {:.1} s",
        outcome.seed,
        outcome.simulated_ms as f64 / 1_000.0,
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        outcome.recovered_in_ms as f64 / 1_000.0,
    );
    let faults = outcome.faults.iter();
    let faults: Vec<_> = faults.map(|(kind, n)| format!("{kind} {n}")).collect();
    println!("faults: {}", faults.join(", "));
    for violation in &outcome.violations {
        println!("FAILED {}: {}", violation.check, violation.what);
    }
}
