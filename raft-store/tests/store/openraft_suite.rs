//! openraft's own test suite for stores, on both disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use ropewalk_machines::machine::MachineError;
use ropewalk_machines::{Applied, Machine, StateWrite};
use ropewalk_proto::command::{Command, Reply};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::disk::rocks::{RocksDisk, RocksOptions};
use ropewalk_raft_store::disk::{Disk, MemoryDisk};
use ropewalk_raft_store::{LogStore, StateMachine, Store, StoreOptions, TypeConfig};

/// Counts the entries it applied, and may be purged up to the last one. So its snapshot is its newest
/// state, as openraft's tests expect.
#[derive(Debug, Default)]
struct Counter {
    count: u64,
    applied: u64,
}

impl Counter {
    const KEY: &[u8] = b"counter";

    fn effect(&self) -> StateWrite {
        StateWrite {
            key: Bytes::from_static(Self::KEY),
            value: Some(self.checkpoint()),
        }
    }

    fn read(&mut self, mut state: Bytes) -> Result<(), MachineError> {
        if state.len() != 16 {
            return Err(MachineError::Damaged("not two numbers".to_string()));
        }
        self.count = state.get_u64();
        self.applied = state.get_u64();
        Ok(())
    }
}

impl Machine for Counter {
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        for (_, value) in effects {
            self.read(value)?;
        }
        assert_eq!(
            self.applied, applied,
            "the effects are those of the position"
        );
        Ok(())
    }

    fn apply(
        &mut self,
        index: u64,
        _term: u64,
        _entry_bytes: u64,
        _command: Option<&Command>,
    ) -> Result<Applied, MachineError> {
        self.count += 1;
        self.applied = index;
        Ok(Applied {
            reply: Reply::Done,
            effects: vec![self.effect()],
            checkpoint: true,
        })
    }

    fn checkpoint(&self) -> Bytes {
        let mut state = BytesMut::new();
        state.put_u64(self.count);
        state.put_u64(self.applied);
        state.freeze()
    }

    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<StateWrite>, MachineError> {
        self.read(checkpoint)?;
        Ok(vec![self.effect()])
    }

    fn purgeable_index(&self) -> u64 {
        self.applied
    }
}

/// A new replica of one store for each test.
struct Builder {
    store: Store,
    next: AtomicU64,
}

impl Builder {
    async fn on(disk: Arc<dyn Disk>) -> Builder {
        let store = Store::open(disk, StoreOptions::default()).await;
        Builder {
            store: store.expect("an empty disk opens"),
            next: AtomicU64::new(1),
        }
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine<Counter>> for Builder {
    async fn build(
        &self,
    ) -> Result<((), LogStore, StateMachine<Counter>), StorageError<TypeConfig>> {
        let id = ReplicaId(self.next.fetch_add(1, Ordering::Relaxed));
        let replica = self
            .store
            .open_replica(GroupId(id.0), id, Counter::default())
            .await;
        let replica = replica.expect("a new replica opens");
        Ok(((), replica.log, replica.state))
    }
}

#[tokio::test]
async fn the_store_on_a_memory_disk_is_what_openraft_expects() {
    let builder = Builder::on(Arc::new(MemoryDisk::new())).await;
    Suite::test_all(builder)
        .await
        .expect("every test of the suite");
}

#[tokio::test]
async fn the_store_on_rocksdb_is_what_openraft_expects() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RocksDisk::open(
        directory.path(),
        RocksOptions {
            database_bytes: 32 << 20,
            ..RocksOptions::default()
        },
    );
    let builder = Builder::on(Arc::new(disk.expect("an empty directory opens"))).await;
    Suite::test_all(builder)
        .await
        .expect("every test of the suite");
}
