//! Conversion between timestamps in ms since 1970, as records have them, and `SystemTime`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The timestamp of a time, rounded down to a whole ms. A time out of its range becomes the nearest one.
pub(crate) fn to_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            let before_ms = before.duration().as_nanos().div_ceil(1_000_000);
            i64::try_from(before_ms).map_or(i64::MIN, |before_ms| -before_ms)
        }
    }
}

/// The time of a timestamp. One that the operating system cannot represent becomes a time on the same side of
/// 1970.
pub(crate) fn from_ms(timestamp_ms: i64) -> SystemTime {
    let mut distance = Duration::from_millis(timestamp_ms.unsigned_abs());
    loop {
        let time = match timestamp_ms < 0 {
            true => UNIX_EPOCH.checked_sub(distance),
            false => UNIX_EPOCH.checked_add(distance),
        };
        if let Some(time) = time {
            return time;
        }
        distance /= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_between_two_timestamps_is_the_earlier_one() {
        let at = |nanos: u64| UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!(to_ms(at(1_999_999)), 1);
        let before = |nanos: u64| UNIX_EPOCH - Duration::from_nanos(nanos);
        assert_eq!(to_ms(before(1)), -1);
        assert_eq!(to_ms(before(1_000_000)), -1);
        assert_eq!(to_ms(before(1_000_001)), -2);
    }

    #[test]
    fn the_furthest_timestamps_are_times() {
        assert!(from_ms(i64::MAX) > UNIX_EPOCH);
        assert!(from_ms(i64::MIN) < UNIX_EPOCH);
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_the_conversion(timestamp_ms in -10_000_000_000_000i64..10_000_000_000_000) {
            prop_assert_eq!(to_ms(from_ms(timestamp_ms)), timestamp_ms);
        }
    }
}
