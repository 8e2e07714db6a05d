//! One running replica, from its start to its stop.

use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use ropewalk_machines::Machine;
use ropewalk_proto::ids::ReplicaId;
use ropewalk_raft_store::{
    PurgeError, Raft, RaftNode, Replica as Opened, ReplicaReader, StoreError, TypeConfig,
    purge_to_boundary,
};

use super::config::raft_config;
use super::leadership;
use crate::config::Limits;
use crate::peer::{Networks, ReplicaRouter};

/// Maximum time that a stopping replica waits for its tasks and its Raft.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Reason that a replica could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log or state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log was found damaged when its Raft started.
    #[error("replica is damaged: {0}")]
    Damaged(String),
    /// Its Raft did not start.
    #[error(transparent)]
    Raft(#[from] Fatal<TypeConfig>),
}

impl StartError {
    /// Returns a description of the damage, if that is the reason.
    pub fn damage(&self) -> Option<&str> {
        match self {
            StartError::Store(error) => error.damage(),
            StartError::Damaged(why) => Some(why),
            StartError::Raft(_) => None,
        }
    }
}

/// One running replica of a group. Clones share it.
#[derive(Debug)]
pub struct Replica<M: Machine> {
    /// Its id.
    pub id: ReplicaId,
    /// Its Raft.
    pub raft: Raft<M>,
    /// Its log and its applied state.
    pub view: ReplicaReader<M>,
    inbound: ReplicaRouter,
}

impl<M: Machine> Clone for Replica<M> {
    fn clone(&self) -> Replica<M> {
        Replica {
            id: self.id,
            raft: self.raft.clone(),
            view: self.view.clone(),
            inbound: self.inbound.clone(),
        }
    }
}

impl<M: Machine> Replica<M> {
    /// Starts the Raft of an opened replica, and lets its peers call it. `name` shows in openraft's logs.
    ///
    /// # Errors
    /// [`StartError::Damaged`] if Raft did not start because of damage, else [`StartError::Raft`].
    pub async fn start(
        opened: Opened<M>,
        networks: Networks,
        inbound: &ReplicaRouter,
        limits: &Limits,
        name: &str,
    ) -> Result<Replica<M>, StartError> {
        let Opened { log, state, view } = opened;
        let (group, id) = (view.group(), view.replica());
        let config = raft_config(limits, name);
        let raft = Raft::new(id, config, networks, log, state).await;
        let raft = raft.map_err(|error| match view.damage().borrow().clone() {
            Some(why) => StartError::Damaged(why),
            None => StartError::Raft(error),
        })?;
        inbound.register(group, id, raft.clone());
        Ok(Replica {
            id,
            raft,
            view,
            inbound: inbound.clone(),
        })
    }

    /// Calls `look` with Raft's current metrics.
    pub fn with_metrics<R>(&self, look: impl FnOnce(&RaftMetrics<TypeConfig>) -> R) -> R {
        look(&self.raft.metrics().borrow_watched())
    }

    /// Returns true if this replica leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    /// Node of the group's leader, as far as this replica knows.
    pub fn leader(&self) -> Option<RaftNode> {
        let leader = self.with_metrics(leadership::leader);
        leader.map(|(_, broker)| broker)
    }

    /// Purges the log up to the newest checkpoint that allows it, and returns the index of that checkpoint;
    /// `None` if there is nothing to purge. `limit` bounds each of the two steps.
    pub async fn purge(&self, limit: Duration) -> Result<Option<u64>, PurgeError> {
        purge_to_boundary(&self.raft, &self.view, limit).await
    }

    /// Completes once the replica is found damaged, and returns the damage.
    pub async fn damaged(&self) -> String {
        let mut damage = self.view.damage();
        let found = damage.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| found.clone());
        found.unwrap_or_default()
    }

    /// Takes this damaged replica out of its group: peers no longer reach it, and it starts no election.
    pub fn withdraw(&self) {
        self.close();
        leadership::stand_down(&self.raft);
    }

    /// Completes once the Raft core has ended. Returns true if it ended without an error, as after a panic.
    pub async fn ended(&self) -> bool {
        let mut role = self.raft.server_metrics();
        while role.changed().await.is_ok() {}
        self.with_metrics(|metrics| metrics.running_state.is_ok())
    }

    /// Stops calls by peers. Calls without an answer get an error.
    pub fn close(&self) {
        self.inbound.deregister(self.id);
    }

    /// Stops calls by peers, and then Raft. Data on the disk stays. The error is a description of how the Raft
    /// core ended.
    pub async fn stop(&self) -> Result<(), String> {
        self.close();
        let stopped = self.raft.shutdown().await;
        stopped.map_err(|error| error.to_string())
    }
}
