//! Nodes of a simulated cluster: each is a host with a data directory that survives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use ropewalk_node::config::Limits;
use ropewalk_node::supervise::{SuperviseError, supervise};
use ropewalk_node::{Config, Env};
use ropewalk_raft_store::data_dir::DataDirError;
use turmoil::Sim;

use crate::clock::SimClock;
use crate::directory::Directory;
use crate::disk::{DiskKind, SimDisk};
use crate::net::SimNet;
use crate::process::Process;

/// The port that every simulated node listens on.
pub const PORT: u16 = 7_000;

/// Connections that may wait at one host; turmoil panics beyond it.
const TCP_CAPACITY: usize = 1 << 14;

/// Delay before the service supervisor restarts a process that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Difference between the seeds of two runs of a node in one process.
const NEXT_RUN: u64 = 1 << 48;

/// Partitions of the internal topic of consumer groups: few enough for the groups of a run to spread over all
/// of them.
const GROUP_PARTITIONS: u32 = 2;

/// Maximum latency of a message while nothing is wrong.
pub const MAX_LATENCY: Duration = Duration::from_millis(20);

/// The part of a node that stays while its process is down.
#[derive(Debug)]
pub struct Machine {
    directory: Mutex<Arc<Directory>>,
    clock: Arc<SimClock>,
    /// The last process's end, if it ended by itself.
    ended: Mutex<Option<Ended>>,
    process: Process,
}

/// A process's end by itself.
#[derive(Debug)]
struct Ended {
    at: Duration,
    why: String,
    remedy: Remedy,
}

/// Work of an operator before a process that ended by itself is restarted, as its error demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Nothing: a restart is enough.
    Restart,
    /// Delete the database that was set aside earlier.
    DeleteKept,
    /// Move the data directory away, for an empty one.
    Replace,
}

impl Remedy {
    fn of(error: &SuperviseError) -> Remedy {
        match error {
            SuperviseError::Directory(DataDirError::Unlooked { .. }) => Remedy::DeleteKept,
            SuperviseError::UnknownCluster { .. } => Remedy::Replace,
            _ => Remedy::Restart,
        }
    }

    fn apply(self, directory: &Directory) {
        match self {
            Remedy::Restart => return,
            Remedy::DeleteKept => directory.delete_kept(),
            Remedy::Replace => directory.wipe(),
        }
        tracing::info!(directory = directory.name(), remedy = ?self, "an operator helps a node");
    }
}

impl Machine {
    fn new(directory: Arc<Directory>) -> Machine {
        Machine {
            directory: Mutex::new(directory),
            clock: Arc::default(),
            ended: Mutex::default(),
            process: Process::default(),
        }
    }

    /// Reason why the node's process ended by itself, while it has not been restarted.
    pub fn why_ended(&self) -> Option<String> {
        let ended = self.ended.lock();
        ended.as_ref().map(|ended| ended.why.clone())
    }

    /// The disk that the node writes to.
    pub fn disk(&self) -> Arc<dyn SimDisk> {
        self.directory.lock().disk().clone()
    }

    /// Name of the directory that the node writes to: that of the host where it was made.
    pub fn directory_name(&self) -> String {
        self.directory.lock().name().to_owned()
    }

    /// The node's data directory. It belongs to another machine after an exchange with that machine's.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.lock().clone()
    }

    /// The node's wall clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// The node's process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Time on the hosts' wall clocks when a simulation begins. It is fixed, since names are drawn from it: with
/// the time of day no run could be repeated.
pub const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// The hosts of one simulation.
#[derive(Debug)]
pub struct Cluster {
    seed: u64,
    kind: DiskKind,
    limits: Limits,
    machines: BTreeMap<String, Arc<Machine>>,
    places: Places,
    /// Processes that claim to be a node and are none, until they are dismissed.
    guests: BTreeMap<String, Arc<Machine>>,
}

/// Differences between the present and the first port of each host that has moved.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<BTreeMap<String, u16>>>);

impl Places {
    /// Present address of the node whose first address this is.
    fn now_at(&self, first: &str) -> String {
        let name = first.rsplit_once(':').map_or(first, |(name, _)| name);
        let offset = self.0.lock().get(name).copied().unwrap_or(0);
        format!("{name}:{}", PORT + offset)
    }

    /// Settings of a process that begins now, with the present addresses of all nodes.
    fn settings(&self, config: &Config) -> Config {
        Config {
            advertise: self.now_at(&config.advertise),
            listen: self.now_at(&config.listen),
            seeds: config.seeds.iter().map(|seed| self.now_at(seed)).collect(),
            ..config.clone()
        }
    }
}

