//! Starts faults in a simulation and ends them when their time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use super::fault_budget::FaultBudget;
use super::impostors::Impostors;
use super::operator::{Operator, Order};
use super::start_fault::Scene;
use super::{Disks, Fault, Network, Operations, Processes, What, network};
use crate::cluster::Cluster;
use crate::disk::DiskFault;
use crate::history::History;
use crate::plan::Plan;
use crate::process::Moment;

/// Delay before a fault that may not start yet is tried again.
const PUT_OFF: Duration = Duration::from_secs(1);
/// Downtime of a process for which the plan drew none.
const DOWN_MS: std::ops::Range<u64> = 50..4_000;

/// The faults of one run: those to come and those that last.
#[derive(Debug)]
pub struct Injector {
    /// Faults to come, by time and then by sequence number.
    pub(super) coming: BTreeMap<(Duration, u64), Fault>,
    pub(super) lasting: Vec<Lasting>,
    /// Nodes that a fault took down and has not yet brought up again.
    pub(super) down: BTreeSet<usize>,
    /// New nodes that the cluster does not know yet.
    pub(super) joining: BTreeSet<usize>,
    /// Nodes that were in the cluster at the last look, with their ids.
    members: BTreeMap<usize, u64>,
    pub(super) atlas: FaultBudget,
    pub(super) operator: Operator,
    pub(super) impostors: Impostors,
    pub(super) random: SmallRng,
    pub(super) history: History,
    seed: u64,
    next: u64,
    calm_since: Option<Duration>,
    counts: BTreeMap<&'static str, u64>,
    drawn: BTreeMap<&'static str, u64>,
    put_off: BTreeMap<&'static str, u64>,
    /// Sequence numbers of faults that were postponed already.
    late: BTreeSet<u64>,
}

/// A fault that lasts.
#[derive(Debug)]
pub(super) struct Lasting {
    pub until: Duration,
    pub what: What,
    /// Nodes that it took down.
    pub down: Vec<usize>,
}

impl Injector {
    /// The faults of `plan`.
    pub fn new(plan: &Plan, history: History) -> Injector {
        let mut drawn = BTreeMap::new();
        for fault in &plan.faults {
            *drawn.entry(fault.what.kind()).or_default() += 1;
        }
        let mut injector = Injector {
            coming: BTreeMap::new(),
            lasting: Vec::new(),
            down: BTreeSet::new(),
            joining: BTreeSet::new(),
            members: BTreeMap::new(),
            atlas: FaultBudget::default(),
            operator: Operator::default(),
            impostors: Impostors::default(),
            random: SmallRng::seed_from_u64(!plan.seed),
            history,
            seed: plan.seed,
            next: 0,
            calm_since: None,
            counts: BTreeMap::new(),
            drawn,
            put_off: BTreeMap::new(),
            late: BTreeSet::new(),
        };
        for fault in &plan.faults {
            injector.expect(fault.clone());
        }
        injector
    }

