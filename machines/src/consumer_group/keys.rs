//! The key space of groups, among the keys of a partition's state. A group has the key `g` and its name. A
//! committed offset has the key `o`, the group's name, a zero byte, the topic's id and the partition's
//! number. No name contains a zero byte.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Place;
use crate::machine::MachineError;

const GROUP: u8 = b'g';
const POSITION: u8 = b'o';

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// State of a group without its committed offsets.
    Group(&'a str),
    /// One committed offset of a group.
    Position(&'a str, Place),
}

/// Returns true if a key of a partition's state belongs to a group.
pub fn is_key(key: &[u8]) -> bool {
    matches!(key.first(), Some(&GROUP | &POSITION))
}

impl<'a> Key<'a> {
    /// Returns the group that the key belongs to.
    pub fn group(self) -> &'a str {
        match self {
            Key::Group(name) | Key::Position(name, _) => name,
        }
    }

    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Key::Group(name) => {
                out.put_u8(GROUP);
                out.put_slice(name.as_bytes());
            }
            Key::Position(name, place) => {
                out.put_u8(POSITION);
                out.put_slice(name.as_bytes());
                out.put_u8(0);
                out.put_u64(place.topic_id);
                out.put_u32(place.partition);
            }
        }
        out.freeze()
    }

    pub fn decode(key: &'a [u8]) -> Result<Key<'a>, MachineError> {
        let name = |bytes| std::str::from_utf8(bytes).ok();
        let read = || match key.split_first()? {
            (&GROUP, rest) => Some(Key::Group(name(rest)?)),
            (&POSITION, rest) => {
                let zero = rest.iter().position(|byte| *byte == 0)?;
                let (group, mut place) = (name(&rest[..zero])?, &rest[zero + 1..]);
                (place.len() == 12).then(|| {
                    let (topic_id, partition) = (place.get_u64(), place.get_u32());
                    Key::Position(
                        group,
                        Place {
                            topic_id,
                            partition,
                        },
                    )
                })
            }
            _ => None,
        };
        read()
            .ok_or_else(|| MachineError::Damaged(format!("unknown consumer group key {key:02x?}")))
    }
}
