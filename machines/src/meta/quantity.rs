//! Parsers for sizes and durations in an operator's notation, for topic settings and the command line.

use std::time::Duration;

/// Units of a size, with their bytes. Those that end in a plain `B` are decimal; all others are powers of
/// two.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("KIB", 1 << 10),
    ("M", 1 << 20),
    ("MIB", 1 << 20),
    ("G", 1 << 30),
    ("GIB", 1 << 30),
    ("T", 1 << 40),
    ("TIB", 1 << 40),
];

/// A size in bytes, more than zero (`65536`, `64KiB`, `64K`, `1GB`). Whole numbers only: `1536KiB`, not `1.5MiB`.
///
/// # Errors
/// A description of the error, without the text itself.
pub fn size(text: &str) -> Result<u64, &'static str> {
    signed_size(text).map(i64::unsigned_abs)
}

/// A size for a signed field of the wire format.
///
/// # Errors
/// As for [`size`].
pub fn signed_size(text: &str) -> Result<i64, &'static str> {
    const HELP: &str = "not a size; write a whole number of bytes, or a number with a unit: K or \
        KiB (1024), KB (1000), and M, G and T likewise";
    let text = text.trim();
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let number: u64 = number.parse().map_err(|_| HELP)?;
    let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let (_, factor) = known.ok_or(HELP)?;
    let bytes = number
        .checked_mul(*factor)
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or("too large; the largest size is below 8EiB")?;
    match bytes {
        0 => Err("not a size; it must be more than zero"),
        bytes => Ok(bytes),
    }
}

/// A duration with its unit, longer than zero (`250ms`, `30s`, `7d`).
///
/// # Errors
/// A description of the error, without the text itself.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let parsed = humantime::parse_duration(text.trim())
        .map_err(|_| "not a duration; write a number and its unit, as in 250ms, 30s or 7d")?;
    match parsed.is_zero() {
        true => Err("not a duration; it must be longer than zero"),
        false => Ok(parsed),
    }
}

/// A duration in whole ms, at least 1.
///
/// # Errors
/// As for [`duration`].
pub fn duration_ms(text: &str) -> Result<i64, &'static str> {
    let ms = i64::try_from(duration(text)?.as_millis()).map_err(|_| "too long a duration")?;
    match ms {
        0 => Err("not a duration in whole ms; it must be at least 1ms"),
        ms => Ok(ms),
    }
}

/// -1 for no limit (`unlimited`, `none`, `-1`); otherwise the value that `parse` returns.
///
/// # Errors
/// As for `parse`.
pub fn or_unlimited(
    text: &str,
    parse: impl Fn(&str) -> Result<i64, &'static str>,
) -> Result<i64, String> {
    match text.trim() {
        "-1" | "none" | "unlimited" => Ok(super::settings::UNLIMITED),
        limited => parse(limited).map_err(|why| format!("{why}; or write unlimited")),
    }
}
