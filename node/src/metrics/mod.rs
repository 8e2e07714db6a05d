//! Counters and histograms of a node. Handles are created once and passed down. Recording adds to an atomic
//! and never looks up a label. Times come from tokio's clock.
//!
//! `names` lists every metric family, `page` writes them out. `ops/` samples values that are not counted,
//! such as leaders, lag and the disk, at each scrape. Nothing here is global: several nodes in one process
//! each have their own.

pub mod names;
pub mod page;
mod peers;
mod requests;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ropewalk_raft_store::Histogram;

use crate::config::Limits;
use crate::log_limiter::LogLimiter;

pub use peers::{PeerNode, PeerTraffic};
pub use requests::{Requests, Rpc};
pub use topics::{Topic, Topics};

/// A counter. It only grows, unless it is used as a level.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds this count.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the value, for a level.
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Time that a batch spends in each stage from its arrival to its acknowledgement. The store measures the
/// time of the disk, and `PeerTraffic` that of followers.
#[derive(Debug)]
pub struct Stages {
    /// From the arrival of the request until its proposal to Raft: the checks, and the wait for room.
    pub receive: Histogram,
    /// Until Raft has queued it.
    pub propose: Histogram,
    /// Until it is applied: a majority has it on disk.
    pub commit: Histogram,
    /// From its application until the answer is passed to the connection.
    pub acknowledge: Histogram,
    /// The whole time.
    pub whole: Histogram,
}

/// Limiters for log lines that could repeat without end.
#[derive(Debug, Default)]
pub struct LogLimiters {
    /// A member's session ended.
    pub session_ended: LogLimiter,
    /// A partition was taken from a member.
    pub taken_away: LogLimiter,
    /// A group has no room for more state.
    pub group_full: LogLimiter,
    /// A replica did not start.
    pub not_started: LogLimiter,
    /// A log was not compacted.
    pub not_compacted: LogLimiter,
    /// A log was not purged.
    pub not_purged: LogLimiter,
}

impl LogLimiters {
    /// Number of log lines suppressed by all of them.
    pub fn left_out(&self) -> u64 {
        let all = [
            &self.session_ended,
            &self.taken_away,
            &self.group_full,
            &self.not_started,
            &self.not_compacted,
            &self.not_purged,
        ];
        all.into_iter().map(LogLimiter::left_out).sum()
    }
}

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    /// Time of batches, by stage.
    pub stages: Stages,
    /// Answers, by call and by error.
    pub requests: Requests,
    /// Records and bytes, by topic.
    pub topics: Topics,
    /// Number of leaderships that this node gained.
    pub leaderships_won: Count,
    /// Number of leaderships that this node gave up or lost.
    pub leaderships_lost: Count,
    /// Bytes of log that this node purged.
    pub retention_bytes: Count,
    /// Bytes of log that compaction has read.
    pub compaction_before_bytes: Count,
    /// Bytes of log that compaction has left of them.
    pub compaction_after_bytes: Count,
    /// Replicas found damaged since the start.
    pub damage_found: Count,
    /// Replicas in quarantine now.
    pub quarantined: Count,
    /// Bytes that the scrubber has read.
    pub scrub_bytes: Count,
    /// Complete passes of the scrubber.
    pub scrub_passes: Count,
    /// Limiters for repeated log lines.
    pub valves: LogLimiters,
}

impl Metrics {
    /// All values at zero.
    pub fn new(limits: &Limits) -> Arc<Metrics> {
        Arc::new(Metrics {
            stages: Stages {
                receive: Histogram::latencies(),
                propose: Histogram::latencies(),
                commit: Histogram::latencies(),
                acknowledge: Histogram::latencies(),
                whole: Histogram::latencies(),
            },
            requests: Requests::default(),
            topics: Topics::new(limits.metrics_topics),
            leaderships_won: Count::default(),
            leaderships_lost: Count::default(),
            retention_bytes: Count::default(),
            compaction_before_bytes: Count::default(),
            compaction_after_bytes: Count::default(),
            damage_found: Count::default(),
            quarantined: Count::default(),
            scrub_bytes: Count::default(),
            scrub_passes: Count::default(),
            valves: LogLimiters::default(),
        })
    }
}
