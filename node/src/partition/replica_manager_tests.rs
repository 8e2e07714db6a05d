//! Shutdown of a node while its replicas start.

use ropewalk_machines::meta::view::{PartitionImage, ReplicaPlacement};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};

use super::test_cluster::{PATIENCE, TestCluster, settings};

/// More replicas than start before the test can react.
const MANY: u64 = 1_000;

fn partition(number: u64) -> PartitionImage {
    let founding = vec![ReplicaPlacement {
        replica: ReplicaId(1_000 + number),
        node: NodeId(1),
    }];
    PartitionImage {
        partition: number as u32,
        group: GroupId(1_000 + number),
        replicas: founding.clone(),
        retiring: Vec::new(),
        damaged: Vec::new(),
        founding,
    }
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_while_it_starts_its_replicas_starts_no_more_of_them() {
    let cluster = TestCluster::start(1, settings()).await;
    cluster.change(|view| {
        for topic in view.topics.values_mut() {
            topic.partitions.extend((1..=MANY).map(partition));
        }
    });
    let node = &cluster.nodes[&NodeId(1)];
    let some_run = async {
        while node.partitions.all().len() < 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, some_run)
        .await
        .expect("some start in time");
    node.partitions.shutdown().await;
    let started = node.store.replicas().len();
    assert!(started < MANY as usize, "{started} were started");
    cluster.stop().await;
}
