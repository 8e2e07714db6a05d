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
    /// Where each node said it is when it last started.
    addresses: RwLock<BTreeMap<NodeId, String>>,
    traffic: Arc<PeerTraffic>,
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
        *self.inner.addresses.write() = addresses;
    }

    pub(super) fn peer_of(&self, node: &Broker) -> Arc<Peer> {
        let addresses = self.inner.addresses.read();
        self.peer(addresses.get(&node.node_id).unwrap_or(&node.address))
    }

    /// How fast replicas that do not vote yet are brought up.
    pub(super) fn rebalancing(&self) -> &Allowance {
        &self.inner.rebalancing
    }

    /// Bound of one call to a peer.
    pub(super) fn call_timeout(&self) -> Duration {
        call_timeout(&self.inner.limits)
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