/// A simulation on one seed, which drives the randomness of the network and of the scheduler. In one tick
/// every host does all it can; it receives messages of others in the next tick. The hosts' log is printed as
/// `RUST_LOG` asks.
pub fn simulation(seed: u64, duration: Duration, tick: Duration) -> Sim<'static> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // The second simulation of a process finds the subscriber already set.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(duration)
        .tick_duration(tick)
        .max_message_latency(MAX_LATENCY)
        .tcp_capacity(TCP_CAPACITY)
        .enable_random_order()
        .build()
}

impl Cluster {
    /// Starts nodes `node-1` to `node-count` with disks of one kind, each a seed for the others.
    pub fn start(sim: &mut Sim<'_>, seed: u64, count: usize, kind: DiskKind) -> Cluster {
        Cluster::start_with(sim, seed, count, kind, Limits::default())
    }

    /// Starts the same nodes with other limits.
    pub fn start_with(
        sim: &mut Sim<'_>,
        seed: u64,
        count: usize,
        kind: DiskKind,
        limits: Limits,
    ) -> Cluster {
        let names: Vec<String> = (0..count).map(node_name).collect();
        let seeds: Vec<String> = names.iter().map(|name| address(name)).collect();
        let mut cluster = Cluster {
            seed,
            kind,
            limits: Limits {
                group_partitions: GROUP_PARTITIONS,
                ..limits
            },
            machines: BTreeMap::new(),
            places: Places::default(),
            guests: BTreeMap::new(),
        };
        for name in names {
            cluster.add(sim, &name, seeds.clone());
        }
        cluster
    }

    /// Adds one node, which joins through `seeds`.
    pub fn add(&mut self, sim: &mut Sim<'_>, name: &str, seeds: Vec<String>) {
        let seed = self.seed ^ (self.machines.len() as u64 + 1);
        let directory = Directory::new(name, self.kind.machine(seed));
        let machine = Arc::new(Machine::new(directory));
        self.machines.insert(name.to_string(), machine.clone());
        let config = self.config(name, seeds);
        let places = self.places.clone();
        sim.host(name, move || {
            run(places.settings(&config), machine.clone(), seed)
        });
    }

    /// Starts a process on a separate host. It may claim another node's address and may run on a copy of another
    /// node's directory. It is not one of the nodes, and no supervisor restarts it.
    pub fn invite(
        &mut self,
        sim: &mut Sim<'_>,
        name: &str,
        seed: u64,
        directory: Option<Arc<Directory>>,
        advertise: Option<String>,
    ) {
        let seed = self.seed ^ (seed << 32);
        let directory = directory.unwrap_or_else(|| Directory::new(name, self.kind.machine(seed)));
        let machine = Arc::new(Machine::new(directory));
        self.guests.insert(name.to_owned(), machine.clone());
        let config = self.config(name, self.present_addresses());
        let config = Config {
            advertise: advertise.unwrap_or_else(|| config.advertise.clone()),
            ..config
        };
        sim.host(name, move || run(config.clone(), machine.clone(), seed));
    }

    /// Settings of a node that has not moved.
    fn config(&self, name: &str, seeds: Vec<String>) -> Config {
        Config {
            advertise: address(name),
            listen: address(name),
            seeds,
            limits: self.limits.clone(),
            ..Config::default()
        }
    }

    /// Ends all guests. Returns for each the reason why it had ended by itself, if it had.
    pub fn dismiss(&mut self, sim: &mut Sim<'_>) -> Vec<Option<String>> {
        let guests = std::mem::take(&mut self.guests).into_iter();
        let dismissed = guests.map(|(name, machine)| {
            let why = machine.why_ended();
            machine.disk().crash();
            sim.crash(name.as_str());
            why
        });
        dismissed.collect()
    }

    /// Moves a node's port, from its next process on, to `offset` above its first port.
    pub fn relocate(&self, number: usize, offset: u16) {
        let name = self.name(number).to_owned();
        self.places.0.lock().insert(name, offset);
    }

    /// Address of a node, as of its next start.
    pub fn address_of(&self, number: usize) -> String {
        self.places.now_at(&address(self.name(number)))
    }

    fn present_addresses(&self) -> Vec<String> {
        (0..self.len())
            .map(|number| self.address_of(number))
            .collect()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// True if the cluster has no nodes.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Name of a node, by its number from 0.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn name(&self, number: usize) -> &str {
        let name = self.machines.keys().nth(number);
        name.expect("a node of the plan")
    }

