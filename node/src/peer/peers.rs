//! The other nodes, by address.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_raft_store::RaftNode;
use tonic::transport::Channel;

use super::append_stream::{AppendStream, Kind};
use super::network::Networks;
use super::rate_limiter::RateLimiter;
use super::{PEERS, call_timeout, connector};
use crate::config::Limits;
use crate::env::Net;
use crate::metrics::PeerTraffic;

/// All connections to other nodes: one for each address, made at its first use, and shared by all groups and
/// all other callers.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<dyn Net>,
    limits: Limits,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
    rebalancing: RateLimiter,
    addresses: RwLock<Addresses>,
    traffic: Arc<PeerTraffic>,
}

/// Addresses of the nodes.
#[derive(Default)]
struct Addresses {
    /// The address of each node's last registration.
    registered: BTreeMap<NodeId, String>,
    /// Addresses at which nodes answered without being registered there.
    met: BTreeMap<NodeId, String>,
}

/// One address, with its connection and lanes.
pub(super) struct Peer {
    pub(super) channel: Channel,
    call_timeout: Duration,
    data: OnceLock<AppendStream>,
    heartbeat: OnceLock<AppendStream>,
}

impl Peers {
    /// An empty set of connections.
    pub fn new(net: Arc<dyn Net>, limits: &Limits) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                net,
                limits: limits.clone(),
                peers: Mutex::default(),
                rebalancing: RateLimiter::new(limits.rebalance_bytes_per_s),
                addresses: RwLock::default(),
                traffic: Arc::default(),
            }),
        }
    }

    /// The connection to the node at `address` (host:port). Calls to a dead node fail at once with status
    /// `Unavailable`. The caller bounds the time of calls to a live one.
    pub fn channel(&self, address: &str) -> Channel {
        self.peer(address).channel.clone()
    }

    /// The counters of the traffic to other nodes.
    pub fn traffic(&self) -> &PeerTraffic {
        &self.inner.traffic
    }

    /// The networks for calls from replica `from` of `group`.
    pub fn network(&self, group: GroupId, from: ReplicaId) -> Networks {
        Networks::new(self.clone(), group, from)
    }

    /// Sets the registered addresses of the nodes. For any other node, the address in its group's membership
    /// is used.
    pub fn found_at(&self, addresses: BTreeMap<NodeId, String>) {
        let mut known = self.inner.addresses.write();
        let Addresses { registered, met } = &mut *known;
        // A node that has registered another address since is at that address now.
        met.retain(|node, _| registered.get(node) == addresses.get(node));
        *registered = addresses;
    }

    /// Records that a node of the cluster answered at this address. It overrides the metadata until the node
    /// registers.
    pub fn met_at(&self, node: NodeId, address: &str) {
        let mut known = self.inner.addresses.write();
        if known.address_of(node, "") != address {
            tracing::info!(
                %node,
                address,
                "node reached at an address that it has not registered yet"
            );
            known.met.insert(node, address.to_owned());
        }
    }

    /// The address of a node; `otherwise` if none is known.
    pub fn address_of(&self, node: NodeId, otherwise: &str) -> String {
        let addresses = self.inner.addresses.read();
        addresses.address_of(node, otherwise).to_owned()
    }

    pub(super) fn peer_of(&self, node: &RaftNode) -> Arc<Peer> {
        let addresses = self.inner.addresses.read();
        self.peer(addresses.address_of(node.node_id, &node.address))
    }

    /// The rate limit for entries to learners.
    pub(super) fn rebalancing(&self) -> &RateLimiter {
        &self.inner.rebalancing
    }

    /// Maximum time of one call to a peer.
    pub(super) fn call_timeout(&self) -> Duration {
        call_timeout(&self.inner.limits)
    }

    /// Maximum size of a checkpoint that this node sends.
    pub(super) fn checkpoint_bytes(&self) -> usize {
        self.inner.limits.checkpoint_bytes
    }

    pub(super) fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = self.inner.peers.lock();
        if let Some(peer) = peers.get(address) {
            return peer.clone();
        }
        if peers.len() >= PEERS {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        let limits = &self.inner.limits;
        let peer = Arc::new(Peer {
            channel: connector::channel(self.inner.net.clone(), address, limits),
            call_timeout: call_timeout(limits),
            data: OnceLock::new(),
            heartbeat: OnceLock::new(),
        });
        peers.insert(address.to_owned(), peer.clone());
        peer
    }
}

impl Addresses {
    fn address_of<'a>(&'a self, node: NodeId, otherwise: &'a str) -> &'a str {
        let known = self.met.get(&node).or_else(|| self.registered.get(&node));
        known.map_or(otherwise, String::as_str)
    }
}

impl Peer {
    pub(super) fn append_stream(&self, kind: Kind) -> &AppendStream {
        let lane = match kind {
            Kind::Data => &self.data,
            Kind::Heartbeat => &self.heartbeat,
        };
        lane.get_or_init(|| AppendStream::new(kind, self.channel.clone(), self.call_timeout * 2))
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer")
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = self.inner.peers.lock();
        f.debug_list().entries(peers.keys()).finish()
    }
}
