//! A topic's settings: their defaults, their ranges, and how an operator writes them.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{Cleanup, Partitioner, TopicSettings};

/// No limit, for retention by time and by size.
pub const UNLIMITED: i64 = -1;
/// The most replicas a partition can have.
pub const MAX_REPLICAS: u32 = 7;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 * KIB..=GIB;
/// How long a record without a value stays readable once it is compacted, if nobody says otherwise.
const DELETE_HORIZON_MS: i64 = DAY_MS;
/// How much of a log is to be compacted before it is, in percent, if nobody says otherwise.
const MIN_DIRTY_PERCENT: u32 = 50;
/// How far a record's time may be ahead of its leader's, if nobody says otherwise.
const MAX_TIMESTAMP_AHEAD_MS: i64 = 3_600 * 1_000;
const MAX_BATCH_BYTES: std::ops::RangeInclusive<u64> = KIB..=8 * MIB;

/// What holds where nobody says otherwise.
pub fn defaults() -> TopicSettings {
    TopicSettings {
        replicas: 3,
        retention_ms: 7 * DAY_MS,
        retention_bytes: UNLIMITED,
        segment_bytes: 64 * MIB,
        max_batch_bytes: MIB as u32,
        partitioner: Partitioner::Ring as i32,
        // Of compaction 0 is the default: what nodes of older versions keep, too.
        ..TopicSettings::default()
    }
}

/// Whether of each key only the last record is to stay.
pub fn compacts(settings: &TopicSettings) -> bool {
    settings.cleanup() != Cleanup::Delete
}

/// Whether records go when they are too old or too many.
pub fn deletes(settings: &TopicSettings) -> bool {
    settings.cleanup() != Cleanup::Compact
}

/// How long a record without a value stays readable once it is compacted, in ms.
pub fn delete_horizon_ms(settings: &TopicSettings) -> i64 {
    or_default(settings.delete_horizon_ms, DELETE_HORIZON_MS)
}

/// How much of a log is to be compacted before it is, in percent.
pub fn min_dirty_percent(settings: &TopicSettings) -> u32 {
    or_default(settings.min_dirty_percent, MIN_DIRTY_PERCENT)
}

/// How far a record's time may be ahead of its leader's, in ms, or [`UNLIMITED`]. The leader resolves
/// the default when a batch comes.
pub fn max_timestamp_ahead_ms(settings: &TopicSettings) -> i64 {
    or_default(settings.max_timestamp_ahead_ms, MAX_TIMESTAMP_AHEAD_MS)
}

/// Whether a bound on timestamps is set, which older nodes would forget.
pub(super) fn bounds_timestamps(settings: &TopicSettings) -> bool {
    settings.max_timestamp_ahead_ms != 0
}

fn or_default<T: Default + PartialEq>(given: T, default: T) -> T {
    if given == T::default() {
        default
    } else {
        given
    }
}

/// What is written of cleanup, as an operator writes it.
pub fn cleanup_name(settings: &TopicSettings) -> &'static str {
    match settings.cleanup() {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete => "compact,delete",
    }
}

/// Whether anything is set that only a node with compaction understands.
pub(super) fn needs_compaction(settings: &TopicSettings) -> bool {
    let TopicSettings {
        cleanup,
        delete_horizon_ms,
        min_compaction_lag_ms,
        min_dirty_percent,
        ..
    } = *settings;
    (
        cleanup,
        delete_horizon_ms,
        min_compaction_lag_ms,
        min_dirty_percent,
    ) != (0, 0, 0, 0)
}

/// Fills what is 0 or absent with the defaults, and checks every range.
pub fn resolve(settings: Option<&TopicSettings>) -> Result<TopicSettings, WireError> {
    let mut full = defaults();
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
    check(&full)?;
    Ok(full)
}

fn fill<T: Default + PartialEq>(field: &mut T, given: T) {
    if given != T::default() {
        *field = given;
    }
}

