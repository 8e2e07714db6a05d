//! One member of a consumer group. It joins through the client's subscription and processes its records in
//! one of several ways. Now and then it stops, vanishes without leaving, or receives nothing for up to three
//! session timeouts. It always comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{
    Client, Delivery, Error, Offset, OnTrimmed, Rebalance, Subscription, SubscriptionHandle,
    TopicPartition,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::reader::found;
use super::settings::Consuming;
use super::{Clients, MAIN, operator, topic_name, topic_number, until_done};
use crate::history::{Event, History, Life, Place};

/// First seed of members' clients.
const FIRST: u64 = 20_000;
/// Distance between the seeds of two groups.
const MEMBERS: u64 = 1_000;
/// One record in this many takes longer.
const SLOW_EVERY: u64 = 50;
/// Processing time of such a record.
const SLOW: Duration = Duration::from_millis(15);
/// One record in this many fails during the storm.
const FAILS_EVERY: u64 = 1_500;

/// Name of a group.
pub fn group_name(group: u32) -> String {
    format!("group-{group}")
}

/// Progress of each group in each partition: all records before the offset are processed.
#[derive(Debug, Default)]
pub struct Finished(Mutex<BTreeMap<(u32, Place), super::Prefix>>);

impl Finished {
    fn add(&self, group: u32, place: Place, offset: u64) {
        let mut all = self.0.lock();
        all.entry((group, place)).or_default().add(offset);
    }

    /// The first offset that a group has not processed, if those before `start` cannot be read.
    pub fn up_to(&self, group: u32, place: Place, start: u64) -> u64 {
        let mut all = self.0.lock();
        let prefix = all.entry((group, place)).or_default();
        prefix.skip_to(start);
        prefix.end()
    }
}

/// Runs one life of a member after another, until the run ends.
pub async fn run(clients: &Clients, group: u32, member: u32, style: &Consuming) {
    let who = FIRST + u64::from(group) * MEMBERS + u64::from(member);
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    operator::create_topic(clients, who).await;
    let mut client = clients.connect(who).await;
    let mut who = Life {
        group,
        member,
        life: 0,
    };
    loop {
        let one = Member {
            clients: clients.clone(),
            style: style.clone(),
            who,
        };
        one.live(&client, &mut random).await;
        who.life += 1;
        sleep(Duration::from_millis(random.random_range(0..500))).await;
        if clients.sending() && random.random_bool(0.2) {
            client = clients.connect(random.random()).await;
        }
    }
}

#[derive(Debug, Clone)]
struct Member {
    clients: Clients,
    style: Consuming,
    who: Life,
}

/// End of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Close,
    Leave,
    Vanish,
}

impl Member {
    async fn live(self, client: &Client, random: &mut SmallRng) {
        let subscription = until_done("joining a group", || self.join(client)).await;
        self.clients.history.add(Event::Joined {
            who: self.who,
            handlers: self.style.handlers,
        });
        let every_ms = self.style.restart_every_ms;
        let span_ms = match every_ms > 0 && self.clients.sending() {
            true => random.random_range(every_ms / 2..=every_ms * 3 / 2),
            // In the end the member runs undisturbed, so that it reaches the end of the log.
            false => u64::MAX >> 20,
        };
        let stop = Instant::now() + Duration::from_millis(span_ms);
        let ending = match random.random_range(0..4) {
            0 => Ending::Vanish,
            1 => Ending::Leave,
            _ => Ending::Close,
        };
        let seed = random.random();
        let aside = self.aside(subscription.handle(), seed);
        tokio::select! {
            () = aside => {}
            () = self.consume(subscription, stop, ending) => {}
        }
    }

    async fn join(&self, client: &Client) -> Result<Subscription, Error> {
        let Consuming {
            session_ms,
            rebalance_within_ms,
            commit_every_ms,
            ..
        } = self.style;
        let (who, history) = (self.who, self.clients.history.clone());
        let name = format!("member-{}-{}", who.group, who.member);
        let commit_every = Duration::from_millis(commit_every_ms);
        let builder = client
            .subscribe(&group_name(who.group))
            // The default name contains the process id, which differs from run to run.
            .client_name(&name)
            .session_timeout(Duration::from_millis(session_ms))
            .rebalance_timeout(Duration::from_millis(rebalance_within_ms))
            .auto_commit((!self.style.by_hand).then_some(commit_every))
            .max_in_flight(self.style.in_flight)
            .on_trimmed(OnTrimmed::SkipToBeginning)
            .from(match self.style.from_end {
                true => Offset::End,
                false => Offset::Beginning,
            })
            .on_rebalance(move |what| tell(&history, who, what));
        let builder = match self.style.by_pattern {
            true => builder.pattern(format!("topic-.*|{}", super::RECREATED_NAME)),
            false => builder.topics([topic_name(MAIN)]),
        };
        let builder = match self.style.fixed {
            true => builder.instance_id(name),
            false => builder,
        };
        builder.build().await
    }

