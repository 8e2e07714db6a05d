//! The cluster of a client: nodes of another cluster must not answer for it.
//!
//! Another cluster replaces it only at an address of this cluster, and only if none of its nodes answers
//! between two answers of the other. This is the case after the cluster was wiped and created again.

use std::collections::BTreeMap;

use ropewalk_proto::error::{ErrorCode, WireError};

/// The cluster, and the addresses at which other clusters answered.
#[derive(Debug, Default)]
pub(crate) struct OneCluster {
    id: String,
    /// The address that last answered for this cluster.
    answered_at: String,
    others: BTreeMap<String, Other>,
}

/// The answer of a node of another cluster.
#[derive(Debug, Default)]
struct Other {
    cluster_id: String,
    /// Number of such answers since a node of this client's cluster answered.
    times: u32,
}

impl OneCluster {
    /// Checks an answer. `is_node` is true if the cluster has named this address as a node's.
    ///
    /// # Errors
    /// `NotServing`: another node may answer.
    pub fn check(
        &mut self,
        address: &str,
        cluster_id: &str,
        is_node: bool,
    ) -> Result<(), WireError> {
        if cluster_id.is_empty() {
            return Ok(());
        }
        if self.id.is_empty() || self.id == cluster_id {
            self.others.remove(address);
            self.others.values_mut().for_each(|other| other.times = 0);
            self.answered_at = address.to_owned();
            return Ok(());
        }
        let other = self.others.entry(address.to_owned()).or_default();
        if other.cluster_id != cluster_id {
            *other = Other {
                cluster_id: cluster_id.to_owned(),
                times: 0,
            };
        }
        other.times += 1;
        if other.times > 1 && (is_node || self.answered_at == address) {
            self.answered_at = address.to_owned();
            return Ok(());
        }
        Err(WireError::new(
            ErrorCode::NotServing,
            format!(
                "{address} is of cluster {cluster_id}, and the nodes that answered before are of cluster {}; \
                 give this client addresses of one cluster",
                self.id
            ),
        ))
    }

    /// Adopts the cluster of an answer that passed the check; returns true if it differs from the previous
    /// one.
    pub fn is_now(&mut self, id: String) -> bool {
        let changed = self.id != id;
        if changed {
            self.id = id;
            self.others.clear();
        }
        changed
    }

    /// Drops addresses of other clusters. Addresses that also belong to this cluster come last.
    pub fn sort(&self, addresses: Vec<String>, is_node: impl Fn(&String) -> bool) -> Vec<String> {
        let is_other = |address: &String| self.others.contains_key(address);
        let (mut others, mut addresses): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(is_other);
        others.retain(|other| is_node(other) || self.answered_at == *other);
        addresses.extend(others);
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_counts_only_where_this_one_was_and_is_no_longer() {
        let mut cluster = OneCluster::default();
        let is_node = |address: &String| address.starts_with("node");
        fn answers(cluster: &mut OneCluster, address: &str, id: &str) -> bool {
            let is_node = address.starts_with("node");
            cluster.check(address, id, is_node).is_ok()
        }
        assert!(answers(&mut cluster, "first:1", "a"));
        assert!(cluster.is_now("a".to_owned()));
        // The client never switches to another cluster at a bootstrap address.
        for _ in 0..3 {
            assert!(!answers(&mut cluster, "wrong:1", "b"));
        }
        let addresses = ["wrong:1", "first:1"].map(str::to_owned).to_vec();
        assert_eq!(cluster.sort(addresses.clone(), is_node), ["first:1"]);
        // One node was moved to another cluster; the others still answer.
        assert!(!answers(&mut cluster, "node-1:1", "b"));
        assert!(answers(&mut cluster, "node-2:1", "a"));
        assert!(!answers(&mut cluster, "node-1:1", "b"));
        assert!(
            answers(&mut cluster, "node-1:1", "b"),
            "nobody else answers"
        );
        assert!(cluster.is_now("b".to_owned()));
        assert!(answers(&mut cluster, "wrong:1", "b"));
        assert!(!answers(&mut cluster, "first:1", "a"));
        assert_eq!(cluster.sort(addresses, is_node), ["wrong:1"]);
    }
}
