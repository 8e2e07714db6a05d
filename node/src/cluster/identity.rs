//! This node's identity: drawn once, kept in its own store, never derived from a host name.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use ropewalk_machines::meta::machine::first_replica_id;
use ropewalk_machines::meta::nodes::INCARNATION_BYTES;
use ropewalk_proto::ids::{NodeId, ReplicaId};
use ropewalk_proto::v1::{FoundingNode, NodeIdentity, NodeStart};

use crate::env::Env;

/// The name under which the store keeps it.
pub(super) const STORED_AS: &str = "identity";

/// The identity of a node that is in no cluster yet.
pub(super) fn fresh(env: &Env, address: &str) -> NodeIdentity {
    NodeIdentity {
        incarnation: draw(env, address).to_vec().into(),
        ..NodeIdentity::default()
    }
}

/// A new cluster id.
pub(super) fn draw_cluster_id(env: &Env, address: &str) -> String {
    let bytes = draw(env, &format!("cluster founded by {address}"));
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes. The time is mixed into the seed: a data directory that is emptied and started again with the
/// same seed gets different bytes.
fn draw(env: &Env, purpose: &str) -> [u8; INCARNATION_BYTES] {
    let mixed = purpose.bytes().fold(env.seed, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut key = [0; 32];
    key[..8].copy_from_slice(&env.seed.to_le_bytes());
    key[8..16].copy_from_slice(&mixed.to_le_bytes());
    key[16..24].copy_from_slice(&env.clock.now_ms().to_le_bytes());
    let mut bytes = [0; INCARNATION_BYTES];
    StdRng::from_seed(key).fill_bytes(&mut bytes);
    bytes
}

/// A start of the node at this address, not counted yet.
pub(super) fn draw_start(env: &Env, address: &str) -> NodeStart {
    let bytes = draw(env, &format!("start at {address}"));
    NodeStart {
        count: 0,
        nonce: bytes
            .iter()
            .fold(0, |nonce, byte| nonce << 8 | u64::from(*byte)),
    }
}

/// True if the node has a place in a cluster.
pub(super) fn placed(identity: &NodeIdentity) -> bool {
    !identity.cluster_id.is_empty()
}

/// The identity of one of a cluster's founding nodes; `None` for any other node.
pub(super) fn founding(
    incarnation: &[u8],
    cluster_id: &str,
    plan: &[FoundingNode],
) -> Option<NodeIdentity> {
    let own = plan.iter().find(|node| node.incarnation == incarnation)?;
    Some(NodeIdentity {
        incarnation: own.incarnation.clone(),
        cluster_id: cluster_id.to_owned(),
        node_id: own.node_id,
        meta_replica_id: founding_replica(cluster_id, own).0,
        founding: plan.to_vec(),
    })
}

/// A founding node's replica of the metadata group.
pub(super) fn founding_replica(cluster_id: &str, node: &FoundingNode) -> ReplicaId {
    ReplicaId(first_replica_id(cluster_id).0.wrapping_add(node.node_id))
}

/// The node's id; 0 until it is in a cluster.
pub(super) fn node_id(identity: &NodeIdentity) -> NodeId {
    NodeId(identity.node_id)
}
