//! Reads, slowly and again and again, all that this node has stored. What it finds damaged is told
//! to whoever owns it, and goes the way of all damage; nothing is decided here.

use std::time::Duration;

use ropewalk_raft_store::{DiskError, Scrub, Store};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::partition::Partitions;

/// The longest a node that has just started is left alone.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// The most read in one go, and so the most memory this takes.
const STEP_BYTES: usize = 1 << 20;

/// Works until it is dropped.
pub(crate) async fn run(
    limits: &Limits,
    store: &Store,
    cluster: &Cluster,
    partitions: &Partitions,
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
        // Those there are now: one that comes later was written just before.
        for partition in partitions.all() {
            bytes += pass(limits, metrics, partition.scrub()).await;
        }
        metrics.scrub_passes.one();
        tracing::info!(
            bytes,
            "all that is stored here was read to find what is damaged"
        );
        sleep(pause).await;
    }
}

/// Reads all of one thing at the pace that is allowed, up to the first damage; says how many bytes.
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
            // Whoever owns it says so, once.
            Err(DiskError::Damaged(what)) => {
                tracing::debug!(what, "damage was found");
                return all;
            }
            Err(error) => {
                tracing::warn!(%error, "the disk could not be read; what is left is read next time");
                return all;
            }
        }
    }
}
