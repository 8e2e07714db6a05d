//! The store of a node: its own small values, and its replicas.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ropewalk_machines::machine::{Machine, MachineError};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use tokio::sync::{Mutex, watch};

use crate::checksum;
use crate::committer::{CommitCounters, Committer, CommitterOptions, DiskStatus, Durability};
use crate::disk::{Change, ChangeBatch, Disk, DiskError};
use crate::keys::{self, Key};
use crate::log::{NodeDisk, ReplicaLog};
use crate::log_cache::LogCacheBudget;
use crate::open;
use crate::openraft_log::LogStore;
use crate::openraft_state_machine::StateMachine;
use crate::reader::ReplicaReader;
use crate::scrub::Scrub;
use crate::traces::Traces;
use crate::values;

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bounds of the committer.
    pub committer: CommitterOptions,
    /// Memory for the newest entries of all replicas together. Entries that are not synced yet stay beyond
    /// it; the committer's queue bounds them.
    pub tail_bytes: usize,
    /// Maximum bytes of log read at once, unless a single entry is larger. One AppendEntries carries as
    /// much.
    pub read_bytes: usize,
    /// Bytes of log per byte of the checkpoint that follows them, unless the checkpoint is small. With 0,
    /// every checkpoint that a machine asks for is written.
    pub checkpoint_factor: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            committer: CommitterOptions::default(),
            tail_bytes: 64 << 20,
            read_bytes: 1 << 20,
            checkpoint_factor: 4,
        }
    }
}

/// Reason that a replica could not be opened, or a value not be stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A disk error. If it is damage, the replica must be destroyed and replaced under another id.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The machine can't continue from the state on the disk.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The replica was found damaged before and must not run again.
    #[error("replica {replica} is set aside as damaged: {why}")]
    Quarantined {
        /// The replica.
        replica: ReplicaId,
        /// The damage that was found.
        why: String,
    },
    /// The replica id belongs to another group.
    #[error("replica {replica} belongs to group {is}, and cannot be opened for group {asked}")]
    OtherGroup {
        /// The replica.
        replica: ReplicaId,
        /// The replica's group.
        is: GroupId,
        /// The requested group.
        asked: GroupId,
    },
}

impl StoreError {
    /// Description of the damage; `None` if this error is another one.
    pub fn damage(&self) -> Option<&str> {
        match self {
            StoreError::Disk(DiskError::Damaged(what))
            | StoreError::Machine(MachineError::Damaged(what))
            | StoreError::Quarantined { why: what, .. } => Some(what),
            _ => None,
        }
    }
}

/// The store of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    node: Arc<NodeDisk>,
    replicas: Arc<Mutex<Open>>,
    known: Arc<parking_lot::Mutex<BTreeMap<ReplicaId, GroupId>>>,
}

/// Open replicas, so that no replica is written through two handles.
type Open = BTreeMap<ReplicaId, Weak<ReplicaLog>>;

/// The handles of one replica, for its Raft group and its readers.
#[derive(Debug)]
pub struct Replica<M> {
    /// For openraft.
    pub log: LogStore,
    /// For openraft.
    pub state: StateMachine<M>,
    /// For everyone else.
    pub view: ReplicaReader<M>,
}

impl Store {
    /// Reads the replicas recorded on a disk, and starts its committer.
    pub async fn open(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Store, StoreError> {
        let known = open::records(disk.as_ref()).await?;
        let committer = Committer::start(Arc::clone(&disk), options.committer.clone());
        let node = NodeDisk {
            disk,
            committer,
            tails: LogCacheBudget::new(options.tail_bytes as u64),
            traces: Traces::default(),
            options,
        };
        Ok(Store {
            node: Arc::new(node),
            replicas: Arc::default(),
            known: Arc::new(parking_lot::Mutex::new(known)),
        })
    }

    /// Current status of the disk.
    pub fn disk_status(&self) -> watch::Receiver<DiskStatus> {
        self.node.committer.status()
    }

    /// First damage found in the database as a whole, rather than in one replica. The node can't continue
    /// with it.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.node.committer.damage()
    }

    /// A scrub of the node's own values and of its replicas' records.
    pub fn scrub(&self) -> Scrub {
        let node = Arc::clone(&self.node);
        let disk = Arc::clone(&node.disk);
        let note = move |what: &str| node.committer.note_damage(what);
        Scrub::new(disk, keys::of_node(), Arc::new(note))
    }

