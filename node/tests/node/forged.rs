//! Raft messages that no peer sends are refused without effect. A replica would adopt their numbers and count
//! on from them.

use std::time::Duration;

use ropewalk_machines::meta::machine::first_replica_id;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::append_answer::Result as Answered;
use ropewalk_proto::v1::raft_client::RaftClient;
use tonic::transport::{Channel, Endpoint};

use crate::support::*;

/// A vote with a term that no group reaches.
fn vote(committed: bool) -> v1::Vote {
    v1::Vote {
        term: u64::MAX,
        replica_id: 7,
        has_replica_id: true,
        committed,
    }
}

async fn append(
    peer: &mut RaftClient<Channel>,
    to_replica_id: u64,
    request: v1::AppendEntries,
) -> ErrorCode {
    let call = v1::AppendCall {
        call_id: 1,
        group_id: 0,
        from_replica_id: 7,
        to_replica_id,
        request: Some(request),
    };
    let calls = tokio_stream::iter([call]);
    let mut answers = peer.append(calls).await.expect("a lane").into_inner();
    let answer = answers
        .message()
        .await
        .expect("a stream")
        .expect("an answer");
    match answer.result {
        Some(Answered::Error(error)) => WireError::from(error).code,
        other => panic!("it was taken: {other:?}"),
    }
}

#[tokio::test]
async fn a_forged_term_is_refused_and_the_metadata_goes_on() {
    let mut node = Node::start().await;
    let status = node
        .client
        .cluster_status(v1::ClusterStatusRequest::default());
    let cluster_id = status.await.expect("a status").into_inner().cluster_id;
    let replica = first_replica_id(&cluster_id).0 + 1;
    let address = format!("http://{}", node.config.advertise);
    let channel = Endpoint::from_shared(address)
        .expect("an address")
        .connect_lazy();
    let mut peer = RaftClient::new(channel);
    for (pre_vote, term) in [(false, u64::MAX), (true, u64::MAX), (false, 1 << 48)] {
        let asked = v1::VoteCall {
            group_id: 0,
            to_replica_id: replica,
            pre_vote,
            vote: Some(v1::Vote {
                term,
                ..vote(false)
            }),
            last_log_id: Some(v1::LogId {
                term: 1 << 40,
                index: 1 << 40,
            }),
            leadership_transfer: true,
        };
        let refused = peer.vote(asked).await.expect_err("refused");
        assert_eq!(WireError::from(&refused).code, ErrorCode::InvalidRequest);
    }
    let beyond = v1::LogId {
        term: u64::MAX,
        index: u64::MAX,
    };
    let of_vote = v1::AppendEntries {
        vote: Some(vote(true)),
        ..Default::default()
    };
    let of_commit = v1::AppendEntries {
        vote: Some(v1::Vote {
            term: 1 << 40,
            ..vote(true)
        }),
        leader_commit: Some(beyond),
        ..Default::default()
    };
    for forged in [of_vote, of_commit] {
        let refused = append(&mut peer, replica, forged).await;
        assert_eq!(refused, ErrorCode::InvalidRequest);
    }
    // No leader was deposed: the metadata can change, and the group elects a leader after a restart.
    node.create_topic("after", 1).await.expect("a topic");
    node.shutdown.cancel();
    node.running.await.expect("it ends").expect("in good order");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (_running, is_ready) = start(&node.config, &node.disk, &shutdown);
    tokio::time::timeout(PATIENCE, is_ready)
        .await
        .expect("in time")
        .expect("it starts");
    let created = async {
        while node.client.create_topic(topic("again")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, created)
        .await
        .expect("a leader of the metadata");
}

#[tokio::test]
async fn a_setting_that_no_build_has_is_not_put_into_the_log() {
    let mut node = Node::start().await;
    let status = node
        .client
        .cluster_status(v1::ClusterStatusRequest::default());
    let cluster_id = status.await.expect("a status").into_inner().cluster_id;
    let address = format!("http://{}", node.config.advertise);
    let channel = Endpoint::from_shared(address)
        .expect("an address")
        .connect_lazy();
    let alter = v1::meta_command::Kind::AlterTopic(v1::AlterTopic {
        name: TOPIC.to_owned(),
        settings: Some(v1::TopicSettings::default()),
        changed: vec![2, 1_000],
    });
    let call = v1::ProposeMetaCall {
        command: Some(v1::MetaCommand {
            kind: Some(alter),
            ..Default::default()
        }),
        cluster_id,
    };
    let mut peer = v1::cluster_client::ClusterClient::new(channel);
    let refused = peer.propose_meta(call).await.expect_err("refused");
    let refused = WireError::from(&refused);
    assert_eq!(refused.code, ErrorCode::UnsupportedVersion, "{refused}");
    node.create_topic("after", 1).await.expect("a topic");
    node.still_serves().await;
}

fn topic(name: &str) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest {
        name: name.to_owned(),
        partitions: 1,
        settings: Some(v1::TopicSettings {
            replicas: 1,
            ..Default::default()
        }),
    }
}
