//! Log entries as stored on the disk.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | CRC-32C over the key and everything that follows |
//! | 1 | version of this layout |
//! | 1 | kind: blank, command, membership |
//! | 8 | term |
//! | 8 | length of the replica's whole log through this entry, in bytes |
//! | n | payload |
//!
//! With the running length, the size of any part of the log is the difference of two numbers. Each replica
//! has its own running length: a log that began with a snapshot counts from there.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use prost::Message;
use ropewalk_proto::command::{Command, CommandError};
use ropewalk_proto::ids::ReplicaId;
use ropewalk_proto::v1;

use crate::checksum::{self, CRC_BYTES};
use crate::convert;
use crate::disk::{Change, DiskError};
use crate::keys::{Key, Part};
use crate::types::{Entry, LogId};

const LAYOUT_VERSION: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// Length of the fields before the payload.
pub(crate) const HEAD_BYTES: usize = CRC_BYTES + 18;

/// Maximum length of a command's fields before its body.
const COMMAND_HEAD_BYTES: usize = 18;

/// An entry read back, with its two lengths.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredEntry {
    pub(crate) entry: Entry,
    /// Length of this entry in the log.
    pub(crate) bytes: u64,
    /// Length of the log through this entry.
    pub(crate) end_bytes: u64,
}

/// Length of an entry in the log, the same on every replica: the length as appended, whatever compaction
/// has removed since.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.log_bytes(),
        EntryPayload::Membership(membership) => convert::membership(membership).encoded_len(),
    };
    (HEAD_BYTES + payload) as u64
}

/// The change that stores an entry. It shares a record batch instead of copying it.
pub(crate) fn put(replica: ReplicaId, stored: &StoredEntry) -> Change {
    let entry = &stored.entry;
    let key = Key::Of(replica, Part::Log(entry.log_id.index)).encode();
    let mut head = BytesMut::with_capacity(HEAD_BYTES + COMMAND_HEAD_BYTES);
    head.put_u32(0);
    head.put_u8(LAYOUT_VERSION);
    head.put_u8(kind(&entry.payload));
    head.put_u64(entry.log_id.committed_leader_id().term);
    head.put_u64(stored.end_bytes);
    let body = match &entry.payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(command) => command.encode_head(&mut head),
        EntryPayload::Membership(membership) => {
            Bytes::from(convert::membership(membership).encode_to_vec())
        }
    };
    let crc = checksum::crc(&key, &[head.get(CRC_BYTES..).unwrap_or_default(), &body]);
    if let Some(place) = head.get_mut(..CRC_BYTES) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
    Change::Put {
        key,
        head: head.freeze(),
        body,
    }
}

fn kind(payload: &EntryPayload<Command, ReplicaId, crate::types::RaftNode>) -> u8 {
    match payload {
        EntryPayload::Blank => KIND_BLANK,
        EntryPayload::Normal(_) => KIND_COMMAND,
        EntryPayload::Membership(_) => KIND_MEMBERSHIP,
    }
}

/// Error for an intact entry of a newer build, which is not damage.
fn newer(index: u64, what: &dyn std::fmt::Display) -> DiskError {
    DiskError::Failed(format!(
        "log entry {index} cannot be read: {what}; upgrade this node"
    ))
}

