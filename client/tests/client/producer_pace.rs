//! Pace of a producer's batches: answers, full batches, and the bounds in time.

use std::time::Duration;

use futures_util::future::join_all;
use ropewalk_client::{PendingAck, Producer, ProducerBuilder, Record};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, resume};

use crate::fake::{Act, Fake, TOPIC, soon};

/// A producer with an open stream to its cluster, and a clock that only the test advances.
struct Stage {
    fake: Fake,
    producer: Producer,
    /// Another producer, whose requests release late answers.
    other: Producer,
    _hold: oneshot::Sender<()>,
}

impl Stage {
    async fn new(configure: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Stage {
        let fake = Fake::start(1, 3).await;
        let client = fake.client().await;
        let producer = configure(client.producer(TOPIC)).build().await.unwrap();
        let other = client.producer(TOPIC).build().await.unwrap();
        for (producer, partition) in [(&producer, 0), (&other, 1)] {
            let ticket = send(producer, record().partition(partition)).await;
            soon(ticket).await.unwrap();
        }
        fake.world().seen.clear();
        Stage {
            fake,
            producer,
            other,
            _hold: stop_the_clock(),
        }
    }

    async fn send(&self) -> PendingAck {
        send(&self.producer, record().partition(0)).await
    }

    /// Partition and number of records of each request.
    fn batches(&self) -> Vec<(u32, i32)> {
        let world = self.fake.world();
        let seen = world.seen.iter();
        seen.map(|seen| (seen.partition, seen.count)).collect()
    }

    /// Waits for this number of requests, without a step of the clock.
    async fn until_seen(&self, requests: usize) {
        for _ in 0..1_000_000 {
            if self.batches().len() >= requests {
                return;
            }
            yield_now().await;
        }
        panic!("{requests} requests do not come: {:?}", self.batches());
    }
}

/// Stops the clock, which does not jump to the next timer while the test waits for its connections.
#[allow(
    clippy::disallowed_methods,
    reason = "a task that blocks is what keeps a paused clock from jumping"
)]
fn stop_the_clock() -> oneshot::Sender<()> {
    let (hold, held) = oneshot::channel();
    drop(tokio::task::spawn_blocking(move || held.blocking_recv()));
    tokio::time::pause();
    hold
}

/// Lets everything happen that does not need the clock.
async fn settle() {
    for _ in 0..1_000 {
        yield_now().await;
    }
}

fn record() -> Record {
    Record::new().key("k").value("v")
}

async fn send(producer: &Producer, record: Record) -> PendingAck {
    producer.send(record).await.unwrap()
}

#[tokio::test]
async fn a_record_alone_is_sent_without_a_step_of_the_clock() {
    let stage = Stage::new(|builder| builder).await;
    let before = Instant::now();
    for number in 1..=3 {
        let ticket = stage.send().await;
        stage.until_seen(number).await;
        settle().await;
        assert_eq!(Instant::now(), before);
        drop(ticket);
    }
    assert_eq!(stage.batches(), [(0, 1); 3]);
}

#[tokio::test]
async fn records_behind_a_batch_in_flight_share_one_that_leaves_with_the_answer() {
    let stage = Stage::new(|builder| builder).await;
    stage.fake.script(|seen| match seen.number {
        0 => Act::ObeyLate(2),
        _ => Act::Obey,
    });
    let mut tickets = vec![stage.send().await];
    stage.until_seen(1).await;
    for _ in 0..50 {
        tickets.push(stage.send().await);
        yield_now().await;
    }
    settle().await;
    assert_eq!(stage.batches(), [(0, 1)]);
    tickets.push(send(&stage.other, record().partition(1)).await);
    stage.until_seen(3).await;
    resume();
    for ended in soon(join_all(tickets)).await {
        ended.unwrap();
    }
    assert_eq!(stage.batches(), [(0, 1), (1, 1), (0, 50)]);
}

