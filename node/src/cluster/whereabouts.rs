//! Discovery of other nodes while their addresses in the metadata are wrong: nodes have moved, and too few of
//! them reach each other to register the change. A node asks at all addresses it knows, and gives the found
//! addresses to the transport. It keeps none of them on the disk: once a node has registered, the metadata
//! has its address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use ropewalk_machines::meta::machine::{address_of, state_of};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{HelloAnswer, NodeState};
use tokio::time::sleep;

use super::bootstrap::hello;
use super::context::ClusterContext;
use super::naming;

/// Pause between two rounds of asking while a node is not reached.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The longest pause, after rounds that found no node.
const ASK_RARELY: Duration = Duration::from_secs(4);
/// Maximum number of remembered caller addresses.
const CALLERS: usize = 256;

/// The nodes that do not answer at their known address, and addresses at which they may be.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Nodes whose last report was not answered, or was answered by another node.
    missed: Mutex<BTreeSet<NodeId>>,
    /// Addresses that callers of `Hello` gave as their own.
    callers: Mutex<BTreeSet<String>>,
}

impl Whereabouts {
    /// Records whether the node itself answered at the address used.
    pub fn reached(&self, node: NodeId, itself: bool) {
        let mut missed = self.missed.lock();
        match itself {
            true => missed.remove(&node),
            false => missed.insert(node),
        };
    }

    /// Remembers the address that a caller gave.
    pub fn called_from(&self, address: &str) {
        if naming::check_address("address", address).is_err() {
            return;
        }
        let mut callers = self.callers.lock();
        if callers.len() >= CALLERS && !callers.contains(address) {
            callers.pop_first();
        }
        callers.insert(address.to_owned());
    }
}

/// Asks for the node at each known address, while a node is not reached.
pub(super) async fn look(shared: Arc<ClusterContext>) {
    let mut pause = ASK_EVERY;
    let mut missed = BTreeSet::new();
    loop {
        sleep(pause).await;
        let before = std::mem::replace(&mut missed, shared.whereabouts.missed.lock().clone());
        let found = !missed.is_empty() && ask_all(&shared, &missed).await;
        pause = match found || missed.is_empty() || missed != before {
            true => ASK_EVERY,
            false => (pause * 2).min(ASK_RARELY),
        };
    }
}

/// Asks at all addresses once. True if a missed node has answered.
async fn ask_all(shared: &ClusterContext, missed: &BTreeSet<NodeId>) -> bool {
    let (sought, mut addresses) = known(shared, missed);
    if sought.is_empty() {
        return false;
    }
    addresses.extend(shared.config.seeds.iter().cloned());
    addresses.extend(shared.whereabouts.callers.lock().iter().cloned());
    addresses.remove(&shared.config.advertise);
    let asked = addresses.iter().map(|address| who(shared, address));
    let mut found = false;
    for (address, answer) in join_all(asked).await.into_iter().flatten() {
        if let Some(node) = sought.get(&answer.incarnation) {
            shared.peers.met_at(*node, &address);
            found = true;
        }
    }
    found
}

/// The missed nodes by incarnation, and the addresses of all nodes.
fn known(
    shared: &ClusterContext,
    missed: &BTreeSet<NodeId>,
) -> (BTreeMap<Bytes, NodeId>, BTreeSet<String>) {
    let Ok(meta) = shared.meta() else {
        return Default::default();
    };
    let machine = meta.view.machine();
    let (mut sought, mut addresses) = (BTreeMap::new(), BTreeSet::new());
    for (id, node) in machine.nodes() {
        if state_of(node) == NodeState::Removed {
            continue;
        }
        addresses.insert(address_of(node).to_owned());
        if missed.contains(&id) {
            sought.insert(node.incarnation.clone(), id);
        }
    }
    (sought, addresses)
}

/// The answer of the node of this cluster at an address, with the better address: its own, if that reaches it
/// too.
async fn who(shared: &ClusterContext, address: &str) -> Option<(String, HelloAnswer)> {
    let answer = hello(shared, address).await.ok()?;
    if answer.cluster_id != shared.identity.borrow().cluster_id {
        return None;
    }
    if answer.address == address || naming::check_address("address", &answer.address).is_err() {
        return Some((address.to_owned(), answer));
    }
    let itself = hello(shared, &answer.address).await;
    let itself = itself.is_ok_and(|other| other.incarnation == answer.incarnation);
    let best = match itself {
        true => answer.address.clone(),
        false => address.to_owned(),
    };
    Some((best, answer))
}
