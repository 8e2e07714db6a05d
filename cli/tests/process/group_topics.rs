//! Groups whose topics grow, are deleted and created again, while their coordinators restart one after
//! another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use ropewalk_client::{Client, Error, Offset, OnTrimmed, Record};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Cluster, PATIENCE, ropewalk};

const GROUP: &str = "g";
const KEPT: &str = "kept";
const GOES: &str = "goes";

/// Values that members received, by topic.
type Got = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

struct Member {
    ended: JoinHandle<Error>,
    handle: ropewalk_client::SubscriptionHandle,
}

impl Member {
    async fn start(client: &Client, topics: &[&str], from: Offset, got: &Got) -> Member {
        let mut subscription = client
            .subscribe(GROUP)
            .topics(topics.iter().copied())
            .from(from)
            .auto_commit(Some(Duration::from_millis(100)))
            .on_trimmed(OnTrimmed::Fail)
            .build()
            .await
            .unwrap();
        let (handle, got) = (subscription.handle(), got.clone());
        let ended = tokio::spawn(async move {
            loop {
                match subscription.next().await {
                    Some(Ok(delivery)) => {
                        let value = delivery.value.as_deref().unwrap_or_default();
                        let value = String::from_utf8_lossy(value).into_owned();
                        let topic = delivery.topic().to_owned();
                        got.lock().entry(topic).or_default().insert(value);
                        delivery.ack();
                    }
                    Some(Err(error)) => return error,
                    None => std::future::pending().await,
                }
            }
        });
        Member { ended, handle }
    }

    fn lives(&self) {
        assert!(!self.ended.is_finished(), "a member has ended");
    }
}

async fn create(cluster: &Cluster, topic: &str, partitions: &str) {
    let replicas = cluster.nodes.len().to_string();
    let create = [
        "topic",
        "create",
        topic,
        "--partitions",
        partitions,
        "--replicas",
        &replicas,
    ];
    cluster.run(&create).await.ok();
}

