//! The key space: everything a node keeps, in one column family.
//!
//! | key | value |
//! |---|---|
//! | `1` name | a small value of the node itself |
//! | `2` replica | the group the replica belongs to |
//! | `3` replica `1` | vote |
//! | `3` replica `2` | the last log id known to be committed |
//! | `3` replica `3` | the last log id purged |
//! | `3` replica `4` | the last log id applied, and the membership as of it |
//! | `3` replica `5` key | one effect of the state machine |
//! | `3` replica `6` index | a checkpoint as of a log index |
//! | `3` replica `7` index | a log entry |
//! | `3` replica `8` | the reason that the replica must not run again |
//! | `3` replica `9` | the note of the code that rewrites the replica's log |
//!
//! Numbers are big-endian, so keys sort in the order of what they name, and all keys of one replica are one
//! range. Keys name the replica and not the group. A replica id is used once, so no replica reads what a
//! former one left. The format of values must never come in here.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use ropewalk_proto::ids::ReplicaId;

const TAG_LOCAL: u8 = 1;
const TAG_RECORD: u8 = 2;
const TAG_REPLICA: u8 = 3;

const PART_VOTE: u8 = 1;
const PART_COMMITTED: u8 = 2;
const PART_PURGED: u8 = 3;
const PART_APPLIED: u8 = 4;
const PART_EFFECT: u8 = 5;
const PART_CHECKPOINT: u8 = 6;
const PART_LOG: u8 = 7;
const PART_QUARANTINE: u8 = 8;
const PART_NOTE: u8 = 9;

/// One key. Its order is that of its encoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A small value of the node, by name.
    Local(Bytes),
    /// The record of a replica and its group.
    Record(ReplicaId),
    /// A part of one replica.
    Of(ReplicaId, Part),
}

/// The parts stored for one replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Vote,
    Committed,
    Purged,
    Applied,
    /// An effect, by the machine's own key.
    Effect(Bytes),
    /// A checkpoint, by the log index whose state it holds.
    Checkpoint(u64),
    /// A log entry, by its index.
    Log(u64),
    Quarantine,
    Note,
}

impl Key {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(18);
        match self {
            Key::Local(name) => {
                out.put_u8(TAG_LOCAL);
                out.put_slice(name);
            }
            Key::Record(replica) => {
                out.put_u8(TAG_RECORD);
                out.put_u64(replica.0);
            }
            Key::Of(replica, part) => {
                out.put_u8(TAG_REPLICA);
                out.put_u64(replica.0);
                part.encode(&mut out);
            }
        }
        out.freeze()
    }

    /// Decodes a key; `None` if it is not one of ours.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Key> {
        let (&tag, rest) = bytes.split_first()?;
        match tag {
            TAG_LOCAL => Some(Key::Local(bytes.slice(1..))),
            TAG_RECORD => Some(Key::Record(ReplicaId(number(rest)?))),
            TAG_REPLICA => {
                let (replica, rest) = rest.split_at_checked(8)?;
                let (&part, rest) = rest.split_first()?;
                let part = match (part, rest.is_empty()) {
                    (PART_VOTE, true) => Part::Vote,
                    (PART_COMMITTED, true) => Part::Committed,
                    (PART_PURGED, true) => Part::Purged,
                    (PART_APPLIED, true) => Part::Applied,
                    (PART_EFFECT, _) => Part::Effect(bytes.slice(10..)),
                    (PART_CHECKPOINT, _) => Part::Checkpoint(number(rest)?),
                    (PART_LOG, _) => Part::Log(number(rest)?),
                    (PART_QUARANTINE, true) => Part::Quarantine,
                    (PART_NOTE, true) => Part::Note,
                    _ => return None,
                };
                Some(Key::Of(ReplicaId(number(replica)?), part))
            }
            _ => None,
        }
    }
}

impl Part {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Part::Vote => out.put_u8(PART_VOTE),
            Part::Committed => out.put_u8(PART_COMMITTED),
            Part::Purged => out.put_u8(PART_PURGED),
            Part::Applied => out.put_u8(PART_APPLIED),
            Part::Effect(key) => {
                out.put_u8(PART_EFFECT);
                out.put_slice(key);
            }
            Part::Checkpoint(index) => {
                out.put_u8(PART_CHECKPOINT);
                out.put_u64(*index);
            }
            Part::Log(index) => {
                out.put_u8(PART_LOG);
                out.put_u64(*index);
            }
            Part::Quarantine => out.put_u8(PART_QUARANTINE),
            Part::Note => out.put_u8(PART_NOTE),
        }
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The records of all replicas.
pub(crate) fn records() -> Range<Bytes> {
    Bytes::from_static(&[TAG_RECORD])..Bytes::from_static(&[TAG_RECORD + 1])
}

/// The values of the node itself, and the records of its replicas.
pub(crate) fn of_node() -> Range<Bytes> {
    Bytes::new()..Bytes::from_static(&[TAG_REPLICA])
}

/// Everything of one replica except its record.
pub(crate) fn everything(replica: ReplicaId) -> Range<Bytes> {
    part_range(replica, 0, u8::MAX)
}

