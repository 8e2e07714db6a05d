//! `run`: many seeds, each in a separate process.

use std::pin::pin;

use futures_util::StreamExt;
use ropewalk_simulation::runner::child::Children;
use ropewalk_simulation::runner::seeds::side_by_side;
use ropewalk_simulation::runner::summary::Summary;
use tokio::time::Instant;

use super::{ManyArgs, Output, runtime};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    many: ManyArgs,
}

pub fn run(Args { many }: Args) -> anyhow::Result<bool> {
    let summary = runtime()?.block_on(all(&many))?;
    match many.output {
        Output::Json => println!("{}", serde_json::to_string(&summary)?),
        Output::Text => println!("{summary}"),
    }
    Ok(summary.is_good())
}

async fn all(many: &ManyArgs) -> anyhow::Result<Summary> {
    let children = Children::of_this_binary(many.bound())?;
    let begun = Instant::now();
    let bar = many.bar()?;
    let jobs = many.jobs();
    let mut reports = pin!(side_by_side(jobs, many.at_once(), async |job| {
        let report = children.run(&job, None).await;
        (job, report)
    }));
    let mut summary = Summary::default();
    while let Some((job, report)) = reports.next().await {
        summary.add(&job, &job.plan(), report);
        if let Some(failing) = summary.failing.get(&job.seed) {
            bar.suspend(|| eprintln!("{failing}"));
        }
        bar.set_message(format!("{} failed", summary.failing.len()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    summary.finish(begun.elapsed());
    Ok(summary)
}
