//! Counts the fields of a message while its bytes arrive. A few bytes on the wire can decode to hundreds, so
//! the count must be known before decoding.

use ropewalk_proto::shape::{Content, Shape};

/// Maximum nesting of messages, the same as the decoder's.
const DEPTH: usize = 100;

/// Reason to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    TooManyFields,
    Malformed,
}

/// Position in one message.
#[derive(Debug)]
pub(super) struct Walk {
    /// Bytes taken so far.
    at: u64,
    fields: usize,
    most: usize,
    step: Step,
    varint: u64,
    shift: u32,
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Key,
    Varint,
    /// Length of the field with this number.
    Length(u32),
    Skip(u64),
}

/// A message that the next field belongs to.
#[derive(Debug)]
struct Level {
    end: u64,
    shape: Option<Shape>,
}

impl Walk {
    /// Creates a walk over a message of this many bytes with at most this many fields. Without a shape, the
    /// walk counts nothing.
    pub fn new(shape: Option<Shape>, bytes: u64, most: usize) -> Walk {
        Walk {
            at: 0,
            fields: 0,
            most,
            step: match shape {
                Some(_) => Step::Key,
                None => Step::Skip(bytes),
            },
            varint: 0,
            shift: 0,
            levels: vec![Level { end: bytes, shape }],
        }
    }

    /// Bytes taken.
    pub fn taken(&self) -> u64 {
        self.at
    }

    /// Bytes still missing.
    pub fn left(&self) -> u64 {
        self.levels
            .first()
            .map_or(0, |whole| whole.end.saturating_sub(self.at))
    }