    /// Bytes that wait for the committer or are being written, and the limit.
    pub fn queued_bytes(&self) -> (usize, usize) {
        self.node.committer.queued_bytes()
    }

    /// Traces of the sampled batches on their way to the disk.
    pub fn traces(&self) -> &Traces {
        &self.node.traces
    }

    /// Counters of the committer, for metrics.
    pub fn counters(&self) -> &CommitCounters {
        self.node.committer.counters()
    }

    /// Reads a small value of the node; `None` if it was never stored.
    pub async fn get_local(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let key = Key::Local(Bytes::copy_from_slice(name.as_bytes())).encode();
        let found = self.node.disk.get(key.clone()).await;
        let value = found.and_then(|found| {
            let opened = found.map(|value| checksum::open(&key, value));
            opened.transpose()
        });
        if let Err(DiskError::Damaged(what)) = &value {
            self.node.committer.note_damage(what);
        }
        Ok(value?)
    }

    /// Stores a small value of the node; synced once this returns.
    pub async fn put_local(&self, name: &str, value: Bytes) -> Result<(), StoreError> {
        let key = Key::Local(Bytes::copy_from_slice(name.as_bytes())).encode();
        let batch = ChangeBatch {
            changes: vec![checksum::put(key, value)],
        };
        Ok(self.node.commit(batch, Durability::Synced).await?)
    }

    /// The replicas on the disk, with their groups.
    pub fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let known = self.known.lock();
        known.iter().map(|(&id, &group)| (group, id)).collect()
    }

    /// Opens a replica, which begins empty if it does not exist. A handle opened before can no longer
    /// write. `machine` must be empty; its state is read from the disk.
    pub async fn open_replica<M: Machine>(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: M,
    ) -> Result<Replica<M>, StoreError> {
        let mut replicas = self.replicas.lock().await;
        self.close_replica(&mut replicas, replica).await;
        if let Some(why) = open::quarantined(self.node.disk.as_ref(), replica).await? {
            return Err(StoreError::Quarantined { replica, why });
        }
        self.record(group, replica).await?;
        let (log, state, view) =
            open::replica(Arc::clone(&self.node), group, replica, machine).await?;
        replicas.insert(replica, Arc::downgrade(&log));
        Ok(Replica {
            log: LogStore::new(log),
            state,
            view,
        })
    }

    /// Marks a damaged replica so that it never runs again: a voter that continues from less than it
    /// acknowledged breaks Raft. Its data stays as it is until the replica is destroyed. A handle opened
    /// before can no longer write. Synced once this returns.
    pub async fn quarantine(&self, replica: ReplicaId, why: &str) -> Result<(), StoreError> {
        let mut replicas = self.replicas.lock().await;
        self.close_replica(&mut replicas, replica).await;
        let batch = ChangeBatch {
            changes: vec![values::put_quarantine(replica, why)],
        };
        Ok(self.node.commit(batch, Durability::Synced).await?)
    }

    /// Deletes a replica and all its data; synced once this returns. Its id must not be used again.
    pub async fn destroy_replica(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut replicas = self.replicas.lock().await;
        self.close_replica(&mut replicas, replica).await;
        let batch = ChangeBatch {
            changes: vec![
                Change::DeleteRange {
                    range: keys::everything(replica),
                },
                Change::Delete {
                    key: Key::Record(replica).encode(),
                },
            ],
        };
        self.node.commit(batch, Durability::Synced).await?;
        self.known.lock().remove(&replica);
        Ok(())
    }

    /// Waits until everything queued is synced, then refuses further writes.
    pub async fn close(&self) {
        self.node.committer.close().await;
    }

    async fn close_replica(&self, replicas: &mut Open, replica: ReplicaId) {
        if let Some(log) = replicas.remove(&replica).and_then(|log| log.upgrade()) {
            log.close().await;
        }
    }

    /// Records the group of a replica, and waits until everything queued before is readable.
    async fn record(&self, group: GroupId, replica: ReplicaId) -> Result<(), StoreError> {
        let is = self.known.lock().get(&replica).copied();
        let changes = match is {
            Some(is) if is != group => {
                return Err(StoreError::OtherGroup {
                    replica,
                    is,
                    asked: group,
                });
            }
            Some(_) => vec![],
            None => vec![values::put_record(replica, group)],
        };
        // Unsynced: the replica's first vote or entry follows it, and is synced.
        let batch = ChangeBatch { changes };
        self.node.commit(batch, Durability::Unsynced).await?;
        self.known.lock().insert(replica, group);
        Ok(())
    }
}
