//! A node whose disk fails before the node has its place in a cluster must be restarted, as a serving node
//! must. Until the disk is reopened it persists nothing, and so no place either.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ropewalk_node::env::{SystemClock, TcpNet};
use ropewalk_node::{Config, Env, Ready, RunError};
use ropewalk_raft_store::disk::{ChangeBatch, Disk, DiskError, MemoryDisk, ScanLimit};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A disk that is full after this number of batches.
#[derive(Debug)]
pub struct FullAfter {
    pub disk: Arc<MemoryDisk>,
    pub batches: AtomicU32,
}

impl Disk for FullAfter {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, DiskError>> {
        self.disk.get(key)
    }

    fn scan(
        &self,
        range: Range<Bytes>,
        limit: ScanLimit,
    ) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>, DiskError>> {
        self.disk.scan(range, limit)
    }

    fn last(
        &self,
        range: Range<Bytes>,
    ) -> BoxFuture<'_, Result<Option<(Bytes, Bytes)>, DiskError>> {
        self.disk.last(range)
    }

    fn commit(&self, batch: ChangeBatch, sync: bool) -> BoxFuture<'_, Result<(), DiskError>> {
        match self.batches.load(Ordering::Relaxed).checked_sub(1) {
            Some(left) => {
                self.batches.store(left, Ordering::Relaxed);
                self.disk.commit(batch, sync)
            }
            None => Box::pin(async { Err(DiskError::Full("no space left".to_owned())) }),
        }
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

/// Runs a node until it ends by itself or serves.
async fn run(disk: Arc<dyn Disk>) -> Result<Ready, RunError> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let config = Config {
        advertise: address.clone(),
        listen: address,
        ..Config::default()
    };
    let env = Env {
        clock: Arc::new(SystemClock),
        disk,
        net: Arc::new(TcpNet),
        seed: 1,
        log_lines_lost: || 0,
    };
    let (ready, is_ready) = oneshot::channel();
    let stop = CancellationToken::new();
    let running = ropewalk_node::run(config, env, stop.clone(), ready);
    tokio::pin!(running);
    let ready = tokio::select! {
        ended = &mut running => return Err(ended.expect_err("nobody asked it to end")),
        Ok(ready) = is_ready => ready,
    };
    stop.cancel();
    running.await.expect("it ends well");
    Ok(ready)
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_fills_up_before_it_has_its_place_gets_it_once_started_again() {
    let disk = Arc::new(MemoryDisk::new());
    // The node's identity is persisted, and the cluster it founds is not.
    let full = FullAfter {
        disk: disk.clone(),
        batches: AtomicU32::new(1),
    };
    let ended = run(Arc::new(full)).await;
    assert!(matches!(ended, Err(RunError::DiskFailed(_))), "{ended:?}");
    let ready = run(disk).await.expect("a disk that is well again");
    assert_eq!(ready.node_id, 1);
}
