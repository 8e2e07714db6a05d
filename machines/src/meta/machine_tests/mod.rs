//! Every metadata command, and every reason for its refusal.

mod damaged;
mod frozen;
mod growth;
mod nodes;
mod pinned;
mod raise;
mod replay;
mod table;
mod topics;

use bytes::Bytes;
use proptest::prelude::*;
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::{
    AllocateProducerIds, AlterTopic, CreateTopic, DeleteTopic, FoundCluster, FoundingNode,
    MetaCommand, MetaReply, MoveReplicas, NodeStart, NodeState, Partitioner, ProducerIds,
    RegisterNode, RenewProducer, RenewedProducer, ReplicaDamaged, SetNodeState, SettleReplicas,
    TopicInfo, TopicSettings, meta_reply,
};

use super::machine::{MetaMachine, first_replica_id};
use super::settings;
use super::view::PartitionImage;
use crate::machine::{Machine, MachineError};

/// A machine under test, and its effects in the form that a disk would keep.
#[derive(Debug, Default)]
struct Bench {
    machine: MetaMachine,
    disk: std::collections::BTreeMap<Bytes, Bytes>,
    index: u64,
}

impl Bench {
    /// A founded cluster with this number of nodes.
    fn cluster(nodes: u64) -> Bench {
        let mut bench = Bench::default();
        assert_eq!(bench.run(found("c1", nodes)), Ok(None));
        bench
    }

    fn run(&mut self, kind: Kind) -> Result<Option<meta_reply::Kind>, ErrorCode> {
        self.index += 1;
        let command = Command::Meta(MetaCommand {
            leader_time_ms: 0,
            kind: Some(kind),
        });
        let applied = self.machine.apply(self.index, 1, 100, Some(&command));
        let applied = applied.unwrap();
        for effect in applied.effects {
            match effect.value {
                Some(value) => self.disk.insert(effect.key, value),
                None => self.disk.remove(&effect.key),
            };
        }
        match applied.reply {
            Reply::Meta(MetaReply {
                kind: Some(meta_reply::Kind::Error(error)),
            }) => {
                assert!(!error.message.is_empty());
                Err(ErrorCode::from_number(error.code))
            }
            Reply::Meta(MetaReply { kind }) => Ok(kind),
            other => panic!("a metadata command was answered with {other:?}"),
        }
    }

    fn create(
        &mut self,
        name: &str,
        partitions: u32,
        replicas: u32,
    ) -> Result<TopicInfo, ErrorCode> {
        match self.run(create(name, partitions, replicas))? {
            Some(meta_reply::Kind::Topic(info)) => Ok(info),
            other => panic!("a topic's creation was answered with {other:?}"),
        }
    }

    fn register(&mut self, incarnation: u8, address: &str) -> Result<(u64, u64), ErrorCode> {
        match self.run(register(incarnation, address))? {
            Some(meta_reply::Kind::NodeRegistered(node)) => {
                Ok((node.node_id, node.meta_replica_id))
            }
            other => panic!("a registration was answered with {other:?}"),
        }
    }

    fn partition(&self, topic: &str, partition: u32) -> PartitionImage {
        let view = self.machine.to_view();
        view.partition(topic, partition).unwrap().clone()
    }

    fn state(&self, node: u64) -> NodeState {
        self.machine.to_view().nodes[&NodeId(node)].state
    }
}

fn incarnation(id: u8) -> Vec<u8> {
    vec![id; 16]
}

fn found(cluster: &str, nodes: u64) -> Kind {
    let nodes = (1..=nodes).map(|id| FoundingNode {
        node_id: id,
        address: format!("host{id}:1"),
        incarnation: incarnation(id as u8).into(),
    });
    Kind::FoundCluster(FoundCluster {
        cluster_id: cluster.into(),
        nodes: nodes.collect(),
    })
}

fn register(id: u8, address: &str) -> Kind {
    Kind::RegisterNode(RegisterNode {
        incarnation: incarnation(id).into(),
        address: address.into(),
        http: "http".into(),
        rack: format!("rack{}", id % 3),
        version: "1".into(),
        command_version: 1,
        external: None,
        in_place_of: None,
        start: None,
    })
}

fn create(name: &str, partitions: u32, replicas: u32) -> Kind {
    Kind::CreateTopic(CreateTopic {
        name: name.into(),
        partitions,
        settings: Some(TopicSettings {
            replicas,
            ..TopicSettings::default()
        }),
        ..CreateTopic::default()
    })
}

fn set_state(node: u64, state: NodeState) -> Kind {
    Kind::SetNodeState(SetNodeState {
        node_id: node,
        state: state.into(),
    })
}

fn moved(group: GroupId, nodes: &[u64]) -> Kind {
    Kind::MoveReplicas(MoveReplicas {
        group_id: group.0,
        node_ids: nodes.to_vec(),
    })
}

fn settled(group: GroupId, replicas: impl IntoIterator<Item = u64>) -> Kind {
    Kind::SettleReplicas(SettleReplicas {
        group_id: group.0,
        replica_ids: replicas.into_iter().collect(),
        only_with_all_wished: true,
    })
}

fn damaged(group: GroupId, replica: u64) -> Kind {
    Kind::ReplicaDamaged(ReplicaDamaged {
        group_id: group.0,
        replica_id: replica,
    })
}

fn alter(name: &str, settings: TopicSettings) -> Kind {
    Kind::AlterTopic(AlterTopic {
        name: name.into(),
        settings: Some(settings),
        changed: Vec::new(),
    })
}

fn delete(name: &str) -> Kind {
    Kind::DeleteTopic(DeleteTopic {
        name: name.into(),
        keep_ring_version: true,
    })
}

fn producers(count: u64) -> Kind {
    Kind::AllocateProducerIds(AllocateProducerIds { count })
}

fn renew(producer_id: u64, producer_epoch: u32) -> Kind {
    Kind::RenewProducer(RenewProducer {
        producer_id,
        producer_epoch,
    })
}
