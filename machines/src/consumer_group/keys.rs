//! The key space of groups, among the keys of a partition's state. No group's name contains a zero byte.
//!
//! | key | value |
//! |---|---|
//! | `g`, the name | a group without its committed offsets, as written before rules 2 |
//! | `g`, the name, a zero byte, `h` | the header: generation and time of last use |
//! | ... `m`, the member's id | a member |
//! | ... `t`, the topic's id in 16 hex digits | a topic that members read |
//! | ... `b`, the topic's id in 16 hex digits | the number of its partitions that have a start offset |
//! | ... `s`, the same, the partition's number in 8 hex digits | the assignment of a partition |
//! | `o`, the name, a zero byte, the topic's id, the partition's number | a committed offset |
//!
//! **A build before rules 2 reads the keys of parts as groups with strange names, and their values as
//! groups.** So it gets to the version of the state's layout, and refuses that by name.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TopicPartitionId;
use crate::machine::MachineError;

const GROUP: u8 = b'g';
const POSITION: u8 = b'o';
const HEADER: char = 'h';
const MEMBER: char = 'm';
const TOPIC: char = 't';
const BEGUN: char = 'b';
const SHARE: char = 's';
/// Hex digits of a topic's id.
const ID_DIGITS: usize = 16;
/// Hex digits of a partition's number.
const PARTITION_DIGITS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// State of a group without its committed offsets.
    Whole(&'a str),
    /// Header of a group in parts.
    Header(&'a str),
    /// One member, by id.
    Member(&'a str, &'a str),
    /// One topic, by id.
    Topic(&'a str, u64),
    /// Number of a topic's partitions that have a start offset, by the topic's id.
    Begun(&'a str, u64),
    /// Assignment of one partition.
    PartitionAssignment(&'a str, TopicPartitionId),
    /// One committed offset of a group.
    Position(&'a str, TopicPartitionId),
}

/// Returns true if a key of a partition's state belongs to a group.
pub fn is_key(key: &[u8]) -> bool {
    matches!(key.first(), Some(&GROUP | &POSITION))
}

impl<'a> Key<'a> {
    /// Returns the group that the key belongs to.
    pub fn group(self) -> &'a str {
        match self {
            Key::Whole(name)
            | Key::Header(name)
            | Key::Member(name, _)
            | Key::Topic(name, _)
            | Key::Begun(name, _)
            | Key::PartitionAssignment(name, _)
            | Key::Position(name, _) => name,
        }
    }

    pub fn encode(self) -> Bytes {
        match self {
            Key::Whole(name) => format!("g{name}").into(),
            Key::Header(name) => format!("g{name}\0{HEADER}").into(),
            Key::Member(name, id) => format!("g{name}\0{MEMBER}{id}").into(),
            Key::Topic(name, id) => format!("g{name}\0{TOPIC}{id:016x}").into(),
            Key::Begun(name, id) => format!("g{name}\0{BEGUN}{id:016x}").into(),
            Key::PartitionAssignment(name, place) => {
                let TopicPartitionId {
                    topic_id,
                    partition,
                } = place;
                format!("g{name}\0{SHARE}{topic_id:016x}{partition:08x}").into()
            }
            Key::Position(name, place) => {
                let mut out = BytesMut::with_capacity(name.len() + 14);
                out.put_u8(POSITION);
                out.put_slice(name.as_bytes());
                out.put_u8(0);
                out.put_u64(place.topic_id);
                out.put_u32(place.partition);
                out.freeze()
            }
        }
    }

    pub fn decode(key: &'a [u8]) -> Result<Key<'a>, MachineError> {
        let read = match key.split_first() {
            Some((&GROUP, rest)) => std::str::from_utf8(rest).ok().and_then(Key::read_group),
            Some((&POSITION, rest)) => Key::read_position(rest),
            _ => None,
        };
        read.ok_or_else(|| MachineError::Damaged(format!("unknown consumer group key {key:02x?}")))
    }

    fn read_group(rest: &'a str) -> Option<Key<'a>> {
        let Some((name, part)) = rest.split_once('\0') else {
            return Some(Key::Whole(rest));
        };
        let mut rest = part.chars();
        match (rest.next()?, rest.as_str()) {
            (HEADER, "") => Some(Key::Header(name)),
            (MEMBER, id) => Some(Key::Member(name, id)),
            (TOPIC, id) => Some(Key::Topic(name, read_hex(id, ID_DIGITS)?)),
            (BEGUN, id) => Some(Key::Begun(name, read_hex(id, ID_DIGITS)?)),
            (SHARE, place) => {
                let (id, partition) = place.split_at_checked(ID_DIGITS)?;
                let place = TopicPartitionId {
                    topic_id: read_hex(id, ID_DIGITS)?,
                    partition: read_hex(partition, PARTITION_DIGITS)?.try_into().ok()?,
                };
                Some(Key::PartitionAssignment(name, place))
            }
            _ => None,
        }
    }

    fn read_position(rest: &'a [u8]) -> Option<Key<'a>> {
        let zero = rest.iter().position(|byte| *byte == 0)?;
        let (name, mut place) = (&rest[..zero], &rest[zero + 1..]);
        let name = std::str::from_utf8(name).ok()?;
        (place.len() == 12).then(|| {
            let (topic_id, partition) = (place.get_u64(), place.get_u32());
            Key::Position(
                name,
                TopicPartitionId {
                    topic_id,
                    partition,
                },
            )
        })
    }
}

/// Reads a number of exactly this many lower-case hex digits.
fn read_hex(digits: &str, count: usize) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let whole = digits.len() == count && digits.bytes().all(is_digit);
    whole.then(|| u64::from_str_radix(digits, 16).ok())?
}
