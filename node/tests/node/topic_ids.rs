//! A topic that is deleted and recreated with its name accepts no request for the earlier topic.

use bytes::Bytes;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position;

use crate::support::{Node, TOPIC, batch};

async fn topic(node: &mut Node) -> v1::TopicInfo {
    let topics = vec![TOPIC.to_owned()];
    let asked = node.client.metadata(v1::MetadataRequest { topics });
    let answer = asked.await.expect("metadata").into_inner();
    answer.topics.into_iter().next().expect("the topic")
}

async fn recreate(node: &mut Node) {
    let name = TOPIC.to_owned();
    let deleted = node.client.delete_topic(v1::DeleteTopicRequest { name });
    deleted.await.expect("deleted");
    node.create_topic(TOPIC, 1).await.expect("created again");
    let again = batch((-1, -1, -1), &[b"again"]);
    assert_eq!(node.produce_until_led(again).await, 0);
}

/// The results of all calls that name a topic by this id: no error, or the error.
async fn ask(node: &mut Node, topic_id: u64) -> Vec<(&'static str, Option<WireError>)> {
    let topic = TOPIC.to_owned();
    let produced = v1::ProduceRequest {
        topic: topic.clone(),
        topic_id,
        batch: batch((-1, -1, -1), &[b"more"]),
        ..Default::default()
    };
    let produced = node.client.produce(futures_util::stream::iter([produced]));
    let mut produced = produced.await.expect("opens").into_inner();
    let produced = produced.message().await.expect("lives").expect("an answer");

    let fetched = v1::FetchRequest {
        topic: topic.clone(),
        topic_id,
        max_bytes: 1 << 20,
        ..Default::default()
    };
    let fetched = node.client.fetch(futures_util::stream::iter([fetched]));
    let mut fetched = fetched.await.expect("opens").into_inner();
    let fetched = fetched.message().await.expect("lives").expect("an answer");

    let listed = v1::ListOffsetsRequest {
        topic: topic.clone(),
        topic_id,
        position: Some(Position::End(true)),
        ..Default::default()
    };
    let listed = node.client.list_offsets(listed).await;

    let behind = v1::BacklogRequest {
        topic: topic.clone(),
        topic_id,
        from: vec![v1::BacklogFrom::default()],
    };
    let behind = node.client.backlog(behind).await.expect("an answer");
    let behind = behind.into_inner().partitions.remove(0);

    let published = v1::PublishRequest {
        topic,
        topic_id,
        value: Some(Bytes::from_static(b"one")),
        ..Default::default()
    };
    let published = node.client.publish(published).await;
    let refused = |status: tonic::Status| WireError::from(&status);
    vec![
        ("produce", produced.error.map(WireError::from)),
        ("fetch", fetched.error.map(WireError::from)),
        ("list offsets", listed.err().map(refused)),
        ("backlog", behind.error.map(WireError::from)),
        ("publish", published.err().map(refused)),
    ]
}

#[tokio::test]
async fn every_call_that_names_the_topic_of_before_is_refused_with_the_id_of_the_new_one() {
    let mut node = Node::start().await;
    let before = topic(&mut node).await;
    recreate(&mut node).await;
    let now = topic(&mut node).await;
    assert!(now.topic_id > before.topic_id);
    assert!(now.ring_version > before.ring_version);

    for (call, error) in ask(&mut node, before.topic_id).await {
        let error = error.unwrap_or_else(|| panic!("{call} took the id of a deleted topic"));
        let expected = (ErrorCode::TopicRecreated, now.topic_id);
        assert_eq!((error.code, error.topic_id), expected, "{call}: {error}");
    }
    for id in [0, now.topic_id] {
        for (call, error) in ask(&mut node, id).await {
            assert_eq!(error, None, "{call} with id {id}");
        }
    }
    // No refused request left a record: the topic has the first record, and two from each of the two rounds.
    assert_eq!(node.fetch(0, 0).await.high_watermark, 5);
    node.still_serves().await;
}

#[tokio::test]
async fn a_topic_that_is_gone_for_good_is_unknown_by_its_id_too() {
    let mut node = Node::start().await;
    let before = topic(&mut node).await;
    let name = TOPIC.to_owned();
    let deleted = node.client.delete_topic(v1::DeleteTopicRequest { name });
    deleted.await.expect("deleted");
    for (call, error) in ask(&mut node, before.topic_id).await {
        let code = error.map(|error| error.code);
        // The topic's leader answers for its backlog, and there is none.
        let expected = match call {
            "backlog" => ErrorCode::NoLeader,
            _ => ErrorCode::UnknownTopic,
        };
        assert_eq!(code, Some(expected), "{call}");
    }
    node.create_topic(TOPIC, 1).await.expect("created again");
    node.produce_until_led(batch((-1, -1, -1), &[b"first"]))
        .await;
    node.still_serves().await;
}
