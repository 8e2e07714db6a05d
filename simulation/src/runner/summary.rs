//! Summary of many runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Job;
use super::report::{Finding, Report};
use crate::plan::Plan;

/// Outcomes of many runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Runs on each kind of disk.
    pub runs: BTreeMap<String, u64>,
    /// Simulated time of all runs, in ms.
    pub simulated_ms: u64,
    /// Wall time, in ms.
    pub wall_ms: u64,
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Records with an unknown outcome.
    pub unknown: u64,
    /// Refused records.
    pub refused: u64,
    /// Counts of other client actions and of items to judge.
    pub counts: BTreeMap<String, u64>,
    /// Faults of each kind that took effect, for all kinds that a plan held.
    pub faults: BTreeMap<String, u64>,
    /// Kinds that plans held and that never took effect: a simulator without effect proves nothing.
    pub never_fell: Vec<String>,
    /// Failed runs, by seed.
    pub failing: BTreeMap<u64, Failing>,
}

/// A failed run.
#[derive(Debug, Clone, Serialize)]
pub struct Failing {
    /// The run.
    #[serde(flatten)]
    pub job: Job,
    /// Violated invariants.
    pub violations: Vec<Finding>,
    /// Command that replays it.
    pub replay: String,
}

impl Summary {
    /// Adds the outcome of one run of a plan.
    pub fn add(&mut self, job: &Job, plan: &Plan, report: Report) {
        *self.runs.entry(job.disk.to_string()).or_default() += 1;
        self.simulated_ms += report.simulated_ms;
        self.acknowledged += report.acknowledged;
        self.unknown += report.unknown;
        self.refused += report.refused;
        for (what, count) in report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        for fault in &plan.faults {
            let kind = fault.what.kind().to_string();
            self.faults.entry(kind).or_default();
        }
        for (kind, count) in report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if !report.violations.is_empty() {
            let failing = Failing {
                job: job.clone(),
                violations: report.violations,
                replay: job.replay(),
            };
            self.failing.insert(job.seed, failing);
        }
    }

    /// Completes the summary.
    pub fn finish(&mut self, wall: Duration) {
        self.wall_ms = wall.as_millis() as u64;
        let silent = self.faults.iter().filter(|(_, count)| **count == 0);
        self.never_fell = silent.map(|(kind, _)| kind.clone()).collect();
    }

    /// True if no run failed and every kind of fault took effect.
    pub fn is_good(&self) -> bool {
        self.failing.is_empty() && self.never_fell.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs.iter();
        let runs: Vec<_> = runs.map(|(disk, n)| format!("{n} on {disk}")).collect();
        let hours = Duration::from_millis(self.simulated_ms).as_secs_f64() / 3_600.0;
        let wall = Duration::from_millis(self.wall_ms).as_secs_f64();
        writeln!(
            f,
            "seeds    {}; {hours:.2} simulated hours in {wall:.0} s",
            runs.join(", ")
        )?;
        writeln!(
            f,
            "records  {} acknowledged, {} unknown, {} refused",
            self.acknowledged, self.unknown, self.refused
        )?;
        writeln!(f, "clients  {}", listed(&self.counts))?;
        writeln!(f, "faults   {}", listed(&self.faults))?;
        for kind in &self.never_fell {
            writeln!(f, "FAILED   {kind} was on and never fell")?;
        }
        for failing in self.failing.values() {
            writeln!(f, "{failing}")?;
        }
        match self.is_good() {
            true => write!(f, "all held"),
            false => write!(f, "{} seeds failed", self.failing.len()),
        }
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().map(|(what, count)| format!("{what} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { seed, disk, .. } = &self.job;
        for Finding { check, what } in &self.violations {
            writeln!(f, "FAILED   seed {seed} on {disk}: {check}: {what}")?;
        }
        write!(f, "         {}", self.replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskKind;
    use crate::runner::faults::Faults;

    fn job(seed: u64) -> Job {
        Job {
            seed,
            seconds: 600,
            disk: DiskKind::Memory,
            faults: Faults::All,
        }
    }

    /// Report of a run of the plan in which every fault took effect.
    fn good(plan: &Plan) -> Report {
        let mut report = Report {
            acknowledged: 10,
            ..Report::default()
        };
        for fault in &plan.faults {
            let kind = fault.what.kind().to_string();
            *report.faults.entry(kind).or_default() += 1;
        }
        report
    }

    /// Summary of some runs, each changed a little.
    fn summary(change: impl Fn(u64, &mut Report)) -> Summary {
        let mut summary = Summary::default();
        for seed in 1..9 {
            let plan = job(seed).plan();
            let mut report = good(&plan);
            change(seed, &mut report);
            summary.add(&job(seed), &plan, report);
        }
        summary.finish(Duration::from_secs(1));
        summary
    }

    #[test]
    fn runs_in_which_all_held_and_every_fault_fell_are_good() {
        let summary = summary(|_, _| {});
        assert!(summary.is_good(), "{summary}");
        assert_eq!(summary.acknowledged, 80);
        assert_eq!(summary.runs["memory"], 8);
    }

    #[test]
    fn a_kind_of_fault_that_was_on_and_never_fell_fails_the_whole() {
        let summary = summary(|_, report| {
            report.faults.remove("crash-of-one");
        });
        assert!(!summary.is_good());
        assert_eq!(summary.never_fell, ["crash-of-one"]);
        let text = summary.to_string();
        assert!(
            text.contains("crash-of-one was on and never fell"),
            "{text}"
        );
    }

    #[test]
    fn a_kind_that_fell_in_one_run_only_is_enough() {
        let summary = summary(|seed, report| {
            if seed != 3 {
                report.faults.remove("clock-forward");
            } else {
                report.faults.insert("clock-forward".to_string(), 1);
            }
        });
        assert!(summary.is_good(), "{summary}");
    }

    #[test]
    fn a_failing_seed_is_told_with_its_sentence_and_the_command_that_shows_it() {
        let summary = summary(|seed, report| {
            if seed == 5 {
                let lost = Report::failed("acknowledged-is-there", "record 7 is lost".to_string());
                report.violations = lost.violations;
            }
        });
        assert!(!summary.is_good());
        let text = summary.to_string();
        for part in [
            "seed 5 on memory: acknowledged-is-there: record 7 is lost",
            "-- replay --seed 5 --seconds 600 --disk memory",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
