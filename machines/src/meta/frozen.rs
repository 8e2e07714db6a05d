//! Limits that `apply` of the metadata group enforces, and its defaults for fields that old commands leave
//! open.
//!
//! FROZEN: nothing here ever changes. Every replica must apply each entry of the log with the same result, in
//! every build. An entry that one build refused must be refused by all later ones. Other numbers need a
//! command of a newer version. A build's own defaults (`settings::defaults`, `config::Limits`) must never be
//! used here: proposers write them into commands.

use std::ops::RangeInclusive;

use ropewalk_proto::error::WireError;
use ropewalk_proto::units;
use ropewalk_proto::v1::{Cleanup, Partitioner, TopicSettings};

use super::invalid;
use super::settings::UNLIMITED;

/// Maximum number of partitions of a topic.
pub const MAX_PARTITIONS: u32 = 10_000;
/// Maximum number of replicas of a partition.
pub(super) const MAX_REPLICAS: u32 = 7;
/// Maximum number of replicas, of all topics, for each node of the cluster, if a command sets no lower limit.
pub(super) const MAX_REPLICAS_PER_NODE: u64 = 10_000;
/// Maximum length of a topic name.
pub const MAX_NAME_BYTES: usize = 249;
/// Maximum number of a topic's growths. A group that reads the topic for the first time needs them.
pub(super) const MAX_GROWTHS: usize = 100;
/// Maximum number of retiring replicas of one partition.
pub(super) const MAX_RETIRING: usize = 16;
/// Maximum number of nodes in the metadata, including the removed ones.
pub(super) const MAX_NODES: usize = 10_000;
/// The highest value of `max_batch_bytes`.
pub const LARGEST_BATCH_BYTES: usize = 8 << 20;

const SEGMENT_BYTES: RangeInclusive<u64> = 16 << 10..=1 << 30;
const MAX_BATCH_BYTES: RangeInclusive<u64> = 1 << 10..=LARGEST_BATCH_BYTES as u64;

/// Defaults of the first version, which left it to `apply` to fill them in.
const FIRST_DEFAULTS: TopicSettings = TopicSettings {
    replicas: 3,
    retention_ms: 7 * 24 * 3_600 * 1_000,
    retention_bytes: UNLIMITED,
    segment_bytes: 64 << 20,
    max_batch_bytes: 1 << 20,
    partitioner: Partitioner::Ring as i32,
    cleanup: Cleanup::Delete as i32,
    delete_horizon_ms: 0,
    min_compaction_lag_ms: 0,
    min_dirty_percent: 0,
    max_timestamp_ahead_ms: 0,
};

/// Settings of a command, with the first version's defaults for fields that are 0.
pub(super) fn resolve(settings: Option<&TopicSettings>) -> Result<TopicSettings, WireError> {
    let full = filled(settings, FIRST_DEFAULTS);
    check(&full)?;
    Ok(full)
}

/// Settings with `defaults` for fields that are 0. For the fields of compaction and of timestamps, 0 is a
/// value.
pub(super) fn filled(settings: Option<&TopicSettings>, defaults: TopicSettings) -> TopicSettings {
    let mut full = defaults;
    if let Some(given) = settings {
        fill(&mut full.replicas, given.replicas);
        fill(&mut full.retention_ms, given.retention_ms);
        fill(&mut full.retention_bytes, given.retention_bytes);
        fill(&mut full.segment_bytes, given.segment_bytes);
        fill(&mut full.max_batch_bytes, given.max_batch_bytes);
        fill(&mut full.partitioner, given.partitioner);
        full.cleanup = given.cleanup;
        full.delete_horizon_ms = given.delete_horizon_ms;
        full.min_compaction_lag_ms = given.min_compaction_lag_ms;
        full.min_dirty_percent = given.min_dirty_percent;
        full.max_timestamp_ahead_ms = given.max_timestamp_ahead_ms;
    }
    full
}

