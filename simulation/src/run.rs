//! One run: a storm of faults on a cluster under load, then calm, then judgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_node::config::Limits;
use serde::Serialize;
use turmoil::Sim;

use crate::check::Judge;
pub use crate::check::Violation;
use crate::cluster::{self, Cluster};
use crate::fault::Injector;
use crate::history::{Event, History, Place};
use crate::load::{Clients, Log, operator};
use crate::observe::disk_reader::Depth;
use crate::plan::Plan;
use crate::virtual_time;

/// Time limit for the cluster to recover after the faults have stopped.
const CALM: Duration = Duration::from_secs(240);
/// Time limit for reading everything.
const READING: Duration = Duration::from_secs(120);
/// Time limit after that for all readers to reach the end and all replicas to be equal.
const SETTLING: Duration = Duration::from_secs(60);
/// Interval between two looks at the disks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Outcome of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The run's seed.
    pub seed: u64,
    /// Simulated duration, in ms.
    pub simulated_ms: u64,
    /// Time from the end of the faults until the cluster had recovered, in ms.
    pub recovered_in_ms: u64,
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Records with an unknown outcome.
    pub unknown: u64,
    /// Refused records.
    pub refused: u64,
    /// Counts of other client actions and of items to judge.
    pub counts: BTreeMap<&'static str, u64>,
    /// Faults of each kind that took effect.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults of each kind that were drawn.
    pub drawn: BTreeMap<&'static str, u64>,
    /// Drawn faults of each kind that were postponed, since the cluster might not have recovered from them.
    pub put_off: BTreeMap<&'static str, u64>,
    /// Violated invariants.
    pub violations: Vec<Violation>,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Outcome {
    let bound = Duration::from_millis(plan.storm_ms) + CALM + READING + SETTLING;
    let _running = virtual_time::begin();
    let tick = Duration::from_millis(plan.tick_ms);
    let mut sim = cluster::simulation(plan.seed, bound + Duration::from_secs(60), tick);
    let limits = Limits {
        checkpoint_factor: plan.checkpoint_factor,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(&mut sim, plan.seed, plan.nodes, plan.disk, limits);
    let history = History::default();
    let clients = Clients::start(&mut sim, &cluster, plan, &history);
    let mut execution = Execution {
        injector: Injector::new(plan, history.clone()),
        judge: Judge::default(),
        next_look: Duration::ZERO,
        recovered_in: Duration::ZERO,
        plan,
        sim,
        cluster,
        history,
        clients,
    };
    let violations = match execution.go() {
        Ok(logs) => execution.end(&logs),
        Err(violation) => vec![violation],
    };
    execution.outcome(violations)
}

/// A run under way.
struct Execution<'a> {
    plan: &'a Plan,
    sim: Sim<'static>,
    cluster: Cluster,
    history: History,
    clients: Clients,
    injector: Injector,
    judge: Judge,
    next_look: Duration,
    recovered_in: Duration,
}