fn check(settings: &TopicSettings) -> Result<(), WireError> {
    if !(1..=MAX_REPLICAS).contains(&settings.replicas) {
        let replicas = settings.replicas;
        return Err(invalid(format!(
            "{replicas} replicas: a partition has 1 to {MAX_REPLICAS}"
        )));
    }
    for (name, value) in [
        ("retention", settings.retention_ms),
        ("retention_size", settings.retention_bytes),
    ] {
        if value < UNLIMITED || value == 0 {
            return Err(invalid(format!(
                "{name} of {value}: it is at least 1, or -1 for no limit"
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
            "max_timestamp_ahead of {ahead_ms} ms: it is at least 1, or -1 for no limit"
        )));
    }
    match Partitioner::try_from(settings.partitioner) {
        Ok(Partitioner::Ring | Partitioner::Murmur2) => Ok(()),
        _ => Err(invalid(
            "this partitioner is unknown here: use ring or murmur2",
        )),
    }
}

fn check_cleanup(settings: &TopicSettings) -> Result<(), WireError> {
    if Cleanup::try_from(settings.cleanup).is_err() {
        return Err(invalid(
            "this cleanup is unknown here: use delete, compact, or compact,delete",
        ));
    }
    for (name, value) in [
        ("delete_horizon", settings.delete_horizon_ms),
        ("min_compaction_lag", settings.min_compaction_lag_ms),
    ] {
        if value < 0 {
            return Err(invalid(format!("{name} of {value} ms: it is at least 0")));
        }
    }
    match settings.min_dirty_percent {
        0..=100 => Ok(()),
        percent => Err(invalid(format!(
            "min_dirty_percent of {percent}: it is between 1 and 100"
        ))),
    }
}

fn in_range(name: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), WireError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = range.into_inner();
    Err(invalid(format!(
        "{name} of {value} bytes: it is between {low} and {high}"
    )))
}

/// Settings with the named ones replaced by what an operator wrote: `retention=7d`,
/// `retention_size=10GiB`, `segment_bytes=64MiB`, `max_batch_bytes=1MiB`, `partitioner=murmur2`,
/// `cleanup=compact`, `delete_horizon=24h`, `min_compaction_lag=10m`, `min_dirty_percent=50`,
/// `max_timestamp_ahead=1h`.
pub fn merge<'a>(
    current: &TopicSettings,
    set: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<TopicSettings, WireError> {
    let mut merged = *current;
    for (name, value) in set {
        set_one(&mut merged, name, value.trim())?;
    }
    check(&merged)?;
    Ok(merged)
}

fn set_one(settings: &mut TopicSettings, name: &str, value: &str) -> Result<(), WireError> {
    match name {
        "retention" => settings.retention_ms = or_unlimited(value, duration_ms)?,
        "retention_size" => {
            settings.retention_bytes = or_unlimited(value, |text| {
                let bytes = size_bytes(text)?;
                i64::try_from(bytes).map_err(|_| invalid(format!("{text} is too large a size")))
            })?;
        }
        "segment_bytes" => settings.segment_bytes = size_bytes(value)?,
        "max_batch_bytes" => {
            settings.max_batch_bytes = u32::try_from(size_bytes(value)?)
                .map_err(|_| invalid(format!("max_batch_bytes of {value} is too large")))?;
        }
        "partitioner" => {
            settings.partitioner = match value {
                "ring" => Partitioner::Ring,
                "murmur2" => Partitioner::Murmur2,
                _ => {
                    return Err(invalid(format!(
                        "partitioner {value:?} is unknown: use ring or murmur2"
                    )));
                }
            } as i32;
        }
        "cleanup" => settings.cleanup = cleanup(value)? as i32,
        "delete_horizon" => settings.delete_horizon_ms = duration_ms(value)?,
        "min_compaction_lag" => {
            settings.min_compaction_lag_ms = match value {
                "0" => 0,
                _ => duration_ms(value)?,
            }
        }
        "min_dirty_percent" => {
            let percent = value
                .parse()
                .ok()
                .filter(|percent| (1..=100).contains(percent));
            settings.min_dirty_percent = percent.ok_or_else(|| {
                invalid(format!(
                    "{value:?} is no percentage: write a number from 1 to 100"
                ))
            })?;
        }
        "max_timestamp_ahead" => {
            settings.max_timestamp_ahead_ms = or_unlimited(value, duration_ms)?;
        }
        "replicas" => {
            return Err(invalid(
                "the number of replicas is set when a topic is created and cannot be changed yet",
            ));
        }
        _ => {
            return Err(invalid(format!(
                "setting {name:?} is unknown: there are retention, retention_size, segment_bytes, \
                 max_batch_bytes, partitioner, cleanup, delete_horizon, min_compaction_lag, \
                 min_dirty_percent and max_timestamp_ahead"
            )));
        }
    }
    Ok(())
}

