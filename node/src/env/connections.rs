//! Open connections, counted by port and by address. If a port or an address is full, the connection that was
//! idle for longest is closed to make room.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_tls::PeerCertificate;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ShownCertificate;
use crate::log_limiter::LogLimiter;

/// Time for which a connection without a call is kept: it may be new.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Extra connections beyond the bound, for addresses from which nodes have called.
const RESERVED_FOR_PEERS: usize = 64;
/// Maximum number of such addresses.
const PEER_ADDRESSES: usize = 1_024;

/// Limits on the connections of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionBounds {
    /// Connections in all.
    pub all: usize,
    /// Connections from one address. Nodes are exempt.
    pub per_address: usize,
}

impl ConnectionBounds {
    /// The same bound in all and for each address.
    pub fn of(all: usize) -> ConnectionBounds {
        let per_address = all;
        ConnectionBounds { all, per_address }
    }
}

/// The connections of one listener, and their counters.
#[derive(Debug)]
pub struct Connections {
    bounds: ConnectionBounds,
    table: Mutex<Table>,
    opened: AtomicU64,
    refused: AtomicU64,
    made_room: AtomicU64,
    pub(super) refusals: LogLimiter,
    pub(super) failures: LogLimiter,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Arc<Line>>,
    addresses: BTreeMap<String, Arc<Address>>,
    peers: BTreeSet<String>,
}

/// A remote host, with its connections and calls.
#[derive(Debug, Default)]
struct Address {
    host: String,
    connections: AtomicUsize,
    calls: AtomicUsize,
    is_peer: AtomicBool,
}

/// One connection.
#[derive(Debug)]
struct Line {
    number: u64,
    address: Arc<Address>,
    idle: Mutex<Idle>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Idle {
    calls: usize,
    since: Instant,
}

/// The remote end of a connection, for the services that answer its calls.
#[derive(Clone)]
pub struct Remote {
    line: Arc<Line>,
    listener: Option<Arc<Connections>>,
    certificate: ShownCertificate,
}

/// A call in progress on a connection, until it is dropped.
#[derive(Debug)]
pub struct Call(Arc<Line>);

impl Connections {
    pub(super) fn new(bounds: ConnectionBounds) -> Connections {
        Connections {
            bounds,
            table: Mutex::default(),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            made_room: AtomicU64::new(0),
            refusals: LogLimiter::default(),
            failures: LogLimiter::default(),
        }
    }

    /// Number of open connections, and its limit.
    pub fn open(&self) -> (usize, usize) {
        (self.table.lock().open.len(), self.bounds.all)
    }

    /// Number of accepted connections, and number of those refused.
    pub fn taken(&self) -> (u64, u64) {
        let taken = self.opened.load(Ordering::Relaxed);
        (taken, self.refused.load(Ordering::Relaxed))
    }

    /// Number of connections closed to make room for others.
    pub fn made_room(&self) -> u64 {
        self.made_room.load(Ordering::Relaxed)
    }

    /// Number of suppressed log lines.
    pub fn lines_left_out(&self) -> u64 {
        self.refusals.left_out() + self.failures.left_out()
    }

    /// Accepts a connection; `None` if there is no room for it.
    pub(super) fn admit(self: &Arc<Self>, from: &str, cut: &CancellationToken) -> Option<Remote> {
        let host = host(from);
        let mut table = self.table.lock();
        let is_peer = table.peers.contains(host);
        let of_host = table.addresses.get(host);
        let of_host = of_host.map_or(0, |found| found.connections.load(Ordering::Relaxed));
        let has_room = (is_peer
            || of_host < self.bounds.per_address
            || self.make_room(&mut table, Some(host)))
            && (table.open.len() < self.bounds.all
                || self.make_room(&mut table, None)
                || (is_peer && table.open.len() < self.bounds.all + RESERVED_FOR_PEERS));
        if !has_room {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(Remote {
            line: table.add(host, is_peer, cut.child_token()),
            listener: Some(self.clone()),
            certificate: ShownCertificate::default(),
        })
    }

    /// Closes the connection that was idle for longest, of this host or of any. False if none is idle.
    fn make_room(&self, table: &mut Table, host: Option<&str>) -> bool {
        let now = Instant::now();
        let idle_since = |line: &Arc<Line>| {
            let idle = line.idle.lock();
            (idle.calls == 0 && now >= idle.since + IDLE_AFTER).then_some(idle.since)
        };
        let of_host = |line: &&Arc<Line>| host.is_none_or(|host| line.address.host == host);
        let lines = table.open.values().filter(of_host);
        let idle = lines.filter_map(|line| Some((idle_since(line)?, line.number)));
        let Some((_, longest)) = idle.min() else {
            return false;
        };
        if let Some(line) = table.remove(longest) {
            self.made_room.fetch_add(1, Ordering::Relaxed);
            line.cut.cancel();
        }
        true
    }
}

impl Table {
    fn add(&mut self, host: &str, is_peer: bool, cut: CancellationToken) -> Arc<Line> {
        let address = self.addresses.entry(host.to_owned()).or_insert_with(|| {
            Arc::new(Address {
                host: host.to_owned(),
                is_peer: AtomicBool::new(is_peer),
                ..Address::default()
            })
        });
        address.connections.fetch_add(1, Ordering::Relaxed);
        self.last += 1;
        let line = Arc::new(Line::new(self.last, address.clone(), cut));
        self.open.insert(self.last, line.clone());
        line
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Line>> {
        let line = self.open.remove(&number)?;
        let before = line.address.connections.fetch_sub(1, Ordering::Relaxed);
        if before == 1 {
            self.addresses.remove(&line.address.host);
        }
        Some(line)
    }
}

impl Line {
    fn new(number: u64, address: Arc<Address>, cut: CancellationToken) -> Line {
        Line {
            number,
            address,
            idle: Mutex::new(Idle {
                calls: 0,
                since: Instant::now(),
            }),
            cut,
        }
    }
}

impl Remote {
    /// The remote end of a connection without a listener, for tests.
    #[cfg(test)]
    pub fn of(from: &str) -> Remote {
        let address = Address {
            host: host(from).to_owned(),
            ..Address::default()
        };
        let line = Line::new(0, Arc::new(address), CancellationToken::new());
        Remote {
            line: Arc::new(line),
            listener: None,
            certificate: ShownCertificate::default(),
        }
    }

