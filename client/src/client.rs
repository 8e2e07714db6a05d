//! The client: knows the addresses of the cluster, and calls any of its nodes with retries.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use ropewalk_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status};

use crate::admin::Admin;
use crate::backoff::Backoff;
use crate::bootstrap::Bootstrap;
use crate::clock::Clock;
use crate::connections::{Connections, Connector, Node};
use crate::error::{Error, ErrorKind, Result};
use crate::event;
use crate::group::SubscriptionBuilder;
use crate::metadata::{Metadata, Topic};
use crate::producer::ProducerBuilder;
use crate::reader::ReaderBuilder;
#[cfg(doc)]
use crate::record::Record;
use crate::refresh::Refreshes;
use crate::telling::{Telling, more_telling};
use crate::tls::{Secure, Tls};

const SOURCE: &[u8] = b"ropewalk-client";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which the next node is asked for metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which the client looks for an unknown topic: nodes may not know a new topic yet.
const TOPIC_SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Age up to which cached metadata counts as current.
const KNOWN_IS_NEW: Duration = Duration::from_secs(1);

/// A connection to a cluster. Cheap to clone; all clones share one connection per node.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// State shared by all parts of a client.
pub(crate) struct Inner {
    pub connections: Connections,
    pub metadata: Metadata,
    pub refreshes: Refreshes,
    pub clock: Clock,
    pub request_timeout: Duration,
    /// Source of events that set none of their own.
    pub source: Bytes,
    /// Time for which all addresses may refuse the first connection before the client gives up.
    refused_timeout: Duration,
    bootstrap: Vec<String>,
    random: Mutex<SmallRng>,
    /// Index of the address to ask first: the one that answered last.
    preferred: AtomicUsize,
}

/// Builder of a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before connect()"]
pub struct ClientBuilder {
    bootstrap: Bootstrap,
    request_timeout: Duration,
    refused_timeout: Option<Duration>,
    connector: Connector,
    tls: Option<Tls>,
    clock: Clock,
    seed: Option<u64>,
    source: Bytes,
}

impl ClientBuilder {
    /// Maximum duration of one call, including its retries. The default is 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.request_timeout = timeout;
        self
    }

    /// Time for which [`ClientBuilder::connect`] retries while every address refuses the connection, as when
    /// no node runs. The default is the request timeout. Other failures do not count.
    pub fn refused_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.refused_timeout = Some(timeout);
        self
    }

    /// Secures every connection, including those to nodes that the cluster names. The default is plaintext.
    pub fn tls(mut self, tls: Tls) -> ClientBuilder {
        self.tls = Some(tls);
        self
    }

    /// Source of this client's events, unless an event sets its own: a URI reference, as in
    /// `https://example.com/billing` or `/gates/61`. The default is `ropewalk-client`.
    pub fn source(mut self, source: impl Into<String>) -> ClientBuilder {
        self.source = Bytes::from(source.into());
        self
    }

    /// Connects to the cluster through any of its addresses.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid address or an unusable certificate file. `Tls` at once if no
    /// connection to any address can be secured. Otherwise the most telling error of all tries, once the
    /// request timeout is over: a refusal by a node rather than a timeout.
    #[allow(
        clippy::disallowed_methods,
        reason = "a run that is repeated has a seed"
    )]
    pub async fn connect(self) -> Result<Client> {
        let bootstrap = self.bootstrap.addresses()?;
        let random = match self.seed {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => SmallRng::from_os_rng(),
        };
        let connector = match self.tls {
            Some(tls) => self.connector.secured(Secure::open(tls).await?),
            None => self.connector,
        };
        let inner = Inner {
            connections: Connections::new(connector),
            metadata: Metadata::default(),
            refreshes: Refreshes::default(),
            clock: self.clock,
            request_timeout: self.request_timeout,
            refused_timeout: self.refused_timeout.unwrap_or(Duration::MAX),
            source: self.source,
            bootstrap,
            random: Mutex::new(random),
            preferred: AtomicUsize::new(0),
        };
        for address in &inner.bootstrap {
            inner.connections.node(address)?;
        }
        let reached = inner.call(
            "connecting",
            Idempotency::ToRepeat,
            |mut node, within| async move {
                node.cluster_status(bounded(v1::ClusterStatusRequest {}, within))
                    .await
            },
        );
        inner.metadata.learn_nodes(reached.await?);
        Ok(Client {
            inner: Arc::new(inner),
        })
    }
}

