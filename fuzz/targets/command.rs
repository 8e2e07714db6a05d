//! A log of any commands: each that decodes survives its encoding, and no state machine panics at it. A replica
//! that restores a checkpoint has the same state.
//!
//! Two numbers are bounded as leaders bound them, since they decide how long a command takes: see `bounded`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ropewalk_fuzz::{joined, pieces, write_seeds};
use ropewalk_machines::Machine;
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::meta::MetaMachine;
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::command::{Command, Stamp};
use ropewalk_proto::v1::{self, group_command, meta_command};

const MAX_PARTITIONS: u32 = 64;

fuzz_target!(init: write_seeds(seeds()), |data: &[u8]| {
    let commands: Vec<Command> = pieces(data).filter_map(decoded).collect();
    replay::<PartitionMachine>(&commands);
    replay::<MetaMachine>(&commands);
});

/// Decodes a command, and checks that it survives its encoding, whole and in two parts.
fn decoded(bytes: bytes::Bytes) -> Option<Command> {
    let command = Command::decode(bytes).ok()?;
    let encoded = command.to_bytes();
    assert_eq!(encoded.len(), command.encoded_len());
    assert_eq!(Command::decode(encoded).as_ref(), Ok(&command));
    let (head, body) = command.to_parts();
    assert_eq!(Command::from_parts(head, body).as_ref(), Ok(&command));
    Some(bounded(command))
}

/// The command with at most `MAX_PARTITIONS` partitions of a topic, and without zero bytes in a group's name,
/// which the coordinator refuses.
fn bounded(mut command: Command) -> Command {
    let most = |partitions: &mut u32| *partitions = (*partitions).min(MAX_PARTITIONS);
    match &mut command {
        Command::Group(command) => {
            command.group.retain(|c| c != '\0');
            let topics: &mut [v1::GroupTopic] = match &mut command.kind {
                Some(group_command::Kind::Joins(joins)) => &mut joins.topics,
                Some(group_command::Kind::Topics(topics)) => &mut topics.topics,
                Some(group_command::Kind::Committed(committed)) => committed.topic.as_mut_slice(),
                _ => &mut [],
            };
            topics.iter_mut().for_each(|it| most(&mut it.partitions));
        }
        Command::Meta(command) => match &mut command.kind {
            Some(meta_command::Kind::CreateTopic(create)) => most(&mut create.partitions),
            Some(meta_command::Kind::GrowTopic(grow)) => most(&mut grow.partitions),
            _ => {}
        },
        _ => {}
    }
    command
}

/// Applies the commands until the machine stops at one. A checkpoint then restores the same state.
fn replay<M: Machine + Default>(commands: &[Command]) {
    let mut machine = M::default();
    for (index, command) in (1_u64..).zip(commands) {
        // A blank entry of a new leader before every fourth command.
        let term = 1 + index / 4;
        let entry_bytes = command.log_bytes() as u64;
        let blank = (index % 4 == 0).then(|| machine.apply(2 * index, term, 10, None));
        if blank.is_some_and(|applied| applied.is_err())
            || machine
                .apply(2 * index + 1, term, entry_bytes, Some(command))
                .is_err()
        {
            return;
        }
    }
    let checkpoint = machine.checkpoint();
    let mut other = M::default();
    other
        .restore(checkpoint.clone())
        .expect("a checkpoint that can be restored");
    assert_eq!(other.checkpoint(), checkpoint);
}

fn seeds() -> [Vec<u8>; 3] {
    [
        joined(of_a_log().iter().map(Command::to_bytes)),
        joined(of_a_group().iter().map(Command::to_bytes)),
        joined(of_the_metadata().iter().map(Command::to_bytes)),
    ]
}

fn of_a_log() -> Vec<Command> {
    let append = |sequence, ring_version, is_new: bool| {
        let mut builder = BatchBuilder::new(Compression::None, 4 << 10);
        builder.set_producer(7, 0, sequence);
        let pushed = builder.push(Some(b"key"), Some(b"value"), &[], 1_000);
        assert_eq!(pushed, Ok(true));
        Command::Append {
            stamp: Stamp {
                leader_time_ms: 1_000,
                ring_version,
                own_clock: is_new,
                long_memory: is_new,
            },
            batch: builder.build(),
        }
    };
    let leader_time_ms = 2_000;
    vec![
        append(0, 0, false),
        append(0, 0, false),
        append(1, 1, true),
        Command::Roll { leader_time_ms },
        Command::Fence {
            leader_time_ms,
            ring_version: 2,
        },
        append(2, 1, true),
        append(2, 2, true),
        Command::Roll { leader_time_ms },
        Command::Compact {
            leader_time_ms,
            to_offset: 3,
            tombstones_below: 1,
        },
        Command::Trim {
            leader_time_ms,
            to_offset: 2,
        },
    ]
}

