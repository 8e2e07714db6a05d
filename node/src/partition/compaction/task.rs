//! Task of a node that compacts its replicas, one after the other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::rewrite::{RewriteBudget, RewriteError, step};
use crate::partition::{Partition, ReplicaManager};

/// Works until it is stopped.
pub(in crate::partition) async fn run(partitions: ReplicaManager, stop: CancellationToken) {
    let limits = partitions.limits();
    let allowance = RewriteBudget {
        bytes_per_s: limits.compaction_bytes_per_s,
        memory_bytes: limits.compaction_memory_bytes,
    };
    if allowance.bytes_per_s == 0 {
        return;
    }
    let pause = Duration::from_millis(limits.retention_interval_ms.max(1));
    let work = async {
        loop {
            tokio::time::sleep(pause).await;
            for partition in partitions.all() {
                partition.compact(allowance).await;
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

impl Partition {
    /// Carries out the compaction that the log requests, if any is left.
    async fn compact(&self, allowance: RewriteBudget) {
        loop {
            let (target, done) = (
                self.replica.view.machine().compaction(),
                *self.compacted.lock(),
            );
            // A rewrite takes space before it frees any.
            let idle = done.has_done(&target) || !self.host.is_writable();
            if idle || !self.is_running() || self.replica.view.is_damaged() {
                return;
            }
            match step(&self.replica.view, &done, &target, allowance).await {
                Ok((progress, all)) => {
                    let metrics = &self.host.metrics;
                    metrics.compaction_before_bytes.add(all.before_bytes);
                    metrics.compaction_after_bytes.add(all.after_bytes);
                    *self.compacted.lock() = progress;
                    self.host
                        .inbound
                        .compacted(self.id.replica, progress.to_offset);
                    tracing::debug!(
                        partition = %self.id,
                        to_offset = progress.to_offset,
                        bytes = progress.left_bytes,
                        "log compacted"
                    );
                }
                Err(RewriteError::Trimmed) => return,
                Err(error) => {
                    if let Some(left_out) = self.host.metrics.valves.not_compacted.pass() {
                        tracing::warn!(
                            partition = %self.id,
                            %error,
                            left_out,
                            "log compaction failed; retrying"
                        );
                    }
                    return;
                }
            }
        }
    }
}