    /// Takes the next bytes, at most the missing ones.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while let Some((byte, rest)) = bytes.split_first() {
            if let Step::Skip(left) = self.step {
                let skipped = left.min(bytes.len() as u64);
                bytes = bytes.get(skipped as usize..).unwrap_or_default();
                self.at += skipped;
                self.skip(left - skipped);
            } else {
                bytes = rest;
                self.at += 1;
                if let Some(value) = self.varint(*byte)? {
                    self.found(value)?;
                }
            }
            self.close()?;
        }
        Ok(())
    }

    fn varint(&mut self, byte: u8) -> Result<Option<u64>, Stop> {
        if self.shift > 63 {
            return Err(Stop::Malformed);
        }
        self.varint |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        self.shift = 0;
        Ok(Some(std::mem::take(&mut self.varint)))
    }

    fn found(&mut self, value: u64) -> Result<(), Stop> {
        match self.step {
            Step::Key => {
                self.count(1)?;
                let number = u32::try_from(value >> 3).map_err(|_| Stop::Malformed)?;
                match value & 7 {
                    0 => self.step = Step::Varint,
                    1 => self.skip(8),
                    2 => self.step = Step::Length(number),
                    // Protobuf groups, which no message uses: their fields count like any others.
                    3 | 4 => {}
                    5 => self.skip(4),
                    _ => return Err(Stop::Malformed),
                }
                Ok(())
            }
            Step::Length(number) => self.enter(number, value),
            Step::Varint | Step::Skip(_) => {
                self.step = Step::Key;
                Ok(())
            }
        }
    }

    /// Enters a field of this many bytes, or skips it.
    fn enter(&mut self, number: u32, bytes: u64) -> Result<(), Stop> {
        let level = self.levels.last().ok_or(Stop::Malformed)?;
        let end = self.at.checked_add(bytes).ok_or(Stop::Malformed)?;
        if end > level.end {
            return Err(Stop::Malformed);
        }
        match level.shape.and_then(|shape| shape.content(number)) {
            Some(Content::Message(message)) => {
                if self.levels.len() >= DEPTH {
                    return Err(Stop::Malformed);
                }
                let shape = Some(Shape::of_content(message));
                self.levels.push(Level { end, shape });
                self.step = Step::Key;
            }
            Some(Content::Packed) => {
                // A packed number takes at least one byte.
                self.count(usize::try_from(bytes).unwrap_or(usize::MAX))?;
                self.skip(bytes);
            }
            None => self.skip(bytes),
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) {
        self.step = match bytes {
            0 => Step::Key,
            some => Step::Skip(some),
        };
    }

    fn count(&mut self, fields: usize) -> Result<(), Stop> {
        self.fields = self.fields.saturating_add(fields);
        match self.fields > self.most {
            true => Err(Stop::TooManyFields),
            false => Ok(()),
        }
    }

    /// Leaves the messages that end here.
    fn close(&mut self) -> Result<(), Stop> {
        let between = self.step == Step::Key && self.shift == 0;
        while let Some(level) = self.levels.last() {
            if self.at > level.end || (self.at == level.end && !between) {
                return Err(Stop::Malformed);
            }
            if self.at < level.end || self.levels.len() == 1 {
                break;
            }
            self.levels.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use ropewalk_proto::v1;

    use super::*;

    const METADATA: &str = "/ropewalk.v1.Ropewalk/Metadata";
    const PUBLISH: &str = "/ropewalk.v1.Ropewalk/Publish";
    const HEARTBEAT: &str = "/ropewalk.v1.Raft/Heartbeat";

    /// Counts a message that arrives in pieces of this size.
    fn walk(path: &str, bytes: &[u8], piece: usize, most: usize) -> Result<usize, Stop> {
        let shape = Shape::of_request(path).expect("a call");
        let mut walk = Walk::new(Some(shape), bytes.len() as u64, most);
        for piece in bytes.chunks(piece) {
            walk.take(piece)?;
        }
        assert_eq!((walk.left(), walk.taken()), (0, bytes.len() as u64));
        Ok(walk.fields)
    }

    fn publish(headers: usize) -> Vec<u8> {
        let header = v1::Header {
            key: "k".into(),
            value: "v".into(),
        };
        let request = v1::PublishRequest {
            topic: "t".into(),
            headers: vec![header; headers],
            timestamp_ms: Some(-1),
            ..Default::default()
        };
        request.encode_to_vec()
    }

    #[test]
    fn fields_are_counted_at_every_depth_however_the_bytes_come() {
        for piece in [1, 2, 7, 1_000] {
            assert_eq!(walk(PUBLISH, &publish(3), piece, 100), Ok(2 + 3 * 3));
            let call = v1::HeartbeatCall {
                calls: vec![v1::AppendCall::default(); 50],
            };
            let found = walk(HEARTBEAT, &call.encode_to_vec(), piece, 100);
            assert_eq!(found, Ok(50), "empty calls");
        }
    }

    #[test]
    fn one_field_too_many_is_refused_before_the_rest_has_come() {
        let bytes = publish(1_000);
        let shape = Shape::of_request(PUBLISH);
        let mut walk = Walk::new(shape, bytes.len() as u64, 30);
        let first = bytes.get(..200).expect("enough bytes");
        assert_eq!(walk.take(first), Err(Stop::TooManyFields));
        let names = vec![String::new(); 40_000];
        let request = v1::MetadataRequest { topics: names };
        let bytes = request.encode_to_vec();
        let refused = super::tests::walk(METADATA, &bytes, 100, 10_000);
        assert_eq!(refused, Err(Stop::TooManyFields));
    }

    #[test]
    fn a_message_that_reaches_past_the_one_it_is_in_is_malformed() {
        // A header of 5 bytes in which a key of 9 begins.
        let bytes = [0x22, 5, 0x0a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(walk(PUBLISH, &bytes, 3, 100), Err(Stop::Malformed));
        let endless = [0xff; 16];
        assert_eq!(walk(PUBLISH, &endless, 3, 100), Err(Stop::Malformed));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_panic_and_what_is_passed_has_few_fields(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1..50_usize,
        ) {
            if let Ok(fields) = walk(HEARTBEAT, &bytes, piece, 20) {
                prop_assert!(fields <= 20);
                if let Ok(call) = v1::HeartbeatCall::decode(&*bytes) {
                    prop_assert!(call.calls.len() <= fields);
                }
            }
        }
    }
}
