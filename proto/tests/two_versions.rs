//! This build reads messages of a newer version. It skips unknown fields, reads unknown enum values as
//! unspecified, and reads unknown kinds as none. Nodes of two versions talk during every upgrade.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, as tests do

use std::fmt::Debug;

use prost::Message;
use prost::encoding::encode_varint;
use ropewalk_proto::v1::*;

/// One field of each wire type, under numbers that no message has.
fn newer_fields() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(1_000 << 3, &mut bytes);
    encode_varint(u64::MAX, &mut bytes);
    encode_varint(1_001 << 3 | 1, &mut bytes);
    bytes.extend_from_slice(&[0xaa; 8]);
    encode_varint(1_002 << 3 | 2, &mut bytes);
    bytes.extend_from_slice(&[3, 1, 2, 3]);
    encode_varint(1_003 << 3 | 5, &mut bytes);
    bytes.extend_from_slice(&[0xbb; 4]);
    bytes
}

fn assert_newer_fields_are_skipped<M: Message + Default + PartialEq + Debug>(message: M) {
    let encoded = message.encode_to_vec();
    assert!(!encoded.is_empty(), "an empty message shows little");
    for bytes in [
        [newer_fields(), encoded.clone()].concat(),
        [encoded, newer_fields()].concat(),
    ] {
        assert_eq!(M::decode(&bytes[..]), Ok(message.clone_by_wire()));
    }
}

trait CloneByWire: Message + Default {
    fn clone_by_wire(&self) -> Self {
        Self::decode(&self.encode_to_vec()[..]).unwrap()
    }
}

impl<M: Message + Default> CloneByWire for M {}

fn node() -> NodeInfo {
    NodeInfo {
        node_id: 3,
        address: "node-3:7001".to_owned(),
        state: NodeState::Draining as i32,
        ..Default::default()
    }
}

fn topic() -> TopicInfo {
    TopicInfo {
        name: "flights".to_owned(),
        topic_id: 4,
        partitions: vec![PartitionInfo {
            leader_node_id: 3,
            replica_node_ids: vec![1, 2, 3],
            ..Default::default()
        }],
        settings: Some(TopicSettings {
            replicas: 3,
            partitioner: Partitioner::Ring as i32,
            ..Default::default()
        }),
        ring_version: 2,
        ring_partitions: 1,
        growths: vec![TopicGrowth {
            ring_version: 3,
            from_partitions: 1,
            to_partitions: 2,
            fences: vec![Fence {
                partition: 0,
                offset: 7,
            }],
        }],
    }
}

fn entry() -> Entry {
    Entry {
        term: 5,
        index: 6,
        payload: Some(entry::Payload::Command(vec![1, 1, 2, 3].into())),
        ..Default::default()
    }
}

#[test]
fn what_a_newer_node_tells_a_client_is_read_without_what_is_new() {
    assert_newer_fields_are_skipped(node());
    assert_newer_fields_are_skipped(topic());
    assert_newer_fields_are_skipped(MetadataResponse {
        cluster_id: "cluster".to_owned(),
        nodes: vec![node()],
        topics: vec![topic()],
        controller_node_id: 3,
    });
    assert_newer_fields_are_skipped(ProduceResponse {
        request_id: 9,
        base_offset: 10,
        error: Some(Error {
            code: 9,
            message: "why".to_owned(),
            record: None,
            leader: Some(node()),
            topic_id: 7,
        }),
        ..Default::default()
    });
    assert_newer_fields_are_skipped(FetchResponse {
        request_id: 9,
        batches: vec![FetchedBatch {
            base_offset: 10,
            leader_epoch: 2,
            batch: b"batch".to_vec().into(),
        }],
        ..Default::default()
    });
}

#[test]
fn what_a_newer_client_asks_is_read_without_what_is_new() {
    assert_newer_fields_are_skipped(ProduceRequest {
        request_id: 1,
        topic: "flights".to_owned(),
        batch: b"batch".to_vec().into(),
        ..Default::default()
    });
    assert_newer_fields_are_skipped(FetchRequest {
        request_id: 1,
        offset: 100,
        max_bytes: 1 << 20,
        ..Default::default()
    });
    assert_newer_fields_are_skipped(PublishRequest {
        topic: "flights".to_owned(),
        key: Some(b"key".to_vec().into()),
        ..Default::default()
    });
}

#[test]
fn what_nodes_of_two_versions_tell_each_other_is_read() {
    assert_newer_fields_are_skipped(AppendCall {
        call_id: 1,
        group_id: 2,
        request: Some(AppendEntries {
            entries: vec![entry()],
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_newer_fields_are_skipped(VoteCall {
        group_id: 1,
        pre_vote: true,
        vote: Some(Vote {
            term: 2,
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_newer_fields_are_skipped(ReportCall {
        node_id: 1,
        full: true,
        disk_full: true,
        ..Default::default()
    });
    assert_newer_fields_are_skipped(JoinCall {
        address: "node-4:7001".to_owned(),
        command_version: 2,
        ..Default::default()
    });
}

#[test]
fn what_lies_on_the_disk_is_read_by_an_older_version_too() {
    assert_newer_fields_are_skipped(entry());
    assert_newer_fields_are_skipped(MetaState {
        cluster_id: "cluster".to_owned(),
        next_node_id: 4,
        ..Default::default()
    });
    assert_newer_fields_are_skipped(MetaCommand {
        leader_time_ms: 7,
        kind: Some(meta_command::Kind::SetNodeState(SetNodeState {
            node_id: 3,
            state: NodeState::Active as i32,
        })),
    });
}

#[test]
fn an_enum_value_of_a_newer_version_reads_as_unspecified() {
    let node = NodeInfo {
        state: 99,
        ..node()
    }
    .clone_by_wire();
    assert_eq!(node.state(), NodeState::Unspecified);
    let asked = SetNodeStateRequest {
        node_id: 3,
        state: -1,
    };
    assert_eq!(asked.clone_by_wire().state(), NodeState::Unspecified);
    let settings = TopicSettings {
        partitioner: 99,
        ..Default::default()
    };
    assert_eq!(
        settings.clone_by_wire().partitioner(),
        Partitioner::Unspecified
    );
    let result = AppendResult {
        outcome: 99,
        ..Default::default()
    };
    assert_eq!(
        result.clone_by_wire().outcome(),
        append_result::Outcome::Unspecified
    );
}

#[test]
fn a_kind_of_answer_of_a_newer_version_reads_as_none() {
    let newer = newer_fields();
    assert_eq!(MetaReply::decode(&newer[..]).unwrap().kind, None);
    assert_eq!(AppendAnswer::decode(&newer[..]).unwrap().result, None);
    assert_eq!(ProposeMetaAnswer::decode(&newer[..]).unwrap().reply, None);
}