#[tokio::test]
async fn a_full_batch_leaves_before_the_answer() {
    let stage = Stage::new(|builder| builder.batch_bytes(1_000)).await;
    stage.fake.script(|_| Act::Ignore);
    let _first = stage.send().await;
    stage.until_seen(1).await;
    let large = || record().value(vec![b'x'; 400]).partition(0);
    let _second = send(&stage.producer, large()).await;
    let _third = send(&stage.producer, large()).await;
    settle().await;
    assert_eq!(stage.batches(), [(0, 1)]);
    let _fourth = send(&stage.producer, large()).await;
    stage.until_seen(2).await;
    settle().await;
    assert_eq!(stage.batches(), [(0, 1), (0, 2)]);
}

#[tokio::test]
async fn records_wait_for_an_answer_that_stays_away_no_longer_than_a_bound() {
    let stage = Stage::new(|builder| builder).await;
    stage.fake.script(|_| Act::Ignore);
    let _first = stage.send().await;
    stage.until_seen(1).await;
    let _second = stage.send().await;
    settle().await;
    advance(Duration::from_millis(5)).await;
    let _third = stage.send().await;
    settle().await;
    assert_eq!(stage.batches(), [(0, 1)]);
    advance(Duration::from_millis(10)).await;
    stage.until_seen(2).await;
    assert_eq!(stage.batches(), [(0, 1), (0, 2)]);
}

#[tokio::test]
async fn a_linger_is_waited_for_with_nothing_in_flight_and_behind_an_answer() {
    let linger = Duration::from_millis(60);
    let stage = Stage::new(|builder| builder.linger(linger)).await;
    stage.fake.script(|seen| match seen.number {
        0 => Act::ObeyLate(2),
        _ => Act::Obey,
    });
    let _first = stage.send().await;
    settle().await;
    advance(linger - Duration::from_millis(10)).await;
    settle().await;
    assert!(stage.batches().is_empty());
    advance(Duration::from_millis(20)).await;
    stage.until_seen(1).await;

    let _second = stage.send().await;
    let _released = send(&stage.other, record().partition(1)).await;
    stage.until_seen(2).await;
    settle().await;
    assert_eq!(stage.batches(), [(0, 1), (1, 1)]);
    advance(linger + Duration::from_millis(10)).await;
    stage.until_seen(3).await;
}

#[tokio::test]
async fn records_without_a_key_gather_behind_one_that_left_alone_and_then_move_on() {
    let stage = Stage::new(|builder| builder.batch_bytes(1_000)).await;
    stage.fake.script(|_| Act::Ignore);
    let keyless = || send(&stage.producer, Record::new().value(vec![b'x'; 400]));
    let _alone = keyless().await;
    stage.until_seen(1).await;
    let _behind = [keyless().await, keyless().await];
    settle().await;
    assert_eq!(stage.batches().len(), 1);
    // The batch is full, and the next partition has nothing in flight.
    let _next = keyless().await;
    stage.until_seen(3).await;
    let batches = stage.batches();
    let (first, _) = batches[0];
    assert!(batches.contains(&(first, 2)), "{batches:?}");
    let elsewhere = |batch: &&(u32, i32)| batch.0 != first && batch.1 == 1;
    assert_eq!(batches.iter().filter(elsewhere).count(), 1, "{batches:?}");
}

#[tokio::test]
async fn a_burst_of_records_makes_few_batches() {
    let fake = Fake::start(1, 1).await;
    let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
    for _ in 0..3 {
        fake.world().seen.clear();
        let mut tickets = Vec::new();
        for _ in 0..1_000 {
            tickets.push(send(&producer, record()).await);
        }
        for ended in soon(join_all(tickets)).await {
            ended.unwrap();
        }
        assert!(fake.seen().len() <= 2, "{:?}", fake.seen());
    }
}

#[tokio::test]
async fn tasks_that_send_one_record_each_in_the_same_instant_share_a_batch() {
    let fake = Fake::start(1, 1).await;
    let producer = fake.client().await.producer(TOPIC).build().await.unwrap();
    for _ in 0..3 {
        fake.world().seen.clear();
        let tasks = (0..50).map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move { send(&producer, record()).await.await })
        });
        for ended in soon(join_all(tasks)).await {
            ended.unwrap().unwrap();
        }
        assert!(fake.seen().len() <= 2, "{:?}", fake.seen());
    }
}