fn cleanup(value: &str) -> Result<Cleanup, WireError> {
    match value {
        "delete" => Ok(Cleanup::Delete),
        "compact" => Ok(Cleanup::Compact),
        "compact,delete" | "delete,compact" => Ok(Cleanup::CompactDelete),
        _ => Err(invalid(format!(
            "cleanup {value:?} is unknown: use delete, compact, or compact,delete"
        ))),
    }
}

fn or_unlimited(
    value: &str,
    parse: impl Fn(&str) -> Result<i64, WireError>,
) -> Result<i64, WireError> {
    match value {
        "-1" | "none" | "unlimited" => Ok(UNLIMITED),
        _ => parse(value),
    }
}

/// A duration as an operator writes it (`250ms`, `30s`, `7d`), in ms, at least 1.
fn duration_ms(text: &str) -> Result<i64, WireError> {
    let parsed: Option<Duration> = humantime::parse_duration(text).ok();
    parsed
        .and_then(|duration| i64::try_from(duration.as_millis()).ok())
        .filter(|&ms| ms > 0)
        .ok_or_else(|| {
            invalid(format!(
                "{text:?} is no duration: write 250ms, 30s, 12h, 7d, or -1 for no limit"
            ))
        })
}

/// A size as an operator writes it (`65536`, `64KiB`, `1GiB`), in bytes.
fn size_bytes(text: &str) -> Result<u64, WireError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" => Some(KIB),
        "MiB" => Some(MIB),
        "GiB" => Some(GIB),
        "TiB" => Some(KIB * GIB),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| {
            invalid(format!(
                "{text:?} is no size: write 65536, 64KiB, 10MiB, 1GiB"
            ))
        })
}

fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<TopicSettings, WireError> {
        merge(&defaults(), pairs.iter().copied())
    }

    #[test]
    fn absent_settings_are_the_defaults() {
        assert_eq!(resolve(None), Ok(defaults()));
        assert_eq!(resolve(Some(&TopicSettings::default())), Ok(defaults()));
    }

    #[test]
    fn what_is_given_stands_and_the_rest_is_filled_in() {
        let given = TopicSettings {
            replicas: 1,
            retention_ms: UNLIMITED,
            ..TopicSettings::default()
        };
        let full = resolve(Some(&given)).unwrap();
        assert_eq!((full.replicas, full.retention_ms), (1, UNLIMITED));
        assert_eq!(full.segment_bytes, defaults().segment_bytes);
    }

    #[test]
    fn settings_are_read_as_an_operator_writes_them() {
        let settings = set(&[
            ("retention", "12h"),
            ("retention_size", "10GiB"),
            ("segment_bytes", "64KiB"),
            ("max_batch_bytes", "2048"),
            ("partitioner", "murmur2"),
            ("cleanup", "compact,delete"),
            ("delete_horizon", "1h"),
            ("min_compaction_lag", "10s"),
            ("min_dirty_percent", "20"),
            ("max_timestamp_ahead", "2h"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.retention_ms, 12 * 3_600_000);
        assert_eq!(settings.retention_bytes, 10 << 30);
        assert_eq!(settings.segment_bytes, 65_536);
        assert_eq!(settings.max_batch_bytes, 2_048);
        assert_eq!(settings.partitioner, Partitioner::Murmur2 as i32);
        assert_eq!(cleanup_name(&settings), "compact,delete");
        assert!(compacts(&settings) && deletes(&settings) && needs_compaction(&settings));
        assert_eq!(delete_horizon_ms(&settings), 3_600_000);
        assert_eq!(settings.min_compaction_lag_ms, 10_000);
        assert_eq!(min_dirty_percent(&settings), 20);
        assert_eq!(max_timestamp_ahead_ms(&settings), 2 * 3_600_000);
        assert_eq!(resolve(Some(&settings)), Ok(settings));
        let unlimited = set(&[("retention", "-1"), ("retention_size", "none")]).unwrap();
        assert_eq!(unlimited.retention_ms, UNLIMITED);
        assert_eq!(unlimited.retention_bytes, UNLIMITED);
    }

    #[test]
    fn a_topic_of_before_bounds_timestamps_by_an_hour_and_looks_as_it_did() {
        assert!(!bounds_timestamps(&defaults()));
        assert_eq!(max_timestamp_ahead_ms(&defaults()), 3_600_000);
        let unlimited = set(&[("max_timestamp_ahead", "-1")]).unwrap();
        assert_eq!(max_timestamp_ahead_ms(&unlimited), UNLIMITED);
        assert!(bounds_timestamps(&unlimited));
    }

    #[test]
    fn a_topic_that_does_not_ask_for_compaction_is_as_older_nodes_know_it() {
        let settings = set(&[("cleanup", "delete")]).unwrap();
        assert_eq!(settings, defaults());
        assert!(!needs_compaction(&settings) && !compacts(&settings) && deletes(&settings));
        assert_eq!(delete_horizon_ms(&settings), DAY_MS);
        let compacted = set(&[("cleanup", "compact")]).unwrap();
        assert!(needs_compaction(&compacted) && !deletes(&compacted));
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence_that_names_it() {
        for (name, value, said) in [
            ("retention", "soon", "duration"),
            ("retention", "0s", "duration"),
            ("retention", "-2", "duration"),
            ("retention_size", "10 parsecs", "size"),
            ("retention_size", "99999999999TiB", "size"),
            ("retention_size", "9223372036854775808", "too large"),
            ("segment_bytes", "", "size"),
            ("segment_bytes", "1KiB", "between"),
            ("segment_bytes", "2GiB", "between"),
            ("max_batch_bytes", "5GiB", "too large"),
            ("max_batch_bytes", "9MiB", "between"),
            ("partitioner", "random", "murmur2"),
            ("cleanup", "compress", "compact,delete"),
            ("delete_horizon", "0s", "duration"),
            ("min_compaction_lag", "later", "duration"),
            ("min_dirty_percent", "0", "1 to 100"),
            ("min_dirty_percent", "101", "1 to 100"),
            ("max_timestamp_ahead", "0", "duration"),
            ("replicas", "5", "cannot be changed"),
            ("retentoin", "7d", "unknown"),
        ] {
            let error = set(&[(name, value)]).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{name}={value}");
            assert!(error.message.contains(said), "{name}={value}: {error}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let wrong = [
            TopicSettings {
                replicas: 8,
                ..defaults()
            },
            TopicSettings {
                retention_ms: -2,
                ..defaults()
            },
            TopicSettings {
                partitioner: 77,
                ..defaults()
            },
            TopicSettings {
                max_batch_bytes: 10,
                ..defaults()
            },
            TopicSettings {
                cleanup: 9,
                ..defaults()
            },
            TopicSettings {
                delete_horizon_ms: -1,
                ..defaults()
            },
            TopicSettings {
                min_dirty_percent: 101,
                ..defaults()
            },
        ];
        for settings in wrong {
            assert_eq!(
                resolve(Some(&settings)).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }
}
