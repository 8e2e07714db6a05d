//! Nodes of a simulated cluster: each is a host with a disk that survives it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use ropewalk_node::config::Limits;
use ropewalk_node::{Config, Env, RunError};
use ropewalk_raft_store::DiskError;
use tokio::sync::oneshot;
use turmoil::Sim;

use crate::clock::SimClock;
use crate::disk::{DiskKind, SimDisk};
use crate::net::SimNet;
use crate::process::Process;

/// The port that every simulated node listens on.
pub const PORT: u16 = 7_000;

/// Connections that may wait at one host; turmoil panics beyond it.
const TCP_CAPACITY: usize = 1 << 14;

/// Delay before the supervisor restarts a node that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);

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

/// A node's data directory. It belongs to another machine after an exchange with that machine's directory.
#[derive(Debug)]
struct Directory {
    /// Host it was made on: its name for as long as the simulation lasts.
    name: String,
    disk: Arc<dyn SimDisk>,
    /// Id of the cluster that the node was in. The binary keeps it in a file beside its database.
    member_of: Mutex<Option<String>>,
}

/// A process's end by itself.
#[derive(Debug)]
struct Ended {
    at: Duration,
    why: String,
    /// True if its disk is damaged.
    damaged: bool,
}

impl Machine {
    fn new(name: &str, disk: Arc<dyn SimDisk>) -> Machine {
        let directory = Directory {
            name: name.to_owned(),
            disk,
            member_of: Mutex::default(),
        };
        Machine {
            directory: Mutex::new(Arc::new(directory)),
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
        self.directory.lock().disk.clone()
    }

    /// Name of the directory that the node writes to: that of the host where it was made.
    pub fn directory_name(&self) -> String {
        self.directory.lock().name.clone()
    }

    fn directory(&self) -> Arc<Directory> {
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
        let machine = Arc::new(Machine::new(name, self.kind.machine(seed)));
        self.machines.insert(name.to_string(), machine.clone());
        let config = self.config(name, seeds);
        let places = self.places.clone();
        sim.host(name, move || {
            run(places.settings(&config), machine.clone(), seed)
        });
    }

    /// Starts a process on a separate host. It may claim another node's address and may run on another node's
    /// disk. It is not one of the nodes, and no supervisor restarts it.
    pub fn invite(
        &mut self,
        sim: &mut Sim<'_>,
        name: &str,
        seed: u64,
        disk: Option<Arc<dyn SimDisk>>,
        advertise: Option<String>,
    ) {
        let seed = self.seed ^ (seed << 32);
        let disk = disk.unwrap_or_else(|| self.kind.machine(seed));
        let machine = Arc::new(Machine::new(name, disk));
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

    /// Restarts processes that ended by themselves a while ago, as a service supervisor does. A process whose
    /// disk was damaged gets an empty disk, as with the binary. Call it between two steps.
    pub fn supervise(&self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for (name, machine) in &self.machines {
            let due = |ended: &mut Ended| ended.at + RESTART_AFTER <= now;
            let Some(ended) = machine.ended.lock().take_if(due) else {
                continue;
            };
            match ended.damaged {
                true => machine.disk().wipe(),
                false => machine.disk().crash(),
            }
            sim.bounce(name.as_str());
        }
    }

    /// Replaces a node's disk with an empty one. The node must be down.
    pub fn wipe(&self, name: &str) {
        let directory = self.machines[name].directory();
        directory.disk.wipe();
        directory.member_of.lock().take();
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
                damaged: is_damage(&*error),
            };
            *machine.ended.lock() = Some(ended);
            Ok(())
        }
    }
}

fn is_damage(error: &(dyn Error + 'static)) -> bool {
    let refused = error.downcast_ref::<DiskError>();
    let ended = error.downcast_ref::<RunError>();
    matches!(refused, Some(DiskError::Damaged(_))) || ended.is_some_and(|e| e.damage().is_some())
}

async fn live(mut config: Config, machine: &Machine, seed: u64) -> Result<(), Box<dyn Error>> {
    let stop = machine.process.begin();
    if let Some(limits) = machine.process.limits() {
        config.limits = limits;
    }
    let directory = machine.directory();
    config.member_of = directory.member_of.lock().clone();
    let opened = directory.disk.open();
    let opened = opened.inspect_err(|_| machine.process.calls.failed())?;
    let env = Env {
        clock: machine.clock.clone(),
        disk: machine.process.disk(opened),
        net: Arc::new(SimNet {
            gate: machine.process.gate.clone(),
        }),
        seed,
        log_lines_lost: || 0,
    };
    let (says, is_ready) = oneshot::channel();
    let running = ropewalk_node::run(config, env, stop, says);
    tokio::pin!(running);
    tokio::select! {
        done = &mut running => return Ok(done?),
        Ok(ready) = is_ready => *directory.member_of.lock() = Some(ready.cluster_id),
    }
    Ok(running.await?)
}
