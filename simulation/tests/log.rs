//! A log of three nodes, through the loss of each.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_simulation::ask::{Ask, Contents};
use ropewalk_simulation::cluster::{self, Cluster};
use turmoil::Sim;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const TOPIC: &str = "flights";
const KEY: &str = "N14228";
const RECORDS: usize = 200;

/// The seeds to run: `SEEDS=first..end`, or a few.
fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "1..4".to_string());
    let (first, end) = seeds.split_once("..").expect("SEEDS=first..end");
    first.parse().expect("a number")..end.parse().expect("a number")
}

/// Steps until `done`; the bound is the simulation's own duration.
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

#[test]
fn what_was_acknowledged_is_read_after_each_node_in_turn_loses_its_power() {
    seeds().for_each(each_node_in_turn_loses_its_power);
}

fn each_node_in_turn_loses_its_power(seed: u64) {
    let mut sim = cluster::simulation(seed, Duration::from_secs(300));
    let nodes = Cluster::start(&mut sim, seed, 3);
    let acknowledged: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
    let read: Arc<Mutex<Contents>> = Arc::default();
    {
        let (acknowledged, read) = (acknowledged.clone(), read.clone());
        sim.client("publisher", async move {
            let ask = Ask::new(&NODES, TOPIC);
            ask.create_topic(None).await;
            for number in 0..RECORDS {
                let value = format!("record {number}");
                let offset = ask.publish(KEY, &value).await;
                acknowledged.lock().push((offset, value));
            }
            let contents = ask.contents().await;
            *read.lock() = contents;
            Ok(())
        });
    }
    for (number, name) in (1..).zip(NODES) {
        step_until(&mut sim, || {
            acknowledged.lock().len() >= number * RECORDS / 4
        });
        nodes.power_off(&mut sim, name, 0);
        step_for(&mut sim, Duration::from_secs(5));
        sim.bounce(name);
    }
    sim.run().expect("the publisher ends");

    let values = read.lock().values();
    let acknowledged = acknowledged.lock();
    for (offset, value) in acknowledged.iter() {
        let read = values.get(offset).map(|value| &value[..]);
        assert_eq!(read, Some(value.as_bytes()), "seed {seed}, offset {offset}");
    }
    assert!(
        acknowledged.is_sorted(),
        "seed {seed}: one key, one publisher, so in the order of publishing"
    );
}
