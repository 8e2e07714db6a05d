//! The partition's state on disk: the key space, and the value of each key.
//!
//! Values are small protobuf messages, so that a later version may add fields. Other modules define what the
//! fields mean together; nothing here reads or changes state.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use ropewalk_proto::command::GROUP_PARTS_SINCE_RULES;

use super::clock::Clock;
use crate::machine::{MachineError, StateWrite};

/// Batches remembered of one producer, each in a slot: as many as it may have in flight and repeat.
pub(super) const BATCHES_REMEMBERED: u8 = 16;

/// Version of the state's layout.
pub(super) const STATE_VERSION: u32 = 1;
/// Layout version with the partition's own clock. A build that does not know it must not go on.
pub(super) const CLOCK_VERSION: u32 = 2;
/// Layout version with a long memory of producers. A build without it would forget producers that others
/// remember.
pub(super) const MEMORY_VERSION: u32 = 3;
/// Layout version with groups in parts, with all of the earlier ones. A build that does not know it would
/// take parts for groups.
pub(super) const PARTS_VERSION: u32 = 4;

/// One key of a partition's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// [`LogHeader`].
    LogHeader,
    /// [`OffsetIndexEntry`], by log index.
    OffsetIndexEntry(u64),
    /// A log index whose append was refused; the value is empty.
    Refused(u64),
    /// [`ProducerBatch`], by producer id and slot.
    Batch(i64, u8),
    /// [`SegmentEnd`], by the log index it ends at.
    SegmentEnd(u64),
    /// [`Epoch`], by term.
    Epoch(u64),
}

impl Key {
    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(10);
        match self {
            Key::LogHeader => out.put_u8(b'c'),
            Key::OffsetIndexEntry(index) => put_numbered(&mut out, b'i', index),
            Key::Refused(index) => put_numbered(&mut out, b'r', index),
            Key::Batch(producer, slot) => {
                out.put_u8(b'p');
                out.put_i64(producer);
                out.put_u8(slot);
            }
            Key::SegmentEnd(index) => put_numbered(&mut out, b's', index),
            Key::Epoch(term) => put_numbered(&mut out, b't', term),
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Key, MachineError> {
        let mut rest = bytes;
        let kind = if rest.is_empty() { 0 } else { rest.get_u8() };
        match (kind, rest.len()) {
            (b'c', 0) => Ok(Key::LogHeader),
            (b'i', 8) => Ok(Key::OffsetIndexEntry(rest.get_u64())),
            (b'r', 8) => Ok(Key::Refused(rest.get_u64())),
            (b'p', 9) if rest[8] < BATCHES_REMEMBERED => {
                Ok(Key::Batch(rest.get_i64(), rest.get_u8()))
            }
            (b's', 8) => Ok(Key::SegmentEnd(rest.get_u64())),
            (b't', 8) => Ok(Key::Epoch(rest.get_u64())),
            _ => Err(damaged(format!("unknown key {bytes:02x?}"))),
        }
    }
}

fn put_numbered(out: &mut BytesMut, kind: u8, number: u64) {
    out.put_u8(kind);
    out.put_u64(number);
}

/// State that changes with every entry.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct LogHeader {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Log index of this state.
    #[prost(uint64, tag = "2")]
    pub applied: u64,
    /// Offset of the next record: the high watermark, since only committed entries are here.
    #[prost(uint64, tag = "3")]
    pub next_offset: u64,
    /// First offset that may still be read.
    #[prost(uint64, tag = "4")]
    pub log_start: u64,
    /// Bytes of all entries so far, including trimmed ones.
    #[prost(uint64, tag = "5")]
    pub log_bytes: u64,
    /// Highest record timestamp so far.
    #[prost(sint64, optional, tag = "6")]
    pub max_timestamp_ms: Option<i64>,
    /// The active segment, if it holds a batch or a group's command.
    #[prost(message, optional, tag = "7")]
    pub active: Option<ActiveSegment>,
    /// Last boundary at or below the log start: the log up to it may be purged.
    #[prost(message, optional, tag = "8")]
    pub purgeable: Option<SegmentEnd>,
    /// Oldest ring by which batches may be routed.
    #[prost(uint32, tag = "9")]
    pub ring_version: u32,
    /// Offset of the first record behind the last fence.
    #[prost(uint64, tag = "10")]
    pub fence_offset: u64,
    /// Target of compaction, if there ever was one.
    #[prost(message, optional, tag = "11")]
    pub compaction: Option<Compaction>,
    /// Clock of producer expiry; `None` while only leader time was ever used.
    #[prost(message, optional, tag = "12")]
    pub clock: Option<Clock>,
}

