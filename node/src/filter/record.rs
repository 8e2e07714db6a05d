//! Variables through which an expression reads a record. A variable is built only when an expression uses it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cel::common::types::{CelBytes, CelInt, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use ropewalk_proto::batch::Record;
use ropewalk_proto::headers::EVENT_TYPE;

use super::Origin;
use super::value::{Fields, of_json};

/// Names of the variables.
pub(super) const NAMES: &[&str] = &[
    "headers",
    "json",
    "key",
    "offset",
    "partition",
    "timestamp",
    "topic",
    "type",
    "value",
];
/// Maximum length of a value that is parsed as JSON: the record size limit of a topic with default settings.
const JSON_BYTES: usize = 1 << 20;

/// Variables of one record.
pub(super) struct Variables<'a> {
    origin: &'a Origin<'a>,
    offset: u64,
    record: &'a Record,
    headers: OnceLock<Fields>,
    json: OnceLock<Option<Box<dyn Val>>>,
    json_too_long: AtomicBool,
}

impl<'a> Variables<'a> {
    pub fn new(origin: &'a Origin<'a>, offset: u64, record: &'a Record) -> Variables<'a> {
        Variables {
            origin,
            offset,
            record,
            headers: OnceLock::new(),
            json: OnceLock::new(),
            json_too_long: AtomicBool::new(false),
        }
    }

    /// Size of the key, value and headers of the record.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |it| it.len());
        let headers = self.record.headers.iter();
        let headers: usize = headers.map(|it| it.key.len() + length(&it.value)).sum();
        length(&self.record.key) + length(&self.record.value) + headers
    }

    /// True if the expression used `json` and the value was too long to be parsed.
    pub fn json_is_too_long(&self) -> bool {
        self.json_too_long.load(Ordering::Relaxed)
    }

    fn json(&self) -> Option<&dyn Val> {
        let made = self.json.get_or_init(|| {
            let value = self.record.value.as_deref()?;
            if value.len() > JSON_BYTES {
                self.json_too_long.store(true, Ordering::Relaxed);
                return None;
            }
            serde_json::from_slice(value).ok().map(of_json)
        });
        made.as_deref()
    }

    fn headers(&self) -> &Fields {
        self.headers.get_or_init(|| {
            let headers = self.record.headers.iter();
            // If a header occurs twice, the last one counts.
            let fields = headers.map(|header| {
                let value = Text::of(header.value.as_deref());
                (header.key.clone(), value.owned())
            });
            fields.collect()
        })
    }

    fn event_type(&self) -> &'a str {
        let mut headers = self.record.headers.iter().rev();
        let header = headers.find(|header| header.key == EVENT_TYPE);
        let value = header.and_then(|header| header.value.as_deref());
        value.map_or("", |value| std::str::from_utf8(value).unwrap_or_default())
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let record = self.record;
        Some(match name {
            "topic" => CowVal::owned(CelString::from(self.origin.topic)),
            "partition" => CowVal::owned(CelInt::from(i64::from(self.origin.partition))),
            "offset" => CowVal::owned(CelInt::from(i64::try_from(self.offset).unwrap_or(i64::MAX))),
            "timestamp" => CowVal::owned(CelInt::from(record.timestamp_ms)),
            "key" => CowVal::Owned(Text::of(record.key.as_deref()).borrowed()),
            "value" => CowVal::Owned(Text::of(record.value.as_deref()).borrowed()),
            "type" => CowVal::owned(CelString::from(self.event_type())),
            "headers" => CowVal::Borrowed(self.headers()),
            "json" => CowVal::Borrowed(self.json()?),
            _ => return None,
        })
    }
}

/// Bytes as a string if they are valid UTF-8, else as bytes; null if absent.
enum Text<'a> {
    String(&'a str),
    Bytes(&'a [u8]),
    None,
}

impl<'a> Text<'a> {
    fn of(bytes: Option<&'a [u8]>) -> Text<'a> {
        match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            Some((_, Ok(text))) => Text::String(text),
            Some((bytes, Err(_))) => Text::Bytes(bytes),
            None => Text::None,
        }
    }

    fn borrowed(self) -> Box<dyn Val + 'a> {
        match self {
            Text::String(text) => Box::new(CelString::from(text)),
            Text::Bytes(bytes) => Box::new(CelBytes::from(bytes)),
            Text::None => Box::new(CelNull),
        }
    }

    fn owned(self) -> Box<dyn Val> {
        match self {
            Text::String(text) => Box::new(CelString::from(text.to_owned())),
            Text::Bytes(bytes) => Box::new(CelBytes::from(bytes.to_vec())),
            Text::None => Box::new(CelNull),
        }
    }
}