    /// The same remote end, whose handshake stores its certificate here.
    pub(super) fn showing(self, certificate: ShownCertificate) -> Remote {
        Remote {
            certificate,
            ..self
        }
    }

    /// Certificate that the remote end presented, and the handshake verified.
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.get()
    }

    /// Begins a call.
    pub fn begin(&self) -> Call {
        self.line.idle.lock().calls += 1;
        self.line.address.calls.fetch_add(1, Ordering::Relaxed);
        Call(self.line.clone())
    }

    /// Begins a call, unless its address has that number of calls in progress. Nodes are exempt.
    pub fn begin_within(&self, calls: usize) -> Option<Call> {
        let address = &self.line.address;
        let is_exempt = address.is_peer.load(Ordering::Relaxed);
        let has_room = is_exempt || address.calls.load(Ordering::Relaxed) < calls;
        has_room.then(|| self.begin())
    }

    /// Marks the caller as a node. Its address can use the reserve from now on.
    pub fn mark_peer(&self) {
        let address = &self.line.address;
        if address.is_peer.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(listener) = &self.listener {
            let peers = &mut listener.table.lock().peers;
            if peers.len() < PEER_ADDRESSES {
                peers.insert(address.host.clone());
            }
        }
    }

    /// The remote host.
    pub fn host(&self) -> &str {
        &self.line.address.host
    }

    /// Ends the connection.
    pub fn cut(&self, why: &str) {
        if !self.line.cut.is_cancelled() {
            let from = &self.line.address.host;
            tracing::debug!(from, why, "connection closed by this node");
            self.line.cut.cancel();
        }
    }

    /// True if this node ended the connection.
    pub fn is_cut(&self) -> bool {
        self.line.cut.is_cancelled()
    }

    /// Completes once this node ends the connection.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.line.cut.clone().cancelled_owned()
    }

    /// Removes the closed connection from its listener.
    pub(super) fn leaves(&self) {
        if let Some(listener) = &self.listener {
            listener.table.lock().remove(self.line.number);
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.line.address.host)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.address.calls.fetch_sub(1, Ordering::Relaxed);
        let mut idle = self.0.idle.lock();
        idle.calls -= 1;
        idle.since = Instant::now();
    }
}

/// The address without its port.
fn host(from: &str) -> &str {
    from.rsplit_once(':').map_or(from, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(all: usize, per_address: usize) -> (Arc<Connections>, CancellationToken) {
        let bounds = ConnectionBounds { all, per_address };
        let connections = Connections::new(bounds);
        (Arc::new(connections), CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_its_share_and_leaves_the_rest_to_others() {
        let (listener, cut) = listener(10, 5);
        let busy: Vec<_> = (0..5)
            .map(|port| {
                listener
                    .admit(&format!("10.0.0.1:{port}"), &cut)
                    .expect("room")
            })
            .map(|caller| (caller.begin(), caller))
            .collect();
        tokio::time::advance(IDLE_AFTER * 2).await;
        assert!(listener.admit("10.0.0.1:9", &cut).is_none());
        assert!(listener.admit("10.0.0.2:9", &cut).is_some());
        assert!(busy.iter().all(|(_, caller)| !caller.is_cut()));
        assert_eq!((listener.open(), listener.taken()), ((6, 10), (6, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_the_longest_idle_makes_room() {
        let (listener, cut) = listener(3, 3);
        let admit = |from| listener.admit(from, &cut);
        let (first, second) = (admit("a:1").expect("room"), admit("b:1").expect("room"));
        let _third = admit("c:1").expect("room");
        assert!(admit("d:1").is_none(), "each may have only just begun");
        tokio::time::advance(IDLE_AFTER).await;
        // It has made a call since.
        drop(first.begin());
        tokio::time::advance(IDLE_AFTER).await;
        let busy = first.begin();
        admit("d:1").expect("room");
        assert!(second.is_cut() && !first.is_cut());
        second.leaves();
        assert_eq!((listener.open(), listener.made_room()), ((3, 3), 1));
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_find_room_when_everybody_else_is_busy() {
        let (listener, cut) = listener(2, 1);
        let node = listener.admit("n:1", &cut).expect("room");
        node.mark_peer();
        let client = listener.admit("a:1", &cut).expect("room");
        let _busy = (node.begin(), client.begin());
        tokio::time::advance(IDLE_AFTER * 2).await;
        assert!(listener.admit("b:1", &cut).is_none());
        assert!(listener.admit("n:2", &cut).is_some());
    }
}
