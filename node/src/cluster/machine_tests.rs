//! Every metadata command, and every way it is refused.

use bytes::Bytes;
use proptest::prelude::*;
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::{
    AllocateProducerIds, AlterTopic, CreateTopic, DeleteTopic, FoundCluster, FoundingNode,
    MetaCommand, MetaReply, MoveReplicas, NodeState, Partitioner, ProducerIds, RegisterNode,
    SetNodeState, SettleReplicas, TopicInfo, TopicSettings, meta_reply,
};
use ropewalk_raft_store::machine::{Machine, MachineError};

use super::machine::{MetaMachine, first_replica_id};
use super::settings;
use super::view::PartitionView;

/// A machine under test, and the effects it has given as a disk would hold them.
#[derive(Debug, Default)]
struct Bench {
    machine: MetaMachine,
    disk: std::collections::BTreeMap<Bytes, Bytes>,
    index: u64,
}

impl Bench {
    /// A founded cluster of so many nodes.
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

    fn partition(&self, topic: &str, partition: u32) -> PartitionView {
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
    })
}

fn alter(name: &str, settings: TopicSettings) -> Kind {
    Kind::AlterTopic(AlterTopic {
        name: name.into(),
        settings: Some(settings),
    })
}

fn delete(name: &str) -> Kind {
    Kind::DeleteTopic(DeleteTopic { name: name.into() })
}

fn producers(count: u64) -> Kind {
    Kind::AllocateProducerIds(AllocateProducerIds { count })
}

#[test]
fn nothing_is_accepted_before_the_cluster_is_founded() {
    let mut bench = Bench::default();
    for kind in [
        register(1, "a:1"),
        create("t", 1, 1),
        delete("t"),
        producers(1),
        set_state(1, NodeState::Draining),
    ] {
        assert_eq!(bench.run(kind), Err(ErrorCode::NotServing));
    }
}

#[test]
fn a_cluster_is_founded_once_however_often_it_is_proposed() {
    let mut bench = Bench::cluster(3);
    let before = bench.machine.state.clone();
    assert_eq!(bench.run(found("c1", 3)), Ok(None));
    assert_eq!(bench.run(found("c2", 3)), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.machine.state, before);
    let first = first_replica_id("c1").0;
    let view = bench.machine.to_view();
    assert_eq!(view.nodes[&NodeId(3)].meta_replica.0, first + 3);
    assert_eq!(view.nodes[&NodeId(3)].address, "host3:1");
}

#[test]
fn a_plan_that_makes_no_sense_founds_nothing() {
    let Kind::FoundCluster(good) = found("c1", 2) else {
        unreachable!()
    };
    let mut twice = good.clone();
    twice.nodes[1].node_id = 1;
    let mut huge = good.clone();
    huge.nodes[1].node_id = u64::MAX;
    let mut short = good.clone();
    short.nodes[0].incarnation = Bytes::from_static(b"short");
    let mut nameless = good.clone();
    nameless.cluster_id.clear();
    let mut empty = good;
    empty.nodes.clear();
    for plan in [twice, huge, short, nameless, empty] {
        let mut bench = Bench::default();
        let refused = bench.run(Kind::FoundCluster(plan));
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
        assert_eq!(bench.machine.cluster_id(), "");
    }
}

#[test]
fn clusters_begin_their_replica_ids_far_apart() {
    let (one, other) = (first_replica_id("c1").0, first_replica_id("c2").0);
    assert!(one.abs_diff(other) >= 1 << 22);
    assert!(one > 0 && one < 1 << 52);
}

#[test]
fn a_node_that_comes_back_keeps_its_id_and_may_have_moved() {
    let mut bench = Bench::cluster(3);
    let (id, replica) = bench.register(2, "elsewhere:9").unwrap();
    assert_eq!((id, replica), (2, first_replica_id("c1").0 + 2));
    let view = bench.machine.to_view();
    let node = &view.nodes[&NodeId(2)];
    assert_eq!((&*node.address, &*node.rack), ("elsewhere:9", "rack2"));
    assert_eq!(view.nodes.len(), 3);
}

#[test]
fn a_registration_that_says_nothing_new_changes_nothing() {
    let mut bench = Bench::cluster(3);
    bench.register(2, "host2:1").unwrap();
    let changed = bench.machine.changed();
    bench.register(2, "host2:1").unwrap();
    assert_eq!(bench.machine.changed(), changed);
}

