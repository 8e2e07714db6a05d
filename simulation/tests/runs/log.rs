//! A log on three nodes: through the loss of each node, of all at once, and of the network between them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ropewalk_simulation::ask::{Ask, Contents};
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::disk::DiskFault::{self, Full, Io, SlowMs};
use ropewalk_simulation::disk::DiskKind;
use turmoil::Sim;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const TOPIC: &str = "flights";
const KEY: &str = "N14228";
const RECORDS: usize = 200;
const BOUND: Duration = Duration::from_secs(300);
/// Step of virtual time.
const TICK: Duration = Duration::from_millis(1);

/// The seeds to run: `SEEDS=first..end`, or a few.
fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "1..4".to_string());
    let (first, end) = seeds.split_once("..").expect("SEEDS=first..end");
    first.parse().expect("a number")..end.parse().expect("a number")
}

/// Steps until `done`; the simulation's own duration is the limit.
fn step_until(sim: &mut Sim<'_>, mut done: impl FnMut() -> bool) {
    while !done() {
        sim.step().expect("no host fails");
    }
}

fn step_for(sim: &mut Sim<'_>, time: Duration) {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.step().expect("no host fails");
    }
}

/// One acknowledged record, with virtual time, offset and value.
#[derive(Debug, Clone, PartialEq)]
struct Acknowledged {
    at: Duration,
    offset: u64,
    value: String,
}

/// Acknowledgements of a publisher, and the content that it read afterwards.
#[derive(Debug, Default)]
struct Story {
    acknowledged: Mutex<Vec<Acknowledged>>,
    read: Mutex<Contents>,
}

