//! The other nodes, by address.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ropewalk_proto::ids::{GroupId, NodeId, ReplicaId};
use ropewalk_raft_store::Broker;
use tonic::transport::Channel;

use super::allowance::Allowance;
use super::lane::{Kind, Lane};
use super::network::Networks;
use super::{PEERS, call_timeout, gate};
use crate::config::Limits;
use crate::env::Net;
use crate::metrics::PeerTraffic;

/// All connections to other nodes: one an address, made when it is first used, shared by all
/// groups and by whoever else has something to say to that node.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<dyn Net>,
    limits: Limits,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
    rebalancing: Allowance,
    addresses: RwLock<Addresses>,
    traffic: Arc<PeerTraffic>,
}

/// Addresses of the nodes.
#[derive(Default)]
struct Addresses {
    /// The address of each node's last registration.
    registered: BTreeMap<NodeId, String>,
    /// Addresses at which nodes were met that have not registered there yet.
    met: BTreeMap<NodeId, String>,
}

/// One address: a connection and the lanes on it.
pub(super) struct Peer {
    pub(super) channel: Channel,
    call_timeout: Duration,
    data: OnceLock<Lane>,
    heartbeat: OnceLock<Lane>,
}

impl Peers {
    /// No connections yet.
    pub fn new(net: Arc<dyn Net>, limits: &Limits) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                net,
                limits: limits.clone(),
                peers: Mutex::default(),
                rebalancing: Allowance::new(limits.rebalance_bytes_per_s),
                addresses: RwLock::default(),
                traffic: Arc::default(),
            }),
        }
    }

    /// The connection to the node at `address` (host:port). A dead node's calls fail at once, with
    /// status `Unavailable`; the caller bounds how long a live one may take.
    pub fn channel(&self, address: &str) -> Channel {
        self.peer(address).channel.clone()
    }

    /// What is counted of the way to them.
    pub fn traffic(&self) -> &PeerTraffic {
        &self.inner.traffic
    }

    /// What replica `from` of `group` speaks to its peers through.
    pub fn network(&self, group: GroupId, from: ReplicaId) -> Networks {
        Networks::new(self.clone(), group, from)
    }

    /// Where the nodes are from now on. A node that is not named is looked for where its group's
    /// membership says.
    pub fn found_at(&self, addresses: BTreeMap<NodeId, String>) {
        let mut known = self.inner.addresses.write();
        let Addresses { registered, met } = &mut *known;
        // A node that has registered elsewhere since is there by now.
        met.retain(|node, _| registered.get(node) == addresses.get(node));
        *registered = addresses;
    }

    /// A node of the cluster has answered at this address, whatever the metadata says: it is reached there
    /// until it registers somewhere.
    pub fn met_at(&self, node: NodeId, address: &str) {
        let mut known = self.inner.addresses.write();
        if known.address_of(node, "") != address {
            tracing::info!(%node, address, "a node was met where it has not registered yet");
            known.met.insert(node, address.to_owned());
        }
    }

    /// Address of a node; `otherwise` if nothing is known of it.
    pub fn address_of(&self, node: NodeId, otherwise: &str) -> String {
        let addresses = self.inner.addresses.read();
        addresses.address_of(node, otherwise).to_owned()
    }

    pub(super) fn peer_of(&self, node: &Broker) -> Arc<Peer> {
        let addresses = self.inner.addresses.read();
        self.peer(addresses.address_of(node.node_id, &node.address))
    }

    /// How fast replicas that do not vote yet are brought up.
    pub(super) fn rebalancing(&self) -> &Allowance {
        &self.inner.rebalancing
    }

    /// Bound of one call to a peer.
    pub(super) fn call_timeout(&self) -> Duration {
        call_timeout(&self.inner.limits)
    }

    /// The most bytes of a checkpoint that is sent.
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
            channel: gate::channel(self.inner.net.clone(), address, limits),
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
    pub(super) fn lane(&self, kind: Kind) -> &Lane {
        let lane = match kind {
            Kind::Data => &self.data,
            Kind::Heartbeat => &self.heartbeat,
        };
        lane.get_or_init(|| Lane::new(kind, self.channel.clone(), self.call_timeout * 2))
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
