//! Routine operations on a healthy cluster under constant load. No acknowledged record may be lost, no client
//! may see an error, and no partition may make producers wait for long.

mod certificates;
mod environment;
mod load;
mod secure;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use serde::Serialize;

use crate::check::{Found, check};
use crate::machine::Machine;
use environment::Ground;
use steps::Step;

/// Maximum time that a partition may make producers wait.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Settings of a run.
#[derive(Debug)]
pub struct Order {
    /// The binary of the nodes.
    pub binary: PathBuf,
    /// An older binary, which the nodes run at first.
    pub from: Option<PathBuf>,
    /// Directory of the run.
    pub dir: PathBuf,
    /// Records per second of each of four producers.
    pub rate: u32,
    /// Names of the steps to run; empty for all.
    pub only: Vec<String>,
}

/// Outcome of one step.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub step: &'static str,
    /// Description of the operation.
    pub what: String,
    /// Time until the cluster had recovered, in seconds.
    pub seconds: f64,
    /// Longest time without an acknowledgement in one partition, in seconds.
    pub longest_pause_s: f64,
    /// Errors that clients reported to their applications.
    pub errors: Vec<String>,
}

/// Outcome of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Outcomes of the steps.
    pub rows: Vec<Row>,
    /// Counts of the records.
    pub records: Found,
    /// Number of records that the group received.
    pub delivered: u64,
}

impl Report {
    /// The first violation, if any.
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

/// Runs all steps, and checks that every record is at its acknowledged position.
///
/// # Errors
/// The lost record, or the condition that did not hold in time.
pub async fn play(
    order: &Order,
    machine: &Machine,
    told: &(impl Fn(&Row) + Sync),
) -> anyhow::Result<Report> {
    let mut ground = Ground::start(order, machine).await?;
    let played = through(order, machine, &mut ground, told).await;
    if played.is_err() {
        // The first error is the one that counts.
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
