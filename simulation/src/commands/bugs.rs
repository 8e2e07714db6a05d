//! `bugs`: plants one bug at a time; a seed must find each.

#[cfg(feature = "mistakes")]
pub use planted::run;
#[cfg(not(feature = "mistakes"))]
pub use rebuilt::run;

use ropewalk_proto::planted_bug::PlantedBug;

use super::{ManyArgs, mistake};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    many: ManyArgs,
    /// Only these bugs, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = mistake)]
    only: Vec<PlantedBug>,
}

#[cfg(feature = "mistakes")]
mod planted {
    use indicatif::ProgressBar;
    use ropewalk_proto::planted_bug::PlantedBug;
    use ropewalk_simulation::runner::bugs::{Hunt, hunt};
    use ropewalk_simulation::runner::child::Children;

    use super::super::{Output, runtime};
    use super::Args;

    pub fn run(args: Args) -> anyhow::Result<bool> {
        let hunts = runtime()?.block_on(all(&args))?;
        if args.many.output == Output::Json {
            println!("{}", serde_json::to_string(&hunts)?);
        }
        Ok(hunts.iter().all(|hunt| hunt.found.is_some()))
    }

    async fn all(args: &Args) -> anyhow::Result<Vec<Hunt>> {
        let many = &args.many;
        let children = Children::of_this_binary(many.bound())?;
        let mistakes: Vec<PlantedBug> = match args.only.is_empty() {
            true => PlantedBug::ALL.to_vec(),
            false => args.only.clone(),
        };
        let bar = ProgressBar::new(mistakes.len() as u64);
        bar.enable_steady_tick(std::time::Duration::from_secs(1));
        let tell = |line: &str| {
            if many.output == Output::Text {
                bar.suspend(|| println!("{line}"));
            }
        };
        tell("| mistake | what is done wrong | found by | seeds |\n|---|---|---|---|");
        let mut hunts = Vec::new();
        for mistake in mistakes {
            bar.set_message(mistake.name());
            let hunt = hunt(&children, mistake, many.jobs(), many.at_once()).await;
            tell(&hunt.to_string());
            bar.inc(1);
            hunts.push(hunt);
        }
        bar.finish_and_clear();
        Ok(hunts)
    }
}

/// This binary has no bugs to plant: it builds one that has.
#[cfg(not(feature = "mistakes"))]
mod rebuilt {
    use std::process::Command;

    use anyhow::Context;

    use super::Args;

    pub fn run(_: Args) -> anyhow::Result<bool> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["run", "--release", "-p", "ropewalk-simulation"])
            .args(["--features", "mistakes", "--"])
            .args(std::env::args_os().skip(1))
            .status();
        let status = status.context("cargo, which builds the mistakes in, can't be run")?;
        Ok(status.success())
    }
}