    /// First addresses of the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.machines.keys().map(|name| address(name)).collect()
    }

    /// One node's machine.
    ///
    /// # Panics
    /// If there is no node of that name.
    pub fn machine(&self, name: &str) -> &Arc<Machine> {
        &self.machines[name]
    }

    /// Takes the power from a node. A part of its unsynced data, drawn from `random`, survives.
    /// [`Sim::bounce`] brings it back.
    pub fn power_off(&self, sim: &mut Sim<'_>, name: &str, random: &mut SmallRng) {
        // The other nodes see silence, not the closed connections of a crash in turmoil.
        for other in self.machines.keys().filter(|other| *other != name) {
            sim.partition(name, other.as_str());
        }
        self.machines[name].disk().power_loss(random);
        self.machines[name].ended.lock().take();
        sim.crash(name);
        for other in self.machines.keys().filter(|other| *other != name) {
            sim.repair(name, other.as_str());
        }
    }

    /// Ends a node's process: everything it wrote survives, and its connections are closed. [`Sim::bounce`]
    /// brings it back.
    pub fn crash(&self, sim: &mut Sim<'_>, name: &str) {
        self.machines[name].disk().crash();
        self.machines[name].ended.lock().take();
        sim.crash(name);
    }

    /// Restarts processes that ended by themselves a while ago, as a service supervisor does. If a node's error
    /// asks for an operator, the operator's work is done first. Call it between two steps.
    pub fn supervise(&self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for (name, machine) in &self.machines {
            let due = |ended: &mut Ended| ended.at + RESTART_AFTER <= now;
            let Some(ended) = machine.ended.lock().take_if(due) else {
                continue;
            };
            machine.disk().crash();
            ended.remedy.apply(&machine.directory());
            sim.bounce(name.as_str());
        }
    }

    /// Replaces a node's disk with an empty one. The node must be down.
    pub fn wipe(&self, name: &str) {
        self.machines[name].directory().wipe();
    }

    /// Exchanges the data directories of two nodes. Both must be down.
    pub fn exchange(&self, one: usize, other: usize) {
        let [one, other] = [one, other].map(|number| self.machine(self.name(number)));
        let held = one.directory();
        let others = std::mem::replace(&mut *other.directory.lock(), held);
        *one.directory.lock() = others;
    }
}

/// Name of a node, by its number from 0.
pub fn node_name(number: usize) -> String {
    format!("node-{}", number + 1)
}

/// Address of a simulated node.
pub fn address(name: &str) -> String {
    format!("{name}:{PORT}")
}

/// One life of a node's process. An end by itself does not fail the simulation.
async fn run(config: Config, machine: Arc<Machine>, seed: u64) -> turmoil::Result {
    match live(config, &machine, seed).await {
        Ok(()) => {
            // The fault that asked the process to end removes the rest of it.
            machine.process.has_stopped();
            std::future::pending().await
        }
        Err(error) => {
            tracing::warn!(%error, "a node ended by itself");
            let ended = Ended {
                at: turmoil::sim_elapsed().unwrap_or_default(),
                why: error.to_string(),
                remedy: Remedy::of(&error),
            };
            *machine.ended.lock() = Some(ended);
            Ok(())
        }
    }
}

async fn live(mut config: Config, machine: &Machine, mut seed: u64) -> Result<(), SuperviseError> {
    let process = &machine.process;
    let stop = process.begin();
    if let Some(limits) = process.limits() {
        config.limits = limits;
    }
    let directory = machine.directory().mount(process.calls.clone());
    let env = |disk| {
        let env = Env {
            clock: machine.clock.clone(),
            disk: process.disk(disk),
            net: Arc::new(SimNet {
                gate: process.gate.clone(),
            }),
            seed,
            log_lines_lost: || 0,
        };
        seed = seed.wrapping_add(NEXT_RUN);
        env
    };
    supervise(&directory, config, env, |_| {}, stop).await
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ropewalk_node::RunError;

    use super::*;

    #[test]
    fn an_operator_does_as_a_node_s_error_says_and_otherwise_nothing() {
        let unlooked = DataDirError::Unlooked {
            path: PathBuf::from("node-1"),
            kept: PathBuf::from("node-1/quarantine"),
        };
        let why = || "block 7 rots".to_owned();
        let cases = [
            (SuperviseError::Directory(unlooked), Remedy::DeleteKept),
            (
                SuperviseError::UnknownCluster { why: why() },
                Remedy::Replace,
            ),
            (
                SuperviseError::NoSeeds {
                    why: why(),
                    cluster: "c1".to_owned(),
                },
                Remedy::Restart,
            ),
            (
                SuperviseError::Run(RunError::MetadataEnded),
                Remedy::Restart,
            ),
        ];
        for (error, remedy) in cases {
            assert_eq!(Remedy::of(&error), remedy, "{error}");
        }
    }
}
