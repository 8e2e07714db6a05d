//! A topic's settings: their defaults, their ranges, and how an operator writes them.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{Partitioner, TopicSettings};

/// No limit, for retention by time and by size.
pub const UNLIMITED: i64 = -1;
/// The most replicas a partition can have.
pub const MAX_REPLICAS: u32 = 7;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 * KIB..=GIB;
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
    }
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
    match Partitioner::try_from(settings.partitioner) {
        Ok(Partitioner::Ring | Partitioner::Murmur2) => Ok(()),
        _ => Err(invalid(
            "this partitioner is unknown here: use ring or murmur2",
        )),
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
/// `retention_size=10GiB`, `segment_bytes=64MiB`, `max_batch_bytes=1MiB`, `partitioner=murmur2`.
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
        "replicas" => {
            return Err(invalid(
                "the number of replicas is set when a topic is created and cannot be changed yet",
            ));
        }
        _ => {
            return Err(invalid(format!(
                "setting {name:?} is unknown: there are retention, retention_size, segment_bytes, \
                 max_batch_bytes and partitioner"
            )));
        }
    }
    Ok(())
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
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.retention_ms, 12 * 3_600_000);
        assert_eq!(settings.retention_bytes, 10 << 30);
        assert_eq!(settings.segment_bytes, 65_536);
        assert_eq!(settings.max_batch_bytes, 2_048);
        assert_eq!(settings.partitioner, Partitioner::Murmur2 as i32);
        let unlimited = set(&[("retention", "-1"), ("retention_size", "none")]).unwrap();
        assert_eq!(unlimited.retention_ms, UNLIMITED);
        assert_eq!(unlimited.retention_bytes, UNLIMITED);
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
        ];
        for settings in wrong {
            assert_eq!(
                resolve(Some(&settings)).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }
}