impl LogHeader {
    /// Reads the core. Its version is checked before the rest of the state is read.
    pub(super) fn read(bytes: &Bytes) -> Result<LogHeader, MachineError> {
        let core: LogHeader = value(bytes)?;
        check_version(core.version)?;
        core.check().map_err(damaged)?;
        Ok(core)
    }

    /// Notes that the state needs a build that reads this layout version. It never goes back.
    pub(super) fn needs(&mut self, version: u32) {
        self.version = self.version.max(version);
    }

    /// Notes the rules by which a command of groups was applied.
    pub(super) fn needs_rules(&mut self, rules: u32) {
        if rules >= GROUP_PARTS_SINCE_RULES {
            self.needs(PARTS_VERSION);
        }
    }

    /// Checks the invariants that every entry keeps.
    pub(super) fn check(&self) -> Result<(), String> {
        let (start, end) = (self.log_start, self.next_offset);
        let purgeable = self.purgeable.map_or(0, |purgeable| purgeable.next_offset);
        if start > end || purgeable > start || self.fence_offset > end {
            return Err(format!(
                "the log starts at offset {start}, may be purged below {purgeable}, has a fence \
                 at {}, and ends at {end}",
                self.fence_offset
            ));
        }
        Ok(())
    }
}

/// Target of compaction, as recorded in the log. Each replica carries it out by itself.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Compaction {
    /// Offset below which only the last record of each key stays.
    #[prost(uint64, tag = "1")]
    pub to_offset: u64,
    /// Last log index below that offset.
    #[prost(uint64, tag = "2")]
    pub end_index: u64,
    /// Bytes of all entries up to that index, from the beginning of the partition, as they were appended.
    #[prost(uint64, tag = "3")]
    pub log_bytes: u64,
    /// Offset below which tombstones go, too.
    #[prost(uint64, tag = "4")]
    pub tombstones_below: u64,
    /// Offset below which remaining tombstones have waited since `waiting_since_ms`.
    #[prost(uint64, tag = "5")]
    pub waiting_offset: u64,
    /// Leader time since which those tombstones wait.
    #[prost(sint64, tag = "6")]
    pub waiting_since_ms: i64,
}

impl Compaction {
    /// Returns the target after another request: to compact up to the end of a segment, and to remove
    /// tombstones below an offset. Only tombstones that an earlier compaction has passed may go. Neither
    /// offset ever goes back.
    pub fn after(
        self,
        end: Option<&SegmentEnd>,
        tombstones_below: u64,
        leader_time_ms: i64,
    ) -> Compaction {
        let mut new = match end {
            Some(end) if end.next_offset > self.to_offset => Compaction {
                to_offset: end.next_offset,
                end_index: end.end_index,
                log_bytes: end.log_bytes,
                ..self
            },
            _ => self,
        };
        new.tombstones_below = tombstones_below
            .min(self.to_offset)
            .max(self.tombstones_below);
        if new.tombstones_below >= self.waiting_offset {
            new.waiting_offset = new.to_offset;
            new.waiting_since_ms = leader_time_ms;
        }
        new
    }
}

/// The active segment: when its first and its latest record were appended, in leader time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ActiveSegment {
    #[prost(sint64, tag = "1")]
    pub first_time_ms: i64,
    #[prost(sint64, tag = "2")]
    pub last_time_ms: i64,
}

