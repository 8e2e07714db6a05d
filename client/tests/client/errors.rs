//! Errors that callers get when a cluster refuses a call, or is unreachable.

use std::time::Duration;

use ropewalk_client::{Client, ErrorCode, ErrorKind, Offset, Record, TopicSettings};

use tokio::time::{Instant, timeout};

use crate::fake::{Fake, TOPIC, soon};

#[tokio::test]
async fn a_cluster_that_is_not_there_is_named_in_the_error() {
    let builder = Client::builder(["127.0.0.1:1"]).request_timeout(Duration::from_millis(200));
    let error = soon(builder.connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(
        error.is_retryable() && !error.outcome_unknown(),
        "{error:?}"
    );
}

#[tokio::test]
async fn where_every_address_refuses_connecting_ends_before_the_request_timeout() {
    let builder = Client::builder(["127.0.0.1:1", "localhost:1"])
        .request_timeout(Duration::from_secs(60))
        .refused_timeout(Duration::from_millis(200));
    let error = timeout(Duration::from_secs(10), builder.connect()).await;
    let error = error.expect("it gives up").unwrap_err();
    assert!(error.is_refused(), "{error:?}");
}

#[tokio::test]
async fn one_address_that_listens_keeps_connecting_up_to_the_request_timeout() {
    // Accepts connections, and answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        "127.0.0.1:1".to_owned(),
        silent.local_addr().unwrap().to_string(),
    ];
    let builder = Client::builder(addresses)
        .request_timeout(Duration::from_secs(2))
        .refused_timeout(Duration::from_millis(50));
    let begun = Instant::now();
    let error = soon(builder.connect()).await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{error:?}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_at_once() {
    for addresses in [vec![], vec!["no address"]] {
        let error = Client::connect(addresses).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn an_address_with_a_scheme_is_refused_for_it() {
    let connecting = Client::connect(["http://127.0.0.1:1"]);
    let error = soon(connecting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let says = "begins with a scheme); give host:port, without a scheme";
    assert!(error.to_string().ends_with(says), "{error}");
}

#[tokio::test]
async fn one_address_of_many_that_answers_is_enough() {
    let fake = Fake::start(1, 1).await;
    let addresses = ["127.0.0.1:1".to_owned(), fake.addresses[0].clone()];
    let client = soon(Client::connect(addresses)).await.unwrap();
    assert_eq!(client.admin().topics().await.unwrap().len(), 1);
    let list = format!("127.0.0.1:1,{}", fake.addresses[0]);
    let client = soon(Client::connect(list)).await.unwrap();
    assert_eq!(client.admin().topics().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_living_node_says_is_told_rather_than_that_another_is_down() {
    let fake = Fake::start(1, 1).await;
    fake.world().led = false;
    let addresses = [fake.addresses[0].clone(), "127.0.0.1:1".to_owned()];
    let builder = Client::builder(addresses).request_timeout(Duration::from_millis(300));
    let client = soon(builder.connect()).await.unwrap();
    // The error does not depend on the node that is asked last before the timeout.
    for _ in 0..4 {
        let error = soon(client.producer(TOPIC).build()).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoLeader), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_though_its_node_is_down_at_the_end() {
    let fake = Fake::start(1, 1).await;
    fake.world().led = false;
    let builder = fake.builder().request_timeout(Duration::from_millis(1_500));
    let client = soon(builder.connect()).await.unwrap();
    let building = tokio::spawn(async move { client.producer(TOPIC).build().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(fake);
    let error = soon(building).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoLeader), "{error}");
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_named_in_the_error() {
    let fake = Fake::start(2, 1).await;
    let client = fake
        .builder()
        .request_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let errors = [
        soon(client.producer("nowhere").build()).await.unwrap_err(),
        soon(client.reader("nowhere", 0).build()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
    let error = soon(client.publish("nowhere", Record::new()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    let error = soon(client.admin().delete_topic("nowhere"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert!(client.admin().topic("nowhere").await.unwrap().is_none());
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_an_error_and_no_wait() {
    let fake = Fake::start(1, 2).await;
    let client = fake.client().await;
    for from in [Offset::Beginning, Offset::At(5)] {
        let reader = client.reader(TOPIC, 2).from(from);
        let error = soon(reader.build()).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
    }
}

#[tokio::test]
async fn what_the_cluster_refuses_for_good_is_not_tried_again() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let creating = client
        .admin()
        .create_topic(TOPIC, 1, TopicSettings::default())
        .await;
    let error = creating.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicExists));
    assert!(!error.is_retryable() && !error.outcome_unknown());
}

#[tokio::test]
async fn one_record_can_be_published_without_a_producer() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let receipt = client
        .publish(TOPIC, Record::new().key("k").value("v"))
        .await
        .unwrap();
    assert_eq!((receipt.partition, receipt.offset), (0, 41));
}

#[tokio::test]
async fn connections_are_made_by_the_connector_given() {
    let fake = Fake::start(1, 1).await;
    let asked = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let note = asked.clone();
    let builder = fake.builder().connector(move |address: String| {
        note.lock().push(address);
        async { Err::<tokio::io::DuplexStream, _>(std::io::Error::other("no way through")) }
    });
    let error = soon(
        builder
            .request_timeout(Duration::from_millis(100))
            .connect(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(asked.lock().contains(&fake.addresses[0]));
}

#[tokio::test]
async fn a_topic_created_or_deleted_by_a_try_whose_answer_was_lost_is_no_error() {
    let fake = Fake::start(1, 3).await;
    let admin = fake.client().await.admin();
    fake.world().lost_answers = 1;
    let created = admin.create_topic(TOPIC, 3, TopicSettings::default()).await;
    assert_eq!(created.unwrap().partitions.len(), 3);
    fake.world().lost_answers = 1;
    admin.delete_topic(TOPIC).await.unwrap();
    fake.world().lost_answers = 1;
    let other = admin.create_topic(TOPIC, 5, TopicSettings::default()).await;
    let error = other.unwrap_err();
    assert_eq!(
        error.code(),
        Some(ErrorCode::TopicExists),
        "it is not the one asked for"
    );
}

#[tokio::test]
async fn a_hundred_partitions_without_a_leader_ask_no_more_than_one() {
    const PARTITIONS: u32 = 100;
    let fake = Fake::start(1, PARTITIONS).await;
    let client = fake.client().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    for log in &mut fake.world().logs {
        log.leader = 0;
    }
    let asked_before = fake.world().metadata_asked;
    let mut tickets = Vec::new();
    for partition in 0..PARTITIONS {
        let record = Record::new().value("v").partition(partition);
        tickets.push(producer.send(record).await.unwrap());
    }
    let seconds = 2;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let asked = fake.world().metadata_asked - asked_before;
    assert!(asked > 2, "it goes on to ask");
    assert!(asked <= 10 * seconds as usize, "asked {asked} times");
    for log in &mut fake.world().logs {
        log.leader = 1;
        log.epoch += 1;
    }
    let receipts = soon(futures_util::future::join_all(tickets)).await;
    assert!(receipts.iter().all(Result::is_ok));
}
