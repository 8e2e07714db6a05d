//! What an expression sees of a record. Nothing is made of it that the expression does not name.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use ropewalk_proto::batch::Record;
use serde_json::Value as Json;

use super::Origin;

/// The variables there are.
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
/// The header that says what type of event a record is, as in CloudEvents' binding to Kafka.
const TYPE_HEADER: &str = "ce_type";
/// The longest value that is read as JSON: as long as a record of a topic with default settings can be.
const JSON_BYTES: usize = 1 << 20;

/// One record as an expression sees it.
pub(super) struct Variables<'a> {
    origin: &'a Origin<'a>,
    offset: u64,
    record: &'a Record,
    headers: OnceLock<CelMap<'a>>,
    json: OnceLock<Option<Box<dyn Val + 'a>>>,
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

    /// How large the record is.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |it| it.len());
        let headers = self.record.headers.iter();
        let headers: usize = headers.map(|it| it.key.len() + length(&it.value)).sum();
        length(&self.record.key) + length(&self.record.value) + headers
    }

    /// Whether the value was to be read as JSON, and is too long for that.
    pub fn json_is_too_long(&self) -> bool {
        self.json_too_long.load(Ordering::Relaxed)
    }

    fn json(&self) -> Option<&(dyn Val + 'a)> {
        let made = self.json.get_or_init(|| {
            let value = self.record.value.as_deref()?;
            if value.len() > JSON_BYTES {
                self.json_too_long.store(true, Ordering::Relaxed);
                return None;
            }
            serde_json::from_slice(value).ok().map(json_value)
        });
        made.as_deref()
    }

    fn headers(&self) -> &CelMap<'a> {
        self.headers.get_or_init(|| {
            let headers = self.record.headers.iter();
            let pairs = headers.map(|header| {
                let key = CelMapKey::from(header.key.as_str());
                (key, text(header.value.as_deref()))
            });
            // Of a header given twice the last one counts.
            CelMap::from(pairs.collect::<HashMap<_, _>>())
        })
    }

    fn event_type(&self) -> &'a str {
        let mut headers = self.record.headers.iter().rev();
        let header = headers.find(|header| header.key == TYPE_HEADER);
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
            "key" => CowVal::Owned(text(record.key.as_deref())),
            "value" => CowVal::Owned(text(record.value.as_deref())),
            "type" => CowVal::owned(CelString::from(self.event_type())),
            "headers" => CowVal::Borrowed(self.headers()),
            "json" => CowVal::Borrowed(self.json()?),
            _ => return None,
        })
    }
}

/// Bytes as a string if they are one, else as bytes; null if there are none.
fn text<'a>(bytes: Option<&'a [u8]>) -> Box<dyn Val + 'a> {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        Some((_, Ok(text))) => Box::new(CelString::from(text)),
        Some((bytes, Err(_))) => Box::new(CelBytes::from(bytes)),
        None => Box::new(CelNull),
    }
}

/// JSON as CEL has it. The parser has bounded its depth.
fn json_value<'a>(json: Json) -> Box<dyn Val + 'a> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(value) => Box::new(CelBool::from(value)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Box::new(CelInt::from(value)),
            (None, Some(value)) => Box::new(CelUInt::from(value)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(value) => Box::new(CelString::from(value)),
        Json::Array(values) => {
            let values: Vec<_> = values.into_iter().map(json_value).collect();
            Box::new(CelList::from(values))
        }
        Json::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (CelMapKey::from(name), json_value(value)));
            Box::new(CelMap::from(fields.collect::<HashMap<_, _>>()))
        }
    }
}