impl Story {
    /// Publishes one record after another, then reads everything.
    fn begin(sim: &mut Sim<'_>) -> Arc<Story> {
        let story = Arc::new(Story::default());
        let told = story.clone();
        sim.client("publisher", async move {
            let ask = Ask::new(&NODES, TOPIC);
            ask.create_topic(None).await;
            for number in 0..RECORDS {
                let value = format!("record {number}");
                let offset = ask.publish(KEY, &value).await;
                let at = turmoil::sim_elapsed().unwrap_or_default();
                let one = Acknowledged { at, offset, value };
                told.acknowledged.lock().push(one);
            }
            let last = told.acknowledged.lock().last().map(|one| one.offset);
            loop {
                let contents = ask.contents().await;
                // A leader that does not know its successor yet shows the log only up to the end of its own
                // term.
                if contents.values().keys().next_back().copied() >= last {
                    *told.read.lock() = contents;
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        story
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// Every acknowledged record is at its acknowledged offset, in the order of publishing.
    fn check(&self, seed: u64) {
        let values = self.read.lock().values();
        let acknowledged = self.acknowledged.lock();
        assert_eq!(acknowledged.len(), RECORDS, "seed {seed}");
        for one in acknowledged.iter() {
            let read = values.get(&one.offset).map(|value| &value[..]);
            let expected = Some(one.value.as_bytes());
            assert_eq!(read, expected, "seed {seed}, offset {}", one.offset);
        }
        let in_order = acknowledged.is_sorted_by(|one, next| one.offset < next.offset);
        assert!(in_order, "seed {seed}: one key, one publisher");
    }
}

fn each_node_in_turn_loses_its_power(seed: u64, kind: DiskKind) -> Arc<Story> {
    let mut sim = cluster::simulation(seed, BOUND, TICK);
    let nodes = Cluster::start(&mut sim, seed, 3, kind);
    let mut random = SmallRng::seed_from_u64(seed);
    let story = Story::begin(&mut sim);
    for (number, name) in (1..).zip(NODES) {
        step_until(&mut sim, || story.acknowledged() >= number * RECORDS / 4);
        nodes.power_off(&mut sim, name, &mut random);
        step_for(&mut sim, Duration::from_secs(5));
        sim.bounce(name);
    }
    sim.run().expect("the publisher ends");
    story
}

fn what_was_acknowledged_is_read_after_each_node_in_turn_loses_its_power(kind: DiskKind) {
    for seed in seeds() {
        each_node_in_turn_loses_its_power(seed, kind).check(seed);
    }
}

fn a_seed_run_twice_acknowledges_the_same_at_the_same_time(kind: DiskKind) {
    let seed = seeds().start;
    let first = each_node_in_turn_loses_its_power(seed, kind);
    let again = each_node_in_turn_loses_its_power(seed, kind);
    assert_eq!(*again.acknowledged.lock(), *first.acknowledged.lock());
    assert_eq!(*again.read.lock(), *first.read.lock());
}

fn what_was_acknowledged_is_read_after_all_nodes_lose_their_power_at_once(kind: DiskKind) {
    for seed in seeds() {
        let mut sim = cluster::simulation(seed, BOUND, TICK);
        let nodes = Cluster::start(&mut sim, seed, 3, kind);
        let mut random = SmallRng::seed_from_u64(seed);
        let story = Story::begin(&mut sim);
        for number in 1..4 {
            step_until(&mut sim, || story.acknowledged() >= number * RECORDS / 4);
            for name in NODES {
                nodes.power_off(&mut sim, name, &mut random);
            }
            step_for(&mut sim, Duration::from_secs(1));
            for name in NODES {
                sim.bounce(name);
            }
        }
        sim.run().expect("the publisher ends");
        story.check(seed);
    }
}

fn a_node_whose_disk_fails_comes_back_on_it_and_nothing_is_lost(kind: DiskKind) {
    for seed in seeds() {
        let mut sim = cluster::simulation(seed, BOUND, TICK);
        let nodes = Cluster::start(&mut sim, seed, 3, kind);
        let story = Story::begin(&mut sim);
        for ((number, name), fault) in (1..).zip(NODES).zip([Io, Full, SlowMs(200)]) {
            step_until(&mut sim, || story.acknowledged() >= number * RECORDS / 4);
            nodes.machine(name).disk().set_fault(fault);
            let end = sim.elapsed() + Duration::from_secs(5);
            while sim.elapsed() < end {
                nodes.supervise(&mut sim);
                sim.step().expect("no host fails");
            }
            nodes.machine(name).disk().set_fault(DiskFault::None);
        }
        while !sim.step().expect("the publisher ends") {
            nodes.supervise(&mut sim);
        }
        story.check(seed);
        let down = NODES.map(|name| nodes.machine(name).why_ended());
        assert_eq!(down, [None, None, None], "seed {seed}");
    }
}

fn a_leader_cut_off_from_the_others_acknowledges_nothing_and_loses_nothing(kind: DiskKind) {
    seeds().for_each(|seed| a_leader_is_cut_off(seed, kind));
}

fn a_leader_is_cut_off(seed: u64, kind: DiskKind) {
    let mut sim = cluster::simulation(seed, BOUND, TICK);
    let _nodes = Cluster::start(&mut sim, seed, 3, kind);
    let story = Story::begin(&mut sim);
    let leader: Arc<Mutex<Option<u64>>> = Arc::default();
    {
        let leader = leader.clone();
        sim.client("observer", async move {
            let ask = Ask::new(&NODES, TOPIC);
            ask.until_partition(|one| one.leader_node_id != 0).await;
            let found = ask.partition().await.leader_node_id;
            *leader.lock() = Some(found);
            Ok(())
        });
    }
    step_until(&mut sim, || {
        story.acknowledged() >= RECORDS / 4 && leader.lock().is_some()
    });
    let cut_off = leader.lock().map(|id| format!("node-{id}")).expect("seen");
    let others = NODES.iter().filter(|name| **name != cut_off);
    for other in others.clone() {
        sim.partition(cut_off.as_str(), *other);
    }
    // Acknowledgements by the old leader alone, while the publisher continues with the majority.
    let told: Arc<Mutex<Vec<Acknowledged>>> = Arc::default();
    {
        let (told, cut_off) = (told.clone(), cut_off.clone());
        sim.client("stranded", async move {
            let ask = Ask::new(&[cut_off.as_str()], TOPIC);
            let publish = ask.publish(KEY, "stranded");
            let published = tokio::time::timeout(Duration::from_secs(15), publish).await;
            if let Ok(offset) = published {
                let at = turmoil::sim_elapsed().unwrap_or_default();
                let value = "stranded".to_string();
                told.lock().push(Acknowledged { at, offset, value });
            }
            Ok(())
        });
    }
    let before = story.acknowledged();
    step_for(&mut sim, Duration::from_secs(20));
    assert_eq!(*told.lock(), [], "seed {seed}: {cut_off} has no majority");
    let after = story.acknowledged();
    assert!(after > before, "seed {seed}: the majority goes on");
    for other in others {
        sim.repair(cut_off.as_str(), *other);
    }
    sim.run().expect("the publisher ends");
    story.check(seed);
}

/// Each test, on each kind of disk.
macro_rules! on_each_disk {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $test() {
                super::$test(super::DiskKind::Memory);
            })*
        }
        mod rocks {
            $(#[test]
            fn $test() {
                super::$test(super::DiskKind::Rocks);
            })*
        }
    };
}

on_each_disk!(
    what_was_acknowledged_is_read_after_each_node_in_turn_loses_its_power,
    a_seed_run_twice_acknowledges_the_same_at_the_same_time,
    what_was_acknowledged_is_read_after_all_nodes_lose_their_power_at_once,
    a_node_whose_disk_fails_comes_back_on_it_and_nothing_is_lost,
    a_leader_cut_off_from_the_others_acknowledges_nothing_and_loses_nothing,
);
