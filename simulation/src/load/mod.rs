//! The clients' load: the real client library, each client on a separate host.

mod compacted_topic;
mod expansion;
mod filtered_reader;
mod latecomer;
mod member;
pub mod operator;
mod prefix;
mod producer;
mod publisher;
mod random_reader;
mod raw_producer;
mod reader;
pub mod record;
mod recreator;
pub mod settings;
mod topic_churn;
mod tuner;

pub use member::group_name;
pub use prefix::Prefix;
pub use publisher::WITHOUT_SEQUENCE;
pub use reader::{Found, Log};
pub use recreator::{NAME as RECREATED_NAME, RECREATED, place as place_of_life};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_client::{Client, Error};
use tokio::time::sleep;
use turmoil::Sim;

use crate::cluster::Cluster;
use crate::history::{Answer, Call, Event, History, Place};
use crate::plan::Plan;

/// Number of the topic that is written and read all the time.
pub const MAIN: u32 = 0;
/// Numbers of readers that follow a partition: the partition's number.
pub const FOLLOWERS: std::ops::RangeInclusive<u32> = 0..=9_999;
/// The number of the reader with a filter.
pub const SIEVE: u32 = 5_000_000;
/// Delay before a call that must succeed in the end is repeated.
const AGAIN: Duration = Duration::from_millis(500);

/// Name of a run's topic.
pub fn topic_name(number: u32) -> String {
    format!("topic-{number}")
}

/// Number of a topic; none if it is not a run's topic.
pub fn topic_number(name: &str) -> Option<u32> {
    name.strip_prefix("topic-")?.parse().ok()
}

/// State shared by all clients of one run.
#[derive(Debug, Clone)]
pub struct Clients {
    addresses: Vec<String>,
    /// Host names of the nodes.
    nodes: Vec<String>,
    /// The run's plan.
    pub plan: Arc<Plan>,
    /// History of their calls and of the answers.
    pub history: History,
    /// True while producers send.
    going: Arc<AtomicBool>,
    /// Number of clients that wait for answers.
    busy: Arc<AtomicUsize>,
    /// Next offset of each reader that follows a partition.
    followed: Arc<Mutex<BTreeMap<Place, u64>>>,
    /// Next offset of the reader with a filter.
    sifted: Arc<AtomicU64>,
    /// Progress of the groups.
    finished: Arc<member::Finished>,
    /// Partitions of the topic as of the last confirmed growth; 0 if it has not grown.
    grown: Arc<AtomicU32>,
}

impl Clients {
    /// Starts the clients of a plan.
    pub fn start(sim: &mut Sim<'_>, cluster: &Cluster, plan: &Plan, history: &History) -> Clients {
        let clients = Clients {
            addresses: cluster.addresses(),
            nodes: (0..cluster.len())
                .map(|number| cluster.name(number).to_owned())
                .collect(),
            plan: Arc::new(plan.clone()),
            history: history.clone(),
            going: Arc::new(AtomicBool::new(true)),
            busy: Arc::default(),
            followed: Arc::default(),
            sifted: Arc::default(),
            finished: Arc::default(),
            grown: Arc::default(),
        };
        // The order of hosts is part of a seed's meaning.
        clients.start_senders(sim);
        clients.start_followers(sim);
        if !plan.load.growths.is_empty() {
            clients.host(sim, "grower".to_owned(), async |own| {
                expansion::run(&own).await;
            });
        }
        clients.start_groups(sim);
        clients
    }

    /// Starts the clients that [`Clients::stop_sending`] ends, except for the grower.
    fn start_senders(&self, sim: &mut Sim<'_>) {
        let load = &self.plan.load;
        for (number, style) in (0..).zip(&load.producers) {
            let style = style.clone();
            self.host(sim, format!("producer-{number}"), async move |own| {
                operator::create_topic(&own, u64::from(number)).await;
                producer::run(&own, number, &style).await;
            });
        }
        if load.publish_every_ms > 0 {
            self.host(sim, "publisher".to_owned(), async |own| {
                publisher::run(&own).await
            });
        }
        if load.garden_every_ms > 0 {
            self.host(sim, "gardener".to_owned(), async |own| {
                topic_churn::run(&own).await;
            });
        }
        if load.recreate_every_ms > 0 {
            self.host(sim, "recreator".to_owned(), async |own| {
                recreator::run(&own).await;
            });
        }
        if load.table_every_ms > 0 {
            self.host(sim, "table".to_owned(), async |own| {
                compacted_topic::run(&own).await;
            });
        }
        if load.stranger_every_ms > 0 {
            self.host(sim, "stranger".to_owned(), async |own| {
                raw_producer::run(&own).await;
            });
        }
        for number in 0..load.wanderers {
            self.host(sim, format!("wanderer-{number}"), async move |own| {
                random_reader::run(&own, number).await;
            });
        }
    }

