//! The bytes that checkpoints of a large state cost, compared with their log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorageExt, RaftStateMachine};
use ropewalk_machines::machine::MachineError;
use ropewalk_machines::{Applied, Machine, StateWrite};
use ropewalk_proto::command::{Command, Reply, Stamp};
use ropewalk_raft_store::disk::{Change, ChangeBatch, Disk, DiskError, MemoryDisk};
use ropewalk_raft_store::types::Entry;

use crate::support::{GROUP, REPLICA, TERM, log_id, open_store};

/// The table of 4,000 producers, each with all its remembered batches.
const STATE_BYTES: usize = 2_290 << 10;
const SEGMENT_BYTES: usize = 16 << 10;

/// A machine with a large state that ends a segment with each entry.
#[derive(Debug, Default)]
struct Heavy(u64);

impl Machine for Heavy {
    fn load(&mut self, applied: u64, _: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        self.0 = applied;
        Ok(())
    }

    fn apply(
        &mut self,
        index: u64,
        _: u64,
        _: u64,
        _: Option<&Command>,
    ) -> Result<Applied, MachineError> {
        self.0 = index;
        Ok(Applied {
            reply: Reply::Done,
            effects: Vec::new(),
            checkpoint: true,
        })
    }

    fn checkpoint(&self) -> Bytes {
        vec![0; STATE_BYTES].into()
    }

    fn restore(&mut self, _: Bytes) -> Result<Vec<StateWrite>, MachineError> {
        Ok(Vec::new())
    }

    fn purgeable_index(&self) -> u64 {
        self.0
    }
}

/// Counts the bytes written.
#[derive(Debug, Default)]
struct Scale {
    inner: MemoryDisk,
    written: AtomicU64,
}

impl Disk for Scale {
    reads_of_inner!();

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        for change in &batch.changes {
            if let Change::Put { key, head, body } = change {
                let bytes = key.len() + head.len() + body.len();
                self.written.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }
        self.inner.commit(batch, sync)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.inner.free_bytes()
    }
}

fn segment(index: u64) -> Entry {
    let append = Command::Append {
        stamp: Stamp::default(),
        batch: vec![0; SEGMENT_BYTES].into(),
    };
    Entry {
        log_id: log_id(TERM, index),
        payload: EntryPayload::Normal(append),
    }
}

#[tokio::test]
async fn checkpoints_of_a_large_state_cost_a_quarter_of_the_log_at_most() {
    let disk = Arc::new(Scale::default());
    let store = open_store(disk.clone()).await;
    let replica = store.open_replica(GROUP, REPLICA, Heavy::default()).await;
    let mut replica = replica.expect("the replica opens");
    let segments = 2_000;
    let log_bytes = segments * SEGMENT_BYTES as u64;
    for index in 0..segments {
        let appended = replica.log.blocking_append([segment(index)]).await;
        appended.expect("an append");
        let entries = stream::iter([Ok((segment(index), None))]);
        replica.state.apply(entries).await.expect("it applies");
    }
    let written = disk.written.load(Ordering::Relaxed);
    assert!(written > log_bytes + STATE_BYTES as u64, "none was written");
    assert!(
        written < log_bytes + log_bytes / 4 + log_bytes / 50,
        "{written} bytes written for a log of {log_bytes}"
    );
    let boundary = replica.view.purge_boundary().await.expect("a read");
    assert!(boundary.is_some_and(|index| index + 700 > segments));
}
