//! Settings and topics through the public ports of a running node.

use futures_util::future::join_all;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;

use crate::support::{Node, TOPIC};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_changes_at_once_to_different_settings_are_all_made() {
    const CHANGES: [(&str, &str); 5] = [
        ("retention", "1h"),
        ("retention_size", "1GiB"),
        ("segment_bytes", "1MiB"),
        ("max_batch_bytes", "64KiB"),
        ("min_dirty_percent", "20"),
    ];
    let mut node = Node::start().await;
    let topics: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    for topic in &topics {
        node.create_topic(topic, 1).await.unwrap();
    }
    let changes = topics.iter().flat_map(|topic| {
        CHANGES.map(|(name, value)| {
            let mut client = node.client.clone();
            let request = v1::AlterTopicRequest {
                name: topic.clone(),
                set: [(name.to_owned(), value.to_owned())].into(),
            };
            async move { client.alter_topic(request).await }
        })
    });
    for changed in join_all(changes).await {
        changed.unwrap();
    }
    let request = v1::ListPartitionsRequest { topics };
    let listed = node.client.list_partitions(request).await.unwrap();
    let listed = listed.into_inner().topics;
    assert_eq!(listed.len(), 20);
    for topic in listed {
        let settings = topic.settings.unwrap();
        let set = (
            settings.retention_ms,
            settings.retention_bytes,
            settings.segment_bytes,
            settings.max_batch_bytes,
            settings.min_dirty_percent,
        );
        assert_eq!(
            set,
            (3_600_000, 1 << 30, 1 << 20, 64 << 10, 20),
            "{}",
            topic.name
        );
        assert_eq!(settings.replicas, 1);
    }
    node.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_takes_records_at_once() {
    let mut node = Node::start().await;
    let request = v1::CreateTopicRequest {
        name: "fresh".to_owned(),
        partitions: 30,
        settings: Some(v1::TopicSettings {
            replicas: 1,
            ..Default::default()
        }),
    };
    let created = node.client.create_topic(request).await.unwrap();
    let partitions = created.into_inner().partitions;
    assert!(partitions.iter().all(|one| one.leader_node_id != 0));
    for partition in 0..30 {
        let record = v1::PublishRequest {
            topic: "fresh".to_owned(),
            partition: Some(partition),
            value: Some("v".into()),
            ..Default::default()
        };
        node.client.publish(record).await.unwrap();
    }
    node.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_past_the_nodes_bound_on_replicas_is_refused_and_one_that_fits_is_not() {
    let mut node = Node::start_with(|config| config.limits.replicas_per_node = 20).await;
    // Until the node has registered there is no limit; a change of a setting waits for that.
    let alter = v1::AlterTopicRequest {
        name: TOPIC.to_owned(),
        set: [("retention".to_owned(), "1h".to_owned())].into(),
    };
    node.client.alter_topic(alter).await.unwrap();
    let refused = node.create_topic("many", 20).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("20 replicas"), "{refused}");
    node.create_topic("fewer", 19).await.unwrap();
    let grow = v1::GrowTopicRequest {
        name: "fewer".to_owned(),
        partitions: 20,
    };
    let refused = node.client.grow_topic(grow).await.unwrap_err();
    assert_eq!(WireError::from(&refused).code, ErrorCode::Overloaded);
    node.still_serves().await;
}
