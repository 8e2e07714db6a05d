//! Reads the replicas on a disk without a node: for tools, and for checks of what a power loss would leave.
//!
//! Read-only and lenient. [`Inspection::damaged`] names what can't be read, and the rest is returned, since
//! the reader wants to see what is left. A replica must never continue from what is read this way.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use openraft::EntryPayload;
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::{GroupId, ReplicaId};

use crate::checksum;
pub use crate::digest::Digest;
use crate::disk::{Change, ChangeBatch, Disk, DiskError, ScanLimit};
use crate::entry;
use crate::keys::{self, Key, Part};
use crate::types::LogId;
use crate::values;

/// A position in a Raft log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// The index.
    pub index: u64,
}

/// A vote as it was cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CastVote {
    /// Term of the vote.
    pub term: u64,
    /// Replica voted for.
    pub candidate: ReplicaId,
    /// True if the candidate is known to have won.
    pub committed: bool,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Nothing: the first entry of a new leader.
    Blank,
    /// A command.
    Command(Command),
    /// The voters: one set, or two while the membership changes.
    Voters(Vec<BTreeSet<ReplicaId>>),
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectedEntry {
    /// Position in the log.
    pub place: LogPlace,
    /// Length in the log, in bytes, the same on every replica.
    pub bytes: u64,
    /// Fingerprint, for comparison with other entries.
    pub digest: Digest,
    /// Content of the entry.
    pub payload: Payload,
}

/// The data of one replica on a disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its vote.
    pub vote: Option<CastVote>,
    /// Last position known to be committed.
    pub committed: Option<LogPlace>,
    /// Last purged position.
    pub purged: Option<LogPlace>,
    /// Last applied position: the state is exactly that after this entry.
    pub applied: Option<LogPlace>,
    /// Last entry of the log. A purged entry counts too.
    pub last: Option<LogPlace>,
    /// True if the replica is in quarantine and must not run.
    pub quarantined: bool,
    /// First log index that was asked for.
    pub from_index: u64,
    /// Entries from `from_index` on.
    pub entries: Vec<InspectedEntry>,
    /// Log indexes of the checkpoints.
    pub checkpoints: Vec<u64>,
    /// Keys and values of the state machine.
    pub effects: Vec<(Bytes, Bytes)>,
    /// Values that could not be read, and why.
    pub damaged: Vec<String>,
}

impl Inspection {
    /// A replica with nothing on the disk yet.
    pub fn empty(group: GroupId, replica: ReplicaId) -> Inspection {
        Inspection {
            group,
            replica,
            vote: None,
            committed: None,
            purged: None,
            applied: None,
            last: None,
            quarantined: false,
            from_index: 0,
            entries: Vec::new(),
            checkpoints: Vec::new(),
            effects: Vec::new(),
            damaged: Vec::new(),
        }
    }

    /// Log index up to which every entry is known to be committed.
    pub fn committed_index(&self) -> Option<u64> {
        let known = [self.committed, self.applied, self.purged];
        known.into_iter().flatten().map(|place| place.index).max()
    }

    /// Returns the value that was read, or records the damage.
    fn keep<T>(&mut self, read: Result<T, DiskError>) -> Option<T> {
        read.map_err(|error| self.damaged.push(error.to_string()))
            .ok()
    }
}

/// The replicas recorded on a disk, in order of their ids. A damaged record is left out.
///
/// # Errors
/// The disk's error if it can't be read at all.
pub async fn replicas(disk: &dyn Disk) -> Result<Vec<(GroupId, ReplicaId)>, DiskError> {
    let pairs = everything(disk, keys::records()).await?;
    let known = pairs
        .into_iter()
        .filter_map(|(key, value)| match Key::decode(&key)? {
            Key::Record(replica) => Some((values::read_record(&key, value).ok()?, replica)),
            Key::Local(_) | Key::Of(..) => None,
        });
    Ok(known.collect())
}

/// The data of one replica on a disk, with the log entries from `from_index` on.
///
/// # Errors
/// The disk's error if it can't be read at all.
pub async fn replica(
    disk: &dyn Disk,
    group: GroupId,
    replica: ReplicaId,
    from_index: u64,
) -> Result<Inspection, DiskError> {
    let mut seen = Inspection {
        from_index,
        ..Inspection::empty(group, replica)
    };
    // Few reads, since each one makes a database search all its tables.
    for (key, value) in everything(disk, keys::before_log(replica)).await? {
        seen.take_before_log(&key, value);
    }
    let behind = everything(disk, keys::log_and_behind(replica, from_index)).await?;
    if !behind.iter().any(|(key, _)| keys::is_log(key)) {
        let last = disk.last(keys::log(replica, 0, u64::MAX)).await?;
        let last = last.and_then(|(key, value)| seen.keep(entry::read(&key, value)));
        seen.last = last.map(|stored| place(stored.entry.log_id));
    }
    for (key, value) in behind {
        seen.take_log_and_behind(&key, value);
    }
    seen.last = seen.last.max(seen.purged);
    Ok(seen)
}

