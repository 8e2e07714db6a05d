//! The connector for one address: it connects, and remembers that the peer is dead.
//!
//! The first caller waits for its attempt. After a failure, callers are refused at once. Attempts continue in
//! the background while there are callers, and the next caller gets a connection that such an attempt made.
//! So callers of a dead machine do not wait for a connect timeout each.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Uri};

use super::backoff::Backoff;
use super::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES, call_timeout};
use crate::config::Limits;
use crate::env::{Connection, Net};

/// Maximum time of an attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum age of a background connection when a caller takes it.
const KEEP_FOUND: Duration = Duration::from_secs(2);

struct Connector {
    net: Arc<dyn Net>,
    address: String,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backoff: Backoff,
    attempt: Option<AbortOnDropHandle<()>>,
    found: Option<(Connection, Instant)>,
}

enum Decision {
    Take(Connection),
    Wait,
    Refuse(String),
}

/// A channel to `address`: one connection, made at its first use, kept alive, and remade after it broke.
/// Calls to a peer that is known to be dead fail quickly.
pub(super) fn channel(net: Arc<dyn Net>, address: &str, limits: &Limits) -> Channel {
    let connector = Arc::new(Connector {
        net,
        address: address.to_owned(),
        timeout: CONNECT_TIMEOUT.min(call_timeout(limits)),
        state: Mutex::default(),
    });
    // An address that is not a URI fails at the first connect, with an error that names it.
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap_or_else(|_| Endpoint::from_static("http://peer"))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(call_timeout(limits))
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        }))
}

impl Connector {
    async fn connect(self: Arc<Self>) -> io::Result<Connection> {
        match self.decide() {
            Decision::Take(connection) => Ok(connection),
            Decision::Refuse(why) => Err(io::Error::new(io::ErrorKind::NotConnected, why)),
            Decision::Wait => {
                let result = attempt(&*self.net, &self.address, self.timeout).await;
                let mut state = self.state.lock();
                match &result {
                    Ok(_) => state.backoff.succeeded(),
                    Err(error) => state.backoff.failed(error.to_string()),
                }
                result
            }
        }
    }

    fn decide(self: &Arc<Self>) -> Decision {
        let mut state = self.state.lock();
        match state.found.take() {
            Some((connection, at)) if at.elapsed() < KEEP_FOUND => {
                return Decision::Take(connection);
            }
            _ => {}
        }
        if state
            .attempt
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            let why = state.backoff.last_failure().unwrap_or("still connecting");
            return Decision::Refuse(why.to_owned());
        }
        if let Some(why) = state.backoff.refusal() {
            return Decision::Refuse(why.to_owned());
        }
        if state.backoff.is_stale() {
            return Decision::Wait;
        }
        let Some(why) = state.backoff.last_failure().map(str::to_owned) else {
            return Decision::Wait;
        };
        let task = tokio::spawn(Connector::look(Arc::downgrade(self)));
        state.attempt = Some(AbortOnDropHandle::new(task));
        Decision::Refuse(why)
    }

    /// One background attempt.
    async fn look(connector: Weak<Connector>) {
        let Some((net, address, timeout)) = connector.upgrade().map(|connector| {
            (
                connector.net.clone(),
                connector.address.clone(),
                connector.timeout,
            )
        }) else {
            return;
        };
        let result = attempt(&*net, &address, timeout).await;
        let Some(connector) = connector.upgrade() else {
            return;
        };
        let mut state = connector.state.lock();
        match result {
            Ok(connection) => {
                state.backoff.succeeded();
                state.found = Some((connection, Instant::now()));
            }
            Err(error) => state.backoff.failed(error.to_string()),
        }
    }
}

async fn attempt(net: &dyn Net, address: &str, bound: Duration) -> io::Result<Connection> {
    let result = timeout(bound, net.connect(address)).await;
    let result = result.unwrap_or_else(|_| {
        let why = format!("no answer within {} ms", bound.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    });
    result.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("connection to {address} failed: {error}"),
        )
    })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connector to {}", self.address)
    }
}
