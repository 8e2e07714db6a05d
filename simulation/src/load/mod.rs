//! What clients do: the real client library, each client a host of its own.

pub mod operator;
mod producer;
mod reader;

pub use reader::{Found, read_all};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ropewalk_client::{Client, Error};
use tokio::time::sleep;
use turmoil::Sim;

use crate::cluster::Cluster;
use crate::history::{History, RecordName};
use crate::plan::Plan;

/// The topic that is written and read.
pub const TOPIC: &str = "flights";
/// Between two tries of what must work in the end.
const AGAIN: Duration = Duration::from_millis(500);

/// What all clients of one run share.
#[derive(Debug, Clone)]
pub struct Clients {
    addresses: Vec<String>,
    /// The plan they act on.
    pub plan: Arc<Plan>,
    /// Where they write down what they do and hear.
    pub history: History,
    /// Whether producers go on.
    pub sending: Arc<AtomicBool>,
    /// Producers that have not heard of all they sent.
    producing: Arc<AtomicUsize>,
}

impl Clients {
    /// Starts the clients of a plan.
    pub fn start(sim: &mut Sim<'_>, cluster: &Cluster, plan: &Plan, history: &History) -> Clients {
        let clients = Clients {
            addresses: cluster.addresses(),
            plan: Arc::new(plan.clone()),
            history: history.clone(),
            sending: Arc::new(AtomicBool::new(true)),
            producing: Arc::new(AtomicUsize::new(plan.load.producers as usize)),
        };
        for number in 0..plan.load.producers {
            let own = clients.clone();
            sim.client(format!("producer-{number}"), async move {
                operator::create_topic(&own).await;
                producer::run(&own, number).await;
                own.producing.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            });
        }
        for partition in 0..plan.load.partitions {
            let own = clients.clone();
            sim.client(format!("reader-{partition}"), async move {
                reader::follow(own, partition).await
            });
        }
        clients
    }

    /// Ends the producers, once each has heard of all it sent.
    pub fn stop_sending(&self) {
        self.sending.store(false, Ordering::Relaxed);
    }

    /// Whether a producer still waits for answers.
    pub fn producing(&self) -> bool {
        self.producing.load(Ordering::Relaxed) > 0
    }

    /// Connects, with a seed of its own for each who asks.
    pub async fn connect(&self, who: u64) -> Client {
        let seed = self.plan.seed.rotate_left(17) ^ who;
        until_done("connecting", || {
            Client::builder(self.addresses.clone())
                .connector(|address| async move { turmoil::net::TcpStream::connect(address).await })
                .clock(|| turmoil::since_epoch().map_or(0, |time| time.as_millis() as i64))
                .seed(seed)
                .connect()
        })
        .await
    }
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

/// What a record of this name holds.
pub fn value((producer, number): RecordName, padding_bytes: usize) -> String {
    format!("{producer} {number} {}", "x".repeat(padding_bytes))
}

/// The name of a record that holds this; none if no producer sent it.
pub fn name_of(value: &[u8]) -> Option<RecordName> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