    /// Activities beside the records: commits and freezes. Never returns.
    async fn aside(&self, handle: SubscriptionHandle, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let freeze_every_ms = self.style.freeze_every_ms;
        let commits = async {
            if !self.style.by_hand {
                std::future::pending::<()>().await;
            }
            loop {
                sleep(Duration::from_millis(self.style.commit_every_ms)).await;
                if let Err(error) = handle.commit().await {
                    tracing::debug!(%error, who = %self.who, "a commit failed");
                }
            }
        };
        let freezes = async {
            while freeze_every_ms > 0 && self.clients.sending() {
                let pause_ms = random.random_range(freeze_every_ms / 2..=freeze_every_ms * 3 / 2);
                sleep(Duration::from_millis(pause_ms)).await;
                // Also shorter than the session: long enough that a partition is taken away.
                let session_ms = self.style.session_ms;
                let deaf_ms = random.random_range(session_ms / 3..=session_ms * 3);
                if self.clients.sending() {
                    self.be_deaf(Duration::from_millis(deaf_ms)).await;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(commits, freezes);
    }

    /// Holds all messages from and to the host for a while; then they all arrive at once.
    async fn be_deaf(&self, time: Duration) {
        let _held = Held::hold(&self.clients, host_name(self.who.group, self.who.member));
        sleep(time).await;
    }

    async fn consume(&self, subscription: Subscription, stop: Instant, ending: Ending) {
        match self.style.handlers {
            0 => self.take_one_by_one(subscription, stop, ending).await,
            handlers => self.handle(subscription, handlers, stop, ending).await,
        }
    }

    async fn take_one_by_one(&self, mut subscription: Subscription, stop: Instant, ending: Ending) {
        while let Ok(Some(next)) = timeout_at(stop, subscription.next()).await {
            let delivery = match next {
                Ok(delivery) => delivery,
                Err(error) => {
                    tracing::debug!(%error, who = %self.who, "the member begins anew");
                    return;
                }
            };
            if !self.process(&delivery).await {
                break;
            }
            delivery.ack();
        }
        let ended = match ending {
            Ending::Close => subscription.close().await,
            Ending::Leave => subscription.close_and_leave().await,
            Ending::Vanish => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, who = %self.who, "the member did not close well");
        }
    }

    async fn handle(
        &self,
        subscription: Subscription,
        handlers: usize,
        stop: Instant,
        ending: Ending,
    ) {
        let handle = subscription.handle();
        let own = self.clone();
        let mut running = Box::pin(subscription.run_concurrent(handlers, move |delivery| {
            let own = own.clone();
            async move {
                match own.process(&delivery).await {
                    true => Ok(()),
                    false => Err("the handler fails, as it was told to"),
                }
            }
        }));
        let ended = match timeout_at(stop, &mut running).await {
            Ok(ended) => ended,
            Err(_) if ending == Ending::Vanish => return,
            Err(_) => {
                handle.shutdown();
                running.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, who = %self.who, "the member begins anew");
        }
    }

    /// Processes one record. True if that succeeded.
    async fn process(&self, delivery: &Delivery) -> bool {
        let Some(topic) = topic_number(delivery.topic()) else {
            return true;
        };
        let place = Place {
            topic,
            partition: delivery.partition,
        };
        let read = found(delivery);
        let (who, offset) = (self.who, read.offset);
        self.clients.history.add(Event::Delivered {
            who,
            place,
            offset,
            name: read.name,
            key: read.key,
            content: read.content,
        });
        // Not drawn from the generator: concurrent handlers must not depend on each other.
        let chance = mixed(offset ^ u64::from(place.partition) << 32 ^ u64::from(who.life) << 48);
        if chance.is_multiple_of(SLOW_EVERY) {
            sleep(SLOW).await;
        }
        if chance.is_multiple_of(FAILS_EVERY) && self.clients.sending() {
            return false;
        }
        self.clients
            .history
            .add(Event::Processed { who, place, offset });
        self.clients.finished.add(who.group, place, offset);
        true
    }
}

/// Host name of a member.
pub fn host_name(group: u32, member: u32) -> String {
    format!("member-{group}-{member}")
}

fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 17
}

/// Records a rebalance of a subscription.
fn tell(history: &History, who: Life, what: &Rebalance) {
    let (names, event): (_, &dyn Fn(Place) -> Event) = match what {
        Rebalance::Assigned(names) => (names, &|place| Event::Assigned { who, place }),
        Rebalance::Revoked(names) => (names, &|place| Event::Taken {
            who,
            place,
            lost: false,
        }),
        Rebalance::Lost(names) => (names, &|place| Event::Taken {
            who,
            place,
            lost: true,
        }),
        other => return tracing::debug!(%who, ?other, "a member hears"),
    };
    for place in names.iter().filter_map(place_of) {
        history.add(event(place));
    }
}

fn place_of(name: &TopicPartition) -> Option<Place> {
    Some(Place {
        topic: topic_number(&name.topic)?,
        partition: name.partition,
    })
}

/// A host whose messages are held until this value is dropped.
struct Held {
    host: String,
    nodes: Vec<String>,
}

impl Held {
    fn hold(clients: &Clients, host: String) -> Held {
        let nodes: Vec<String> = clients.nodes.clone();
        for node in &nodes {
            turmoil::hold(host.as_str(), node.as_str());
        }
        Held { host, nodes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A failed run drops its hosts outside of the simulation.
        if turmoil::sim_elapsed().is_none() {
            return;
        }
        for node in &self.nodes {
            turmoil::release(self.host.as_str(), node.as_str());
        }
    }
}
