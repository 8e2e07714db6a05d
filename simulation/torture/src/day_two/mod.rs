//! What operators do to a cluster that works, done to one that is written to and read all the while:
//! no acknowledged record may be lost, no client may hear of it, and no partition may keep producers
//! waiting for long.

mod certificates;
mod ground;
mod load;
mod secure;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use serde::Serialize;

use crate::check::{Found, check};
use crate::machine::Machine;
use ground::Ground;
use steps::Step;

/// The longest that a partition may keep producers waiting.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Debug)]
pub struct Order {
    /// The binary of the nodes.
    pub binary: PathBuf,
    /// An older one, which they run at first.
    pub from: Option<PathBuf>,
    /// Where everything lies.
    pub dir: PathBuf,
    /// Records a second, of each of four producers.
    pub rate: u32,
    /// Only the steps whose names are here; all if none is.
    pub only: Vec<String>,
}

/// What came of one step.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub step: &'static str,
    /// What was done.
    pub what: String,
    /// How long it took until the cluster was well again, in seconds.
    pub seconds: f64,
    /// The longest time in which one partition acknowledged nothing, in seconds.
    pub longest_pause_s: f64,
    /// Errors that clients told their applications.
    pub errors: Vec<String>,
}

/// What came of it all.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Step by step.
    pub rows: Vec<Row>,
    /// The records.
    pub records: Found,
    /// Records that the group had been given.
    pub delivered: u64,
}

impl Report {
    /// The first thing that is not as it should be, if any.
    pub fn fault(&self) -> Option<String> {
        self.rows.iter().find_map(|row| {
            let long = row.longest_pause_s > LONGEST_PAUSE.as_secs_f64();
            match row.errors.first() {
                Some(error) => Some(format!("{}: a client was told: {error}", row.step)),
                None if long => Some(format!(
                    "{}: a partition acknowledged nothing for {:.1} s",
                    row.step, row.longest_pause_s
                )),
                None => None,
            }
        })
    }
}

/// Plays all steps, and checks that every record is where it was acknowledged.
///
/// # Errors
/// What was lost, or what did not happen in time.
pub async fn play(
    order: &Order,
    machine: &Machine,
    told: &(impl Fn(&Row) + Sync),
) -> anyhow::Result<Report> {
    let mut ground = Ground::start(order, machine).await?;
    let played = through(order, machine, &mut ground, told).await;
    if played.is_err() {
        // What went wrong first is what counts.
        let _ = ground.fleet.keep_data().await;
    }
    played
}

async fn through(
    order: &Order,
    machine: &Machine,
    ground: &mut Ground,
    told: &(impl Fn(&Row) + Sync),
) -> anyhow::Result<Report> {
    let named =
        |step: &Step| order.only.is_empty() || order.only.iter().any(|name| name == step.name());
    let wanted = |step: &&Step| named(step) && (**step != Step::Upgrade || order.from.is_some());
    let mut rows = Vec::new();
    for step in Step::ALL.iter().filter(wanted) {
        let row = ground.take(*step, order, machine).await?;
        told(&row);
        rows.push(row);
    }
    let (sent, read, delivered) = ground.finish().await?;
    let records =
        check(&sent, &read).map_err(|wrong| anyhow!("the check does not hold: {wrong}"))?;
    for (partition, seen) in (0..).zip(&read) {
        let missed = seen.iter().find(|(_, name)| !delivered.contains(name));
        ensure!(
            missed.is_none(),
            "the group was never given {missed:?} of partition {partition}"
        );
    }
    ground.fleet.check_logs()?;
    Ok(Report {
        rows,
        records,
        delivered: delivered.len() as u64,
    })
}
