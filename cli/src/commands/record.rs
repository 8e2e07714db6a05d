//! A record as printed.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ropewalk_client::ConsumedRecord;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::output::shown;
use crate::parse::{Piece, RecordFormat};

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

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

/// A header. A record may have several with the same name; their order counts.
#[derive(Debug, Serialize)]
pub struct HeaderRow<'a> {
    pub key: &'a str,
    pub value: Option<Text<'a>>,
}

/// Bytes: text if they are UTF-8, otherwise `{"base64":"…"}`.
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

impl<'a> RecordRow<'a> {
    /// Creates the row of a record.
    pub fn new(topic: &'a str, record: &'a ConsumedRecord) -> RecordRow<'a> {
        let headers = record.headers.iter().map(|header| HeaderRow {
            key: &header.key,
            value: header.value.as_deref().map(Text),
        });
        RecordRow {
            topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref().map(Text),
            value: record.value.as_deref().map(Text),
            headers: headers.collect(),
        }
    }

    /// Writes the record as `--format` specifies. A null is written as nothing.
    pub fn write_format(&self, format: &RecordFormat, out: &mut Vec<u8>) -> io::Result<()> {
        let bytes = |text: Option<Text<'a>>| text.map_or(&[][..], |Text(bytes)| bytes);
        for piece in &format.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(self.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", self.partition)?,
                Piece::Offset => write!(out, "{}", self.offset)?,
                Piece::Key => out.write_all(bytes(self.key))?,
                Piece::Value => out.write_all(bytes(self.value))?,
                Piece::Time => out.write_all(time_text(self.timestamp_ms).as_bytes())?,
                Piece::Headers => {
                    for (number, header) in self.headers.iter().enumerate() {
                        let comma = if number == 0 { "" } else { "," };
                        write!(out, "{comma}{}=", header.key)?;
                        out.write_all(bytes(header.value))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the record in one line, for people: position, time, key, value.
    pub fn write_line(&self, with_topic: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let time = time_text(self.timestamp_ms);
        if with_topic {
            write!(out, "{}/", shown(self.topic.as_bytes()))?;
        }
        write!(out, "{}/{}\t{time}\t", self.partition, self.offset)?;
        write_text(out, self.key)?;
        out.push(b'\t');
        write_text(out, self.value)?;
        out.push(b'\n');
        Ok(())
    }
}

/// Writes text with control characters escaped, so that a record can't overwrite the terminal.
fn write_text(out: &mut Vec<u8>, text: Option<Text<'_>>) -> io::Result<()> {
    match text {
        Some(Text(bytes)) => out.write_all(shown(bytes).as_bytes()),
        None => write!(out, "-"),
    }
}

/// Serializes a time as text, or as ms since 1970 if its year is not from 0 to 9999.
pub fn as_time<S: Serializer>(timestamp_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    match calendar(*timestamp_ms) {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_i64(*timestamp_ms),
    }
}

/// Formats a time in the syntax of `--from`, or as ms since 1970 if its year is not from 0 to 9999. Only a
/// producer's own timestamp can be such a time.
pub fn time_text(timestamp_ms: i64) -> String {
    calendar(timestamp_ms).unwrap_or_else(|| timestamp_ms.to_string())
}

fn calendar(timestamp_ms: i64) -> Option<String> {
    let nanos = i128::from(timestamp_ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    match time.year() {
        0..=9999 => time.format(&TIME).ok(),
        _ => None,
    }
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
        row(None, b"a\x1b[2Jb").write_line(false, &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, "3/42\t2026-01-31T00:00:00.123Z\t-\ta\\u{1b}[2Jb\n");
    }

    #[test]
    fn a_time_outside_the_calendar_is_printed_as_its_number() {
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
        assert_eq!(time_text(i64::MIN), i64::MIN.to_string());
        assert_eq!(time_text(-1), "1969-12-31T23:59:59.999Z");
        // The last moment of 9999 and the next; the first of year 0 and the one before.
        assert_eq!(time_text(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(time_text(253_402_300_800_000), "253402300800000");
        assert_eq!(time_text(-62_167_219_200_000), "0000-01-01T00:00:00.000Z");
        assert_eq!(time_text(-62_167_219_200_001), "-62167219200001");
        let late = RecordRow {
            timestamp_ms: i64::MAX,
            ..row(None, b"")
        };
        let json = serde_json::to_string(&late).unwrap();
        assert!(
            json.contains(r#""timestamp":9223372036854775807,"#),
            "{json}"
        );
    }

    #[test]
    fn a_format_prints_bytes_as_they_are_and_nothing_for_a_null() {
        let format: RecordFormat = r"%t %p %o [%k] [%v] [%h] %T\n".parse().unwrap();
        let mut out = Vec::new();
        row(None, b"\xff\n\x00")
            .write_format(&format, &mut out)
            .unwrap();
        let expected = b"flights 3 42 [] [\xff\n\x00] [h=] 2026-01-31T00:00:00.123Z\n";
        assert_eq!(out, expected);
    }
}
