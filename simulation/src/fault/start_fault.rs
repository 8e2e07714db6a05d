//! Start of each fault.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use ropewalk_node::config::Limits;
use turmoil::Sim;

use super::impostors;
use super::injector::{Injector, Lasting, set_traps};
use super::operator::Order;
use super::{Clocks, Disks, Fault, Network, Operations, Processes, Reach, Reason, What};
use crate::cluster::{self, Cluster, Machine};
use crate::process::Moment;

/// Maximum number of nodes that a cluster grows to.
const MAX_NODES: usize = 6;

/// The simulation between two steps.
pub(super) struct Scene<'s, 'a> {
    pub sim: &'s mut Sim<'a>,
    pub cluster: &'s mut Cluster,
    pub now: Duration,
}

impl Scene<'_, '_> {
    pub fn machine(&self, node: usize) -> &Machine {
        self.cluster.machine(self.cluster.name(node))
    }

    pub fn crash(&mut self, node: usize) {
        let name = self.cluster.name(node).to_owned();
        self.cluster.crash(self.sim, &name);
    }

    pub fn power_off(&mut self, node: usize, random: &mut SmallRng) {
        let name = self.cluster.name(node).to_owned();
        self.cluster.power_off(self.sim, &name, random);
    }

    pub fn wipe(&mut self, node: usize) {
        self.cluster.wipe(self.cluster.name(node));
    }

    pub fn bring_up(&mut self, node: usize) {
        self.sim.bounce(self.cluster.name(node));
    }
}

impl Injector {
    /// Starts a fault. Returns false if it must be postponed.
    pub(super) fn strike(&mut self, scene: &mut Scene<'_, '_>, fault: &Fault) -> bool {
        if !self.may_fall(scene.cluster, scene.now, &fault.what) {
            return false;
        }
        self.impostors.note(&fault.what);
        let down = match &fault.what {
            What::Network(network) => self.strike_network(scene, network),
            What::Processes(processes) => self.strike_processes(scene, processes),
            What::Disks(disks) => self.strike_disk(scene, disks),
            What::Clocks(clocks) => strike_clock(scene, clocks),
            What::Operations(operation) => self.operate(scene, operation),
            What::Identities(identities) => self.impose(scene, identities),
        };
        tracing::info!(what = ?fault.what, "a fault");
        self.history.fault(&fault.what);
        self.lasting.push(Lasting {
            until: scene.now + lasts(fault),
            what: fault.what.clone(),
            down,
        });
        true
    }

    fn strike_network(&mut self, scene: &Scene<'_, '_>, network: &Network) -> Vec<usize> {
        let felt = match network {
            Network::Reset { node } => scene.machine(*node).process().gate.cut_connections() > 0,
            Network::Slow { node, bytes_per_ms } => {
                let gate = &scene.machine(*node).process().gate;
                gate.set_bytes_per_ms(Some(*bytes_per_ms));
                false
            }
            Network::Hold { .. } => false,
            _ => true,
        };
        if felt {
            self.count(network.kind());
        }
        Vec::new()
    }

    fn strike_processes(&mut self, scene: &mut Scene<'_, '_>, what: &Processes) -> Vec<usize> {
        match what {
            Processes::Crash { nodes, .. } | Processes::PowerLoss { nodes, .. } => {
                let power = matches!(what, Processes::PowerLoss { .. });
                let down = self.take_down(scene, nodes, power);
                if !down.is_empty() {
                    self.count(what.kind());
                }
                down
            }
            Processes::At {
                moment,
                count,
                power,
                nodes,
            } => {
                set_traps(scene, *moment, *count, nodes);
                if *moment == Moment::Vote {
                    // Otherwise there may be no election for a long time.
                    self.operator.order(Order::Provoke(Operations::Transfer {
                        partition: *count as usize,
                        replica: 0,
                    }));
                }
                if *moment == Moment::Recovery {
                    for node in self.take_down(scene, nodes, *power) {
                        self.down.remove(&node);
                        scene.bring_up(node);
                    }
                }
                Vec::new()
            }
            Processes::Stop { node, reason } => {
                let process = scene.machine(*node).process();
                if *reason == Reason::Smaller {
                    process.set_limits(Some(smaller()));
                }
                process.stop();
                Vec::new()
            }
            Processes::Rolling { gap_ms } => {
                self.roll(scene, *gap_ms);
                Vec::new()
            }
            Processes::Pause { nodes } => {
                for node in nodes {
                    scene.machine(*node).process().gate.close();
                }
                Vec::new()
            }
        }
    }

