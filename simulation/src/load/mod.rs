//! What clients do: the real client library, each client a host of its own.

mod garden;
mod grower;
mod latecomer;
mod member;
pub mod operator;
mod prefix;
mod producer;
mod publisher;
mod reader;
pub mod record;
mod recreator;
pub mod settings;
mod sieve;
mod stranger;
mod table;
mod tuner;
mod wanderer;

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

/// The topic that is written and read all the time.
pub const MAIN: u32 = 0;
/// The numbers of readers that follow a partition: that of the partition.
pub const FOLLOWERS: std::ops::RangeInclusive<u32> = 0..=9_999;
/// The number of the reader with a filter.
pub const SIEVE: u32 = 5_000_000;
/// Between two tries of what must work in the end.
const AGAIN: Duration = Duration::from_millis(500);

/// What a topic of a run is called.
pub fn topic_name(number: u32) -> String {
    format!("topic-{number}")
}

/// The number of a topic; none if it is no topic of a run.
pub fn topic_number(name: &str) -> Option<u32> {
    name.strip_prefix("topic-")?.parse().ok()
}

/// What all clients of one run share.
#[derive(Debug, Clone)]
pub struct Clients {
    addresses: Vec<String>,
    /// The nodes' hosts.
    nodes: Vec<String>,
    /// The plan they act on.
    pub plan: Arc<Plan>,
    /// Where they write down what they do and hear.
    pub history: History,
    /// Whether producers go on.
    going: Arc<AtomicBool>,
    /// Those that have not heard of all they sent.
    busy: Arc<AtomicUsize>,
    /// What each reader that follows a partition is to read next.
    followed: Arc<Mutex<BTreeMap<Place, u64>>>,
    /// What the reader with a filter is to read next.
    sifted: Arc<AtomicU64>,
    /// What each group has finished with.
    finished: Arc<member::Finished>,
    /// How many partitions the topic was last said to have grown to; 0 if it has not.
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
        // The order of hosts is part of what a seed means.
        clients.start_senders(sim);
        clients.start_followers(sim);
        if !plan.load.growths.is_empty() {
            clients.host(sim, "grower".to_owned(), async |own| {
                grower::run(&own).await;
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
                garden::run(&own).await;
            });
        }
        if load.recreate_every_ms > 0 {
            self.host(sim, "recreator".to_owned(), async |own| {
                recreator::run(&own).await;
            });
        }
        if load.table_every_ms > 0 {
            self.host(sim, "table".to_owned(), async |own| {
                table::run(&own).await;
            });
        }
        if load.stranger_every_ms > 0 {
            self.host(sim, "stranger".to_owned(), async |own| {
                stranger::run(&own).await;
            });
        }
        for number in 0..load.wanderers {
            self.host(sim, format!("wanderer-{number}"), async move |own| {
                wanderer::run(&own, number).await;
            });
        }
    }

    /// Starts the readers that follow to the end of a run.
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
                sieve::follow(&own, &style).await;
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

    /// A host whose client ends once it is told to and has heard of all it asked.
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

    /// Ends all but the readers that follow, once each has heard of all it asked.
    pub fn stop_sending(&self) {
        self.going.store(false, Ordering::Relaxed);
    }

    /// Whether clients are to go on.
    pub fn sending(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// Whether somebody still waits for answers.
    pub fn producing(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// What each reader that follows a partition is to read next.
    pub fn followed(&self) -> BTreeMap<Place, u64> {
        self.followed.lock().clone()
    }

    /// What the reader with a filter is to read next.
    pub fn sifted(&self) -> u64 {
        self.sifted.load(Ordering::Relaxed)
    }

    /// The first offset of a partition that a group has not finished with, if what lies before
    /// `start` is not to be had any more.
    pub fn finished(&self, group: u32, place: Place, start: u64) -> u64 {
        self.finished.up_to(group, place, start)
    }

    /// A seed for each who asks.
    pub fn seed_of(&self, who: u64) -> u64 {
        self.plan.seed.rotate_left(17) ^ who.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Connects, with a seed of its own for each who asks.
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

    /// Makes a call and writes down what came of it.
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

/// Tries until it works.
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
