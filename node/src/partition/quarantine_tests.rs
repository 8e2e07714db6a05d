//! Handling of a replica whose disk is damaged, on the cluster of `test_cluster`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::meta::view::{PartitionImage, ReplicaPlacement};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_raft_store::disk::MemoryDisk;
use ropewalk_raft_store::{Store, StoreOptions};

use super::cluster_tests::{anonymous, contents, produce, spec};
use super::quarantine::Quarantine;
use super::test_cluster::{GROUP, PATIENCE, TOPIC, TestCluster, limits, place, settings};
use super::*;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::scrub;

const NO_TAIL: usize = 0;

/// Starts three nodes that read their logs from their disks, and returns the batches they acknowledged.
async fn three_with_records() -> (TestCluster, Vec<Bytes>) {
    let cluster = TestCluster::start_with(3, settings(), NO_TAIL).await;
    let leader = cluster.leader().await;
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        let batch = anonymous(&[format!("record {n:02}").as_bytes()]);
        produce(&leader, batch.clone()).await.unwrap();
        acknowledged.push(batch);
    }
    (cluster, acknowledged)
}

/// Damages the stored entry that holds this record.
fn damage_record(disk: &MemoryDisk, record: &str) {
    let holds = |_: &[u8], value: &[u8]| {
        let mut windows = value.windows(record.len());
        windows.any(|window| window == record.as_bytes())
    };
    assert_eq!(disk.damage(holds), 1);
}

/// Damages all stored data of a node's replica.
fn damage_replica(disk: &MemoryDisk, replica: ReplicaId) {
    let prefix = [&[3], &replica.0.to_be_bytes()[..]].concat();
    assert!(disk.damage(|key, _| key.starts_with(&prefix)) > 0);
}

/// Applies a fact as the metadata group does; its own tests show that it does.
fn decide(partition: &mut PartitionImage, fact: Kind) {
    match fact {
        Kind::ReplicaDamaged(fact) => {
            let damaged = ReplicaId(fact.replica_id);
            partition.damaged.push(damaged);
            let mut replicas = partition.replicas.iter_mut();
            if let Some(held) = replicas.find(|held| held.replica == damaged)
                && partition.damaged.len() < 2
            {
                partition.retiring.push(*held);
                held.replica = ReplicaId(damaged.0 + 1);
            }
        }
        Kind::SettleReplicas(fact) => {
            let member = |replica: ReplicaId| fact.replica_ids.contains(&replica.0);
            partition.retiring.retain(|place| member(place.replica));
            partition.damaged.retain(|replica| member(*replica));
        }
        other => panic!("a partition does not say {other:?}"),
    }
}

