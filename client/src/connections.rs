//! One connection a node: HTTP/2, multiplexed, made when first used and again when it broke.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::error::{Error, Result};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A silent connection is asked for a sign of life this often.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Without a sign of life for this long it is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes of one answer: what a node returns to one fetch at most, the largest batch there
/// can be, and room for its envelope.
const MAX_ANSWER_BYTES: usize = 72 << 20;
/// What a node may send on one connection, and on one stream of it, before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Addresses kept; past that those in nobody's use make room.
const ADDRESSES: usize = 4_096;

type Open = dyn Fn(&Endpoint, String) -> Channel + Send + Sync;

/// How connections are made: through the operating system, or as the builder was told.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Open>);

impl Connector {
    pub fn tcp() -> Connector {
        Connector(Arc::new(|endpoint, _| endpoint.connect_lazy()))
    }

    pub fn custom<F, Fut, S>(connect: F) -> Connector
    where
        F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Connector(Arc::new(move |endpoint, address| {
            let connect = connect.clone();
            endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let connecting = connect(address.clone());
                async move { connecting.await.map(TokioIo::new) }
            }))
        }))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// All connections of a client, by address.
#[derive(Debug)]
pub(crate) struct Connections {
    connector: Connector,
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// The calls a node answers.
pub(crate) type Node = RopewalkClient<Channel>;

impl Connections {
    pub fn new(connector: Connector) -> Connections {
        Connections {
            connector,
            channels: Mutex::default(),
        }
    }

    /// The node at `address`, host:port. Whether it can be reached shows at the first call.
    pub fn node(&self, address: &str) -> Result<Node> {
        let channel = self.channel(address)?;
        Ok(RopewalkClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    fn channel(&self, address: &str) -> Result<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = (self.connector.0)(&endpoint(address)?, address.to_owned());
        if channels.len() >= ADDRESSES {
            // Whoever still uses them keeps them; they are only no longer found here.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn endpoint(address: &str) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        Error::invalid(format!(
            "{address:?} is no address ({error}); give host:port"
        ))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .tcp_nodelay(true))
}
