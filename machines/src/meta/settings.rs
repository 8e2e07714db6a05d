//! A topic's settings: this build's defaults, and their names and values in an operator's notation. Their
//! ranges are in `frozen`.
//!
//! A new setting is a field of `TopicSettings` in `client.proto`. `set_one` here parses it, `overlay` and `check`
//! in `frozen` change and bound it. The client's `admin::topic` and `convert`, and the command line's help, rows
//! and reference have a row for each setting. A setting that older nodes would drop needs a command of a newer
//! version (`entity::topic::lifecycle`, `version_of`).

use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::{Cleanup, Partitioner, TopicSettings};

use super::{frozen, invalid, quantity};

/// No limit, for retention by time and by size.
pub const UNLIMITED: i64 = -1;
const DAY_MS: i64 = 24 * 3_600 * 1_000;
const MIB: u64 = 1 << 20;
/// Default time for which a tombstone stays readable after its compaction.
const DELETE_HORIZON_MS: i64 = DAY_MS;
/// Default share of a log, in percent, that must be uncompacted before compaction starts.
const MIN_DIRTY_PERCENT: u32 = 50;
/// Default bound on the time by which a record's timestamp may be ahead of its leader's clock.
const MAX_TIMESTAMP_AHEAD_MS: i64 = 3_600 * 1_000;

/// Defaults for the settings that the creator of a topic leaves out. The proposer writes them into the
/// command. `apply` never reads them, since another build may have others.
pub fn defaults() -> TopicSettings {
    #[cfg(test)]
    if let Some(others) = tests::TOMORROW.get() {
        return others;
    }
    TopicSettings {
        replicas: 3,
        retention_ms: 7 * DAY_MS,
        retention_bytes: UNLIMITED,
        segment_bytes: 64 * MIB,
        max_batch_bytes: MIB as u32,
        partitioner: Partitioner::Ring as i32,
        // For the compaction settings, 0 is the default. Nodes of older versions keep 0, too.
        ..TopicSettings::default()
    }
}

/// True if compaction keeps only the last record of each key.
pub fn compacts(settings: &TopicSettings) -> bool {
    settings.cleanup() != Cleanup::Delete
}

/// True if records are deleted by age or by size.
pub fn deletes(settings: &TopicSettings) -> bool {
    settings.cleanup() != Cleanup::Compact
}

/// Time in ms for which a tombstone stays readable after its compaction.
pub fn delete_horizon_ms(settings: &TopicSettings) -> i64 {
    or_default(settings.delete_horizon_ms, DELETE_HORIZON_MS)
}

/// Share of a log, in percent, that must be uncompacted before compaction starts.
pub fn min_dirty_percent(settings: &TopicSettings) -> u32 {
    or_default(settings.min_dirty_percent, MIN_DIRTY_PERCENT)
}

/// Time in ms by which a record's timestamp may be ahead of its leader's clock, or [`UNLIMITED`]. The leader
/// resolves the default for each batch.
pub fn max_timestamp_ahead_ms(settings: &TopicSettings) -> i64 {
    or_default(settings.max_timestamp_ahead_ms, MAX_TIMESTAMP_AHEAD_MS)
}

/// True if a bound on timestamps is set. Older nodes would drop it.
pub fn bounds_timestamps(settings: &TopicSettings) -> bool {
    settings.max_timestamp_ahead_ms != 0
}

fn or_default<T: Default + PartialEq>(given: T, default: T) -> T {
    if given == T::default() {
        default
    } else {
        given
    }
}

/// The cleanup setting in an operator's notation.
pub fn cleanup_name(settings: &TopicSettings) -> &'static str {
    match settings.cleanup() {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete => "compact,delete",
    }
}

/// True if a setting is given that only nodes with compaction understand.
pub fn needs_compaction(settings: &TopicSettings) -> bool {
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

/// Settings for a new topic: replaces missing fields and zeros by the defaults and checks every range.
pub fn resolve(settings: Option<&TopicSettings>) -> Result<TopicSettings, WireError> {
    let full = frozen::filled(settings, defaults());
    frozen::check(&full)?;
    Ok(full)
}

/// The settings that a command changes. Applying it keeps the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// The new values; those of other settings are 0.
    pub values: TopicSettings,
    /// Numbers of the changed fields of `TopicSettings`.
    pub fields: Vec<u32>,
}

impl Changes {
    /// Parses names and values in an operator's notation: `retention=7d`, `retention_size=10GiB`,
    /// `segment_bytes=64MiB`, `max_batch_bytes=1MiB`, `partitioner=murmur2`, `cleanup=compact`,
    /// `delete_horizon=24h`, `min_compaction_lag=10m`, `min_dirty_percent=50`, `max_timestamp_ahead=1h`.
    ///
    /// # Errors
    /// `InvalidRequest` with the name of the setting.
    pub fn parse<'a>(
        set: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Changes, WireError> {
        let mut changes = Changes::default();
        for (name, value) in set {
            let field = set_one(&mut changes.values, name, value.trim())?;
            changes.fields.push(field);
        }
        changes.fields.sort_unstable();
        changes.fields.dedup();
        Ok(changes)
    }
}