impl Inspection {
    fn take_before_log(&mut self, key: &Bytes, value: Bytes) {
        match Key::decode(key) {
            Some(Key::Of(_, Part::Vote)) => {
                let vote = self.keep(values::read_vote(key, value));
                self.vote = vote.map(|vote| CastVote {
                    term: vote.leader_id.term,
                    candidate: vote.leader_id.voted_for,
                    committed: vote.committed,
                });
            }
            Some(Key::Of(_, Part::Committed)) => {
                let committed = self.keep(values::read_committed(key, value));
                self.committed = committed.map(place);
            }
            Some(Key::Of(_, Part::Purged)) => {
                let purged = self.keep(values::read_purged(key, value));
                self.purged = purged.map(|purged| place(purged.log_id));
            }
            Some(Key::Of(_, Part::Applied)) => {
                let applied = self.keep(values::read_applied(key, value));
                self.applied = applied.and_then(|position| position.log_id).map(place);
            }
            Some(Key::Of(_, Part::Effect(effect))) => {
                let opened = self.keep(checksum::open(key, value));
                self.effects.extend(opened.map(|value| (effect, value)));
            }
            Some(Key::Of(_, Part::Checkpoint(index))) => self.checkpoints.push(index),
            _ => {}
        }
    }

    fn take_log_and_behind(&mut self, key: &Bytes, value: Bytes) {
        match Key::decode(key) {
            Some(Key::Of(_, Part::Log(_))) => {
                let entry = self.keep(inspect(key, value));
                self.last = entry.as_ref().map(|entry| entry.place);
                self.entries.extend(entry);
            }
            Some(Key::Of(_, Part::Quarantine)) => self.quarantined = true,
            _ => {}
        }
    }
}

/// Reads a range at once: all of it ends up in memory anyway.
async fn everything(
    disk: &dyn Disk,
    range: Range<Bytes>,
) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
    let limit = ScanLimit {
        max_pairs: usize::MAX,
        max_bytes: usize::MAX,
    };
    disk.scan(range, limit).await
}

fn inspect(key: &Bytes, value: Bytes) -> Result<InspectedEntry, DiskError> {
    // After the checksum come layout, kind, term and the replica's own running length.
    let stored_bytes = value.clone();
    let content = stored_bytes.get(checksum::CRC_BYTES..).unwrap_or_default();
    let kind = content.get(..2).unwrap_or_default();
    let payload = stored_bytes.get(entry::HEAD_BYTES..).unwrap_or_default();
    let stored = entry::read(key, value)?;
    let command = match &stored.entry.payload {
        EntryPayload::Normal(command) => Some(command),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    };
    let digest = Digest::of(kind, payload, command);
    Ok(InspectedEntry {
        place: place(stored.entry.log_id),
        bytes: stored.bytes,
        digest,
        payload: match stored.entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(command) => Payload::Command(command),
            EntryPayload::Membership(membership) => {
                Payload::Voters(membership.get_joint_config().clone())
            }
        },
    })
}

fn place(log_id: LogId) -> LogPlace {
    LogPlace {
        term: log_id.committed_leader_id().term,
        index: log_id.index,
    }
}

/// Kinds of data in a batch on its way to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// A vote.
    pub vote: bool,
    /// Log entries.
    pub log: bool,
    /// A snapshot of another replica, with everything that it replaces.
    pub snapshot: bool,
}