#[test]
fn new_nodes_are_numbered_in_order() {
    let mut bench = Bench::cluster(1);
    assert_eq!(bench.register(9, "host9:1").unwrap().0, 2);
    assert_eq!(bench.register(8, "host8:1").unwrap().0, 3);
}

#[test]
fn a_wiped_node_at_a_known_address_takes_the_lost_ones_place() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    let before = bench.partition("t", 0);
    let (id, replica) = bench.register(9, "host2:1").unwrap();
    assert_eq!(id, 4);
    assert_eq!(bench.state(2), NodeState::Removed);
    for number in 0..2 {
        let after = bench.partition("t", number);
        let nodes: Vec<u64> = after.replicas.iter().map(|place| place.node.0).collect();
        assert!(nodes.contains(&4) && !nodes.contains(&2));
        assert_eq!(after.retiring.len(), 1);
        assert_eq!(after.retiring[0].node, NodeId(2));
        let fresh = after.replicas.iter().find(|p| p.node.0 == 4).unwrap();
        assert!(fresh.replica.0 > replica);
        assert_eq!(after.founding, bench.partition("t", number).founding);
    }
    let position = before.replicas.iter().position(|p| p.node.0 == 2).unwrap();
    assert_eq!(bench.partition("t", 0).replicas[position].node.0, 4);
    // And what was removed stays removed.
    assert_eq!(bench.register(2, "host2:1"), Err(ErrorCode::Unsafe));
    assert_eq!(
        bench.run(set_state(2, NodeState::Active)),
        Err(ErrorCode::UnknownNode)
    );
}

#[test]
fn a_registration_without_incarnation_or_address_is_refused() {
    let mut bench = Bench::cluster(1);
    assert_eq!(bench.register(3, ""), Err(ErrorCode::InvalidRequest));
    let Kind::RegisterNode(mut short) = register(3, "a:1") else {
        unreachable!()
    };
    short.incarnation = Bytes::from_static(b"abc");
    assert_eq!(
        bench.run(Kind::RegisterNode(short)),
        Err(ErrorCode::InvalidRequest)
    );
}

#[test]
fn a_topic_is_spread_evenly_with_every_setting_filled_in() {
    let mut bench = Bench::cluster(3);
    let info = bench.create("flights", 12, 0).unwrap();
    assert_eq!(info.settings, Some(settings::defaults()));
    assert_eq!((info.ring_version, info.partitions.len()), (1, 12));
    for node in 1..=3 {
        let leads = |p: &&ropewalk_proto::v1::PartitionInfo| p.replica_node_ids[0] == node;
        assert_eq!(info.partitions.iter().filter(leads).count(), 4);
    }
    let view = bench.machine.to_view();
    let replicas = view.partitions().flat_map(|p| &p.replicas);
    let ids: std::collections::BTreeSet<_> = replicas.map(|place| place.replica).collect();
    assert_eq!(ids.len(), 36);
}

#[test]
fn a_topic_that_cannot_be_is_refused_for_what_is_wrong_with_it() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    assert_eq!(bench.create("t", 1, 3), Err(ErrorCode::TopicExists));
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str()] {
        let refused = bench.create(name, 1, 1);
        assert_eq!(refused, Err(ErrorCode::InvalidTopicName), "{name:?}");
    }
    for partitions in [0, 10_001, u32::MAX] {
        let refused = bench.create("u", partitions, 1);
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    }
    assert_eq!(bench.create("u", 1, 8), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.create("u", 1, 4), Err(ErrorCode::NotEnoughNodes));
    bench.create(&"x".repeat(249), 1, 1).unwrap();
    bench.create("...", 1, 1).unwrap();
}

#[test]
fn a_cluster_holds_only_so_many_replicas() {
    let mut bench = Bench::cluster(1);
    bench.create("t", 10_000, 1).unwrap();
    assert_eq!(bench.create("u", 1, 1), Err(ErrorCode::Overloaded));
}

#[test]
fn new_topics_avoid_nodes_that_drain_or_leave() {
    let mut bench = Bench::cluster(4);
    bench.run(set_state(1, NodeState::Draining)).unwrap();
    bench.run(set_state(2, NodeState::Decommissioning)).unwrap();
    let info = bench.create("t", 4, 2).unwrap();
    for partition in info.partitions {
        assert!(partition.replica_node_ids.iter().all(|node| *node >= 3));
    }
    assert_eq!(bench.create("u", 4, 3), Err(ErrorCode::NotEnoughNodes));
}

