//! Any bytes as the request of any call: the walk that counts its fields before it is decoded, and the decoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use ropewalk_fuzz::write_seeds;
use ropewalk_proto::shape::Shape;
use ropewalk_proto::v1;
use walk::{Stop, Walk};

/// The file itself, since its crate compiles RocksDB.
#[allow(dead_code)]
#[path = "../../node/src/guard/walk.rs"]
mod walk;

const MAX_FIELDS: usize = 1_000;

type Decode = fn(&[u8]);

/// Every call, and the decoding of its request.
const CALLS: &[(&str, Decode)] = &[
    ("Ropewalk/Metadata", decode::<v1::MetadataRequest>),
    ("Ropewalk/Publish", decode::<v1::PublishRequest>),
    ("Ropewalk/InitProducer", decode::<v1::InitProducerRequest>),
    ("Ropewalk/Produce", decode::<v1::ProduceRequest>),
    ("Ropewalk/Fetch", decode::<v1::FetchRequest>),
    ("Ropewalk/ListOffsets", decode::<v1::ListOffsetsRequest>),
    ("Ropewalk/CheckFilter", decode::<v1::CheckFilterRequest>),
    ("Ropewalk/Backlog", decode::<v1::BacklogRequest>),
    ("Ropewalk/JoinGroup", decode::<v1::GroupRequest>),
    ("Ropewalk/ListGroups", decode::<v1::ListGroupsRequest>),
    ("Ropewalk/DescribeGroup", decode::<v1::DescribeGroupRequest>),
    ("Ropewalk/GroupLag", decode::<v1::GroupLagRequest>),
    ("Ropewalk/SeekGroup", decode::<v1::SeekGroupRequest>),
    ("Ropewalk/DeleteGroup", decode::<v1::DeleteGroupRequest>),
    ("Ropewalk/CreateTopic", decode::<v1::CreateTopicRequest>),
    ("Ropewalk/AlterTopic", decode::<v1::AlterTopicRequest>),
    ("Ropewalk/GrowTopic", decode::<v1::GrowTopicRequest>),
    ("Ropewalk/DeleteTopic", decode::<v1::DeleteTopicRequest>),
    ("Ropewalk/ClusterStatus", decode::<v1::ClusterStatusRequest>),
    (
        "Ropewalk/ListPartitions",
        decode::<v1::ListPartitionsRequest>,
    ),
    (
        "Ropewalk/TransferLeader",
        decode::<v1::TransferLeaderRequest>,
    ),
    ("Ropewalk/MovePartition", decode::<v1::MovePartitionRequest>),
    ("Ropewalk/SetNodeState", decode::<v1::SetNodeStateRequest>),
    ("Raft/Append", decode::<v1::AppendCall>),
    ("Raft/Heartbeat", decode::<v1::HeartbeatCall>),
    ("Raft/Vote", decode::<v1::VoteCall>),
    ("Raft/InstallSnapshot", decode::<v1::SnapshotCall>),
    ("Raft/InstallSnapshotParts", decode::<v1::SnapshotPart>),
    (
        "Raft/TransferLeadership",
        decode::<v1::TransferLeadershipCall>,
    ),
    ("Cluster/Hello", decode::<v1::HelloCall>),
    ("Cluster/Form", decode::<v1::FormCall>),
    ("Cluster/Join", decode::<v1::JoinCall>),
    ("Cluster/ProposeMeta", decode::<v1::ProposeMetaCall>),
    ("Cluster/Report", decode::<v1::ReportCall>),
];

fuzz_target!(init: write_seeds(seeds()), |data: &[u8]| {
    let Some((&number, message)) = data.split_first() else {
        return;
    };
    let (call, decode) = CALLS[usize::from(number) % CALLS.len()];
    let shape = Shape::of_request(&format!("/ropewalk.v1.{call}"));
    let shape = shape.expect("a call that the node serves");
    let whole = walk_in(shape, message, message.len().max(1));
    for piece in [1, 7] {
        assert_eq!(walk_in(shape, message, piece), whole, "in pieces of {piece}");
    }
    if whole.is_ok() {
        decode(message);
    }
});

/// Counts the fields of a message that arrives in pieces.
fn walk_in(shape: Shape, message: &[u8], piece: usize) -> Result<(), Stop> {
    let mut walk = Walk::new(Some(shape), message.len() as u64, MAX_FIELDS);
    message
        .chunks(piece)
        .try_for_each(|bytes| walk.take(bytes))?;
    assert_eq!((walk.left(), walk.taken()), (0, message.len() as u64));
    Ok(())
}

/// Decodes a message. One that decodes survives its encoding.
fn decode<M: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        let again = M::decode(&*message.encode_to_vec());
        assert!(again.is_ok_and(|again| again == message));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let header = v1::Header {
        key: "key".into(),
        value: "value".into(),
    };
    let publish = v1::PublishRequest {
        topic: "topic".into(),
        headers: vec![header; 3],
        timestamp_ms: Some(-1),
        ..Default::default()
    };
    let heartbeat = v1::HeartbeatCall {
        calls: vec![v1::AppendCall::default(); 5],
    };
    let seed = |call: &str, message: Vec<u8>| {
        let number = CALLS.iter().position(|(known, _)| *known == call);
        let number = u8::try_from(number.expect("a call")).expect("few calls");
        [vec![number], message].concat()
    };
    vec![
        seed("Ropewalk/Publish", publish.encode_to_vec()),
        seed("Raft/Heartbeat", heartbeat.encode_to_vec()),
    ]
}
