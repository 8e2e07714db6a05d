//! A node takes over another's replica no faster than its limit, and publishers do not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_node::config::Limits;
use ropewalk_proto::v1::{NodeState, SetNodeStateRequest};
use ropewalk_simulation::ask::Ask;
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::disk::DiskKind;

const NODES: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
const RATE: usize = 64 << 10;
const RECORDS: usize = 40;
const RECORD_BYTES: usize = 16 << 10;

/// Measurements of one run, in virtual time.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Time from the request to remove the node until its replica was elsewhere, in sync.
    moved: Duration,
    /// The longest time until a record was acknowledged meanwhile.
    slowest: Duration,
}

fn one_node_leaves(rebalance_bytes_per_s: usize) -> Seen {
    let seed = 11;
    let mut sim = cluster::simulation(seed, Duration::from_secs(300), Duration::from_millis(1));
    let nodes = Cluster::start(&mut sim, seed, NODES.len(), DiskKind::Memory);
    for name in NODES {
        let limits = Limits {
            rebalance_bytes_per_s,
            append_bytes: RATE / 4,
            group_partitions: 1,
            ..Limits::default()
        };
        nodes.machine(name).process().set_limits(Some(limits));
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let moving = Arc::new(AtomicBool::new(false));
    let (told, under_way) = (seen.clone(), moving.clone());
    sim.client("operator", async move {
        let ask = Ask::new(&NODES, "flights");
        ask.create_topic(None).await;
        let value = "v".repeat(RECORD_BYTES);
        for _ in 0..RECORDS {
            ask.publish("key", &value).await;
        }
        let held = ask.partition().await;
        let leaves = held.replica_node_ids[2];
        let request = SetNodeStateRequest {
            node_id: leaves,
            state: NodeState::Decommissioning.into(),
        };
        let begun = tokio::time::Instant::now();
        under_way.store(true, Ordering::Relaxed);
        ask.until_answered(|mut node| async move { node.set_node_state(request).await })
            .await;
        ask.until_partition(|partition| {
            let held = &partition.replica_node_ids;
            let in_sync = |node| partition.in_sync_node_ids.contains(node);
            !held.contains(&leaves) && held.iter().all(in_sync)
        })
        .await;
        told.lock().moved = begun.elapsed();
        under_way.store(false, Ordering::Relaxed);
        Ok(())
    });
    let told = seen.clone();
    sim.client("publisher", async move {
        let ask = Ask::new(&NODES, "flights");
        while !moving.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while moving.load(Ordering::Relaxed) {
            let begun = tokio::time::Instant::now();
            ask.publish("key", "small").await;
            let slowest = told.lock().slowest.max(begun.elapsed());
            told.lock().slowest = slowest;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    sim.run().expect("no host fails");
    let seen = *seen.lock();
    println!("{rebalance_bytes_per_s} bytes/s: {seen:?}");
    seen
}

#[test]
fn a_replica_is_rebuilt_at_the_rate_that_is_set_and_publishing_goes_on() {
    let at_least = Duration::from_secs_f64((RECORDS * RECORD_BYTES) as f64 / RATE as f64);
    let slowly = one_node_leaves(RATE);
    assert!(slowly.moved > at_least, "{slowly:?}");
    assert!(slowly.slowest < Duration::from_secs(1), "{slowly:?}");
    let at_once = one_node_leaves(0);
    assert!(at_once.moved < at_least, "{at_once:?}");
}
