//! A cluster that begins as one node: committed offsets of its consumer groups survive that node once others
//! have joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1;
use ropewalk_simulation::ask::Ask;
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::disk::DiskKind;
use tokio::time::sleep;
use turmoil::Sim;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const TOPIC: &str = "flights";
const GROUP: &str = "billing";
const PAUSE: Duration = Duration::from_millis(100);
/// Time within which the cluster's own data must have three replicas.
const RAISED_WITHIN: Duration = Duration::from_secs(20);

/// Time within which a replica that has caught up must become a voter.
const VOTING_WITHIN: Duration = Duration::from_secs(5);

/// Progress of the test; each side waits for the other's turn.
const COMMITTED: u8 = 1;
const ALL_THERE: u8 = 2;
const RAISED: u8 = 3;
const FIRST_LOST: u8 = 4;
const TOLD: u8 = 5;

async fn wait_for(turn: &AtomicU8, at: u8) {
    while turn.load(Ordering::Relaxed) < at {
        sleep(PAUSE).await;
    }
}

fn step_until(sim: &mut Sim<'_>, turn: &AtomicU8, at: u8) {
    while turn.load(Ordering::Relaxed) < at {
        sim.step().expect("no host fails");
    }
}

/// True if all three nodes hold the groups' partition in sync and are voters of the metadata group.
async fn is_raised(ask: &Ask) -> bool {
    let request = v1::ListPartitionsRequest {
        topics: vec![GROUPS_TOPIC.to_owned()],
    };
    let topics = ask.until_answered(|mut node| {
        let request = request.clone();
        async move { node.list_partitions(request).await }
    });
    let topics = topics.await.into_inner().topics;
    let mut partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let held = partitions.all(|one| one.in_sync_node_ids.len() == NODES.len());
    let status = ask.until_answered(|mut node| async move {
        node.cluster_status(v1::ClusterStatusRequest::default())
            .await
    });
    held && status.await.into_inner().metadata_voter_node_ids.len() == NODES.len()
}

#[test]
fn what_a_group_committed_on_the_only_node_is_there_when_that_node_is_lost() {
    let seed = 5;
    let mut sim = cluster::simulation(seed, Duration::from_secs(120), Duration::from_millis(1));
    let mut nodes = Cluster::start(&mut sim, seed, 1, DiskKind::Memory);
    let turn = Arc::new(AtomicU8::new(0));
    let told = Arc::new(Mutex::new(None));
    let (at, tells) = (turn.clone(), told.clone());
    sim.client("operator", async move {
        let ask = Ask::new(&NODES[..1], TOPIC);
        ask.create_topic(Some(v1::TopicSettings {
            replicas: 1,
            ..v1::TopicSettings::default()
        }))
        .await;
        for value in ["a", "b", "c"] {
            ask.publish("key", value).await;
        }
        ask.seek_group(GROUP, 2).await;
        at.store(COMMITTED, Ordering::Relaxed);
        wait_for(&at, ALL_THERE).await;
        let ask = Ask::new(&NODES, TOPIC);
        while !is_raised(&ask).await {
            sleep(PAUSE).await;
        }
        // Until the replicas that have caught up vote, too.
        sleep(VOTING_WITHIN).await;
        at.store(RAISED, Ordering::Relaxed);
        wait_for(&at, FIRST_LOST).await;
        *tells.lock() = ask.committed(GROUP).await;
        at.store(TOLD, Ordering::Relaxed);
        Ok(())
    });
    step_until(&mut sim, &turn, COMMITTED);
    for name in &NODES[1..] {
        nodes.add(&mut sim, name, vec![cluster::address(NODES[0])]);
    }
    let joined = sim.elapsed();
    turn.store(ALL_THERE, Ordering::Relaxed);
    step_until(&mut sim, &turn, RAISED);
    assert!(sim.elapsed() - joined < RAISED_WITHIN);
    nodes.power_off(&mut sim, NODES[0], &mut SmallRng::seed_from_u64(seed));
    turn.store(FIRST_LOST, Ordering::Relaxed);
    step_until(&mut sim, &turn, TOLD);
    assert_eq!(*told.lock(), Some(2));
}
