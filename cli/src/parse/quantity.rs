//! Durations (`250ms`, `30s`, `7d`), sizes (`64KiB`, `1GiB`) and rates (`500/s`).

use std::time::Duration;

use ropewalk_machines::meta::quantity;

/// Parses a duration with its unit, longer than zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    quantity::duration(text).map_err(Into::into)
}

/// Parses a size in bytes, more than zero. Whole numbers only: `1536KiB`, not `1.5MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    quantity::size(text).map_err(Into::into)
}

/// Parses a retention time in milliseconds; -1 for unlimited.
pub fn retention_time(text: &str) -> Result<i64, String> {
    quantity::or_unlimited(text, quantity::duration_ms)
}

/// Parses a retention size in bytes per partition; -1 for unlimited.
pub fn retention_size(text: &str) -> Result<i64, String> {
    quantity::or_unlimited(text, quantity::signed_size)
}

/// Records per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// Parses a rate: `500/s`, or just `500`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let number = text.trim();
    let number = number.strip_suffix("/s").unwrap_or(number);
    match number.trim().parse::<f64>() {
        Ok(per_second) if per_second.is_finite() && (0.001..=1e9).contains(&per_second) => {
            Ok(Rate(per_second))
        }
        _ => Err("not a rate; write records a second, as in 500/s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "30", "s", "-1s", "0s", "1y2", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_carry_their_unit_and_do_not_overflow() {
        assert_eq!(size("1"), Ok(1));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("64 kib"), Ok(65_536));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1MB"), Ok(1_000_000));
        for (short, long) in [
            ("1K", "1KiB"),
            ("2m", "2MiB"),
            ("3 G", "3GiB"),
            ("4T", "4TiB"),
        ] {
            assert_eq!(size(short), size(long), "{short}");
        }
        let error = size("1X").unwrap_err();
        assert!(error.contains("K or KiB (1024), KB (1000)"), "{error}");
        for wrong in [
            "",
            "KiB",
            "-1KiB",
            "1.5MiB",
            "0",
            "1XB",
            "1Ki",
            "9999999999TiB",
            "１KiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn retention_can_be_unlimited() {
        assert_eq!(retention_time("unlimited"), Ok(-1));
        assert_eq!(retention_time("7d"), Ok(604_800_000));
        assert_eq!(retention_size("unlimited"), Ok(-1));
        assert_eq!(retention_size("10GiB"), Ok(10 << 30));
        assert_eq!(retention_size("none"), Ok(-1));
        assert!(retention_time("1us").is_err());
        assert!(retention_size("-2").is_err());
    }

    #[test]
    fn rates_are_records_a_second() {
        assert_eq!(rate("500/s"), Ok(Rate(500.0)));
        assert_eq!(rate("80000"), Ok(Rate(80_000.0)));
        for wrong in ["", "0", "-1/s", "fast", "inf", "NaN", "5/m"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_setting_takes_every_form_that_a_flag_takes() {
        use ropewalk_machines::meta::settings::{defaults, merge};

        for text in [
            "64KiB",
            "64 kib",
            "64K",
            "65536",
            "70KB",
            "1mb",
            "unlimited",
            "none",
        ] {
            let set = merge(&defaults(), [("retention_size", text)]).unwrap();
            assert_eq!(Ok(set.retention_bytes), retention_size(text), "{text}");
        }
        for text in ["250ms", "1h 30m", "7d", "unlimited", "-1"] {
            let set = merge(&defaults(), [("retention", text)]).unwrap();
            assert_eq!(Ok(set.retention_ms), retention_time(text), "{text}");
        }
        let set = merge(&defaults(), [("segment_bytes", "1mb")]).unwrap();
        assert_eq!(Ok(set.segment_bytes), size("1mb"));
    }
}