fn of_a_group() -> Vec<Command> {
    let topic = v1::GroupTopic {
        topic_id: 1,
        name: "topic".to_owned(),
        partitions: 3,
        ..Default::default()
    };
    let joins = |member: &str, session| {
        group_command::Kind::Joins(v1::MemberJoins {
            member: Some(v1::GroupMember {
                member_id: member.to_owned(),
                topics: vec!["topic".to_owned()],
                session_ms: 10_000,
                ..Default::default()
            }),
            rebalance_ms: 10_000,
            topics: vec![topic.clone()],
            session,
        })
    };
    let kinds = [
        joins("a", 1),
        joins("b", 2),
        group_command::Kind::Released(v1::PartitionsReleased {
            member_id: "a".to_owned(),
            ..Default::default()
        }),
        group_command::Kind::Committed(v1::PositionsCommitted {
            member_id: "a".to_owned(),
            positions: vec![v1::GroupPosition {
                topic_id: 1,
                epoch: 1,
                offset: 5,
                ..Default::default()
            }],
            session: 1,
            ..Default::default()
        }),
        group_command::Kind::Topics(v1::TopicsChanged {
            topics: vec![topic.clone()],
            gone_topic_ids: vec![2],
            ..Default::default()
        }),
        group_command::Kind::Leave(v1::MembersLeave {
            member_ids: vec!["a".to_owned(), "b".to_owned()],
        }),
        group_command::Kind::Deleted(v1::GroupDeleted::default()),
    ];
    let command = |kind| {
        Command::Group(v1::GroupCommand {
            leader_time_ms: 1_000,
            group: "group".to_owned(),
            rules: 1,
            kind: Some(kind),
        })
    };
    kinds.into_iter().map(command).collect()
}

fn of_the_metadata() -> Vec<Command> {
    let founder = |node_id| v1::FoundingNode {
        node_id,
        address: format!("node-{node_id}:7101"),
        incarnation: vec![node_id as u8; 16].into(),
    };
    let register = |number: u8| {
        meta_command::Kind::RegisterNode(v1::RegisterNode {
            incarnation: vec![number; 16].into(),
            address: format!("node-{number}:7101"),
            command_version: 9,
            ..Default::default()
        })
    };
    let kinds = [
        meta_command::Kind::FoundCluster(v1::FoundCluster {
            cluster_id: "cluster".to_owned(),
            nodes: (1..=3).map(founder).collect(),
        }),
        register(1),
        register(4),
        meta_command::Kind::CreateTopic(v1::CreateTopic {
            name: "topic".to_owned(),
            partitions: 3,
            settings: Some(v1::TopicSettings {
                replicas: 3,
                ..Default::default()
            }),
            ..Default::default()
        }),
        meta_command::Kind::GrowTopic(v1::GrowTopic {
            name: "topic".to_owned(),
            partitions: 5,
            ..Default::default()
        }),
        meta_command::Kind::PartitionFenced(v1::PartitionFenced {
            group_id: 1,
            ring_version: 2,
            offset: 7,
        }),
        meta_command::Kind::MoveReplicas(v1::MoveReplicas {
            group_id: 1,
            node_ids: vec![1, 2, 4],
        }),
        meta_command::Kind::AllocateProducerIds(v1::AllocateProducerIds { count: 10 }),
        meta_command::Kind::RenewProducer(v1::RenewProducer {
            producer_id: 3,
            producer_epoch: 1,
        }),
        meta_command::Kind::DeleteTopic(v1::DeleteTopic {
            name: "topic".to_owned(),
            ..Default::default()
        }),
    ];
    let command = |kind| {
        Command::Meta(v1::MetaCommand {
            leader_time_ms: 1_000,
            kind: Some(kind),
        })
    };
    kinds.into_iter().map(command).collect()
}
