//! One page of metrics: counters, and values sampled now. It calls no other node, waits for nothing, and
//! reads no disk.

mod cluster;
mod partitions;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use ropewalk_raft_store::DiskStatus;

use super::{OpsContext, ready};
use crate::env::process_use;
use crate::metrics::page::Page;
use crate::metrics::{Count, names};

/// The commit of this build, if the build provides it.
const COMMIT: Option<&str> = option_env!("ROPEWALK_COMMIT");

/// Writes the page of one node.
#[derive(Debug)]
pub(super) struct Collect {
    pub seen: Arc<OpsContext>,
    pub refused: Arc<Count>,
}

impl Collector for Collect {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let page = &mut Page::new(encoder);
        let seen = &*self.seen;
        node(page, seen)?;
        produce(page, seen)?;
        clients(page, seen)?;
        disk(page, seen)?;
        cluster::write(page, seen)?;
        partitions::write(page, seen)?;
        page.one(&names::SCRAPES_REFUSED, self.refused.get() as f64)?;
        process(page)
    }
}

/// 1 for true, 0 for false.
fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn node(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let view = seen.cluster.view().borrow().clone();
    let node_id = seen.cluster.node_id().to_string();
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", COMMIT.unwrap_or("unknown")),
    ];
    page.rows(&names::BUILD_INFO, [(build, 1.0)])?;
    let info = [
        ("node_id", node_id.as_str()),
        ("cluster_id", view.cluster_id.as_str()),
        ("rack", seen.rack.as_str()),
    ];
    page.rows(&names::NODE_INFO, [(info, 1.0)])?;
    page.one(&names::READY, flag(ready::why_not(seen).is_empty()))?;
    page.one(&names::CLOCK, seen.clock.now_ms() as f64 / 1e3)?;
    let left_out = seen.connections.iter();
    let left_out: u64 = left_out.map(|(_, seen)| seen.lines_left_out()).sum();
    let left_out = left_out + seen.metrics.valves.left_out() + seen.net.log_lines_left_out();
    let not_sent = seen.peers.traffic().checkpoint_not_sent.left_out();
    let left_out = left_out + not_sent + (seen.log_lines_lost)();
    page.one(&names::LOG_LINES_LEFT_OUT, left_out as f64)?;
    if let Some(at_ms) = seen.net.certificate_not_after_ms() {
        page.one(&names::CERTIFICATE_EXPIRY, at_ms as f64 / 1e3)?;
    }
    Ok(())
}

fn produce(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let topics = seen.metrics.topics.all();
    let by_topic = |count: fn(&crate::metrics::Topic) -> &Count| {
        let rows = topics.iter();
        rows.map(move |(name, topic)| ([("topic", name.as_str())], count(topic).get() as f64))
    };
    page.rows(
        &names::PRODUCED_RECORDS,
        by_topic(|topic| &topic.produced_records),
    )?;
    page.rows(
        &names::PRODUCED_BYTES,
        by_topic(|topic| &topic.produced_bytes),
    )?;
    page.rows(
        &names::FETCHED_RECORDS,
        by_topic(|topic| &topic.fetched_records),
    )?;
    page.rows(
        &names::FETCHED_BYTES,
        by_topic(|topic| &topic.fetched_bytes),
    )?;
    let stages = &seen.metrics.stages;
    let counters = seen.store.counters();
    let stages_rows = [
        ("receive", &stages.receive),
        ("propose", &stages.propose),
        ("fsync", &counters.sync_time),
        ("replicate", &seen.peers.traffic().replicate),
        ("apply", &counters.apply_time),
        ("commit", &stages.commit),
        ("acknowledge", &stages.acknowledge),
    ];
    let rows = stages_rows.map(|(stage, took)| ([("stage", stage)], took));
    page.latencies(&names::STAGE, rows)?;
    let none: [(&str, &str); 0] = [];
    page.latencies(&names::PRODUCE, [(none, &stages.whole)])?;
    let bound = seen.limits.produce_inflight_bytes as f64;
    page.one(&names::PRODUCE_INFLIGHT_BOUND, bound)?;
    let joined = seen.joined.get();
    let inflight = joined.map_or(0, |joined| joined.partitions.produce_inflight_bytes());
    page.one(&names::PRODUCE_INFLIGHT, inflight as f64)
}

