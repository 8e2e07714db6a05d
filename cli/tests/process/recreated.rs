//! A topic that is deleted and created again under its name, while clients use it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_client::{ErrorCode, Producer, Record};
use tokio::time::sleep;

use crate::support::Cluster;

async fn recreate(cluster: &Cluster, partitions: &str) {
    cluster.run(&["topic", "delete", "t"]).await.ok();
    create(cluster, partitions).await;
}

async fn create(cluster: &Cluster, partitions: &str) {
    let args = ["topic", "create", "t", "--partitions", partitions];
    cluster
        .run(&[&args[..], &["--replicas", "3"]].concat())
        .await
        .ok();
    cluster.healthy().await;
}

/// Partitions of the successful records, by key, of forty keys.
async fn send_all(producer: &Producer) -> BTreeMap<usize, u32> {
    let sent = (0..40).map(async |number| {
        let record = Record::new().key(format!("key-{number}")).value("v");
        producer.send(record).await?.await
    });
    let sent = join_all(sent).await;
    let mut places = BTreeMap::new();
    for (number, ended) in sent.into_iter().enumerate() {
        match ended {
            Ok(receipt) => drop(places.insert(number, receipt.partition)),
            Err(error) => assert_eq!(error.code(), Some(ErrorCode::TopicRecreated), "{error}"),
        }
    }
    places
}

#[tokio::test]
async fn a_living_producer_sends_every_key_where_everybody_does() {
    let cluster = Cluster::start(3, &[]).await;
    create(&cluster, "12").await;
    let client = cluster.client().await;
    let living = client.producer("t").build().await.unwrap();
    assert_eq!(send_all(&living).await.len(), 40);
    for partitions in ["3", "12", "12"] {
        recreate(&cluster, partitions).await;
        // Records sent before the producer learns of the change fail at once; no later record fails.
        send_all(&living).await;
        let by_living = send_all(&living).await;
        let other = cluster.client().await.producer("t").build().await.unwrap();
        let by_other = send_all(&other).await;
        assert_eq!((by_living.len(), &by_living), (40, &by_other));
    }
}

#[tokio::test]
async fn whoever_follows_a_topic_ends_with_it_and_says_so() {
    let cluster = Cluster::start(3, &[]).await;
    create(&cluster, "1").await;
    cluster.run_with(b"1\n2\n3\n", &["produce", "t"]).await.ok();
    let follow = cluster.run(&["consume", "t", "--follow", "-o", "jsonl"]);
    let change = async {
        // It has read all records, and waits for more.
        sleep(Duration::from_secs(2)).await;
        recreate(&cluster, "1").await;
        let five = b"1\n2\n3\n4\n5\n";
        cluster.run_with(five, &["produce", "t"]).await.ok();
    };
    let (followed, ()) = tokio::join!(follow, change);
    assert_eq!(followed.code, Some(1), "{followed:?}");
    assert_eq!(followed.out.lines().count(), 3, "{followed:?}");
    assert!(followed.err.contains("was deleted"), "{followed:?}");
}