    /// Starts the readers that follow partitions until the end of a run.
    fn start_followers(&self, sim: &mut Sim<'_>) {
        let load = &self.plan.load;
        for partition in 0..load.most_partitions() {
            let own = self.clone();
            sim.client(format!("reader-{partition}"), async move {
                reader::follow(&own, partition).await;
                Ok(())
            });
        }
        if let Some(style) = load.sieve {
            let own = self.clone();
            sim.client("sieve", async move {
                filtered_reader::follow(&own, &style).await;
                Ok(())
            });
        }
    }

    fn start_groups(&self, sim: &mut Sim<'_>) {
        for (group, style) in (0..).zip(&self.plan.load.groups) {
            if style.from_end {
                self.history.add(Event::BeginsAtTheEnd { group });
            }
            for member in 0..style.members {
                let (own, style) = (self.clone(), style.clone());
                sim.client(member::host_name(group, member), async move {
                    member::run(&own, group, member, &style).await;
                    Ok(())
                });
            }
        }
    }

    /// Adds a host. Its client ends once it has been told to and every call has been answered.
    fn host<F>(&self, sim: &mut Sim<'_>, name: String, client: F)
    where
        F: AsyncFnOnce(Clients) + 'static,
    {
        let own = self.clone();
        own.busy.fetch_add(1, Ordering::Relaxed);
        sim.client(name, async move {
            let busy = own.busy.clone();
            client(own).await;
            busy.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// Ends all clients but the following readers, once every call of each has been answered.
    pub fn stop_sending(&self) {
        self.going.store(false, Ordering::Relaxed);
    }

    /// True while clients continue to send.
    pub fn sending(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// True while a client waits for answers.
    pub fn producing(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Next offset of each reader that follows a partition.
    pub fn followed(&self) -> BTreeMap<Place, u64> {
        self.followed.lock().clone()
    }

    /// Next offset of the reader with a filter.
    pub fn sifted(&self) -> u64 {
        self.sifted.load(Ordering::Relaxed)
    }

    /// The first offset of a partition that a group has not processed, if those before `start` can no longer
    /// be read.
    pub fn finished(&self, group: u32, place: Place, start: u64) -> u64 {
        self.finished.up_to(group, place, start)
    }

    /// A separate seed for each client.
    pub fn seed_of(&self, who: u64) -> u64 {
        self.plan.seed.rotate_left(17) ^ who.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Connects a client with a separate seed.
    pub async fn connect(&self, who: u64) -> Client {
        until_done("connecting", || {
            Client::builder(self.addresses.clone())
                .connector(|address| async move { turmoil::net::TcpStream::connect(address).await })
                .clock(now_ms)
                .seed(self.seed_of(who))
                .connect()
        })
        .await
    }

    /// Makes a call and records its outcome.
    pub async fn call<T>(
        &self,
        call: Call,
        asked: impl Future<Output = Result<T, Error>>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, Error> {
        let number = self.history.call(call);
        let ended = asked.await;
        let answer = match &ended {
            Ok(done) => answer(done),
            Err(error) => Answer::Failed {
                unknown: error.outcome_unknown(),
                error: error.to_string(),
            },
        };
        self.history.add(Event::Answered { number, answer });
        ended
    }
}

/// The wall clock of all clients, in ms since 1970.
pub fn now_ms() -> i64 {
    turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64)
}

/// Repeats an attempt until it succeeds.
pub async fn until_done<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => tracing::debug!(%error, what, "not yet"),
        }
        sleep(AGAIN).await;
    }
}