#[test]
fn settings_are_replaced_and_a_new_mapping_raises_the_ring_version() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let mut wanted = settings::defaults();
    wanted.retention_ms = 1_000;
    let Ok(Some(meta_reply::Kind::Topic(info))) = bench.run(alter("t", wanted)) else {
        panic!("the settings were not changed");
    };
    assert_eq!((info.settings, info.ring_version), (Some(wanted), 1));
    wanted.partitioner = Partitioner::Murmur2.into();
    let Ok(Some(meta_reply::Kind::Topic(info))) = bench.run(alter("t", wanted)) else {
        panic!("the settings were not changed");
    };
    assert_eq!(info.ring_version, 2);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let good = settings::defaults();
    assert_eq!(bench.run(alter("none", good)), Err(ErrorCode::UnknownTopic));
    let fewer = TopicSettings {
        replicas: 2,
        ..good
    };
    assert_eq!(bench.run(alter("t", fewer)), Err(ErrorCode::InvalidRequest));
    let tiny = TopicSettings {
        segment_bytes: 1,
        ..good
    };
    assert_eq!(bench.run(alter("t", tiny)), Err(ErrorCode::InvalidRequest));
}

#[test]
fn a_deleted_topic_is_gone_and_its_ids_are_not_used_again() {
    let mut bench = Bench::cluster(3);
    let old = bench.create("t", 2, 3).unwrap();
    let group = bench.partition("t", 1).group;
    assert_eq!(bench.run(delete("t")), Ok(None));
    assert_eq!(bench.run(delete("t")), Err(ErrorCode::UnknownTopic));
    assert_eq!(
        bench.run(moved(group, &[1, 2, 3])),
        Err(ErrorCode::UnknownPartition)
    );
    let new = bench.create("t", 2, 3).unwrap();
    assert!(new.topic_id > old.topic_id);
    assert!(bench.partition("t", 0).group > group);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut bench = Bench::cluster(1);
    let range = |first, count| {
        Ok(Some(meta_reply::Kind::ProducerIds(ProducerIds {
            first,
            count,
        })))
    };
    assert_eq!(bench.run(producers(100)), range(1, 100));
    assert_eq!(bench.run(producers(1)), range(101, 1));
    assert_eq!(bench.run(producers(0)), Err(ErrorCode::InvalidRequest));
    assert_eq!(
        bench.run(producers(u64::MAX)),
        Err(ErrorCode::InvalidRequest)
    );
}

#[test]
fn a_move_keeps_the_replicas_that_stay_and_retires_those_that_go() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 2).unwrap();
    let before = bench.partition("t", 0);
    let (stays, goes) = (before.replicas[1], before.replicas[0]);
    let other = (1..=4).find(|n| *n != stays.node.0 && *n != goes.node.0);
    let other = other.unwrap();
    let wish = [other, stays.node.0];
    assert_eq!(bench.run(moved(before.group, &wish)), Ok(None));
    let after = bench.partition("t", 0);
    assert_eq!(after.replicas[1], stays);
    assert_eq!(after.retiring, vec![goes]);
    assert!(after.replicas[0].replica > goes.replica);
    assert_eq!(after.founding, before.founding);

    // Back again, before the first move was carried out: a new replica beside the old one.
    let back = [goes.node.0, stays.node.0];
    assert_eq!(bench.run(moved(before.group, &back)), Ok(None));
    let again = bench.partition("t", 0);
    assert!(again.replicas[0].replica > after.replicas[0].replica);
    assert_eq!(again.retiring, vec![goes, after.replicas[0]]);

    // The old one has left the group; the one in between is still in it.
    let members = [stays.replica.0, after.replicas[0].replica.0];
    assert_eq!(bench.run(settled(before.group, members)), Ok(None));
    assert_eq!(bench.partition("t", 0).retiring, vec![after.replicas[0]]);
    let members = again.replicas.iter().map(|place| place.replica.0);
    assert_eq!(bench.run(settled(before.group, members)), Ok(None));
    assert!(bench.partition("t", 0).retiring.is_empty());
}

#[test]
fn the_same_wish_again_draws_no_new_replica() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let before = bench.partition("t", 0);
    let same: Vec<u64> = before.replicas.iter().map(|place| place.node.0).collect();
    bench.run(moved(before.group, &same)).unwrap();
    assert_eq!(bench.partition("t", 0).replicas, before.replicas);
    // Another order is another preferred leader, and no new replica either.
    let turned: Vec<u64> = same.iter().rev().copied().collect();
    bench.run(moved(before.group, &turned)).unwrap();
    let after = bench.partition("t", 0);
    assert!(after.retiring.is_empty());
    assert_eq!(after.replicas[0], before.replicas[2]);
}