fn fill<T: Default + PartialEq>(field: &mut T, given: T) {
    if given != T::default() {
        *field = given;
    }
}

/// The first of these fields that is not a setting in this build.
pub fn unknown_setting(fields: &[u32]) -> Option<u32> {
    let from = TopicSettings::default();
    let mut to = TopicSettings::default();
    let mut fields = fields.iter().copied();
    fields.find(|field| !overlay(&mut to, &from, *field))
}

/// Copies one setting, by its field number. False for a field that this build does not know.
pub(super) fn overlay(settings: &mut TopicSettings, from: &TopicSettings, field: u32) -> bool {
    match field {
        1 => settings.replicas = from.replicas,
        2 => settings.retention_ms = from.retention_ms,
        3 => settings.retention_bytes = from.retention_bytes,
        4 => settings.segment_bytes = from.segment_bytes,
        5 => settings.max_batch_bytes = from.max_batch_bytes,
        6 => settings.partitioner = from.partitioner,
        7 => settings.cleanup = from.cleanup,
        8 => settings.delete_horizon_ms = from.delete_horizon_ms,
        9 => settings.min_compaction_lag_ms = from.min_compaction_lag_ms,
        10 => settings.min_dirty_percent = from.min_dirty_percent,
        11 => settings.max_timestamp_ahead_ms = from.max_timestamp_ahead_ms,
        _ => return false,
    }
    true
}

/// Refuses settings that are out of range.
pub(super) fn check(settings: &TopicSettings) -> Result<(), WireError> {
    if !(1..=MAX_REPLICAS).contains(&settings.replicas) {
        let replicas = settings.replicas;
        return Err(invalid(format!(
            "replicas = {replicas} is out of range; choose 1 to {MAX_REPLICAS}"
        )));
    }
    for (name, value) in [
        ("retention", settings.retention_ms),
        ("retention_size", settings.retention_bytes),
    ] {
        if value < UNLIMITED || value == 0 {
            return Err(invalid(format!(
                "{name} = {value} is out of range; choose at least 1, or -1 for no limit"
            )));
        }
    }
    in_range("segment_bytes", settings.segment_bytes, SEGMENT_BYTES)?;
    in_range(
        "max_batch_bytes",
        settings.max_batch_bytes.into(),
        MAX_BATCH_BYTES,
    )?;
    check_cleanup(settings)?;
    if settings.max_timestamp_ahead_ms < UNLIMITED {
        let ahead_ms = settings.max_timestamp_ahead_ms;
        return Err(invalid(format!(
            "max_timestamp_ahead = {ahead_ms} ms is out of range; choose at least 1, or -1 for no \
             limit"
        )));
    }
    match Partitioner::try_from(settings.partitioner) {
        Ok(Partitioner::Ring | Partitioner::Murmur2) => Ok(()),
        _ => Err(invalid("partitioner is unknown; use ring or murmur2")),
    }
}

fn check_cleanup(settings: &TopicSettings) -> Result<(), WireError> {
    if Cleanup::try_from(settings.cleanup).is_err() {
        return Err(invalid(
            "cleanup is unknown; use delete, compact, or compact,delete",
        ));
    }
    for (name, value) in [
        ("delete_horizon", settings.delete_horizon_ms),
        ("min_compaction_lag", settings.min_compaction_lag_ms),
    ] {
        if value < 0 {
            return Err(invalid(format!(
                "{name} = {value} ms is out of range; choose at least 0"
            )));
        }
    }
    match settings.min_dirty_percent {
        0..=100 => Ok(()),
        percent => Err(invalid(format!(
            "min_dirty_percent = {percent} is out of range; choose 1 to 100"
        ))),
    }
}

fn in_range(name: &str, value: u64, range: RangeInclusive<u64>) -> Result<(), WireError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = range.into_inner();
    Err(invalid(format!(
        "{name} = {} is out of range; choose {} to {}",
        units::size(value),
        units::size(low),
        units::size(high)
    )))
}
