//! One run: a storm of faults over a cluster at work, then calm, then judgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use turmoil::Sim;

use crate::check::{self, Seen};
use crate::cluster::{self, Cluster};
use crate::disk::DiskKind;
use crate::fault::Injector;
use crate::history::{Event, History};
use crate::load::{Clients, Found, operator};
use crate::plan::Plan;

/// How long a cluster may take to be whole again once faults have stopped.
const CALM: Duration = Duration::from_secs(240);
/// How long reading everything may take.
const READING: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How much time passed in it, in ms.
    pub simulated_ms: u64,
    /// From the end of the faults until the cluster was whole, in ms.
    pub recovered_in_ms: u64,
    /// Records acknowledged, failed with the outcome unknown, and refused.
    pub acknowledged: u64,
    /// Records that may be there or not.
    pub unknown: u64,
    /// Records refused.
    pub refused: u64,
    /// How many faults of each kind fell.
    pub faults: BTreeMap<&'static str, u64>,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub check: &'static str,
    /// How.
    pub what: String,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Outcome {
    let bound = Duration::from_millis(plan.storm_ms) + CALM + READING;
    let mut sim = cluster::simulation(plan.seed, bound + Duration::from_secs(60));
    let cluster = Cluster::start(&mut sim, plan.seed, plan.nodes, DiskKind::Memory);
    let history = History::default();
    let mut injector = Injector::new(plan, history.clone());
    let mut violations = Vec::new();
    let mut recovered_in = Duration::ZERO;

    let clients = Clients::start(&mut sim, &cluster, plan, &history);
    let ended = storm(&mut sim, &cluster, &mut injector, plan).and_then(|()| {
        injector.calm(&mut sim, &cluster);
        clients.stop_sending();
        let begun = sim.elapsed();
        calm(&mut sim, &clients)?;
        recovered_in = sim.elapsed() - begun;
        read(&mut sim, &clients)
    });
    match ended {
        Ok(logs) => violations.extend(judge(&history, &logs)),
        Err(violation) => violations.push(violation),
    }
    outcome(plan, &sim, &injector, &history, recovered_in, violations)
}

fn storm(
    sim: &mut Sim<'_>,
    cluster: &Cluster,
    injector: &mut Injector,
    plan: &Plan,
) -> Result<(), Violation> {
    let end = Duration::from_millis(plan.storm_ms);
    while sim.elapsed() < end {
        injector.turn(sim, cluster);
        step(sim)?;
    }
    Ok(())
}

/// Waits until the cluster is whole and the producers have heard of all they sent.
fn calm(sim: &mut Sim<'_>, clients: &Clients) -> Result<(), Violation> {
    let missing = Arc::new(Mutex::new(Some("nobody could be asked".to_owned())));
    let (told, asking) = (missing.clone(), clients.clone());
    sim.client("operator", async move {
        operator::until_whole(&asking, |what| *told.lock() = Some(what)).await;
        *told.lock() = None;
        Ok(())
    });
    let end = sim.elapsed() + CALM;
    while missing.lock().is_some() || clients.producing() {
        if sim.elapsed() >= end {
            let what = missing.lock().take();
            let what = what.unwrap_or_else(|| "producers wait for answers".to_owned());
            return Err(violation(
                "liveness",
                format!("not whole after {CALM:?}: {what}"),
            ));
        }
        step(sim)?;
    }
    Ok(())
}

fn read(sim: &mut Sim<'_>, clients: &Clients) -> Result<BTreeMap<u32, Vec<Found>>, Violation> {
    let logs = Arc::new(Mutex::new(None));
    let (told, asking) = (logs.clone(), clients.clone());
    sim.client("judge", async move {
        let read = operator::read_logs(&asking).await;
        *told.lock() = Some(read);
        Ok(())
    });
    let end = sim.elapsed() + READING;
    while sim.elapsed() < end {
        if let Some(read) = logs.lock().take() {
            return read.map_err(|what| violation("readable", what));
        }
        step(sim)?;
    }
    Err(violation("liveness", format!("not read in {READING:?}")))
}

fn step(sim: &mut Sim<'_>) -> Result<(), Violation> {
    match sim.step() {
        Ok(_) => Ok(()),
        Err(error) => Err(violation("a-host-failed", error.to_string())),
    }
}

fn judge(history: &History, logs: &BTreeMap<u32, Vec<Found>>) -> Vec<Violation> {
    let events = history.events();
    let seen = Seen {
        history: &events,
        logs,
    };
    let judged = check::all().into_iter().map(|check| {
        let judged = check.end(&seen);
        judged.map_err(|what| violation(check.name(), what))
    });
    judged.filter_map(Result::err).collect()
}

fn violation(check: &'static str, what: String) -> Violation {
    Violation { check, what }
}

fn outcome(
    plan: &Plan,
    sim: &Sim<'_>,
    injector: &Injector,
    history: &History,
    recovered_in: Duration,
    violations: Vec<Violation>,
) -> Outcome {
    let mut outcome = Outcome {
        seed: plan.seed,
        simulated_ms: sim.elapsed().as_millis() as u64,
        recovered_in_ms: recovered_in.as_millis() as u64,
        acknowledged: 0,
        unknown: 0,
        refused: 0,
        faults: injector.counts().clone(),
        violations,
    };
    for (_, event) in history.events().iter() {
        match event {
            Event::Acknowledged { .. } => outcome.acknowledged += 1,
            Event::Failed { unknown: true, .. } => outcome.unknown += 1,
            Event::Failed { unknown: false, .. } => outcome.refused += 1,
            Event::Sent { .. } | Event::Read { .. } | Event::Fault(_) => {}
        }
    }
    outcome
}
