//! One HTTP/2 connection per node: multiplexed, opened on first use, and reopened after a failure.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{ServiceExt, service_fn};

use crate::error::{Error, Result};
use crate::tls::Secure;

/// Time limit of a connection attempt; it allows for one lost packet to be sent again. A dead machine does
/// not refuse connections, so a publish to a leader there waits this long.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Interval of keep-alive pings on a silent connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an unanswered ping closes the connection. A dead machine does not close its connections.
/// A publish to it stalls for this timeout and the interval, together less than 3 s.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Maximum size of one answer: the most that a node returns to one fetch, the largest batch, and the
/// envelope.
const MAX_ANSWER_BYTES: usize = 72 << 20;
/// Bytes that a node may send before they are read, per connection and per stream.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Maximum number of cached addresses; past it, the cache is cleared.
const ADDRESSES: usize = 4_096;

type Dial = dyn Fn(String) -> BoxFuture<'static, io::Result<Stream>> + Send + Sync;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}
type Stream = Box<dyn Bytes>;

/// The way connections are made: through the operating system or the builder's function, plain or with TLS.
#[derive(Clone, Default)]
pub(crate) struct Connector {
    dial: Option<Arc<Dial>>,
    secure: Option<Arc<Secure>>,
}

impl Connector {
    pub fn custom<F, Fut, S>(self, connect: F) -> Connector
    where
        F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let dial = move |address| {
            let connecting = connect(address);
            async move { connecting.await.map(|stream| Box::new(stream) as Stream) }.boxed()
        };
        Connector {
            dial: Some(Arc::new(dial)),
            ..self
        }
    }

    pub fn secured(self, secure: Secure) -> Connector {
        Connector {
            secure: Some(Arc::new(secure)),
            ..self
        }
    }

    fn open(&self, endpoint: &Endpoint, address: String) -> Channel {
        if self.dial.is_none() && self.secure.is_none() {
            return endpoint.connect_lazy();
        }
        let connector = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move { connector.connect(uri, address).await.map(TokioIo::new) }
        }))
    }

    async fn connect(&self, uri: Uri, address: String) -> io::Result<Stream> {
        let stream = match &self.dial {
            Some(dial) => dial(address.clone()).await?,
            None => tcp(uri).await?,
        };
        match &self.secure {
            Some(secure) => Ok(Box::new(secure.dial(stream, &address).await?)),
            None => Ok(stream),
        }
    }

    /// The URI scheme of a node's address.
    fn scheme(&self) -> &'static str {
        match self.secure {
            Some(_) => "https",
            None => "http",
        }
    }
}

/// A TCP connection of the operating system.
async fn tcp(uri: Uri) -> io::Result<Stream> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let connected = connector.oneshot(uri).await.map_err(io::Error::other)?;
    Ok(Box::new(connected.into_inner()))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Connections {
    connector: Connector,
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// A gRPC client of one node.
pub(crate) type Node = RopewalkClient<Channel>;

impl Connections {
    pub fn new(connector: Connector) -> Connections {
        Connections {
            connector,
            channels: Mutex::default(),
        }
    }

    /// The node at `address`, `host:port`. The first call shows whether the node is reachable.
    pub fn node(&self, address: &str) -> Result<Node> {
        let channel = self.channel(address)?;
        Ok(RopewalkClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    fn channel(&self, address: &str) -> Result<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = self
            .connector
            .open(&self.endpoint(address)?, address.to_owned());
        if channels.len() >= ADDRESSES {
            // Existing users keep their channels; only this cache forgets them.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint> {
        let none = |error: &dyn fmt::Display| {
            Error::invalid(format!(
                "{address:?} is no address ({error}); give host:port, without a scheme"
            ))
        };
        if address.contains("://") {
            return Err(none(&"it begins with a scheme"));
        }
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| none(&error))?;
        let origin = format!("{}://{address}", self.connector.scheme());
        let origin = Uri::try_from(origin).map_err(|error| none(&error))?;
        Ok(endpoint
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .tcp_nodelay(true))
    }
}
