//! Input format of `produce -i jsonl`: exactly the output of `consume -o jsonl`. Other fields are rejected,
//! since a misspelt `value` would otherwise publish a tombstone.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ropewalk_client::{Header, Record};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A JSON line. Topic and offset are those of the original record, and are ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
    /// The partition of the original record.
    pub partition: Option<u32>,
    timestamp: Option<Moment>,
    key: Option<Content>,
    // The field is required, but may be null.
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Content>,
    #[serde(default)]
    headers: Vec<GivenHeader>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenHeader {
    key: String,
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Content>,
}

impl Given {
    /// Parses a line.
    pub fn parse(line: &[u8]) -> serde_json::Result<Given> {
        serde_json::from_slice(line)
    }

    /// The record to publish, without a partition.
    pub fn record(self) -> Record {
        let mut record = Record::new();
        if let Some(Content(key)) = self.key {
            record = record.key(key);
        }
        if let Some(Content(value)) = self.value {
            record = record.value(value);
        }
        if let Some(Moment(timestamp_ms)) = self.timestamp {
            record = record.timestamp_ms(timestamp_ms);
        }
        record.headers(self.headers.into_iter().map(|header| Header {
            key: header.key,
            value: header.value.map(|Content(value)| value),
        }))
    }
}

/// Bytes: a text, or `{"base64":"…"}`.
#[derive(Debug)]
struct Content(Bytes);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a string, {"base64":"…"} or null"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
        Ok(Content(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let wrong = || A::Error::custom(r#"bytes must be {"base64":"…"}, without other fields"#);
        let Some((name, text)) = map.next_entry::<String, String>()? else {
            return Err(wrong());
        };
        if name != "base64" || map.next_key::<IgnoredAny>()?.is_some() {
            return Err(wrong());
        }
        let bytes = STANDARD.decode(text).map_err(A::Error::custom)?;
        Ok(Content(bytes.into()))
    }
}

/// A time in ms since 1970, given as a number or as a date.
#[derive(Debug)]
struct Moment(i64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        deserializer.deserialize_any(MomentVisitor)
    }
}

struct MomentVisitor;

impl Visitor<'_> for MomentVisitor {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp such as 2026-01-31T00:00:00Z, or an integer in ms since 1970")
    }

    fn visit_i64<E: Error>(self, timestamp_ms: i64) -> Result<Moment, E> {
        Ok(Moment(timestamp_ms))
    }

    fn visit_u64<E: Error>(self, timestamp_ms: u64) -> Result<Moment, E> {
        i64::try_from(timestamp_ms).map(Moment).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(E::custom)?;
        let timestamp_ms = time.unix_timestamp_nanos().div_euclid(1_000_000);
        i64::try_from(timestamp_ms).map(Moment).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_client::ConsumedRecord;

    use super::super::record::RecordRow;
    use super::*;

    fn header(key: &str, value: Option<&'static [u8]>) -> Header {
        Header {
            key: key.into(),
            value: value.map(Bytes::from_static),
        }
    }

    fn published(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumedRecord {
        ConsumedRecord {
            partition: 3,
            offset: 42,
            timestamp_ms: 1_769_817_600_123,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    /// Parses the printed line of a record, and returns the record to publish.
    fn again(record: &ConsumedRecord) -> Record {
        let line = serde_json::to_vec(&RecordRow::new("flights", record)).unwrap();
        assert!(!line.contains(&b'\n'), "{record:?}");
        let given = Given::parse(&line).unwrap();
        assert_eq!(given.partition, Some(record.partition));
        given.record()
    }

    fn expected(record: &ConsumedRecord) -> Record {
        let mut expected = Record::new()
            .timestamp_ms(record.timestamp_ms)
            .headers(record.headers.clone());
        if let Some(key) = &record.key {
            expected = expected.key(key.clone());
        }
        if let Some(value) = &record.value {
            expected = expected.value(value.clone());
        }
        expected
    }

    #[test]
    fn what_is_printed_is_taken_back_byte_by_byte() {
        let odd: [Option<&'static [u8]>; 8] = [
            None,
            Some(b""),
            Some(b"\0"),
            Some(b"\xff\xfe"),
            Some(b"a\nb\r\n\tc"),
            Some(br#"{"base64":"AA=="}"#),
            Some(br#"null"#),
            Some("\u{2028}\"\\\u{1b}é".as_bytes()),
        ];
        for key in odd {
            for value in odd {
                let mut record = published(key, value);
                record.headers = vec![header("h", key), header("h", value), header("", None)];
                assert_eq!(again(&record), expected(&record));
            }
        }
        for timestamp_ms in [i64::MIN, -1, 0, 253_402_300_799_999, i64::MAX] {
            let mut record = published(None, None);
            record.timestamp_ms = timestamp_ms;
            assert_eq!(again(&record), expected(&record));
        }
    }

    #[test]
    fn a_line_that_may_mean_something_else_is_refused() {
        let wrong = [
            r#"{}"#,
            r#"{"key":"k"}"#,
            r#"{"vlaue":"v"}"#,
            r#"{"value":1}"#,
            r#"{"value":{"hex":"00"}}"#,
            r#"{"value":{"base64":"AA==","more":"x"}}"#,
            r#"{"value":{"base64":"?"}}"#,
            r#"{"value":{}}"#,
            r#"{"value":"v","value":"w"}"#,
            r#"{"value":"v","timestamp":"yesterday"}"#,
            r#"{"value":"v","timestamp":1.5}"#,
            r#"{"value":"v","partition":-1}"#,
            r#"{"value":"v","headers":{"h":"v"}}"#,
            r#"{"value":"v","headers":[{"key":"h"}]}"#,
            r#"{"value":"v"} x"#,
            "v",
            "",
        ];
        for line in wrong {
            assert!(Given::parse(line.as_bytes()).is_err(), "{line}");
        }
        let record = Given::parse(br#"{"value":"v"}"#).unwrap().record();
        assert_eq!(record, Record::new().value("v"));
        let record = Given::parse(br#"{"value":null,"key":"k"}"#)
            .unwrap()
            .record();
        assert_eq!(record, Record::new().key("k"));
    }
}