#[test]
fn a_move_that_makes_no_sense_is_refused() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 2).unwrap();
    let partition = bench.partition("t", 0);
    let holders: Vec<u64> = partition.replicas.iter().map(|p| p.node.0).collect();
    let free: Vec<u64> = (1..=4).filter(|node| !holders.contains(node)).collect();
    let group = partition.group;
    for (nodes, code) in [
        (vec![], ErrorCode::InvalidRequest),
        (vec![holders[0]], ErrorCode::InvalidRequest),
        (vec![free[0], free[0]], ErrorCode::InvalidRequest),
        (vec![free[0], 77], ErrorCode::UnknownNode),
    ] {
        assert_eq!(bench.run(moved(group, &nodes)), Err(code), "{nodes:?}");
    }
    assert_eq!(
        bench.run(moved(GroupId(999), &[1, 2])),
        Err(ErrorCode::UnknownPartition)
    );
    assert_eq!(
        bench.run(settled(GroupId(999), [1])),
        Err(ErrorCode::UnknownPartition)
    );
    bench
        .run(set_state(free[0], NodeState::Decommissioning))
        .unwrap();
    let onto_leaving = [holders[0], free[0]];
    assert_eq!(
        bench.run(moved(group, &onto_leaving)),
        Err(ErrorCode::Unsafe)
    );
}

#[test]
fn moves_that_never_settle_are_held_up_in_the_end() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 1).unwrap();
    let group = bench.partition("t", 0).group;
    let mut last = Ok(None);
    for round in 0..60 {
        last = bench.run(moved(group, &[round % 3 + 1]));
    }
    assert_eq!(last, Err(ErrorCode::Overloaded));
    assert!(bench.partition("t", 0).retiring.len() <= 17);
}

#[test]
fn decommissioning_is_refused_where_too_few_nodes_would_stay() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 3).unwrap();
    bench.run(set_state(1, NodeState::Decommissioning)).unwrap();
    assert_eq!(
        bench.run(set_state(2, NodeState::Decommissioning)),
        Err(ErrorCode::Unsafe)
    );
    bench.run(set_state(1, NodeState::Active)).unwrap();
    bench.run(set_state(2, NodeState::Decommissioning)).unwrap();
    let mut alone = Bench::cluster(1);
    assert_eq!(
        alone.run(set_state(1, NodeState::Decommissioning)),
        Err(ErrorCode::Unsafe)
    );
}

#[test]
fn a_node_is_removed_only_when_it_leaves_and_holds_nothing() {
    let mut bench = Bench::cluster(2);
    bench.create("t", 1, 1).unwrap();
    let partition = bench.partition("t", 0);
    let holder = partition.replicas[0];
    let other = 3 - holder.node.0;
    let remove = |node: u64| set_state(node, NodeState::Removed);
    assert_eq!(bench.run(remove(other)), Err(ErrorCode::Unsafe));
    bench
        .run(set_state(holder.node.0, NodeState::Decommissioning))
        .unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Err(ErrorCode::Unsafe));
    bench.run(moved(partition.group, &[other])).unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Err(ErrorCode::Unsafe));
    let now = bench.partition("t", 0).replicas[0].replica.0;
    bench.run(settled(partition.group, [now])).unwrap();
    assert_eq!(bench.run(remove(holder.node.0)), Ok(None));
    assert_eq!(bench.state(holder.node.0), NodeState::Removed);
}

#[test]
fn unknown_nodes_and_states_are_refused() {
    let mut bench = Bench::cluster(2);
    assert_eq!(
        bench.run(set_state(9, NodeState::Draining)),
        Err(ErrorCode::UnknownNode)
    );
    assert_eq!(
        bench.run(Kind::SetNodeState(SetNodeState {
            node_id: 1,
            state: 99
        })),
        Err(ErrorCode::InvalidRequest)
    );
}

#[test]
fn a_command_of_a_newer_build_stops_the_machine() {
    let mut machine = MetaMachine::new();
    let newer = Command::Meta(MetaCommand {
        leader_time_ms: 0,
        kind: None,
    });
    let stopped = machine.apply(1, 1, 10, Some(&newer));
    assert!(matches!(stopped, Err(MachineError::Command(_))));
}

