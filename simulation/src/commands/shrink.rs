//! `shrink`: finds the smallest plan that fails in the same way as a seed's plan.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use ropewalk_simulation::disk::DiskKind;
use ropewalk_simulation::plan::Plan;
use ropewalk_simulation::runner::child::Children;
use ropewalk_simulation::runner::report::Report;
use ropewalk_simulation::runner::shrink::shrink;
use ropewalk_simulation::runner::{Job, replay_of_plan};
use tokio::runtime::Runtime;

use super::{Storm, runtime};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seed of the run
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    storm: Storm,
    /// Storage of the nodes: memory or rocksdb
    #[arg(long, default_value_t = DiskKind::Memory)]
    disk: DiskKind,
    /// File for the smallest plan [default: named after the seed, in this directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Maximum number of runs
    #[arg(long, default_value_t = 300)]
    attempts: usize,
    /// Time limit of a run, in seconds of real time
    #[arg(long, default_value_t = 900)]
    bound: u64,
}

pub fn run(args: Args) -> anyhow::Result<bool> {
    let job = Job {
        seed: args.seed,
        seconds: args.storm.seconds(),
        disk: args.disk,
        faults: args.storm.faults.clone(),
    };
    let plan = job.plan();
    let trying = Trying {
        children: Children::of_this_binary(Duration::from_secs(args.bound))?,
        runtime: runtime()?,
        folder: tempfile::tempdir()?,
    };
    let Some(wanted) = trying.report(&plan)?.violations.into_iter().next() else {
        println!(
            "seed {}: all held, there is nothing to make smaller",
            args.seed
        );
        return Ok(true);
    };
    println!("seed {}: {}: {}", args.seed, wanted.check, wanted.what);
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(250));
    let smallest = shrink(&plan, args.attempts, |plan| {
        bar.inc(1);
        bar.set_message(format!("attempt {}: {}", bar.position(), shape(plan)));
        // A plan that could not be tried is not known to fail.
        trying
            .report(plan)
            .is_ok_and(|report| report.finds(&wanted))
    });
    bar.finish_and_clear();
    let name = format!("ropewalk-seed-{}.json", args.seed);
    let out = args.out.unwrap_or_else(|| PathBuf::from(name));
    let written = fs::write(&out, serde_json::to_string_pretty(&smallest)?);
    written.with_context(|| format!("{} can't be written", out.display()))?;
    println!(
        "from {} to {}:\n{}",
        shape(&plan),
        shape(&smallest),
        replay_of_plan(&out)
    );
    Ok(false)
}

struct Trying {
    children: Children,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Trying {
    fn report(&self, plan: &Plan) -> anyhow::Result<Report> {
        let path = self.folder.path().join("plan.json");
        fs::write(&path, serde_json::to_string(plan)?)?;
        Ok(self.runtime.block_on(self.children.run_plan(&path)))
    }
}

fn shape(plan: &Plan) -> String {
    format!(
        "{} faults in {} s, {} nodes, {} producers, {} partitions, {} groups",
        plan.faults.len(),
        plan.storm_ms.div_ceil(1_000),
        plan.nodes,
        plan.load.producers.len(),
        plan.load.partitions,
        plan.load.groups.len(),
    )
}