impl Execution<'_> {
    fn go(&mut self) -> Result<BTreeMap<Place, Log>, Violation> {
        self.storm()?;
        self.injector.calm(&mut self.sim, &mut self.cluster);
        self.clients.stop_sending();
        let begun = self.sim.elapsed();
        self.calm()?;
        self.recovered_in = self.sim.elapsed() - begun;
        let logs = self.read()?;
        self.settle(&logs)?;
        Ok(logs)
    }

    /// One step of the simulation, and a look at the disks if it is due.
    fn step(&mut self) -> Result<(), Violation> {
        virtual_time::set(self.sim.elapsed());
        if self.sim.elapsed() >= self.next_look {
            self.look(Depth::Usual)?;
            self.next_look = self.sim.elapsed() + LOOK_EVERY;
        }
        self.cluster.supervise(&mut self.sim);
        match self.sim.step() {
            Ok(_) => Ok(()),
            Err(error) => Err(violation("a-host-failed", error.to_string())),
        }
    }

    fn look(&mut self, depth: Depth) -> Result<(), Violation> {
        let at = self.sim.elapsed();
        self.judge.look(at, &self.cluster, &self.history, depth)
    }

    fn storm(&mut self) -> Result<(), Violation> {
        let end = Duration::from_millis(self.plan.storm_ms);
        while self.sim.elapsed() < end {
            if self.injector.is_due(self.sim.elapsed(), &self.cluster) {
                // One look before the faults and one after them, to see what they destroy.
                self.look(Depth::Thorough)?;
                self.injector.turn(&mut self.sim, &mut self.cluster);
                self.look(Depth::Thorough)?;
            } else {
                self.injector.turn(&mut self.sim, &mut self.cluster);
            }
            self.check_identities()?;
            self.step()?;
        }
        Ok(())
    }

    /// Waits until the cluster has recovered and every client call has been answered.
    fn calm(&mut self) -> Result<(), Violation> {
        let missing = Arc::new(Mutex::new(Some("nobody could be asked".to_owned())));
        let (told, asking) = (missing.clone(), self.clients.clone());
        self.sim.client("operator", async move {
            let tell = |what: String| *told.lock() = Some(what);
            operator::until_whole(&asking, tell).await;
            tell("clients wait for answers".to_owned());
            operator::until_idle(&asking).await;
            tell("the cluster does not do what it is asked".to_owned());
            operator::until_served(&asking).await;
            *told.lock() = None;
            Ok(())
        });
        let end = self.sim.elapsed() + CALM;
        loop {
            // The lock is not held while the simulation continues: the operator writes the value.
            let what = missing.lock().clone();
            let what = match what {
                Some(what) => what,
                None => match self.injector.unrest(&self.cluster) {
                    Some(what) => format!("the faults' operator still waits: {what}"),
                    None => return Ok(()),
                },
            };
            if self.sim.elapsed() >= end {
                let what = format!("not whole after {CALM:?}: {what}");
                return Err(violation("liveness", what));
            }
            self.injector.turn(&mut self.sim, &mut self.cluster);
            self.check_identities()?;
            self.step()?;
        }
    }

    fn check_identities(&self) -> Result<(), Violation> {
        match self.injector.wrong() {
            Some(what) => Err(violation("one-identity-one-process", what.to_owned())),
            None => Ok(()),
        }
    }

    fn read(&mut self) -> Result<BTreeMap<Place, Log>, Violation> {
        let logs = Arc::new(Mutex::new(None));
        let (told, asking) = (logs.clone(), self.clients.clone());
        self.sim.client("judge", async move {
            let read = operator::read_logs(&asking).await;
            *told.lock() = Some(read);
            Ok(())
        });
        let end = self.sim.elapsed() + READING;
        while self.sim.elapsed() < end {
            if let Some(read) = logs.lock().take() {
                return read.map_err(|what| violation("readable", what));
            }
            self.step()?;
        }
        Err(violation("liveness", format!("not read in {READING:?}")))
    }

    /// Waits until all followers of a partition and all groups are at its end, and all replicas are equal.
    fn settle(&mut self, logs: &BTreeMap<Place, Log>) -> Result<(), Violation> {
        let end = self.sim.elapsed() + SETTLING;
        let groups = self.settle_groups(logs);
        while let Some(what) = self.unsettled(logs, &groups)? {
            if self.sim.elapsed() >= end {
                let what = format!("not settled after {SETTLING:?}: {what}");
                return Err(violation("liveness", what));
            }
            let next = self.sim.elapsed() + LOOK_EVERY;
            while self.sim.elapsed() < next {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Starts to ask the groups for their progress. The shared text names the missing part.
    fn settle_groups(&mut self, logs: &BTreeMap<Place, Log>) -> Arc<Mutex<Option<String>>> {
        let missing = Arc::new(Mutex::new(Some("no group could be asked".to_owned())));
        let (told, asking) = (missing.clone(), self.clients.clone());
        let ends = logs
            .iter()
            .map(|(place, log)| (*place, log.end()))
            .collect();
        self.sim.client("foreman", async move {
            let tell = |what: String| *told.lock() = Some(what);
            operator::until_groups_settled(&asking, &ends, tell).await;
            *told.lock() = None;
            Ok(())
        });
        missing
    }

    fn unsettled(
        &mut self,
        logs: &BTreeMap<Place, Log>,
        groups: &Mutex<Option<String>>,
    ) -> Result<Option<String>, Violation> {
        let followed = self.clients.followed();
        let behind = logs.iter().find_map(|(place, log)| {
            let next = followed.get(place).copied().unwrap_or_default();
            (next < log.end()).then(|| {
                format!(
                    "the reader of {place} is at {next}, and the end at {}",
                    log.end()
                )
            })
        });
        let behind = behind.or_else(|| self.sieve_behind(logs));
        let behind = behind.or_else(|| self.group_behind(logs));
        let behind = behind.or_else(|| groups.lock().clone());
        if behind.is_some() {
            return Ok(behind);
        }
        let at = self.sim.elapsed();
        self.judge.difference(at, &self.cluster, &self.history)
    }

    /// The reader with a filter, if it has not reached the end.
    fn sieve_behind(&self, logs: &BTreeMap<Place, Log>) -> Option<String> {
        let place = self.plan.load.sieve?.place();
        let (next, end) = (self.clients.sifted(), logs.get(&place)?.end());
        (next < end).then(|| format!("the sieve of {place} is at {next}, and the end at {end}"))
    }

    /// A group that has not processed all records.
    fn group_behind(&self, logs: &BTreeMap<Place, Log>) -> Option<String> {
        let groups = (0..).take(self.plan.load.groups.len());
        let mut all =
            groups.flat_map(|group| logs.iter().map(move |(place, log)| (group, place, log)));
        all.find_map(|(group, place, log)| {
            // A group that has not begun yet is asked for its positions.
            let begins = self.judge.group_start(group, *place)?;
            let start = log.start.max(self.judge.log_start(*place)).max(begins);
            let next = self.clients.finished(group, *place, start);
            (next < log.end()).then(|| {
                format!(
                    "group {group} is at {next} in {place}, and the end at {}",
                    log.end()
                )
            })
        })
    }

    fn end(&mut self, logs: &BTreeMap<Place, Log>) -> Vec<Violation> {
        let at = self.sim.elapsed();
        self.judge.end(at, &self.cluster, &self.history, logs)
    }

    fn outcome(&self, violations: Vec<Violation>) -> Outcome {
        let mut outcome = Outcome {
            seed: self.plan.seed,
            simulated_ms: self.sim.elapsed().as_millis() as u64,
            recovered_in_ms: self.recovered_in.as_millis() as u64,
            acknowledged: 0,
            unknown: 0,
            refused: 0,
            counts: self.judge.counts().clone(),
            faults: self.injector.counts().clone(),
            drawn: self.injector.drawn().clone(),
            put_off: self.injector.put_off().clone(),
            violations,
        };
        for (_, event) in self.history.events().iter() {
            *outcome.counts.entry(event.kind()).or_default() += 1;
            match event {
                Event::Acknowledged { .. } => outcome.acknowledged += 1,
                Event::Failed { unknown: true, .. } => outcome.unknown += 1,
                Event::Failed { unknown: false, .. } => outcome.refused += 1,
                _ => {}
            }
        }
        outcome
    }
}

fn violation(check: &'static str, what: String) -> Violation {
    Violation { check, what }
}
