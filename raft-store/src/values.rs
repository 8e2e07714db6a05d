//! The small values of a replica: vote, log marks, applied position, checkpoints.
//!
//! A value is a message of `ropewalk.v1` where one exists. Each has a checksum, like everything stored.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::v1;

use crate::checksum;
use crate::convert;
use crate::disk::{Change, DiskError};
use crate::keys::{Key, Part};
use crate::types::{LogId, StoredMembership, Vote};

/// Position through which a log is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purged {
    pub(crate) log_id: LogId,
    /// Length of the log in bytes through that entry.
    pub(crate) end_bytes: u64,
}

/// The last entry that a state includes, and the membership after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// The whole state of a state machine, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    pub(crate) state: Bytes,
}

fn key(replica: ReplicaId, part: Part) -> Bytes {
    Key::Of(replica, part).encode()
}

pub(crate) fn put_record(replica: ReplicaId, group: GroupId) -> Change {
    let value = Bytes::copy_from_slice(&group.0.to_be_bytes());
    checksum::put(Key::Record(replica).encode(), value)
}

pub(crate) fn read_record(key: &[u8], value: Bytes) -> Result<GroupId, DiskError> {
    let value = checksum::open(key, value)?;
    let group: Result<[u8; 8], _> = value.as_ref().try_into();
    let group = group.map_err(|_| checksum::damaged(key, "its value is not a group id"))?;
    Ok(GroupId(u64::from_be_bytes(group)))
}

pub(crate) fn put_quarantine(replica: ReplicaId, why: &str) -> Change {
    let value = Bytes::copy_from_slice(why.as_bytes());
    checksum::put(key(replica, Part::Quarantine), value)
}

pub(crate) fn read_quarantine(key: &[u8], value: Bytes) -> Result<String, DiskError> {
    let why = checksum::open(key, value)?;
    Ok(String::from_utf8_lossy(&why).into_owned())
}

pub(crate) fn put_vote(replica: ReplicaId, vote: &Vote) -> Change {
    let value = convert::vote(vote).encode_to_vec();
    checksum::put(key(replica, Part::Vote), value.into())
}

pub(crate) fn read_vote(key: &[u8], value: Bytes) -> Result<Vote, DiskError> {
    let message: v1::Vote = message(key, checksum::open(key, value)?)?;
    convert::from_vote(message).map_err(|error| checksum::damaged(key, &error.to_string()))
}

pub(crate) fn put_committed(replica: ReplicaId, committed: LogId) -> Change {
    let value = convert::log_id(&committed).encode_to_vec();
    checksum::put(key(replica, Part::Committed), value.into())
}

pub(crate) fn read_committed(key: &[u8], value: Bytes) -> Result<LogId, DiskError> {
    let message: v1::LogId = message(key, checksum::open(key, value)?)?;
    convert::from_log_id(message).map_err(|error| checksum::damaged(key, &error.to_string()))
}

pub(crate) fn put_purged(replica: ReplicaId, purged: Purged) -> Change {
    let mut value = BytesMut::new();
    value.put_u64(purged.end_bytes);
    value.put_slice(&convert::log_id(&purged.log_id).encode_to_vec());
    checksum::put(key(replica, Part::Purged), value.freeze())
}

pub(crate) fn read_purged(key: &[u8], value: Bytes) -> Result<Purged, DiskError> {
    let mut value = checksum::open(key, value)?;
    let end_bytes = value
        .try_get_u64()
        .map_err(|_| checksum::damaged(key, "its value is shorter than a length"))?;
    let message: v1::LogId = message(key, value)?;
    let log_id = convert::from_log_id(message);
    Ok(Purged {
        log_id: log_id.map_err(|error| checksum::damaged(key, &error.to_string()))?,
        end_bytes,
    })
}

pub(crate) fn put_applied(replica: ReplicaId, position: &Position) -> Change {
    checksum::put(key(replica, Part::Applied), position.encode())
}

pub(crate) fn read_applied(key: &[u8], value: Bytes) -> Result<Position, DiskError> {
    let mut value = checksum::open(key, value)?;
    Position::read(key, &mut value)
}

pub(crate) fn put_checkpoint(replica: ReplicaId, index: u64, checkpoint: &Checkpoint) -> Change {
    let mut value = BytesMut::from(checkpoint.position.encode().as_ref());
    value.put_slice(&checkpoint.state);
    checksum::put(key(replica, Part::Checkpoint(index)), value.freeze())
}

pub(crate) fn read_checkpoint(key: &[u8], value: Bytes) -> Result<Checkpoint, DiskError> {
    let mut value = checksum::open(key, value)?;
    let position = Position::read(key, &mut value)?;
    Ok(Checkpoint {
        position,
        state: value,
    })
}

pub(crate) fn put_effect(replica: ReplicaId, effect: Bytes, value: Option<Bytes>) -> Change {
    let key = key(replica, Part::Effect(effect));
    match value {
        Some(value) => checksum::put(key, value),
        None => Change::Delete { key },
    }
}