fn clients(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let requests = &seen.metrics.requests;
    let rows = requests.seen();
    let rows = rows.map(|(rpc, code, count)| ([("rpc", rpc.name()), ("code", code)], count as f64));
    page.rows(&names::REQUESTS, rows)?;
    let rows = requests.refusals();
    let rows = rows.map(|(code, count)| ([("code", code)], count as f64));
    page.rows(&names::REFUSALS, rows)?;
    let ports = |value: fn(&crate::env::Connections) -> f64| {
        let ports = seen.connections.iter();
        ports.map(move |(port, seen)| ([("port", *port)], value(seen)))
    };
    page.rows(&names::CONNECTIONS, ports(|seen| seen.open().0 as f64))?;
    page.rows(
        &names::CONNECTIONS_BOUND,
        ports(|seen| seen.open().1 as f64),
    )?;
    page.rows(
        &names::CONNECTIONS_OPENED,
        ports(|seen| seen.taken().0 as f64),
    )?;
    page.rows(
        &names::CONNECTIONS_REFUSED,
        ports(|seen| seen.taken().1 as f64),
    )?;
    page.rows(
        &names::CONNECTIONS_MADE_ROOM,
        ports(|seen| seen.made_room() as f64),
    )
}

fn disk(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let status = seen.store.disk_status().borrow().clone();
    let states = [
        ("healthy", status == DiskStatus::Healthy),
        ("full", status == DiskStatus::Full),
        ("failed", matches!(status, DiskStatus::Failed(_))),
    ];
    let rows = states.map(|(state, is)| ([("state", state)], flag(is)));
    page.rows(&names::DISK_STATE, rows)?;
    let done = seen.store.counters();
    let free = done.free_bytes.load(Relaxed);
    if free != u64::MAX {
        page.one(&names::DISK_FREE, free as f64)?;
    }
    let total = done.total_bytes.load(Relaxed);
    if total != 0 {
        page.one(&names::DISK_TOTAL, total as f64)?;
    }
    let floor = seen.limits.free_space_floor_bytes as f64;
    page.one(&names::DISK_FLOOR, floor)?;
    page.one(&names::DISK_WRITTEN, done.bytes.load(Relaxed) as f64)?;
    page.one(&names::COMMIT_BATCHES, done.batches.load(Relaxed) as f64)?;
    page.one(&names::COMMIT_SYNCS, done.syncs.load(Relaxed) as f64)?;
    let submissions = done.submissions.load(Relaxed);
    page.one(&names::COMMIT_SUBMISSIONS, submissions as f64)?;
    let none: [(&str, &str); 0] = [];
    page.sizes(&names::COMMIT_BATCH_BYTES, [(none, &done.batch_bytes)])?;
    let (queued, bound) = seen.store.queued_bytes();
    page.one(&names::COMMIT_QUEUE, queued as f64)?;
    page.one(&names::COMMIT_QUEUE_BOUND, bound as f64)?;
    let metrics = &seen.metrics;
    let counts = [
        (&names::QUARANTINED, &metrics.quarantined),
        (&names::DAMAGE_FOUND, &metrics.damage_found),
        (&names::SCRUB_BYTES, &metrics.scrub_bytes),
        (&names::SCRUB_PASSES, &metrics.scrub_passes),
        (&names::RETENTION_BYTES, &metrics.retention_bytes),
        (&names::COMPACTION_BEFORE, &metrics.compaction_before_bytes),
        (&names::COMPACTION_AFTER, &metrics.compaction_after_bytes),
        (&names::LEADERSHIPS_WON, &metrics.leaderships_won),
        (&names::LEADERSHIPS_LOST, &metrics.leaderships_lost),
    ];
    counts
        .into_iter()
        .try_for_each(|(family, count)| page.one(family, count.get() as f64))
}

fn process(page: &mut Page) -> fmt::Result {
    let Some(process) = process_use() else {
        return Ok(());
    };
    page.one(&names::PROCESS_CPU, process.cpu_seconds)?;
    page.one(&names::PROCESS_MEMORY, process.resident_bytes as f64)?;
    page.one(&names::PROCESS_FDS, process.open_fds as f64)?;
    if let Some(max) = process.max_fds {
        page.one(&names::PROCESS_MAX_FDS, max as f64)?;
    }
    page.one(&names::PROCESS_START, process.began_s)
}
