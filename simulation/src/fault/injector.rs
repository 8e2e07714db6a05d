//! Brings faults over a simulation, and takes them away again when their time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use turmoil::Sim;

use super::{Fault, What};
use crate::cluster::Cluster;
use crate::history::History;
use crate::plan::Plan;

/// The faults of one run, those to come and those that last.
#[derive(Debug)]
pub struct Injector {
    /// Still to come, the next one last.
    coming: Vec<Fault>,
    /// What lasts, and until when.
    lasting: Vec<(Duration, What)>,
    down: BTreeSet<usize>,
    random: SmallRng,
    history: History,
    /// How many of each kind fell.
    counts: BTreeMap<&'static str, u64>,
}

impl Injector {
    /// The faults of `plan`.
    pub fn new(plan: &Plan, history: History) -> Injector {
        let mut coming = plan.faults.clone();
        coming.reverse();
        Injector {
            coming,
            lasting: Vec::new(),
            down: BTreeSet::new(),
            random: SmallRng::seed_from_u64(!plan.seed),
            history,
            counts: BTreeMap::new(),
        }
    }

    /// How many faults of each kind fell.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Whether the next turn brings or takes something.
    pub fn is_due(&self, now: Duration) -> bool {
        let coming = self.coming.last();
        coming.is_some_and(|fault| Duration::from_millis(fault.at_ms) <= now)
            || self.lasting.iter().any(|(until, _)| *until <= now)
    }

    /// Brings and takes what is due. Call between two steps of the simulation.
    pub fn turn(&mut self, sim: &mut Sim<'_>, cluster: &Cluster) {
        let now = sim.elapsed();
        let (over, lasting) = std::mem::take(&mut self.lasting)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.lasting = lasting;
        self.heal(sim, cluster, over);
        while self
            .coming
            .last()
            .is_some_and(|fault| Duration::from_millis(fault.at_ms) <= now)
        {
            if let Some(fault) = self.coming.pop() {
                self.strike(sim, cluster, now, fault);
            }
        }
    }

    /// Takes away all that lasts; nothing more will come.
    pub fn calm(&mut self, sim: &mut Sim<'_>, cluster: &Cluster) {
        self.coming.clear();
        let lasting = std::mem::take(&mut self.lasting);
        self.heal(sim, cluster, lasting);
    }

    fn strike(&mut self, sim: &mut Sim<'_>, cluster: &Cluster, now: Duration, fault: Fault) {
        tracing::info!(what = ?fault.what, "a fault");
        self.history.fault(&fault.what);
        *self.counts.entry(fault.what.kind()).or_default() += 1;
        match &fault.what {
            What::Crash { nodes } => {
                for node in self.standing(nodes) {
                    cluster.crash(sim, cluster.name(node));
                }
            }
            What::PowerLoss { nodes } => {
                for node in self.standing(nodes) {
                    cluster.power_off(sim, cluster.name(node), &mut self.random);
                }
            }
            What::Clock { node, skew_ms } => {
                cluster.machine(cluster.name(*node)).set_skew_ms(*skew_ms)
            }
            What::Partition { .. } | What::OneWay { .. } => {}
        }
        let until = now + Duration::from_millis(fault.for_ms);
        self.lasting.push((until, fault.what));
        self.wire(sim, cluster);
    }

    /// Those of `nodes` that are up, which are now down.
    fn standing(&mut self, nodes: &[usize]) -> Vec<usize> {
        nodes
            .iter()
            .copied()
            .filter(|node| self.down.insert(*node))
            .collect()
    }

    fn heal(&mut self, sim: &mut Sim<'_>, cluster: &Cluster, over: Vec<(Duration, What)>) {
        let wires = !over.is_empty();
        for (_, what) in over {
            match what {
                What::Crash { nodes } | What::PowerLoss { nodes } => {
                    for node in nodes {
                        let still_down =
                            self.lasting.iter().any(|(_, what)| takes_down(what, node));
                        if !still_down && self.down.remove(&node) {
                            sim.bounce(cluster.name(node));
                        }
                    }
                }
                What::Clock { node, .. } => cluster.machine(cluster.name(node)).set_skew_ms(0),
                What::Partition { .. } | What::OneWay { .. } => {}
            }
        }
        if wires {
            self.wire(sim, cluster);
        }
    }

    /// Sets every way between two nodes to what the lasting faults leave of it.
    fn wire(&self, sim: &Sim<'_>, cluster: &Cluster) {
        for from in 0..cluster.len() {
            for to in (0..cluster.len()).filter(|to| *to != from) {
                let cut = self.lasting.iter().any(|(_, what)| match what {
                    What::Partition { nodes } => nodes.contains(&from) != nodes.contains(&to),
                    What::OneWay { from: f, to: t } => (*f, *t) == (from, to),
                    _ => false,
                });
                let (from, to) = (cluster.name(from), cluster.name(to));
                if cut {
                    sim.partition_oneway(from, to);
                } else {
                    sim.repair_oneway(from, to);
                }
            }
        }
    }
}

fn takes_down(what: &What, node: usize) -> bool {
    match what {
        What::Crash { nodes } | What::PowerLoss { nodes } => nodes.contains(&node),
        _ => false,
    }
}
