//! What a node keeps on its disk: its own small values, and its replicas.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use tokio::sync::{Mutex, watch};

use crate::committer::{CommitCounters, Committer, CommitterOptions, DiskStatus, Durability};
use crate::disk::{Batch, Change, Disk, DiskError};
use crate::keys::{self, Key};
use crate::log::LogStore;
use crate::machine::{Machine, MachineError};
use crate::open;
use crate::replica_log::{NodeDisk, ReplicaLog};
use crate::scrub::Scrub;
use crate::sealed;
use crate::small;
use crate::state::StateMachine;
use crate::tail::TailBudget;
use crate::traces::Traces;
use crate::view::ReplicaView;

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The committer's.
    pub committer: CommitterOptions,
    /// Memory for the newest entries of all replicas together. What is not synced yet is kept
    /// whatever this says; the committer's queue bounds that.
    pub tail_bytes: usize,
    /// The most bytes of log read at once, unless a single entry is larger: what one AppendEntries
    /// carries.
    pub read_bytes: usize,
    /// Bytes of log for each byte of a checkpoint that follows them, unless it is small; 0: a checkpoint
    /// wherever a machine asks for one, whatever it costs.
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

/// Why a replica could not be opened, or a value not be kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk; if it is damage, the replica is to be destroyed and made anew under another id.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The state on the disk is none the machine can go on from.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Found damaged before: it must not run again.
    #[error("replica {replica} is in quarantine: {why}")]
    Quarantined {
        /// The replica.
        replica: ReplicaId,
        /// What was found.
        why: String,
    },
    /// A replica id that is taken.
    #[error("replica {replica} is of group {is}, and can't be opened as one of group {asked}")]
    OtherGroup {
        /// The replica.
        replica: ReplicaId,
        /// The group it is of.
        is: GroupId,
        /// The group it was asked for.
        asked: GroupId,
    },
}

impl StoreError {
    /// What is damaged, if this is damage and no other trouble.
    pub fn damage(&self) -> Option<&str> {
        match self {
            StoreError::Disk(DiskError::Damaged(what))
            | StoreError::Machine(MachineError::Damaged(what))
            | StoreError::Quarantined { why: what, .. } => Some(what),
            _ => None,
        }
    }
}

/// A node's disk. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    node: Arc<NodeDisk>,
    replicas: Arc<Mutex<Open>>,
    known: Arc<parking_lot::Mutex<BTreeMap<ReplicaId, GroupId>>>,
}

/// The replicas that were opened, so that none is written through two handles.
type Open = BTreeMap<ReplicaId, Weak<ReplicaLog>>;

/// One replica, as its Raft group and its readers need it.
#[derive(Debug)]
pub struct Replica<M> {
    /// For openraft.
    pub log: LogStore,
    /// For openraft.
    pub state: StateMachine<M>,
    /// For everybody else.
    pub view: ReplicaView<M>,
}

impl Store {
    /// Starts the committer of a disk, and finds out which replicas are there.
    pub async fn open(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Store, StoreError> {
        let known = open::records(disk.as_ref()).await?;
        let committer = Committer::start(Arc::clone(&disk), options.committer.clone());
        let node = NodeDisk {
            disk,
            committer,
            tails: TailBudget::new(options.tail_bytes as u64),
            traces: Traces::default(),
            options,
        };
        Ok(Store {
            node: Arc::new(node),
            replicas: Arc::default(),
            known: Arc::new(parking_lot::Mutex::new(known)),
        })
    }

    /// What the disk is good for right now.
    pub fn disk_status(&self) -> watch::Receiver<DiskStatus> {
        self.node.committer.status()
    }

    /// What of the database as a whole, and not of one replica, was found damaged, once something
    /// was: the node can't go on with it.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.node.committer.damage()
    }

    /// A pass over what is stored of the node itself.
    pub fn scrub(&self) -> Scrub {
        let node = Arc::clone(&self.node);
        let disk = Arc::clone(&node.disk);
        let note = move |what: &str| node.committer.note_damage(what);
        Scrub::new(disk, keys::of_node(), Arc::new(note))
    }

    /// Bytes that wait for the committer or are being written, and how many may.
    pub fn queued_bytes(&self) -> (usize, usize) {
        self.node.committer.queued_bytes()
    }

    /// The batches on their way to the disk that are followed.
    pub fn traces(&self) -> &Traces {
        &self.node.traces
    }

    /// What the committer has done, for metrics.
    pub fn counters(&self) -> &CommitCounters {
        self.node.committer.counters()
    }

    /// A small value of the node, if it was ever put.
    pub async fn get_local(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let key = Key::Local(Bytes::copy_from_slice(name.as_bytes())).encode();
        let found = self.node.disk.get(key.clone()).await;
        let value = found.and_then(|found| {
            let opened = found.map(|value| sealed::open(&key, value));
            opened.transpose()
        });
        if let Err(DiskError::Damaged(what)) = &value {
            self.node.committer.note_damage(what);
        }
        Ok(value?)
    }

    /// Keeps a small value of the node; synced once this returns.
    pub async fn put_local(&self, name: &str, value: Bytes) -> Result<(), StoreError> {
        let key = Key::Local(Bytes::copy_from_slice(name.as_bytes())).encode();
        let batch = Batch {
            changes: vec![sealed::put(key, value)],
        };
        Ok(self.node.commit(batch, Durability::Synced).await?)
    }

    /// The replicas on the disk, and the group each is of.
    pub fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let known = self.known.lock();
        known.iter().map(|(&id, &group)| (group, id)).collect()
    }

    /// Opens a replica, which begins empty if it is not there. A handle opened before can write no
    /// more. `machine` is to be empty; its state is read from the disk.
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

    /// Marks a replica that was found damaged, so that it never runs again: a voter that goes on
    /// from less than it acknowledged breaks Raft. What it holds stays as it is, until it is
    /// destroyed. A handle opened before can write no more. Synced once this returns.
    pub async fn quarantine(&self, replica: ReplicaId, why: &str) -> Result<(), StoreError> {
        let mut replicas = self.replicas.lock().await;
        self.close_replica(&mut replicas, replica).await;
        let batch = Batch {
            changes: vec![small::put_quarantine(replica, why)],
        };
        Ok(self.node.commit(batch, Durability::Synced).await?)
    }

    /// Forgets a replica and all it held; synced once this returns. Its id must not be used again.
    pub async fn destroy_replica(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut replicas = self.replicas.lock().await;
        self.close_replica(&mut replicas, replica).await;
        let batch = Batch {
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

    /// Takes no more writes, and waits until what was queued is synced.
    pub async fn close(&self) {
        self.node.committer.close().await;
    }

    async fn close_replica(&self, replicas: &mut Open, replica: ReplicaId) {
        if let Some(log) = replicas.remove(&replica).and_then(|log| log.upgrade()) {
            log.close().await;
        }
    }

    /// Writes down which group a replica is of, and waits until all that was queued before is
    /// readable.
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
            None => vec![small::put_record(replica, group)],
        };
        // Unsynced: the replica's first vote or entry comes behind it, and is synced.
        let batch = Batch { changes };
        self.node.commit(batch, Durability::Unsynced).await?;
        self.known.lock().insert(replica, group);
        Ok(())
    }
}