    fn roll(&mut self, scene: &Scene<'_, '_>, gap_ms: u64) {
        let mut at_ms = scene.now.as_millis() as u64;
        for node in 0..scene.cluster.len() {
            self.expect(Fault {
                at_ms,
                for_ms: GRACE_MS,
                what: What::Processes(Processes::Stop {
                    node,
                    reason: Reason::Rolling,
                }),
            });
            at_ms += gap_ms;
        }
    }

    /// Starts a fault of a disk. Returns the nodes that it took down.
    fn strike_disk(&mut self, scene: &mut Scene<'_, '_>, what: &Disks) -> Vec<usize> {
        let node = what.node();
        match what {
            Disks::Damage { crash, .. } => {
                let nodes = [node];
                let down = self.take_down(scene, if *crash { &nodes } else { &[] }, false);
                let hurt = scene.machine(node).disk().damage(&mut self.random);
                if let Some(hurt) = hurt {
                    tracing::info!(node, hurt, "damaged");
                    self.atlas.damaged(node);
                    self.count(what.kind());
                    self.start_again(scene, node);
                }
                down
            }
            Disks::Wipe { .. } => {
                let survey = self.operator.survey();
                self.atlas.wiped(scene.cluster, &survey, scene.now, node);
                let down = self.take_down(scene, &[node], true);
                scene.wipe(node);
                self.count(what.kind());
                down
            }
            Disks::Io { .. } | Disks::Full { .. } | Disks::LowSpace { .. } | Disks::Slow { .. } => {
                let machine = scene.machine(node);
                machine.process().calls.forget();
                machine.disk().set_fault(what.lasting());
                Vec::new()
            }
        }
    }

    /// Restarts a damaged node repeatedly, as an operator does who sees its disk errors: the node must not
    /// forget the damage.
    fn start_again(&mut self, scene: &Scene<'_, '_>, node: usize) {
        let mut at_ms = scene.now.as_millis() as u64;
        for _ in 0..self.random.random_range(0..=3) {
            at_ms += self.random.random_range(300..3_000);
            let for_ms = self.random.random_range(50..500);
            self.expect(Fault {
                at_ms,
                for_ms,
                what: What::Processes(Processes::Crash {
                    reach: Reach::One,
                    nodes: vec![node],
                }),
            });
        }
    }

    fn operate(&mut self, scene: &mut Scene<'_, '_>, operation: &Operations) -> Vec<usize> {
        if *operation != Operations::Join {
            self.operator.order(Order::Do(operation.clone()));
            return Vec::new();
        }
        let number = scene.cluster.len();
        if number < MAX_NODES {
            let seeds = scene.cluster.addresses();
            let name = cluster::node_name(number);
            scene.cluster.add(scene.sim, &name, seeds);
            self.joining.insert(number);
        }
        Vec::new()
    }
}

/// Time that a process has to end on request, in ms.
const GRACE_MS: u64 = 15_000;
/// Minimum duration of a trap, in ms: its moment may be rare.
const TRAP_MS: u64 = 10_000;

fn lasts(fault: &Fault) -> Duration {
    if let What::Identities(what) = &fault.what {
        return impostors::lasts(fault, what);
    }
    Duration::from_millis(match &fault.what {
        What::Processes(Processes::Stop { .. }) => GRACE_MS,
        What::Processes(Processes::At { .. }) => fault.for_ms.max(TRAP_MS),
        _ => fault.for_ms,
    })
}

fn strike_clock(scene: &Scene<'_, '_>, what: &Clocks) -> Vec<usize> {
    let clock = scene.machine(what.node()).clock();
    clock.take_asked();
    match what {
        Clocks::Step { skew_ms, .. } => clock.set_skew_ms(*skew_ms),
        Clocks::Drift { ppm, .. } => clock.set_drift_ppm(*ppm),
    }
    Vec::new()
}

/// Limits that are reached all the time.
fn smaller() -> Limits {
    Limits {
        append_bytes: 16 << 10,
        log_tail_bytes: 256 << 10,
        commit_queue_bytes: 1 << 20,
        produce_inflight_bytes: 2 << 20,
        fetch_bytes: 64 << 10,
        stream_inflight: 8,
        ..Limits::default()
    }
}
