//! One identity, one living process. A copied data directory makes two processes of one node. The directory
//! counts each start, and a random number distinguishes copies with the same count.
//!
//! Before a node does anything in its cluster, it looks for another process of its own identity. The metadata
//! group decides the cases that the node cannot see, when the node registers. A directory whose start was
//! refused is marked and never runs again: it lacks the other process's later writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prost::Message;
use ropewalk_machines::meta::nodes;
use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::{HelloAnswer, KeptStart};
use ropewalk_raft_store::Store;
use tokio::time::timeout;

use super::bootstrap::hello;
use super::context::{ClusterContext, StartError};
use super::identity;

/// The name under which the store keeps the newest start.
const STORED_AS: &str = "start";
/// The name under which the store keeps the reason why the node must not start again.
const REFUSED_AS: &str = "start-refused";
/// Maximum time to wait for one address in the search for another process of the same identity.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// Fails if an earlier start on this data directory was refused permanently.
pub(super) async fn check_refused(store: &Store) -> Result<(), StartError> {
    match store.get_local(REFUSED_AS).await? {
        Some(why) => Err(StartError::StartedTwice(
            String::from_utf8_lossy(&why).into_owned(),
        )),
        None => Ok(()),
    }
}

/// Marks the data directory so that it is never started again. If the disk fails now, the next start is
/// refused again by the cluster.
pub(super) async fn refuse(store: &Store, why: &str) {
    let kept = store.put_local(REFUSED_AS, why.as_bytes().to_vec().into());
    if let Err(error) = kept.await {
        tracing::error!(%error, "data directory could not be marked as a copy; empty it");
    }
}

/// Looks for another process of this node's identity, then counts this start durably. A node without a
/// cluster only counts. Later calls in the same process do nothing.
pub(super) async fn begin(shared: &Arc<ClusterContext>) -> Result<(), StartError> {
    if shared.start.borrow().count > 0 {
        return Ok(());
    }
    let kept = match shared.store.get_local(STORED_AS).await? {
        Some(bytes) => {
            KeptStart::decode(bytes).map_err(|error| StartError::Identity(error.to_string()))?
        }
        None => KeptStart::default(),
    };
    if identity::placed(&shared.identity())
        && let Some(twin) = look_for_twin(shared, &kept.address).await
    {
        let refused = nodes::started_twice(shared.node_id(), &twin);
        refuse(&shared.store, &refused.message).await;
        return Err(StartError::StartedTwice(refused.message));
    }
    let now = KeptStart {
        count: kept.count.saturating_add(1),
        address: shared.config.advertise.clone(),
    };
    let count = now.count;
    let bytes = now.encode_to_vec().into();
    shared.store.put_local(STORED_AS, bytes).await?;
    shared.start.send_modify(|start| start.count = count);
    Ok(())
}

/// The address at which another process of this node's identity answers. It asks at the previous start's
/// address, at this node's own, and at those that other nodes know.
async fn look_for_twin(shared: &Arc<ClusterContext>, before: &str) -> Option<String> {
    let identity = shared.identity();
    let founders = identity.founding.iter().map(|node| node.address.as_str());
    let seeds = shared.config.seeds.iter().map(String::as_str);
    let own = [before, shared.config.advertise.as_str()];
    let asked: BTreeSet<String> = founders
        .chain(seeds)
        .chain(own)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    let answers = ask(shared, &asked).await;
    let told = answers
        .iter()
        .map(|(_, answer)| answer.known_address.clone());
    let told: BTreeSet<String> = told
        .filter(|address| !address.is_empty() && !asked.contains(address))
        .collect();
    let nonce = shared.start.borrow().nonce;
    let is_twin = |answer: &HelloAnswer| {
        let other = answer.start.is_none_or(|start| start.nonce != nonce);
        answer.incarnation == identity.incarnation && other
    };
    let more = ask(shared, &told).await;
    let mut all = answers.into_iter().chain(more);
    all.find(|(_, answer)| is_twin(answer))
        .map(|(address, _)| address)
}

async fn ask(
    shared: &Arc<ClusterContext>,
    addresses: &BTreeSet<String>,
) -> Vec<(String, HelloAnswer)> {
    let asked = addresses.iter().map(|address| async move {
        let answer = timeout(LOOK_WITHIN, hello(shared, address)).await;
        Some((address.clone(), answer.ok()?.ok()?))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

impl ClusterContext {
    /// Ends this node's process: another process runs under its identity.
    pub async fn supersede(&self, refusal: &WireError) {
        if self.superseded.borrow().is_some() {
            return;
        }
        tracing::error!(error = %refusal, "node runs in another process: this process stops");
        refuse(&self.store, &refusal.message).await;
        self.superseded.send_replace(Some(refusal.message.clone()));
    }
}
