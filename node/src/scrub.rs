//! Reads all stored data of this node slowly, again and again, to find damage. The owner of the damaged data
//! handles it like any other damage; nothing is decided here.

use std::time::Duration;

use ropewalk_raft_store::{DiskError, Scrub, Store};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::partition::ReplicaManager;

/// Longest pause before the first pass after a start.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Maximum bytes of one read, and so of memory.
const STEP_BYTES: usize = 1 << 20;

/// Works until it is dropped.
pub(crate) async fn run(
    limits: &Limits,
    store: &Store,
    cluster: &Cluster,
    partitions: &ReplicaManager,
    metrics: &Metrics,
) {
    let pause = Duration::from_millis(limits.scrub_interval_ms);
    if limits.scrub_bytes_per_s == 0 {
        return;
    }
    sleep(pause.min(FIRST_AFTER)).await;
    loop {
        let own = pass(limits, metrics, store.scrub()).await;
        let metadata = match cluster.scrub() {
            Some(scrub) => pass(limits, metrics, scrub).await,
            None => 0,
        };
        let mut bytes = own + metadata;
        // A replica added during the pass was written just before, and can wait for the next one.
        for partition in partitions.all() {
            bytes += pass(limits, metrics, partition.scrub()).await;
        }
        metrics.scrub_passes.one();
        tracing::info!(bytes, "scrub pass complete: all stored data was read");
        sleep(pause).await;
    }
}

/// Reads one log and its state at the allowed pace, up to the first damage. Returns the number of bytes.
pub(crate) async fn pass(limits: &Limits, metrics: &Metrics, mut scrub: Scrub) -> u64 {
    let rate = limits.scrub_bytes_per_s.max(1);
    let step_bytes = rate.min(STEP_BYTES);
    let mut all = 0;
    let mut next = Instant::now();
    loop {
        match scrub.step(step_bytes).await {
            Ok(Some(bytes)) => {
                all += bytes;
                metrics.scrub_bytes.add(bytes);
                next += Duration::from_secs_f64(bytes as f64 / rate as f64);
                sleep_until(next).await;
            }
            Ok(None) => return all,
            // The owner reports the damage, once.
            Err(DiskError::Damaged(what)) => {
                tracing::debug!(what, "scrub found damage");
                return all;
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "scrub could not read the disk; the next pass reads the rest"
                );
                return all;
            }
        }
    }
}