/// Publishes the values `NAME-0`, `NAME-1`, …, each under its own key.
async fn publish(client: &Client, topic: &str, name: &str, count: usize) -> BTreeSet<String> {
    let producer = client.producer(topic).build().await.unwrap();
    let mut sent = Vec::new();
    for number in 0..count {
        let value = format!("{name}-{number}");
        let record = Record::new().key(value.clone()).value(value.clone());
        sent.push((value, producer.send(record).await.unwrap()));
    }
    let mut values = BTreeSet::new();
    for (value, ack) in sent {
        ack.await.unwrap();
        values.insert(value);
    }
    values
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn until_got(got: &Got, topic: &str, values: &BTreeSet<String>) {
    let missing = || {
        let got = got.lock();
        let got = got.get(topic);
        let missing = |value: &&String| !got.is_some_and(|got| got.contains(*value));
        values.iter().filter(missing).count()
    };
    let waited = timeout(PATIENCE, async {
        while missing() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let waited = waited.await;
    assert!(waited.is_ok(), "{} of {topic} never came", missing());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_outlive_a_rolling_restart_though_one_of_their_topics_was_deleted() {
    let mut cluster = Cluster::start(3, &[]).await;
    create(&cluster, KEPT, "6").await;
    create(&cluster, GOES, "6").await;
    cluster.healthy().await;
    let client = cluster.client().await;
    let got = Got::default();
    let topics = [KEPT, GOES];
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::start(&client, &topics, Offset::Beginning, &got).await);
    }
    let first = publish(&client, KEPT, "first", 300).await;
    let old = publish(&client, GOES, "old", 300).await;
    until_got(&got, KEPT, &first).await;
    until_got(&got, GOES, &old).await;

    client.admin().delete_topic(GOES).await.unwrap();
    until("the topic is missing", async || {
        let described = cluster.run(&["group", "describe", GROUP]).await;
        described.code == Some(0)
            && described.lines()[0]["missing_topics"] == serde_json::json!([GOES])
    })
    .await;
    for number in 0..3 {
        cluster.nodes[number].terminate(PATIENCE).await.unwrap();
        cluster.nodes[number].start(PATIENCE).await.unwrap();
        cluster.healthy().await;
        let values = publish(&client, KEPT, &format!("round{number}"), 100).await;
        until_got(&got, KEPT, &values).await;
        members.iter().for_each(Member::lives);
    }

    // The topic is created again with fewer partitions, and the members that waited read it from its
    // beginning.
    create(&cluster, GOES, "2").await;
    let new = publish(&client, GOES, "new", 20).await;
    until_got(&got, GOES, &new).await;
    members.iter().for_each(Member::lives);
    let owned = |member: &Member| member.handle.assignment().len();
    until("all is given out", async || {
        members.iter().map(owned).sum::<usize>() == 8
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_in_a_topic_that_is_deleted_and_created_again_under_them() {
    let cluster = Cluster::start(1, &[]).await;
    create(&cluster, KEPT, "4").await;
    create(&cluster, GOES, "5").await;
    cluster.healthy().await;
    let client = cluster.client().await;
    let got = Got::default();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::start(&client, &[KEPT, GOES], Offset::Beginning, &got).await);
    }
    let old = publish(&client, GOES, "old", 2_000).await;
    until_got(&got, GOES, &old).await;
    for (round, partitions) in ["3", "5", "9"].into_iter().enumerate() {
        client.admin().delete_topic(GOES).await.unwrap();
        create(&cluster, GOES, partitions).await;
        // A client that knows the new topic from its start.
        let client = cluster.client().await;
        let new = publish(&client, GOES, &format!("new{round}"), 200).await;
        let kept = publish(&client, KEPT, &format!("kept{round}"), 200).await;
        until_got(&got, GOES, &new).await;
        until_got(&got, KEPT, &kept).await;
        members.iter().for_each(Member::lives);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_began_at_the_end_gets_all_of_the_partitions_that_its_topic_gains() {
    let cluster = Cluster::start(1, &[]).await;
    create(&cluster, KEPT, "2").await;
    cluster.healthy().await;
    let client = cluster.client().await;
    let before = publish(&client, KEPT, "before", 100).await;
    let got = Got::default();
    let member = Member::start(&client, &[KEPT], Offset::End, &got).await;
    until("it has begun", async || {
        let lag = client.admin().group_lag(GROUP).await.unwrap();
        lag.len() == 2 && lag.iter().all(|one| one.committed.is_some())
    })
    .await;
    let publishing = {
        let client = client.clone();
        tokio::spawn(async move { publish(&client, KEPT, "during", 5_000).await })
    };
    cluster
        .run(&["topic", "grow", KEPT, "--partitions", "9"])
        .await
        .ok();
    let during = publishing.await.unwrap();
    let after = publish(&client, KEPT, "after", 1_000).await;
    until_got(&got, KEPT, &during).await;
    until_got(&got, KEPT, &after).await;
    member.lives();
    let got = got.lock();
    assert!(got[KEPT].is_disjoint(&before), "it began at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_topics_without_a_group_reads_the_partitions_that_they_gain() {
    let cluster = Cluster::start(1, &[]).await;
    create(&cluster, KEPT, "2").await;
    create(&cluster, GOES, "1").await;
    cluster.healthy().await;
    let client = cluster.client().await;
    publish(&client, KEPT, "before", 100).await;
    let addresses = cluster.addresses();
    let consume = [
        "consume", KEPT, GOES, "--follow", "--from", "end", "--count", "400",
    ];
    let following = {
        let args = [&["--bootstrap", &addresses, "-o", "jsonl"], &consume[..]].concat();
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        tokio::spawn(async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            ropewalk(&args).await
        })
    };
    // Long enough to reach the end.
    sleep(Duration::from_secs(2)).await;
    let mut after = BTreeSet::new();
    for topic in [KEPT, GOES] {
        let grow = ["topic", "grow", topic, "--partitions", "9"];
        cluster.run(&grow).await.ok();
        after.extend(publish(&client, topic, &format!("{topic}-after"), 200).await);
    }
    let read = timeout(PATIENCE, following).await;
    let read = read.expect("new partitions are not read").unwrap().lines();
    let values = read.iter().filter_map(|row| row["value"].as_str());
    let values: BTreeSet<String> = values.map(str::to_owned).collect();
    assert_eq!(values, after);
    for (topic, before) in [(KEPT, 2), (GOES, 1)] {
        let of_it = read.iter().filter(|row| row["topic"] == topic);
        let partitions = of_it.filter_map(|row| row["partition"].as_u64());
        let partitions: BTreeSet<u64> = partitions.collect();
        assert!(partitions.len() > before, "{topic}: {partitions:?}");
    }
}