/// Reads a stored entry. A record batch in it shares `value`'s memory.
pub(crate) fn read(key: &Bytes, value: Bytes) -> Result<StoredEntry, DiskError> {
    let Some(Key::Of(_, Part::Log(index))) = Key::decode(key) else {
        return Err(checksum::damaged(key, "it is not the key of a log entry"));
    };
    let stored_bytes = value.len() as u64;
    let mut value = checksum::open(key, value)?;
    if value.len() < HEAD_BYTES - CRC_BYTES {
        return Err(checksum::damaged(
            key,
            "its value is shorter than an entry's head",
        ));
    }
    let version = value.get_u8();
    let kind = value.get_u8();
    let term = value.get_u64();
    let end_bytes = value.get_u64();
    let unreadable = |what: String| checksum::damaged(key, &what);
    let payload = match (version, kind) {
        (LAYOUT_VERSION, KIND_BLANK) => EntryPayload::Blank,
        (LAYOUT_VERSION, KIND_COMMAND) => {
            EntryPayload::Normal(Command::decode(value).map_err(|error| match error {
                CommandError::Newer { .. } => newer(index, &error),
                CommandError::Damaged(_) => unreadable(error.to_string()),
            })?)
        }
        (LAYOUT_VERSION, KIND_MEMBERSHIP) => {
            let message = v1::Membership::decode(value);
            let message = message.map_err(|error| unreadable(error.to_string()))?;
            let membership = convert::from_membership(message);
            EntryPayload::Membership(membership.map_err(|error| unreadable(error.to_string()))?)
        }
        _ => {
            let what = format!("layout {version}, kind {kind} is unknown to this build");
            return Err(newer(index, &what));
        }
    };
    convert::check("term", term).map_err(|error| unreadable(error.to_string()))?;
    let bytes = match &payload {
        EntryPayload::Normal(command) => (HEAD_BYTES + command.log_bytes()) as u64,
        EntryPayload::Blank | EntryPayload::Membership(_) => stored_bytes,
    };
    Ok(StoredEntry {
        entry: Entry {
            log_id: LogId::new_term_index(term, index),
            payload,
        },
        bytes,
        end_bytes,
    })
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::command::Stamp;

    use super::*;

    fn samples() -> Vec<StoredEntry> {
        let batch = Bytes::from_static(b"a batch of records");
        let commands = [
            Command::Append {
                stamp: Stamp {
                    leader_time_ms: 7,
                    ..Stamp::default()
                },
                batch,
            },
            Command::Trim {
                leader_time_ms: 8,
                to_offset: 9,
            },
            Command::Roll { leader_time_ms: 9 },
            Command::Compacted {
                stamp: Stamp {
                    leader_time_ms: 7,
                    ring_version: 2,
                    ..Stamp::default()
                },
                came_bytes: 400,
                batch: Bytes::from_static(b"what is left"),
            },
            Command::Meta(v1::MetaCommand {
                leader_time_ms: 3,
                kind: None,
            }),
        ];
        let payloads = commands.into_iter().map(EntryPayload::Normal).chain([
            EntryPayload::Blank,
            EntryPayload::Membership(convert::tests::some_membership()),
        ]);
        let stored = payloads.zip(1..).map(|(payload, index)| {
            let entry = Entry {
                log_id: LogId::new_term_index(2, index),
                payload,
            };
            StoredEntry {
                bytes: entry_bytes(&entry),
                end_bytes: index * 1_000,
                entry,
            }
        });
        stored.collect()
    }

    fn stored(entry: &StoredEntry) -> (Bytes, Vec<u8>) {
        match put(ReplicaId(4), entry) {
            Change::Put { key, head, body } => (key, [head, body].concat()),
            other => panic!("an entry is stored by a put, not {other:?}"),
        }
    }

    #[test]
    fn entries_survive_the_disk_with_their_lengths() {
        for sample in samples() {
            let (key, value) = stored(&sample);
            assert_eq!(read(&key, value.into()).unwrap(), sample);
        }
    }

    #[test]
    fn a_batch_is_handed_to_the_disk_without_a_copy() {
        let sample = &samples()[0];
        let EntryPayload::Normal(Command::Append { batch, .. }) = &sample.entry.payload else {
            panic!("the first sample is an append");
        };
        let Change::Put { body, .. } = put(ReplicaId(4), sample) else {
            panic!("an entry is stored by a put");
        };
        assert_eq!(body.as_ptr(), batch.as_ptr());
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_key_is_damage() {
        for sample in samples() {
            let (key, value) = stored(&sample);
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(
                    read(&key, flipped.into()),
                    Err(DiskError::Damaged(_))
                ));
            }
            for length in 0..value.len() {
                let cut = Bytes::copy_from_slice(&value[..length]);
                assert!(matches!(read(&key, cut), Err(DiskError::Damaged(_))));
            }
            let elsewhere = Key::Of(ReplicaId(5), Part::Log(sample.entry.log_id.index)).encode();
            assert!(read(&elsewhere, value.into()).is_err());
        }
    }
}
