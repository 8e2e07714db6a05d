//! `twice`: two processes of the same seed must do the same.

use std::pin::pin;

use futures_util::StreamExt;
use ropewalk_simulation::runner::child::Children;
use ropewalk_simulation::runner::seeds::side_by_side;
use ropewalk_simulation::runner::twice::{Twice, twice};

use super::{ManyArgs, Output, runtime};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    many: ManyArgs,
}

pub fn run(Args { many }: Args) -> anyhow::Result<bool> {
    let mut all = runtime()?.block_on(compare(&many))?;
    all.sort_by_key(|twice| twice.job.seed);
    let same = all.iter().filter(|twice| twice.is_same()).count();
    match many.output {
        Output::Json => println!("{}", serde_json::to_string(&all)?),
        Output::Text => println!("{same} of {} seeds ran twice the same", all.len()),
    }
    Ok(same == all.len())
}

async fn compare(many: &ManyArgs) -> anyhow::Result<Vec<Twice>> {
    let children = Children::of_this_binary(many.bound())?;
    let bar = many.bar()?;
    let jobs = many.jobs();
    // Each job is two processes.
    let at_once = many.at_once().div_ceil(2);
    let mut compared = pin!(side_by_side(jobs, at_once, |job| twice(&children, job)));
    let mut all = Vec::new();
    while let Some(twice) = compared.next().await.transpose()? {
        bar.suspend(|| eprintln!("{twice}"));
        bar.inc(1);
        all.push(twice);
    }
    bar.finish_and_clear();
    Ok(all)
}