/// The current settings with an operator's changes, in the notation of [`Changes::parse`].
pub fn merge<'a>(
    current: &TopicSettings,
    set: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<TopicSettings, WireError> {
    let Changes { values, fields } = Changes::parse(set)?;
    let mut merged = *current;
    for field in fields {
        frozen::overlay(&mut merged, &values, field);
    }
    frozen::check(&merged)?;
    Ok(merged)
}

/// Sets one setting and returns the number of its field.
fn set_one(settings: &mut TopicSettings, name: &str, value: &str) -> Result<u32, WireError> {
    let wrong = |why: &str| invalid(format!("setting {name}={value:?} is {why}"));
    let size = || quantity::size(value).map_err(wrong);
    let duration_ms = || quantity::duration_ms(value).map_err(wrong);
    let field = match name {
        "retention" => {
            let kept = quantity::or_unlimited(value, quantity::duration_ms);
            settings.retention_ms = kept.map_err(|why| wrong(&why))?;
            2
        }
        "retention_size" => {
            let kept = quantity::or_unlimited(value, quantity::signed_size);
            settings.retention_bytes = kept.map_err(|why| wrong(&why))?;
            3
        }
        "segment_bytes" => {
            settings.segment_bytes = size()?;
            4
        }
        "max_batch_bytes" => {
            settings.max_batch_bytes =
                u32::try_from(size()?).map_err(|_| wrong("too large for a batch"))?;
            5
        }
        "partitioner" => {
            settings.partitioner = partitioner(value)? as i32;
            6
        }
        "cleanup" => {
            settings.cleanup = cleanup(value)? as i32;
            7
        }
        "delete_horizon" => {
            settings.delete_horizon_ms = duration_ms()?;
            8
        }
        "min_compaction_lag" => {
            settings.min_compaction_lag_ms = match value {
                "0" | "0s" => 0,
                _ => duration_ms()?,
            };
            9
        }
        "min_dirty_percent" => {
            settings.min_dirty_percent = percent(value)?;
            10
        }
        "max_timestamp_ahead" => {
            let ahead = quantity::or_unlimited(value, quantity::duration_ms);
            settings.max_timestamp_ahead_ms = ahead.map_err(|why| wrong(&why))?;
            11
        }
        _ => return Err(no_setting(name)),
    };
    Ok(field)
}

/// The refusal of a name that [`set_one`] does not know.
fn no_setting(name: &str) -> WireError {
    invalid(match name {
        "replicas" => {
            "setting replicas cannot be changed: it is fixed when a topic is created; create another \
             topic with --replicas, and copy the records"
                .to_owned()
        }
        "partitions" => "setting partitions does not exist: the number of partitions is given \
            when a topic is created, and `ropewalk topic grow` raises it"
            .to_owned(),
        _ => format!(
            "setting {name:?} is unknown; the settings are retention, retention_size, \
             segment_bytes, max_batch_bytes, partitioner, cleanup, delete_horizon, \
             min_compaction_lag, min_dirty_percent and max_timestamp_ahead"
        ),
    })
}

fn partitioner(value: &str) -> Result<Partitioner, WireError> {
    match value {
        "ring" => Ok(Partitioner::Ring),
        "murmur2" => Ok(Partitioner::Murmur2),
        _ => Err(invalid(format!(
            "partitioner {value:?} is unknown; use ring or murmur2"
        ))),
    }
}

fn percent(value: &str) -> Result<u32, WireError> {
    let percent = value.parse().ok().filter(|one| (1..=100).contains(one));
    percent.ok_or_else(|| {
        invalid(format!(
            "percentage {value:?} is invalid; write a number from 1 to 100"
        ))
    })
}

fn cleanup(value: &str) -> Result<Cleanup, WireError> {
    match value {
        "delete" => Ok(Cleanup::Delete),
        "compact" => Ok(Cleanup::Compact),
        "compact,delete" | "delete,compact" => Ok(Cleanup::CompactDelete),
        _ => Err(invalid(format!(
            "cleanup {value:?} is unknown; use delete, compact, or compact,delete"
        ))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use ropewalk_proto::error::ErrorCode;

    use super::*;

    thread_local! {
        /// Defaults of another build, for a test of code that must not read them.
        pub(crate) static TOMORROW: Cell<Option<TopicSettings>> =
            const { Cell::new(None) };
    }

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
            ("max_batch_bytes", "2 kib"),
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
    fn what_is_no_setting_is_refused_with_the_way_to_give_it() {
        let refused = |name: &str| set(&[(name, "3")]).unwrap_err().message;
        assert!(refused("replicas").contains("when a topic is created"));
        assert!(refused("partitions").contains("`ropewalk topic grow`"));
        assert!(refused("cleanups").contains("the settings are retention"));
        assert_eq!(set(&[("min_compaction_lag", "0s")]), Ok(defaults()));
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
            ("segment_bytes", "1KiB", "out of range"),
            ("segment_bytes", "2GiB", "out of range"),
            ("max_batch_bytes", "5GiB", "too large"),
            ("max_batch_bytes", "9MiB", "out of range"),
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