#[test]
fn a_command_of_a_partition_is_refused() {
    let mut machine = MetaMachine::new();
    let roll = Command::Roll { leader_time_ms: 0 };
    let applied = machine.apply(1, 1, 10, Some(&roll)).unwrap();
    assert!(matches!(applied.reply, Reply::Refused(_)));
}

#[test]
fn a_checkpoint_comes_every_thousand_entries_and_frees_the_log_below_it() {
    let mut machine = MetaMachine::new();
    for index in 1..=2_500 {
        let applied = machine.apply(index, 1, 10, None).unwrap();
        assert_eq!(applied.checkpoint, index % 1_000 == 0, "at {index}");
    }
    assert_eq!(machine.purgeable_index(), 2_000);
}

#[test]
fn damaged_state_is_refused_by_name() {
    let pair = |key: &'static [u8], value: &'static [u8]| {
        vec![(Bytes::from_static(key), Bytes::from_static(value))]
    };
    for effects in [
        pair(b"x", b""),
        pair(b"k", b"short"),
        pair(b"n\0\0\0\0\0\0\0\x01", b"\xff\xff"),
        pair(b"u\0\0\0\0\0\0\0\x01\0\0\0\0", b""),
    ] {
        let loaded = MetaMachine::new().load(1, effects);
        assert!(matches!(loaded, Err(MachineError::Damaged(_))));
    }
    let restored = MetaMachine::new().restore(Bytes::from_static(b"\xff\xff\xff"));
    assert!(matches!(restored, Err(MachineError::Damaged(_))));
}

fn any_command() -> impl Strategy<Value = Kind> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let state = prop_oneof![
        Just(NodeState::Active),
        Just(NodeState::Draining),
        Just(NodeState::Decommissioning),
        Just(NodeState::Removed),
    ];
    prop_oneof![
        (1..9u8, 1..6u64).prop_map(|(id, host)| register(id, &format!("host{host}:1"))),
        (1..6u64, state).prop_map(|(node, state)| set_state(node, state)),
        (name.clone(), 1..5u32, 1..4u32).prop_map(|(n, p, r)| create(n, p, r)),
        name.clone().prop_map(delete),
        name.prop_map(|name| alter(name, settings::defaults())),
        (1..20u64).prop_map(producers),
        (1..12u64, prop::collection::vec(1..7u64, 1..4))
            .prop_map(|(group, nodes)| moved(GroupId(group), &nodes)),
        (1..12u64, 0..40u64).prop_map(|(group, replica)| {
            let replica = first_replica_id("c1").0 + replica;
            settled(GroupId(group), [replica])
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_disk_and_checkpoint_give_back_the_same_state(
        commands in prop::collection::vec(any_command(), 0..60)
    ) {
        let mut bench = Bench::cluster(3);
        for command in commands {
            let _ = bench.run(command);
        }
        let view = bench.machine.to_view();
        let mut replicas: Vec<_> = view
            .partitions()
            .flat_map(|p| p.replicas.iter().chain(&p.retiring))
            .map(|place| place.replica)
            .chain(view.nodes.values().map(|node| node.meta_replica))
            .collect();
        let count = replicas.len();
        replicas.sort_unstable();
        replicas.dedup();
        prop_assert_eq!(replicas.len(), count);
        for partition in view.partitions() {
            let nodes: std::collections::BTreeSet<_> =
                partition.replicas.iter().map(|place| place.node).collect();
            prop_assert_eq!(nodes.len(), partition.replicas.len());
        }

        let mut loaded = MetaMachine::new();
        let effects = bench.disk.clone().into_iter().collect();
        loaded.load(bench.index, effects).unwrap();
        prop_assert_eq!(&loaded.state, &bench.machine.state);

        let mut restored = MetaMachine::new();
        let effects = restored.restore(bench.machine.checkpoint()).unwrap();
        prop_assert_eq!(&restored.state, &bench.machine.state);
        prop_assert_eq!(restored.purgeable_index(), bench.index);
        let effects = effects.into_iter();
        let effects: Vec<_> = effects.filter_map(|e| Some((e.key, e.value?))).collect();
        let mut reloaded = MetaMachine::new();
        let mut effects = effects;
        effects.sort();
        reloaded.load(bench.index, effects).unwrap();
        prop_assert_eq!(&reloaded.state, &bench.machine.state);
    }
}
