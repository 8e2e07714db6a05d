//! The parts of a node's report that others accept.

use std::collections::BTreeSet;

use ropewalk_machines::Machine;
use ropewalk_machines::meta::MetaMachine;
use ropewalk_machines::meta::view::PartitionImage;
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::{
    CreateTopic, FoundCluster, FoundingNode, MetaCommand, MoveReplicas, PartitionReport,
    SettleReplicas, TopicSettings, meta_reply,
};

use super::heartbeat;

/// The metadata of a founded cluster.
#[derive(Default)]
struct Bench {
    machine: MetaMachine,
    index: u64,
}

impl Bench {
    fn cluster(nodes: u64) -> Bench {
        let mut bench = Bench::default();
        let nodes = (1..=nodes).map(|id| FoundingNode {
            node_id: id,
            address: format!("host{id}:1"),
            incarnation: vec![id as u8; 16].into(),
        });
        bench.run(Kind::FoundCluster(FoundCluster {
            cluster_id: "c1".into(),
            nodes: nodes.collect(),
        }));
        bench
    }

    fn run(&mut self, kind: Kind) {
        self.index += 1;
        let command = Command::Meta(MetaCommand {
            leader_time_ms: 0,
            kind: Some(kind),
        });
        let applied = self.machine.apply(self.index, 1, 100, Some(&command));
        let Reply::Meta(reply) = applied.unwrap().reply else {
            panic!("a metadata command was answered otherwise");
        };
        assert!(!matches!(reply.kind, Some(meta_reply::Kind::Error(_))));
    }

    fn create(&mut self, name: &str, partitions: u32, replicas: u32) {
        self.run(Kind::CreateTopic(CreateTopic {
            name: name.into(),
            partitions,
            settings: Some(TopicSettings {
                replicas,
                ..TopicSettings::default()
            }),
            ..CreateTopic::default()
        }));
    }

    fn partition(&self, topic: &str, partition: u32) -> PartitionImage {
        let view = self.machine.to_view();
        view.partition(topic, partition).unwrap().clone()
    }
}

fn leads(group: GroupId, leader_epoch: u64) -> PartitionReport {
    PartitionReport {
        group_id: group.0,
        leader_epoch,
        ..PartitionReport::default()
    }
}

#[test]
fn a_node_is_not_believed_to_lead_what_it_holds_no_replica_of() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 2);
    let partition = bench.partition("t", 0);
    let holder = partition.replicas[0].node;
    let other = (1..=3).map(NodeId);
    let mut other = other.filter(|node| partition.replicas.iter().all(|place| place.node != *node));
    let other = other.next().unwrap();
    let believed = |node, group, epoch| {
        heartbeat::believed(&bench.machine, node, vec![leads(group, epoch)]).map(|told| told.len())
    };
    assert_eq!(believed(holder, partition.group, 7), Ok(1));
    assert_eq!(believed(other, partition.group, 7), Ok(0));
    // A group that this node has not heard of yet.
    assert_eq!(believed(other, GroupId(99), 7), Ok(1));
    let refused = believed(holder, partition.group, (1 << 48) + 1);
    assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidRequest);
}

#[test]
fn groups_that_are_unknown_are_believed_up_to_a_bound() {
    let bench = Bench::cluster(1);
    let leading = (0..100_000).map(|group| leads(GroupId(group), 1));
    let believed = heartbeat::believed(&bench.machine, NodeId(1), leading.collect()).unwrap();
    assert!(believed.len() < 10_000);
}

#[test]
fn the_clock_of_a_node_counts_once_it_holds_a_replica() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 1);
    let partition = bench.partition("t", 0);
    let holder = partition.replicas[0].node.0;
    let counted = |bench: &Bench| {
        let view = bench.machine.to_view();
        let holders = heartbeat::holders(&view, BTreeSet::from([NodeId(9)]));
        holders.into_iter().map(|node| node.0).collect::<Vec<_>>()
    };
    assert_eq!(
        counted(&bench),
        [holder, 9],
        "holders, and voters of the metadata"
    );
    // A node to which the partition is still moving has no vote yet.
    let heir = holder % 3 + 1;
    bench.run(Kind::MoveReplicas(MoveReplicas {
        group_id: partition.group.0,
        node_ids: vec![heir],
    }));
    assert_eq!(counted(&bench), [holder, 9]);
    let arrived = bench.partition("t", 0).replicas[0].replica.0;
    bench.run(Kind::SettleReplicas(SettleReplicas {
        group_id: partition.group.0,
        replica_ids: vec![arrived],
        only_with_all_wished: true,
    }));
    assert_eq!(counted(&bench), [heir, 9]);
}