impl Position {
    /// Encodes two messages with their lengths before them, so that more can follow.
    fn encode(&self) -> Bytes {
        let log_id = self.log_id.as_ref().map(convert::log_id);
        let mut out = BytesMut::new();
        let message = v1::StoredMembership {
            log_id,
            membership: None,
        };
        for message in [message, convert::stored_membership(&self.membership)] {
            let message = message.encode_to_vec();
            out.put_u32(message.len() as u32);
            out.put_slice(&message);
        }
        out.freeze()
    }

    fn read(key: &[u8], value: &mut Bytes) -> Result<Position, DiskError> {
        let log_id: v1::StoredMembership = message(key, framed(key, value)?)?;
        let stored: v1::StoredMembership = message(key, framed(key, value)?)?;
        let membership = convert::from_stored_membership(stored);
        let log_id = log_id.log_id.map(convert::from_log_id).transpose();
        let damaged = |error: convert::ConvertError| checksum::damaged(key, &error.to_string());
        Ok(Position {
            log_id: log_id.map_err(damaged)?,
            membership: membership.map_err(damaged)?,
        })
    }
}

fn framed(key: &[u8], value: &mut Bytes) -> Result<Bytes, DiskError> {
    let length = value.try_get_u32().unwrap_or(u32::MAX) as usize;
    if length > value.len() {
        return Err(checksum::damaged(
            key,
            "its value is shorter than its stated length",
        ));
    }
    Ok(value.split_to(length))
}

fn message<T: Message + Default>(key: &[u8], value: Bytes) -> Result<T, DiskError> {
    T::decode(value).map_err(|error| checksum::damaged(key, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: ReplicaId = ReplicaId(4);

    fn stored(change: Change) -> (Bytes, Bytes) {
        match change {
            Change::Put { key, head, body } => (key, [head, body].concat().into()),
            other => panic!("expected a put, got {other:?}"),
        }
    }

    fn position() -> Position {
        Position {
            log_id: Some(LogId::new_term_index(3, 17)),
            membership: StoredMembership::new(
                Some(LogId::new_term_index(2, 11)),
                convert::tests::some_membership(),
            ),
        }
    }

    #[test]
    fn small_values_survive_the_disk() {
        let log_id = LogId::new_term_index(3, 17);
        let (key, value) = stored(put_record(REPLICA, GroupId(8)));
        assert_eq!(read_record(&key, value).unwrap(), GroupId(8));
        let vote = Vote::new_committed(3, REPLICA);
        let (key, value) = stored(put_vote(REPLICA, &vote));
        assert_eq!(read_vote(&key, value).unwrap(), vote);
        let (key, value) = stored(put_committed(REPLICA, log_id));
        assert_eq!(read_committed(&key, value).unwrap(), log_id);
        let purged = Purged {
            log_id,
            end_bytes: 99,
        };
        let (key, value) = stored(put_purged(REPLICA, purged));
        assert_eq!(read_purged(&key, value).unwrap(), purged);
        for position in [Position::default(), position()] {
            let (key, value) = stored(put_applied(REPLICA, &position));
            assert_eq!(read_applied(&key, value).unwrap(), position);
        }
        for state in [Bytes::new(), Bytes::from_static(b"state")] {
            let checkpoint = Checkpoint {
                position: position(),
                state,
            };
            let (key, value) = stored(put_checkpoint(REPLICA, 17, &checkpoint));
            assert_eq!(read_checkpoint(&key, value).unwrap(), checkpoint);
        }
    }

    #[test]
    fn a_term_that_no_group_reaches_is_damage() {
        let beyond = LogId::new_term_index(u64::MAX, 17);
        let (key, value) = stored(put_vote(REPLICA, &Vote::new(u64::MAX, REPLICA)));
        assert!(matches!(read_vote(&key, value), Err(DiskError::Damaged(_))));
        let (key, value) = stored(put_committed(REPLICA, beyond));
        assert!(matches!(
            read_committed(&key, value),
            Err(DiskError::Damaged(_))
        ));
        let purged = Purged {
            log_id: beyond,
            end_bytes: 99,
        };
        let (key, value) = stored(put_purged(REPLICA, purged));
        assert!(matches!(
            read_purged(&key, value),
            Err(DiskError::Damaged(_))
        ));
        let position = Position {
            log_id: Some(beyond),
            ..position()
        };
        let (key, value) = stored(put_applied(REPLICA, &position));
        assert!(matches!(
            read_applied(&key, value),
            Err(DiskError::Damaged(_))
        ));
    }

    #[test]
    fn a_value_with_a_flipped_bit_is_damaged() {
        let checkpoint = Checkpoint {
            position: position(),
            state: Bytes::from_static(b"state"),
        };
        let (key, value) = stored(put_checkpoint(REPLICA, 17, &checkpoint));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(
                read_checkpoint(&key, flipped.into()),
                Err(DiskError::Damaged(_))
            ));
        }
    }
}