/// Seams for simulation. Applications leave them alone, except for a tunnel.
impl ClientBuilder {
    /// Connects with this function of an address, `host:port`, instead of TCP: for a tunnel, or a simulated
    /// network.
    pub fn connector<F, Fut, S>(mut self, connect: F) -> ClientBuilder
    where
        F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.connector = self.connector.custom(connect);
        self
    }

    /// Source of record timestamps, in ms since 1970, in place of the machine's clock.
    pub fn clock(mut self, now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> ClientBuilder {
        self.clock = Clock::new(now_ms);
        self
    }

    /// Seed of all random choices, so that a run can be repeated: pauses between retries, the first partition
    /// of keyless records, event ids. By default, the operating system provides it. Clients with the same
    /// seed generate the same ids; their events then need ids of their own.
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.seed = Some(seed);
        self
    }
}

impl Client {
    /// Connects to a cluster through any of these addresses, with the default settings. The addresses are a
    /// string, `host:port,host:port`, or a list of strings.
    ///
    /// # Errors
    /// As for [`ClientBuilder::connect`].
    pub async fn connect(bootstrap: impl Into<Bootstrap>) -> Result<Client> {
        Client::builder(bootstrap).connect().await
    }

    /// Creates a builder with these addresses of the cluster, in the forms that [`Client::connect`] takes.
    pub fn builder(bootstrap: impl Into<Bootstrap>) -> ClientBuilder {
        ClientBuilder {
            bootstrap: bootstrap.into(),
            request_timeout: REQUEST_TIMEOUT,
            refused_timeout: None,
            connector: Connector::default(),
            tls: None,
            clock: Clock::system(),
            seed: None,
            source: Bytes::from_static(SOURCE),
        }
    }

    /// A producer of records to a topic.
    pub fn producer(&self, topic: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.inner.clone(), topic)
    }

    /// A reader of one partition of a topic.
    pub fn reader(&self, topic: &str, partition: u32) -> ReaderBuilder {
        ReaderBuilder::new(self.inner.clone(), topic, partition)
    }

    /// A member of a consumer group, which shares the partitions of its topics.
    pub fn subscribe(&self, group: &str) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.inner.clone(), group)
    }

    /// Generates a unique id for [`Record::event_id`], for callers that must know it before they send the
    /// event. It is a UUID of version 7.
    pub fn event_id(&self) -> String {
        event::new_event_id(&self.inner)
    }

    /// Administration of topics, nodes, leaders and groups.
    pub fn admin(&self) -> Admin {
        Admin::new(self.inner.clone())
    }
}

/// Repeatability of a call whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idempotency {
    ToRepeat,
    OnlyOnce,
}

/// A request that times out after `within`, here and at the node.
pub(crate) fn bounded<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    request
}

impl Inner {
    /// Draws a seed for one part of the client.
    pub fn draw(&self) -> u64 {
        self.random.lock().next_u64()
    }