/// End of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SegmentEnd {
    /// Last log index of the segment.
    #[prost(uint64, tag = "1")]
    pub end_index: u64,
    /// Offset of the first record behind it.
    #[prost(uint64, tag = "2")]
    pub next_offset: u64,
    /// Bytes of all entries up to it, from the beginning of the partition.
    #[prost(uint64, tag = "3")]
    pub log_bytes: u64,
    /// Leader time at which its latest record was appended.
    #[prost(sint64, tag = "4")]
    pub last_time_ms: i64,
}

/// Point of the sparse offset index: one entry in many. Readers scan from it to the others.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct OffsetIndexEntry {
    #[prost(uint64, tag = "1")]
    pub log_index: u64,
    #[prost(uint64, tag = "2")]
    pub base_offset: u64,
    /// Bytes of all entries before this one.
    #[prost(uint64, tag = "3")]
    pub log_bytes: u64,
    /// Highest record timestamp before this entry.
    #[prost(sint64, optional, tag = "4")]
    pub max_timestamp_before_ms: Option<i64>,
}

/// One batch of an idempotent producer.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ProducerBatch {
    #[prost(int32, tag = "1")]
    pub epoch: i32,
    #[prost(int32, tag = "2")]
    pub first_sequence: i32,
    #[prost(uint32, tag = "3")]
    pub count: u32,
    #[prost(uint64, tag = "4")]
    pub base_offset: u64,
    /// Time of the append, by the clock of producer expiry.
    #[prost(sint64, tag = "5")]
    pub time_ms: i64,
}

/// First offset that a leader assigned, or would have assigned.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Epoch {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub start_offset: u64,
}

/// A whole state: the same pairs as on disk.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Checkpoint {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, repeated, tag = "2")]
    pub pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// State changes of one entry.
#[derive(Debug, Default)]
pub(super) struct StateWrites(pub Vec<StateWrite>);

impl StateWrites {
    pub(super) fn put(&mut self, key: Key, value: &impl Message) {
        self.0.push(StateWrite {
            key: key.encode(),
            value: Some(value.encode_to_vec().into()),
        });
    }

    pub(super) fn mark(&mut self, key: Key) {
        self.0.push(StateWrite {
            key: key.encode(),
            value: Some(Bytes::new()),
        });
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.0.push(StateWrite {
            key: key.encode(),
            value: None,
        });
    }
}

/// Decodes a value.
pub(super) fn value<M: Message + Default>(bytes: &Bytes) -> Result<M, MachineError> {
    M::decode(bytes.clone())
        .map_err(|error| damaged(format!("state value cannot be decoded: {error}")))
}

/// Refuses a layout of a newer build.
pub(super) fn check_version(version: u32) -> Result<(), MachineError> {
    if (STATE_VERSION..=PARTS_VERSION).contains(&version) {
        return Ok(());
    }
    Err(damaged(format!(
        "state has layout version {version}, and this build reads up to version {PARTS_VERSION}; \
         start the build that wrote it"
    )))
}

pub(super) fn damaged(why: impl Into<String>) -> MachineError {
    MachineError::Damaged(why.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            Just(Key::LogHeader),
            any::<u64>().prop_map(Key::OffsetIndexEntry),
            any::<u64>().prop_map(Key::Refused),
            (any::<i64>(), 0..BATCHES_REMEMBERED)
                .prop_map(|(producer, slot)| Key::Batch(producer, slot)),
            any::<u64>().prop_map(Key::SegmentEnd),
            any::<u64>().prop_map(Key::Epoch),
        ]
    }

    proptest! {
        #[test]
        fn keys_survive_their_encoding(key in key()) {
            prop_assert_eq!(Key::decode(&key.encode()).unwrap(), key);
        }

        #[test]
        fn a_slot_that_no_producer_has_is_refused(producer: i64, slot in BATCHES_REMEMBERED..) {
            prop_assert!(Key::decode(&Key::Batch(producer, slot).encode()).is_err());
        }

        #[test]
        fn bytes_that_are_no_key_are_refused_and_never_panic(bytes: Vec<u8>) {
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(&key.encode()[..], &bytes[..]);
            }
        }
    }
}