impl Touched {
    /// The kinds of data in `batch`.
    pub fn by(batch: &ChangeBatch) -> Touched {
        let mut touched = Touched::default();
        let (mut checkpoint, mut purged) = (false, false);
        for change in &batch.changes {
            let Change::Put { key, .. } = change else {
                continue;
            };
            if let Some(Key::Of(_, part)) = Key::decode(key) {
                match part {
                    Part::Vote => touched.vote = true,
                    Part::Log(_) => touched.log = true,
                    Part::Checkpoint(_) => checkpoint = true,
                    Part::Purged => purged = true,
                    _ => {}
                }
            }
        }
        // A replica's own checkpoint does not move the purged position.
        touched.snapshot = checkpoint && purged;
        touched
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::command::Stamp;

    use super::*;
    use crate::disk::{Change, ChangeBatch, MemoryDisk};
    use crate::entry::StoredEntry;
    use crate::types::{Entry, Vote};
    use crate::values::{Position, Purged};

    const GROUP: GroupId = GroupId(3);
    const REPLICA: ReplicaId = ReplicaId(7);

    fn append(replica: ReplicaId, term: u64, index: u64, end_bytes: u64) -> Change {
        let batch = Bytes::from_static(b"a batch");
        let entry = Entry {
            log_id: LogId::new_term_index(term, index),
            payload: EntryPayload::Normal(Command::Append {
                stamp: Stamp {
                    leader_time_ms: 1,
                    ..Stamp::default()
                },
                batch,
            }),
        };
        let stored = StoredEntry {
            bytes: entry::entry_bytes(&entry),
            end_bytes,
            entry,
        };
        entry::put(replica, &stored)
    }

    async fn disk(changes: Vec<Change>) -> MemoryDisk {
        let disk = MemoryDisk::new();
        let batch = ChangeBatch { changes };
        disk.commit(batch, true).await.expect("a commit");
        disk
    }

    #[tokio::test]
    async fn everything_a_disk_holds_of_a_replica_is_seen() {
        let at = |index| LogId::new_term_index(2, index);
        let disk = disk(vec![
            values::put_record(REPLICA, GROUP),
            values::put_vote(REPLICA, &Vote::new_committed(2, REPLICA)),
            values::put_committed(REPLICA, at(6)),
            values::put_purged(
                REPLICA,
                Purged {
                    log_id: at(4),
                    end_bytes: 9,
                },
            ),
            values::put_applied(
                REPLICA,
                &Position {
                    log_id: Some(at(5)),
                    ..Position::default()
                },
            ),
            append(REPLICA, 2, 5, 100),
            append(REPLICA, 2, 6, 200),
            values::put_effect(
                REPLICA,
                Bytes::from_static(b"k"),
                Some(Bytes::from_static(b"v")),
            ),
        ])
        .await;
        assert_eq!(replicas(&disk).await.unwrap(), [(GROUP, REPLICA)]);
        let seen = replica(&disk, GROUP, REPLICA, 6).await.unwrap();
        let index = |place: Option<LogPlace>| place.map(|place| (place.term, place.index));
        assert_eq!(index(seen.committed), Some((2, 6)));
        assert_eq!(index(seen.purged), Some((2, 4)));
        assert_eq!(index(seen.applied), Some((2, 5)));
        assert_eq!(index(seen.last), Some((2, 6)));
        assert_eq!(seen.vote.map(|vote| vote.candidate), Some(REPLICA));
        assert_eq!(seen.entries.len(), 1, "only what was asked for");
        assert_eq!(
            seen.effects,
            [(Bytes::from_static(b"k"), Bytes::from_static(b"v"))]
        );
        assert_eq!(seen.damaged, [] as [String; 0]);
    }

    #[tokio::test]
    async fn the_digest_of_an_entry_is_the_same_on_every_replica_and_not_that_of_another() {
        let other = ReplicaId(8);
        let disk = disk(vec![
            append(REPLICA, 2, 5, 100),
            append(other, 2, 5, 999),
            Change::Delete { key: Bytes::new() },
        ])
        .await;
        let one = replica(&disk, GROUP, REPLICA, 0).await.unwrap();
        let two = replica(&disk, GROUP, other, 0).await.unwrap();
        assert_eq!(one.entries, two.entries);
        let command = Command::Roll { leader_time_ms: 1 }.to_bytes();
        assert_ne!(
            one.entries[0].digest,
            checksum::crc(&[1, 1], &[&command]).into(),
            "another command"
        );
    }

    #[tokio::test]
    async fn what_is_damaged_is_named_and_the_rest_is_seen() {
        let disk = disk(vec![
            append(REPLICA, 2, 5, 100),
            Change::Put {
                key: Key::Of(REPLICA, Part::Log(6)).encode(),
                head: Bytes::new(),
                body: Bytes::from_static(b"nonsense"),
            },
            Change::Put {
                key: Key::Of(REPLICA, Part::Vote).encode(),
                head: Bytes::new(),
                body: Bytes::from_static(b"nonsense"),
            },
        ])
        .await;
        let seen = replica(&disk, GROUP, REPLICA, 0).await.unwrap();
        assert_eq!(seen.entries.len(), 1);
        assert_eq!(seen.vote, None);
        assert_eq!(seen.damaged.len(), 2, "{:?}", seen.damaged);
    }
}
