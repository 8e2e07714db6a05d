//! A record as it is printed.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A record on its way to stdout.
#[derive(Debug, Serialize)]
pub struct RecordRow<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    #[serde(serialize_with = "as_time", rename = "timestamp")]
    pub timestamp_ms: i64,
    pub key: Option<Text<'a>>,
    pub value: Option<Text<'a>>,
    pub headers: Vec<HeaderRow<'a>>,
}

/// A header. A record may carry several of one name, in an order.
#[derive(Debug, Serialize)]
pub struct HeaderRow<'a> {
    pub key: &'a str,
    pub value: Option<Text<'a>>,
}

/// Bytes: as text where they are UTF-8, as `{"base64":"…"}` where not.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

impl RecordRow<'_> {
    /// The record in one line, for people: place, time, key, value.
    pub fn write_line(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let time = time_text(self.timestamp_ms);
        write!(out, "{}/{}\t{time}\t", self.partition, self.offset)?;
        write_text(out, self.key)?;
        out.push(b'\t');
        write_text(out, self.value)?;
        out.push(b'\n');
        Ok(())
    }
}

/// Control characters would let a record write over the terminal; they are shown, not sent.
fn write_text(out: &mut Vec<u8>, text: Option<Text<'_>>) -> io::Result<()> {
    match text {
        Some(Text(bytes)) => out.write_all(shown(bytes).as_bytes()),
        None => write!(out, "-"),
    }
}

/// Bytes as people may see them on their terminal.
pub fn shown(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

pub fn as_time<S: Serializer>(timestamp_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(*timestamp_ms))
}

/// A time as `--from` takes it. One outside the calendar, which only a producer's own stamp can be,
/// reads as the beginning of 1970.
pub fn time_text(timestamp_ms: i64) -> String {
    let nanos = i128::from(timestamp_ms) * 1_000_000;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&TIME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(key: Option<&'a [u8]>, value: &'a [u8]) -> RecordRow<'a> {
        RecordRow {
            topic: "flights",
            partition: 3,
            offset: 42,
            timestamp_ms: 1_769_817_600_123,
            key: key.map(Text),
            value: Some(Text(value)),
            headers: vec![HeaderRow {
                key: "h",
                value: None,
            }],
        }
    }

    #[test]
    fn a_record_reads_as_the_contract_says() {
        let json = serde_json::to_string(&row(Some(b"k"), b"\xff\x00")).unwrap();
        let expected = concat!(
            r#"{"topic":"flights","partition":3,"offset":42,"timestamp":"2026-01-31T00:00:00.123Z","#,
            r#""key":"k","value":{"base64":"/wA="},"headers":[{"key":"h","value":null}]}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn a_record_for_people_cannot_write_over_their_terminal() {
        let mut out = Vec::new();
        row(None, b"a\x1b[2Jb").write_line(&mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, "3/42\t2026-01-31T00:00:00.123Z\t-\ta\\u{1b}[2Jb\n");
    }

    #[test]
    fn a_time_outside_the_calendar_does_not_stop_the_printing() {
        assert_eq!(time_text(i64::MAX), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59.999Z");
    }
}
