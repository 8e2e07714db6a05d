//! Durations (`250ms`, `30s`, `7d`), sizes (`64KiB`, `1GiB`) and rates (`500/s`).

use std::time::Duration;

/// What stands for "no limit" in a retention, on the wire.
const UNLIMITED: i64 = -1;

/// A duration with its unit, longer than nothing.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text.trim())
        .map_err(|_| "not a duration; write a number and its unit, as in 250ms, 30s or 7d")?;
    if parsed.is_zero() {
        return Err("must be longer than zero".into());
    }
    Ok(parsed)
}

/// Units of a size and how many bytes each is. Powers of two carry the `i`; the others are decimal.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

/// A size in bytes, more than nothing. Whole numbers only: `1536KiB`, not `1.5MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "not a size; write a whole number and its unit, as in 64KiB or 1GiB";
    let text = text.trim();
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let number: u64 = number.parse().map_err(|_| HELP)?;
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(HELP)?;
    let bytes = number
        .checked_mul(*factor)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or("too large: sizes end at 8EiB")?;
    if bytes == 0 {
        return Err("must be more than zero".into());
    }
    Ok(bytes)
}

/// Milliseconds to keep records for; -1 for ever.
pub fn retention_time(text: &str) -> Result<i64, String> {
    if text == "unlimited" {
        return Ok(UNLIMITED);
    }
    let kept = duration(text).map_err(|error| format!("{error}, or unlimited"))?;
    let kept_ms = i64::try_from(kept.as_millis()).map_err(|_| "too long; write unlimited")?;
    if kept_ms == 0 {
        return Err("must be at least 1ms".into());
    }
    Ok(kept_ms)
}

/// Bytes one partition keeps; -1 for all.
pub fn retention_size(text: &str) -> Result<i64, String> {
    if text == "unlimited" {
        return Ok(UNLIMITED);
    }
    let kept = size(text).map_err(|error| format!("{error}, or unlimited"))?;
    i64::try_from(kept).map_err(|_| "too large; write unlimited".into())
}

/// Records a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// A rate: `500/s`, or just `500`.
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
        for wrong in [
            "",
            "KiB",
            "-1KiB",
            "1.5MiB",
            "0",
            "1XB",
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
        assert!(retention_time("1us").is_err());
        assert!(retention_size("-1").is_err());
    }

    #[test]
    fn rates_are_records_a_second() {
        assert_eq!(rate("500/s"), Ok(Rate(500.0)));
        assert_eq!(rate("80000"), Ok(Rate(80_000.0)));
        for wrong in ["", "0", "-1/s", "fast", "inf", "NaN", "5/m"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }
}