    /// All known addresses, the one that answered last first.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses = self.metadata.addresses();
        for address in &self.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let first = self.preferred.load(Ordering::Relaxed) % addresses.len().max(1);
        addresses.rotate_left(first);
        self.metadata.of_one_cluster(addresses)
    }

    /// Asks nodes one after another until one answers or the request timeout is over.
    pub async fn call<T, F, Fut>(&self, what: &str, safe: Idempotency, call: F) -> Result<T>
    where
        F: Fn(Node, Duration) -> Fut,
        Fut: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let call = |_, node, within| call(node, within);
        self.call_within(what, safe, self.request_timeout, call)
            .await
    }

    async fn call_within<T, F, Fut>(
        &self,
        what: &str,
        safe: Idempotency,
        each: Duration,
        call: F,
    ) -> Result<T>
    where
        F: Fn(String, Node, Duration) -> Fut,
        Fut: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = Backoff::new(self.draw());
        let mut failed = Telling::default();
        let mut refused_since: Option<Instant> = None;
        loop {
            let mut round = Round::default();
            let began = Instant::now();
            for address in self.addresses() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() && (round.error.is_some() || failed.get().is_some()) {
                    break;
                }
                match self.attempt(&address, left.min(each), &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        self.preferred.fetch_add(1, Ordering::Relaxed);
                        let repeat = safe == Idempotency::ToRepeat || !error.outcome_unknown();
                        if !error.is_retryable() || !repeat {
                            return Err(error.context(what));
                        }
                        round.add(error);
                    }
                }
            }
            let mut nowhere = round.nowhere;
            if round.error.is_some() && self.metadata.addresses().is_empty() {
                // If no node could be trusted from the beginning, this client's settings are wrong.
                nowhere |= !round.secure;
                refused_since = refused_since.or(Some(began)).filter(|_| !round.listened);
                // If every machine refuses from the beginning, no node has been started.
                nowhere |= refused_since.is_some_and(|at| at.elapsed() >= self.refused_timeout);
            }
            if let Some(error) = round.error {
                failed.add(error);
            }
            let pause = backoff.pause();
            if nowhere || Instant::now() + pause >= deadline {
                let none = || Error::new(ErrorKind::Timeout, "no node answered");
                let error = failed.get().cloned();
                return Err(error.unwrap_or_else(none).context(what));
            }
            sleep(pause).await;
        }
    }

    async fn attempt<T, F, Fut>(&self, address: &str, within: Duration, call: &F) -> Result<T>
    where
        F: Fn(String, Node, Duration) -> Fut,
        Fut: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let node = self.connections.node(address)?;
        match timeout(within, call(address.to_owned(), node, within)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status, address)),
            Err(_) => Err(timed_out(address, within)),
        }
    }

    /// Metadata, from any node.
    pub async fn metadata_of(&self, request: v1::MetadataRequest) -> Result<v1::MetadataResponse> {
        let ask = |address: String, mut node: Node, within| {
            let request = bounded(request.clone(), within);
            async move {
                let answer = node.metadata(request).await?;
                let cluster_id = &answer.get_ref().cluster_id;
                self.metadata.check_cluster(&address, cluster_id)?;
                Ok(answer)
            }
        };
        self.call_within(
            "asking for metadata",
            Idempotency::ToRepeat,
            METADATA_TIMEOUT,
            ask,
        )
        .await
    }

    /// Checks that the cluster accepts a filter; an empty string is no filter.
    pub async fn check_filter(&self, filter: &str) -> Result<()> {
        if filter.is_empty() {
            return Ok(());
        }
        let ask = |mut node: Node, within| {
            let filter = filter.to_owned();
            let request = bounded(v1::CheckFilterRequest { filter }, within);
            async move { node.check_filter(request).await }
        };
        let asked = self.call("checking the filter", Idempotency::ToRepeat, ask);
        asked.await.map(|_| ())
    }

    /// The topic, which may have been created just now through another node.
    pub async fn topic(self: &Arc<Self>, name: &str) -> Result<Arc<Topic>> {
        if let Some(known) = self.metadata.known_topic(name) {
            return Ok(known);
        }
        let until = Instant::now() + TOPIC_SEEN_WITHIN.min(self.request_timeout);
        let mut backoff = Backoff::new(self.draw());
        loop {
            let found = self.refresh(name).await;
            let unknown = found.as_ref().is_err_and(Error::says_there_is_none);
            if !unknown || Instant::now() >= until {
                return found;
            }
            self.preferred.fetch_add(1, Ordering::Relaxed);
            sleep(backoff.pause()).await;
        }
    }

    /// The topic as the cluster has it now, or the cached topic if no node answers. The topic may have been
    /// deleted and created again since it was cached.
    ///
    /// # Errors
    /// `UnknownTopic`.
    pub async fn topic_as_of_now(self: &Arc<Self>, name: &str) -> Result<Arc<Topic>> {
        let known = self.metadata.known_topic(name);
        let Some(known) = known.filter(|known| !known.is_of_the_last(KNOWN_IS_NEW)) else {
            return self.topic(name).await;
        };
        match self.refresh(name).await {
            Err(error) if error.says_there_is_none() => self.topic(name).await,
            Err(_) => Ok(known),
            found => found,
        }
    }
}

/// One try at each address, none of which succeeded.
#[derive(Default)]
struct Round {
    error: Option<Error>,
    /// The last node asked does not know the topic or partition.
    nowhere: bool,
    /// At least one try failed for a reason other than TLS.
    secure: bool,
    /// At least one try failed for a reason other than a refused connection.
    listened: bool,
}

impl Round {
    fn add(&mut self, error: Error) {
        self.nowhere = error.says_there_is_none();
        self.secure |= error.kind() != ErrorKind::Tls;
        self.listened |= !error.is_refused();
        self.error = Some(more_telling(self.error.take(), error));
    }
}

pub(crate) fn timed_out(address: &str, within: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("{address} did not answer within {within:?}; try again, or raise the timeout"),
    )
    .with_outcome_unknown(true)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("bootstrap", &self.inner.bootstrap)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}
