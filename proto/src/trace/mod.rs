//! Trace contexts in W3C's format: the trace that an operation belongs to, and its span. They come from
//! outside, so malformed input gives no context, and never an error. Randomness must never come in:
//! contexts are carried here, not made.

#[cfg(feature = "opentelemetry")]
mod otel;

use std::fmt;

use crate::batch::Header;
use crate::headers;

/// The length of a `traceparent` of version 00, in bytes.
const TRACEPARENT_BYTES: usize = 55;
/// Maximum length of a `traceparent` of a later version, in bytes.
const LONGEST_TRACEPARENT_BYTES: usize = 256;
/// Maximum length of a `tracestate` that is carried, in bytes: as much as W3C requires.
const LONGEST_TRACESTATE_BYTES: usize = 512;
/// Maximum bytes of external text in a span: a topic's name, and most ids.
const LONGEST_FIELD_BYTES: usize = 256;
const SAMPLED: u8 = 1;

/// Trace that an operation belongs to, and the span in which it was done.
///
/// It displays as a `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// Parses the context in a `traceparent` and an optional `tracestate`. Returns `None` if the
    /// `traceparent` is malformed; a malformed `tracestate` is left out.
    pub fn parse(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<TraceContext> {
        let (parent, rest) = traceparent.split_at_checked(TRACEPARENT_BYTES)?;
        let mut parts = parent.split(|byte| *byte == b'-');
        let [version] = hex(parts.next()?)?;
        let trace_id: [u8; 16] = hex(parts.next()?)?;
        let span_id: [u8; 8] = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        let known = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version may append more fields.
            _ => {
                traceparent.len() <= LONGEST_TRACEPARENT_BYTES
                    && matches!(rest.first(), None | Some(b'-'))
            }
        };
        let is_context = known && trace_id != [0; 16] && span_id != [0; 8];
        is_context.then(|| TraceContext {
            trace_id,
            span_id,
            flags,
            state: tracestate.and_then(state),
        })
    }

    /// The context in a record's headers.
    pub fn of_headers(of: &[Header]) -> Option<TraceContext> {
        let find = |name| headers::find(of, name);
        let parse = |parent, state| TraceContext::parse(find(parent)?, find(state));
        parse(headers::TRACEPARENT, headers::TRACESTATE)
            .or_else(|| parse(headers::EVENT_TRACEPARENT, headers::EVENT_TRACESTATE))
    }

    /// The id of the trace, in hexadecimal.
    pub fn trace_id(&self) -> String {
        let id = u128::from_be_bytes(self.trace_id);
        format!("{id:032x}")
    }

    /// The id of the span, in hexadecimal.
    pub fn span_id(&self) -> String {
        let id = u64::from_be_bytes(self.span_id);
        format!("{id:016x}")
    }

    /// Returns true if the origin of the trace wants it recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (self.trace_id(), self.span_id());
        write!(f, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

/// The beginning of an external text, for a field of a span: the text may be long.
pub fn shortened(text: &str) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(LONGEST_FIELD_BYTES)).rev().find(fits);
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Parses lower-case hexadecimal, the only form that W3C allows.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn state(text: &[u8]) -> Option<Box<str>> {
    let printable = |byte: &u8| (b' '..=b'~').contains(byte);
    let fits = (1..=LONGEST_TRACESTATE_BYTES).contains(&text.len());
    let text = str::from_utf8(text).ok()?;
    (fits && text.as_bytes().iter().all(printable)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = TraceContext::parse(PARENT.as_bytes(), Some(b"vendor=1,other=2")).unwrap();
        assert_eq!(context.to_string(), PARENT);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id(), "b7ad6b7169203331");
        assert_eq!(context.state(), Some("vendor=1,other=2"));
        assert!(context.is_sampled());
        let quiet = PARENT.replace("-01", "-00");
        let quiet = TraceContext::parse(quiet.as_bytes(), None).unwrap();
        assert!(!quiet.is_sampled());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in ["01", "fe"] {
            let text = PARENT.replacen("00", later, 1);
            assert!(TraceContext::parse(text.as_bytes(), None).is_some());
            let more = format!("{text}-what-comes-then");
            let context = TraceContext::parse(more.as_bytes(), None).unwrap();
            assert_eq!(context.to_string(), PARENT);
            assert!(TraceContext::parse(format!("{text}x").as_bytes(), None).is_none());
            let endless = format!("{text}-{}", "x".repeat(LONGEST_TRACEPARENT_BYTES));
            assert!(TraceContext::parse(endless.as_bytes(), None).is_none());
        }
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        let wrong = [
            "",
            "00",
            "----",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replacen("00", "0g", 1),
            &PARENT.replace('-', "_"),
            &PARENT.replacen("00-0", "000-", 1),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ];
        for text in wrong {
            assert_eq!(TraceContext::parse(text.as_bytes(), None), None, "{text}");
        }
        assert_eq!(TraceContext::parse(&[0xff; 55], None), None);
        assert_eq!(TraceContext::parse(&[b'-'; 55], None), None);
        let long = vec![b'x'; LONGEST_TRACESTATE_BYTES + 1];
        for state in [&b""[..], b"a=\n", b"\xff", &long] {
            let context = TraceContext::parse(PARENT.as_bytes(), Some(state)).unwrap();
            assert_eq!(context.state(), None);
        }
    }

    #[test]
    fn a_field_is_cut_where_a_character_ends() {
        assert_eq!(shortened("flights"), "flights");
        assert_eq!(shortened(&"x".repeat(300)).len(), 256);
        assert_eq!(shortened(&"€".repeat(100)), "€".repeat(85));
    }

    #[test]
    fn a_record_is_asked_under_both_names_its_own_first() {
        let header = |key: &str, value: &str| Header {
            key: key.to_owned(),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        };
        let other = PARENT.replace("b7ad6b7169203331", "00000000000000ff");
        let mut headers = vec![header("ce_traceparent", &other)];
        let context = TraceContext::of_headers(&headers).unwrap();
        assert_eq!(context.to_string(), other);
        headers.push(header("traceparent", PARENT));
        let context = TraceContext::of_headers(&headers).unwrap();
        assert_eq!(context.to_string(), PARENT);
        assert_eq!(TraceContext::of_headers(&[]), None);
    }
}
