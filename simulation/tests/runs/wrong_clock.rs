//! One node's clock is wrong by more than every retention: nothing is trimmed or forgotten because of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::v1;
use ropewalk_simulation::ask::Ask;
use ropewalk_simulation::cluster::{self, Cluster, Machine};
use ropewalk_simulation::disk::DiskKind;
use tokio::time::sleep;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const TOPIC: &str = "flights";
const GROUP: &str = "billing";
const DAYS_100_MS: i64 = 100 * 24 * 3_600_000;
/// Longer than the interval at which a leader or a coordinator looks for expired data.
const A_LOOK: Duration = Duration::from_secs(45);

/// Name of the node that leads the topic's partition.
async fn leader_of(ask: &Ask) -> &'static str {
    ask.until_partition(|partition| partition.leader_node_id != 0)
        .await;
    let leader = ask.partition().await.leader_node_id;
    let status = ask.until_answered(|mut node| async move {
        node.cluster_status(v1::ClusterStatusRequest::default())
            .await
    });
    let nodes = status.await.into_inner().nodes.into_iter();
    let mut infos = nodes.filter_map(|node| node.info);
    let info = infos.find(|info| info.node_id == leader).expect("a node");
    let mut names = NODES.into_iter();
    let name = names.find(|name| cluster::address(name) == info.address);
    name.expect("a node of the test")
}

/// Runs three nodes and an operator that can set their clocks wrong.
fn operated<F: Future<Output = turmoil::Result> + 'static>(
    operate: impl FnOnce(Ask, BTreeMap<&'static str, Arc<Machine>>) -> F,
) {
    let seed = 11;
    let mut sim = cluster::simulation(seed, Duration::from_secs(600), Duration::from_millis(1));
    let nodes = Cluster::start(&mut sim, seed, NODES.len(), DiskKind::Memory);
    let machines = NODES.map(|name| (name, nodes.machine(name).clone()));
    sim.client(
        "operator",
        operate(Ask::new(&NODES, TOPIC), machines.into()),
    );
    sim.run().expect("all went as it should");
}

#[test]
fn no_record_is_trimmed_for_a_leaders_clock_that_is_wrong_by_100_days() {
    operated(|ask, machines| async move {
        ask.create_topic(None).await;
        let clock = machines[leader_of(&ask).await].clock();
        // A leader whose clock is behind writes the first records. It looks at them with a right clock, and
        // then with one that is ahead.
        clock.set_skew_ms(-DAYS_100_MS);
        ask.publish("key", "published").await;
        for skew_ms in [0, DAYS_100_MS] {
            clock.set_skew_ms(skew_ms);
            sleep(A_LOOK).await;
        }
        assert_eq!(ask.partition().await.log_start_offset, 0);
        Ok(())
    });
}

#[test]
fn no_group_is_forgotten_for_a_coordinators_clock_that_is_wrong_by_100_days() {
    operated(|ask, machines| async move {
        ask.create_topic(None).await;
        ask.publish("key", "published").await;
        ask.seek_group(GROUP, 1).await;
        for machine in machines.values() {
            for skew_ms in [DAYS_100_MS, 0] {
                machine.clock().set_skew_ms(skew_ms);
                sleep(A_LOOK).await;
            }
        }
        assert_eq!(ask.committed(GROUP).await, Some(1));
        Ok(())
    });
}
