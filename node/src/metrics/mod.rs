//! What a node counts of itself. Handles are made once and passed down; recording is an addition to an
//! atomic, never a look-up by label, and takes no time but tokio's.
//!
//! `names` has every family there is, `page` writes them down. What is looked at rather than counted -
//! leaders, lag, the disk - is gathered by `ops/` when it is asked for. Nothing here is global: several
//! nodes of one process each have their own.

pub mod names;
pub mod page;
mod peers;
mod requests;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ropewalk_raft_store::Histogram;

use crate::config::Limits;
use crate::valve::Valve;

pub use peers::{PeerNode, PeerTraffic};
pub use requests::{Requests, Rpc};
pub use topics::{Topic, Topics};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As it is set, where it is a level and no count.
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a batch spends where, on its way from the connection and back. What a disk and a follower
/// take is counted where it is measured: in the store, and with the peers.
#[derive(Debug)]
pub struct Stages {
    /// From the request's bytes in hand until Raft is asked: the checks, and the wait for room.
    pub receive: Histogram,
    /// Until Raft has taken it into its queue.
    pub propose: Histogram,
    /// From there until it is applied: a majority has it on its disks.
    pub commit: Histogram,
    /// From applied until the answer is in the connection's hands.
    pub acknowledge: Histogram,
    /// All of it.
    pub whole: Histogram,
}

/// One for each line of the log that could come without end.
#[derive(Debug, Default)]
pub struct Valves {
    /// A member's session has ended.
    pub session_ended: Valve,
    /// A partition was taken from a member.
    pub taken_away: Valve,
    /// A group has no room for what it was to keep.
    pub group_full: Valve,
    /// A replica could not be started.
    pub not_started: Valve,
    /// A log could not be compacted.
    pub not_compacted: Valve,
    /// A log could not be purged.
    pub not_purged: Valve,
}

impl Valves {
    /// Lines left out by all of them.
    pub fn left_out(&self) -> u64 {
        let all = [
            &self.session_ended,
            &self.taken_away,
            &self.group_full,
            &self.not_started,
            &self.not_compacted,
            &self.not_purged,
        ];
        all.into_iter().map(Valve::left_out).sum()
    }
}

/// What a node counts.
#[derive(Debug)]
pub struct Metrics {
    /// Where batches spend their time.
    pub stages: Stages,
    /// Answers, by call and by error.
    pub requests: Requests,
    /// Records and bytes, by topic.
    pub topics: Topics,
    /// Leaderships taken up here.
    pub leaderships_won: Count,
    /// Leaderships given up here, or lost.
    pub leaderships_lost: Count,
    /// Bytes of log that retention has let go here.
    pub retention_bytes: Count,
    /// Bytes that compaction has looked at, and those that it left.
    pub compaction_before_bytes: Count,
    /// The latter.
    pub compaction_after_bytes: Count,
    /// Replicas that were found damaged since the start.
    pub damage_found: Count,
    /// Replicas that stand in quarantine now.
    pub quarantined: Count,
    /// Bytes the scrubber has read.
    pub scrub_bytes: Count,
    /// Its passes over everything.
    pub scrub_passes: Count,
    /// What keeps lines of the log from becoming a flood.
    pub valves: Valves,
}

impl Metrics {
    /// All at nothing.
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
            valves: Valves::default(),
        })
    }
}