    /// Faults of each kind that took effect.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Faults of each kind that were drawn.
    pub fn drawn(&self) -> &BTreeMap<&'static str, u64> {
        &self.drawn
    }

    /// Faults of each kind that were postponed at least once, since the cluster might not have recovered.
    pub fn put_off(&self) -> &BTreeMap<&'static str, u64> {
        &self.put_off
    }

    /// True if a fault starts or ends in the next turn.
    pub fn is_due(&mut self, now: Duration, cluster: &Cluster) -> bool {
        let survey = self.operator.survey();
        self.atlas.update(cluster, &survey);
        self.impostors.update(cluster, &survey);
        let mut come = self.coming.iter().take_while(|((at, _), _)| *at <= now);
        come.any(|(_, fault)| self.may_fall(cluster, now, &fault.what))
            || self.lasting.iter().any(|one| one.until <= now)
            || !self.fallen(cluster).is_empty()
    }

    /// True if the cluster could recover from this fault now.
    pub(super) fn may_fall(&self, cluster: &Cluster, now: Duration, what: &What) -> bool {
        if self.impostors.holds_up(what) || self.would_excuse_a_copy(what) {
            return false;
        }
        let disks = match what {
            What::Disks(disks) => disks,
            What::Identities(what) => return self.may_impose(cluster, now, what),
            _ => return true,
        };
        let node = disks.node();
        let may = || {
            let survey = self.operator.survey();
            self.atlas.may_lose(cluster, &survey, now, node)
                && !self.down.contains(&node)
                && !self.lasting.iter().any(|one| one.what.is_move())
        };
        !disks.loses() || may()
    }

    /// Starts and ends the faults that are due. Call it between two steps of the simulation. Call it in the
    /// calm, too, since it also restarts nodes that have left the cluster.
    pub fn turn(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let now = sim.elapsed();
        self.operator.begin(sim, cluster, self.seed);
        for kind in self.operator.take_done() {
            self.count(kind);
        }
        let mut scene = Scene { sim, cluster, now };
        self.look(&mut scene);
        let mut changed = self.spring(&mut scene);
        let over: Vec<Lasting> = self
            .lasting
            .extract_if(.., |one| one.until <= now)
            .collect();
        changed |= !over.is_empty();
        for one in over {
            self.heal(&mut scene, one);
        }
        while let Some(first) = self.coming.first_entry() {
            if first.key().0 > now {
                break;
            }
            let ((_, place), fault) = first.remove_entry();
            if !self.strike(&mut scene, &fault) {
                self.postpone(now, place, fault);
            }
            changed = true;
        }
        if changed {
            self.wire(&mut scene);
        }
    }

    /// Ends all lasting faults and drops those to come.
    pub fn calm(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let now = sim.elapsed();
        self.calm_since = Some(now);
        self.coming.clear();
        self.operator.drop_orders();
        let mut scene = Scene { sim, cluster, now };
        // A trap may have sprung since the last turn.
        self.spring(&mut scene);
        for one in std::mem::take(&mut self.lasting) {
            self.heal(&mut scene, one);
        }
        self.wire(&mut scene);
        for number in 0..scene.cluster.len() {
            scene.machine(number).process().set_limits(None);
        }
    }

    /// Description of a state that the injector has yet to restore; none once all is as before the first
    /// fault.
    pub fn unrest(&self, cluster: &Cluster) -> Option<String> {
        let survey = self.operator.survey();
        let looked = self.calm_since.is_some_and(|since| survey.at > since);
        match (looked, self.operator.is_idle(), survey.all_alive(cluster)) {
            (true, true, true) => None,
            (false, ..) => Some("nobody has looked since".to_owned()),
            (_, false, _) => Some("something is left to do".to_owned()),
            (.., false) => Some(format!(
                "not all nodes are there and alive: {:?}",
                survey.nodes
            )),
        }
    }

    /// Adds a fault to those to come.
    pub(super) fn expect(&mut self, fault: Fault) {
        let at = Duration::from_millis(fault.at_ms);
        self.coming.insert((at, self.next), fault);
        self.next += 1;
    }

    pub(super) fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn postpone(&mut self, now: Duration, place: u64, fault: Fault) {
        if self.late.insert(place) {
            *self.put_off.entry(fault.what.kind()).or_default() += 1;
        }
        self.coming.insert((now + PUT_OFF, place), fault);
    }

    /// Acts on the operator's last survey.
    fn look(&mut self, scene: &mut Scene<'_, '_>) {
        let survey = self.operator.survey();
        self.atlas.update(scene.cluster, &survey);
        self.impostors.update(scene.cluster, &survey);
        let alive = |number: &usize| matches!(survey.node(scene.cluster, *number), Some(seen) if seen.alive);
        let joined = self.joining.iter().filter(|number| alive(number));
        let joined: Vec<usize> = joined.copied().collect();
        for number in joined {
            self.joining.remove(&number);
            self.count("join");
        }
        for number in 0..scene.cluster.len() {
            if let Some(seen) = survey.node(scene.cluster, number) {
                self.members.insert(number, seen.id);
                continue;
            }
            let member = self.members.get(&number);
            if member.is_some_and(|id| survey.removed.contains(id)) && !self.down.contains(&number)
            {
                // The node has left; a process that starts there now is another node.
                self.members.remove(&number);
                self.impostors.removed(number);
                scene.crash(number);
                scene.wipe(number);
                scene.bring_up(number);
            }
        }
    }

    /// Lasting faults whose processes were stopped by a trap or ended on request. Each has its place among
    /// those that last, its nodes (several may meet their moment in one step), and whether they lose their
    /// power.
    fn fallen(&self, cluster: &Cluster) -> Vec<(usize, Vec<usize>, bool)> {
        let process = |node: usize| cluster.machine(cluster.name(node)).process();
        let lasting = self.lasting.iter().enumerate();
        let waiting = lasting.filter(|(_, one)| one.down.is_empty());
        let fallen = waiting.filter_map(|(place, one)| match &one.what {
            What::Processes(Processes::At { nodes, power, .. }) => {
                let sprung = nodes.iter().copied();
                let sprung = sprung.filter(|node| process(*node).trap.has_sprung());
                let sprung: Vec<usize> = sprung.collect();
                (!sprung.is_empty()).then_some((place, sprung, *power))
            }
            What::Processes(Processes::Stop { node, .. }) => {
                let stopped = process(*node).is_stopped() && !self.down.contains(node);
                stopped.then(|| (place, vec![*node], false))
            }
            _ => None,
        });
        fallen.collect()
    }

    /// Takes down the processes that a trap stopped or that ended on request.
    fn spring(&mut self, scene: &mut Scene<'_, '_>) -> bool {
        let fell = self.fallen(scene.cluster);
        let any = !fell.is_empty();
        for (place, nodes, power) in fell {
            let until = scene.now + Duration::from_millis(self.random.random_range(DOWN_MS));
            let taken = self.take_down(scene, &nodes, power);
            let one = &mut self.lasting[place];
            one.down = taken;
            one.until = until;
            remove_traps(scene, &one.what);
            let kind = one.what.kind();
            self.count(kind);
        }
        any
    }

    /// Takes down those of `nodes` that are up, and returns them.
    pub(super) fn take_down(
        &mut self,
        scene: &mut Scene<'_, '_>,
        nodes: &[usize],
        power: bool,
    ) -> Vec<usize> {
        let up = nodes.iter().copied();
        let up: Vec<usize> = up.filter(|node| self.down.insert(*node)).collect();
        for node in &up {
            if power {
                scene.power_off(*node, &mut self.random);
            } else {
                scene.crash(*node);
            }
        }
        up
    }

    fn heal(&mut self, scene: &mut Scene<'_, '_>, over: Lasting) {
        remove_traps(scene, &over.what);
        let mut down = over.down;
        match &over.what {
            What::Network(fault) => self.heal_network(scene, fault),
            What::Processes(Processes::Pause { nodes }) => {
                let held = nodes.iter();
                let held: u64 = held
                    .map(|node| scene.machine(*node).process().gate.open())
                    .sum();
                if held > 0 {
                    self.count(over.what.kind());
                }
            }
            // The process did not end in time on request, so it is killed.
            What::Processes(Processes::Stop { node, .. }) if down.is_empty() => {
                down = self.take_down(scene, &[*node], false);
            }
            What::Disks(fault) => self.heal_disk(scene, fault),
            What::Clocks(fault) => {
                let clock = scene.machine(fault.node()).clock();
                clock.set_skew_ms(0);
                clock.set_drift_ppm(0);
                if clock.take_asked() > 0 {
                    self.count(over.what.kind());
                }
            }
            What::Operations(Operations::Drain { node } | Operations::Decommission { node }) => {
                self.operator.order(Order::Restore(*node));
            }
            What::Identities(what) => self.expose(scene, what, over.until <= scene.now),
            What::Processes(_) | What::Operations(_) => {}
        }
        for node in down {
            self.down.remove(&node);
            scene.bring_up(node);
        }
    }

    fn heal_network(&mut self, scene: &Scene<'_, '_>, fault: &Network) {
        let felt = match fault {
            Network::Hold { a, b } => network::under_way(scene.sim, scene.cluster, *a, *b) > 0,
            Network::Slow { node, .. } => {
                scene.machine(*node).process().gate.set_bytes_per_ms(None) > 0
            }
            _ => false,
        };
        if felt {
            self.count(fault.kind());
        }
    }

    fn heal_disk(&mut self, scene: &Scene<'_, '_>, fault: &Disks) {
        if fault.lasting() == DiskFault::None {
            return;
        }
        let machine = scene.machine(fault.node());
        if machine.process().calls.felt(fault.lasting()) {
            self.count(fault.kind());
        }
        let still = self.lasting_disk_fault(fault.node());
        machine.disk().set_fault(still);
    }

    /// Present fault of a node's disk.
    pub(super) fn lasting_disk_fault(&self, node: usize) -> DiskFault {
        let mut faults = self.lasting.iter().filter_map(|one| match &one.what {
            What::Disks(disks) if disks.node() == node => Some(disks.lasting()),
            _ => None,
        });
        faults.next_back().unwrap_or_default()
    }

    fn wire(&self, scene: &mut Scene<'_, '_>) {
        let lasting = self.lasting.iter().filter_map(|one| match &one.what {
            What::Network(network) => Some(network),
            _ => None,
        });
        network::wire(scene.sim, scene.cluster, &lasting.collect::<Vec<_>>());
    }
}

/// Removes the traps of a fault that did not spring.
fn remove_traps(scene: &Scene<'_, '_>, what: &What) {
    if let What::Processes(Processes::At { nodes, .. }) = what {
        for node in nodes {
            scene.machine(*node).process().trap.remove();
        }
    }
}

/// Sets the traps of a fault.
pub(super) fn set_traps(scene: &Scene<'_, '_>, moment: Moment, count: u32, nodes: &[usize]) {
    for node in nodes {
        scene.machine(*node).process().trap.set(moment, count);
    }
}