impl TestCluster {
    /// Plays the metadata group until a condition holds.
    async fn decide_until(&mut self, what: &str, mut holds: impl FnMut(&TestCluster) -> bool) {
        let held = async {
            while !holds(self) {
                let nodes = self.nodes.values_mut();
                let facts: Vec<Kind> = nodes.filter_map(|n| n.facts.try_recv().ok()).collect();
                for fact in facts {
                    self.change_partition(|partition| decide(partition, fact));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let held = tokio::time::timeout(PATIENCE, held).await;
        held.unwrap_or_else(|_| panic!("no {what} in time"));
    }

    /// Waits until the replica of a node has been replaced, and equals its leader's, byte for byte.
    async fn is_replaced(&mut self, node: u64, acknowledged: &[Bytes]) {
        let [old, new] = [place(node).replica, ReplicaId(place(node).replica.0 + 1)];
        let on_disk = |cluster: &TestCluster| cluster.nodes[&NodeId(node)].store.replicas();
        self.decide_until("new replica instead of the old", |cluster| {
            on_disk(cluster) == [(GROUP, new)]
        })
        .await;
        assert_ne!(old, new);
        let leader = self.leader().await;
        let newcomer = self.replica(node);
        assert_eq!(newcomer.id.replica, new);
        let members = leader.group().members;
        assert!(!members.contains_key(&old), "{members:?}");
        let equal =
            |_: &TestCluster| *newcomer.replica.view.machine() == *leader.replica.view.machine();
        self.decide_until("equal state", equal).await;
        let held = contents(&newcomer).await;
        assert_eq!(held, contents(&leader).await);
        let held: Vec<Bytes> = held.into_iter().map(|(_, _, batch)| batch).collect();
        assert_eq!(held, acknowledged);
    }
}

fn another_than(leader: &Arc<Partition>) -> NodeId {
    let mut nodes = (1..=3).map(NodeId);
    nodes.find(|node| *node != leader.host.node_id).unwrap()
}

#[tokio::test]
async fn a_damaged_follower_is_replaced_under_a_new_replica_id_and_ends_equal_byte_for_byte() {
    let (mut cluster, mut acknowledged) = three_with_records().await;
    let leader = cluster.leader().await;
    let follower = another_than(&leader);
    let last = |disk: &MemoryDisk| damage_record(disk, "record 19");
    cluster.restart(follower, last).await;
    let more = anonymous(&[b"while it is away"]);
    produce(&cluster.leader().await, more.clone())
        .await
        .unwrap();
    acknowledged.push(more);
    cluster.is_replaced(follower.0, &acknowledged).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_reads_damage_hands_on_and_nothing_acknowledged_is_lost() {
    let (mut cluster, acknowledged) = three_with_records().await;
    let leader = cluster.leader().await;
    let node = leader.host.node_id;
    damage_record(&cluster.nodes[&node].disk, "record 05");
    let met = leader.fetch(spec(5)).await.unwrap_err();
    assert_eq!(met.code, ErrorCode::DamagedData, "{met}");
    let refused = leader.propose(0, anonymous(&[b"too late"])).await.err();
    assert_eq!(refused.map(|error| error.code), Some(ErrorCode::NotServing));
    cluster
        .decide_until("other leader", |cluster| {
            let info = cluster.nodes[&another_than(&leader)].partitions.get(GROUP);
            info.is_some_and(|partition| {
                partition.with_metrics(|metrics| {
                    metrics
                        .current_leader
                        .is_some_and(|leads| leads != leader.id.replica)
                })
            })
        })
        .await;
    let served = leader.fetch(spec(0)).await.unwrap_err();
    assert_eq!(served.code, ErrorCode::NotServing, "{served}");
    cluster.is_replaced(node.0, &acknowledged).await;
    cluster.stop().await;
}

#[tokio::test]
async fn damage_in_what_nobody_reads_is_found_by_the_scrubber_and_repaired_from_the_others() {
    let (mut cluster, acknowledged) = three_with_records().await;
    let leader = cluster.leader().await;
    let follower = another_than(&leader);
    let limits = Limits {
        scrub_bytes_per_s: 64 << 20,
        ..limits()
    };
    let metrics = Metrics::new(&limits);
    let held = cluster.replica(follower.0);
    let whole = scrub::pass(&limits, &metrics, held.scrub()).await;
    assert!(whole > 1_000 && held.is_running());
    damage_record(&cluster.nodes[&follower].disk, "record 05");
    let read = scrub::pass(&limits, &metrics, held.scrub()).await;
    assert!(read < whole, "it ends where the damage is");
    cluster.is_replaced(follower.0, &acknowledged).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_scrubber_keeps_to_its_pace() {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::open(disk, StoreOptions::default()).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        let value = Bytes::from(vec![7; 1_000]);
        store.put_local(name, value).await.unwrap();
    }
    let limits = Limits {
        scrub_bytes_per_s: 1_000,
        ..limits()
    };
    let metrics = Metrics::new(&limits);
    let begun = tokio::time::Instant::now();
    let bytes = scrub::pass(&limits, &metrics, store.scrub()).await;
    assert!((4_000..4_100).contains(&bytes), "{bytes}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(4_000), "{took:?}");
    assert!(took < Duration::from_millis(4_200), "{took:?}");
}

#[tokio::test]
async fn a_replica_found_damaged_does_not_run_again_after_a_restart() {
    let (mut cluster, _) = three_with_records().await;
    let leader = cluster.leader().await;
    let node = leader.host.node_id;
    damage_record(&cluster.nodes[&node].disk, "record 05");
    leader.fetch(spec(5)).await.unwrap_err();
    let store = cluster.nodes[&node].store.clone();
    let marked = async {
        // The metadata group is silent: it decides nothing.
        while cluster.nodes[&node].partitions.get(GROUP).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        loop {
            let machine = PartitionMachine::default();
            let opened = store.open_replica(GROUP, leader.id.replica, machine).await;
            if opened.is_err_and(|error| error.to_string().contains("set aside")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, marked).await.unwrap();
    // Its beginning and end are intact: only the mark can keep it from running.
    cluster.restart(node, |_| {}).await;
    let facts = cluster.nodes.get_mut(&node).unwrap();
    let told = tokio::time::timeout(PATIENCE, facts.facts.recv()).await;
    assert!(
        matches!(told, Ok(Some(Kind::ReplicaDamaged(_)))),
        "{told:?}"
    );
    assert!(cluster.nodes[&node].partitions.get(GROUP).is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_the_metadata_knows_to_be_damaged_does_not_run_even_without_its_mark() {
    let (mut cluster, _) = three_with_records().await;
    let damaged = place(2).replica;
    cluster.change_partition(|partition| partition.damaged.push(damaged));
    cluster
        .decide_until("stopped replica", |cluster| {
            cluster.nodes[&NodeId(2)].partitions.get(GROUP).is_none()
        })
        .await;
    let leader = cluster.leader().await;
    produce(&leader, anonymous(&[b"without it"])).await.unwrap();
    assert!(cluster.nodes[&NodeId(2)].partitions.get(GROUP).is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn a_majority_damaged_refuses_by_name_and_keeps_everything() {
    let (mut cluster, _) = three_with_records().await;
    for node in [1, 2] {
        let damage = |disk: &MemoryDisk| damage_replica(disk, place(node).replica);
        cluster.restart(NodeId(node), damage).await;
    }
    cluster
        .decide_until("refusal", |cluster| {
            let partition = cluster.replica(3);
            let error = partition.not_leader_now();
            error.code == ErrorCode::DamagedData
                && error.message.contains("flights/0")
                && error.message.contains("node 1, 2")
        })
        .await;
    // Enough time for several reconciliations, which must not delete anything.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for node in [1, 2] {
        let ReplicaPlacement { replica, .. } = place(node);
        let node = &cluster.nodes[&NodeId(node)];
        assert!(node.store.replicas().contains(&(GROUP, replica)));
        let prefix = [&[3], &replica.0.to_be_bytes()[..]].concat();
        let kept = node.disk.damage(|key, _| key.starts_with(&prefix));
        assert!(kept > 20, "{kept} values of the replica are left");
    }
    cluster.stop().await;
}

/// Simulates a disk that damages all writes: few replicas may retire at a time.
#[tokio::test]
async fn a_successor_that_never_ran_is_let_go_while_the_next_one_does_not_run_either() {
    let (mut cluster, _) = three_with_records().await;
    let node = another_than(&cluster.leader().await).0;
    let old = place(node).replica;
    let mut left = old;
    for successor in [old.0 + 1, old.0 + 2].map(ReplicaId) {
        cluster.change_partition(|partition| {
            let mut replicas = partition.replicas.iter_mut();
            let held = replicas.find(|held| held.node.0 == node).unwrap();
            partition.retiring.push(*held);
            partition.damaged.extend([held.replica, successor]);
            held.replica = successor;
        });
        let leader = cluster.leader().await;
        let comes = |_: &TestCluster| leader.group().members.contains_key(&successor);
        cluster.decide_until("successor", comes).await;
        left = successor;
    }
    let first = ReplicaId(old.0 + 1);
    cluster
        .decide_until("end of the first successor", |cluster| {
            let view = cluster.view.borrow();
            let leaving = &view.topics[TOPIC].partitions[0].retiring;
            leaving.iter().all(|place| place.replica == old)
        })
        .await;
    let members = cluster.leader().await.group().members;
    assert!(members.contains_key(&old) && members.contains_key(&left));
    assert!(!members.contains_key(&first), "{members:?}");
    let node = &cluster.nodes[&NodeId(node)];
    assert!(node.store.replicas().contains(&(GROUP, old)), "it is kept");
    cluster.stop().await;
}

#[tokio::test]
async fn damage_is_told_once_in_a_while_also_if_the_next_is_of_a_successor() {
    let (mut cluster, _) = three_with_records().await;
    let partition = cluster.replica(1);
    let view = partition.host.view.borrow().clone();
    let facts = &mut cluster.nodes.get_mut(&NodeId(1)).unwrap().facts;
    let mut quarantine = Quarantine::default();
    tokio::time::pause();
    let mut told = Vec::new();
    for (replica, pause_ms) in [(90, 0), (91, 0), (91, 4_900), (91, 200)] {
        tokio::time::advance(Duration::from_millis(pause_ms)).await;
        let replica = ReplicaId(replica);
        let id = PartitionId {
            replica,
            ..partition.id.clone()
        };
        quarantine.take(id, "rot".into());
        let is_named = |named| named == replica;
        quarantine.settle(&partition.host, &view, is_named).await;
        let facts = std::iter::from_fn(|| facts.try_recv().ok());
        let of_damage = facts.filter_map(|fact| match fact {
            Kind::ReplicaDamaged(fact) => Some(fact.replica_id),
            _ => None,
        });
        told.push(of_damage.collect::<Vec<_>>());
    }
    assert_eq!(told, [vec![90], vec![], vec![], vec![91]]);
    tokio::time::resume();
    cluster.stop().await;
}