/// All effects of a replica.
pub(crate) fn effects(replica: ReplicaId) -> Range<Bytes> {
    part_range(replica, PART_EFFECT, PART_EFFECT + 1)
}

/// All checkpoints of a replica.
pub(crate) fn all_checkpoints(replica: ReplicaId) -> Range<Bytes> {
    part_range(replica, PART_CHECKPOINT, PART_CHECKPOINT + 1)
}

/// The checkpoints of a replica in `first..=last`.
pub(crate) fn checkpoints(replica: ReplicaId, first: u64, last: u64) -> Range<Bytes> {
    let key = |index| Key::Of(replica, Part::Checkpoint(index)).encode();
    key(first)..after(&key(last))
}

/// The log entries of a replica in `first..=last`.
pub(crate) fn log(replica: ReplicaId, first: u64, last: u64) -> Range<Bytes> {
    let key = |index| Key::Of(replica, Part::Log(index)).encode();
    key(first)..after(&key(last))
}

/// Everything of a replica besides its log, except the few parts that sort after the log.
pub(crate) fn before_log(replica: ReplicaId) -> Range<Bytes> {
    part_range(replica, 0, PART_LOG)
}

/// The log entries of a replica from `first` on, and the few parts that sort after them.
pub(crate) fn log_and_behind(replica: ReplicaId, first: u64) -> Range<Bytes> {
    log(replica, first, u64::MAX).start..part_range(replica, 0, u8::MAX).end
}

/// Returns true for the key of a log entry.
pub(crate) fn is_log(key: &Bytes) -> bool {
    matches!(Key::decode(key), Some(Key::Of(_, Part::Log(_))))
}

fn part_range(replica: ReplicaId, first: u8, end: u8) -> Range<Bytes> {
    let edge = |part| {
        let mut out = BytesMut::with_capacity(10);
        out.put_u8(TAG_REPLICA);
        out.put_u64(replica.0);
        out.put_u8(part);
        out.freeze()
    };
    edge(first)..edge(end)
}

/// The smallest key after `key`.
pub(crate) fn after(key: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 1);
    out.put_slice(key);
    out.put_u8(0);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)
    }

    fn replica() -> impl Strategy<Value = ReplicaId> {
        prop_oneof![0u64..3, Just(u64::MAX), any::<u64>()].prop_map(ReplicaId)
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            Just(Part::Vote),
            Just(Part::Committed),
            Just(Part::Purged),
            Just(Part::Applied),
            bytes().prop_map(Part::Effect),
            any::<u64>().prop_map(Part::Checkpoint),
            prop_oneof![0u64..600, any::<u64>()].prop_map(Part::Log),
            Just(Part::Quarantine),
            Just(Part::Note),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            bytes().prop_map(Key::Local),
            replica().prop_map(Key::Record),
            (replica(), part()).prop_map(|(replica, part)| Key::Of(replica, part)),
        ]
    }

    proptest! {
        #[test]
        fn keys_survive_their_encoding(key in key()) {
            prop_assert_eq!(Key::decode(&key.encode()), Some(key));
        }

        #[test]
        fn the_order_of_keys_is_the_order_of_their_bytes(a in key(), b in key()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn a_range_holds_exactly_its_own(key in key(), of in replica(), a: u64, b: u64) {
            let (first, last) = (a.min(b), a.max(b));
            let encoded = key.encode();
            let own = matches!(&key, Key::Of(replica, _) if *replica == of);
            let index = match &key {
                Key::Of(_, Part::Log(index)) => Some(*index),
                _ => None,
            };
            let checkpoint = match &key {
                Key::Of(_, Part::Checkpoint(index)) => Some(*index),
                _ => None,
            };
            let within = |index: Option<u64>| {
                own && index.is_some_and(|index| first <= index && index <= last)
            };
            let effect = matches!(&key, Key::Of(_, Part::Effect(_)));
            prop_assert_eq!(everything(of).contains(&encoded), own);
            prop_assert_eq!(effects(of).contains(&encoded), own && effect);
            prop_assert_eq!(all_checkpoints(of).contains(&encoded), own && checkpoint.is_some());
            let behind = matches!(&key, Key::Of(_, Part::Quarantine | Part::Note));
            prop_assert_eq!(is_log(&encoded), index.is_some());
            prop_assert_eq!(before_log(of).contains(&encoded), own && index.is_none() && !behind);
            let wanted = behind || index.is_some_and(|index| index >= first);
            prop_assert_eq!(log_and_behind(of, first).contains(&encoded), own && wanted);
            prop_assert_eq!(log(of, first, last).contains(&encoded), within(index));
            prop_assert_eq!(checkpoints(of, first, last).contains(&encoded), within(checkpoint));
            prop_assert_eq!(records().contains(&encoded), matches!(key, Key::Record(_)));
            prop_assert_eq!(of_node().contains(&encoded), !matches!(key, Key::Of(..)));
        }

        #[test]
        fn foreign_bytes_are_refused_and_not_misread(bytes in bytes()) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }
}
