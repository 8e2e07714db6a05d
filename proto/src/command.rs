//! Commands for a group's state machine in Raft entries, as bytes: a version, a kind, and a body.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | layout version: 3 for a batch whose stamp has `long_memory`, 2 for one with `own_clock`, else 1 |
//! | 1 | kind |
//! | 8 | the leader's wall time in ms since 1970, big-endian |
//! | 4 | for a batch routed by a ring: the version of the ring, big-endian |
//! | 4 | for a compacted batch: its length as appended, big-endian; a ring version always precedes it |
//! | n | body: the record batch as received; the offset of a trim; a metadata or group command |
//!
//! A node that meets an unknown version or kind must stop applying that group rather than skip the entry:
//! replicas that apply different commands diverge. A leader proposes only commands that every node of the
//! cluster has reported to understand.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::error::WireError;
use crate::v1::{GroupCommand, GroupReply, MetaCommand, MetaReply};

/// Newest command layout that this build writes and reads.
pub const COMMAND_VERSION: u8 = 3;

/// Newest commands that this build applies. A node reports it to the metadata group when it registers. A
/// leader proposes no command that is newer than every node understands.
///
/// | version | added |
/// |---|---|
/// | 1 | the first commands |
/// | 2 | `ReplicaDamaged` |
/// | 3 | `Group`, `Fence`, and the ring version of an append |
/// | 4 | `Compact`, `Compacted`, and the topic settings for them |
/// | 5 | the external address of a node |
/// | 6 | `RaiseReplicas` |
/// | 7 | batches from which on a partition uses its own clock |
/// | 8 | memberships that settle nothing until they include every desired replica |
/// | 9 | ring versions above those of deleted topics, a topic's limit on timestamps, a long memory of producers, `RenewProducer`, starts of nodes, registrations that name the node they replace, rules 1 of group commands, changes of single settings, and a replica limit in topic creation |
/// | 10 | rules 2 of group commands |
pub const UNDERSTOOD_VERSION: u32 = 10;

/// First version with consumer groups, ring versions of appends, and routing barriers.
pub const GROUPS_SINCE_VERSION: u32 = 3;

/// First version in which topics can be compacted.
pub const COMPACTION_SINCE_VERSION: u32 = 4;

/// First version in which the metadata keeps external addresses.
pub const EXTERNAL_SINCE_VERSION: u32 = 5;

/// First version in which a topic can get more replicas.
pub const RAISE_SINCE_VERSION: u32 = 6;

/// First version in which partitions measure the age of producers by their own clock.
pub const OWN_CLOCK_SINCE_VERSION: u32 = 7;

/// First version in which a membership that predates the desired one settles nothing.
pub const SETTLE_SINCE_VERSION: u32 = 8;

/// First version in which the metadata remembers the ring versions of deleted topics.
pub const RINGS_SINCE_VERSION: u32 = 9;

/// First version in which topics have a limit on timestamps.
pub const TIMESTAMPS_SINCE_VERSION: u32 = 9;

/// First version in which partitions have a long memory of producers, and the metadata assigns their
/// epochs.
pub const PRODUCERS_SINCE_VERSION: u32 = 9;

/// First version in which registrations carry a node's start and name the node they replace.
pub const IDENTITY_SINCE_VERSION: u32 = 9;

/// First version in which commands of consumer groups name the rules by which they are applied.
pub const GROUP_RULES_SINCE_VERSION: u32 = 9;

/// First version with rules 2 of group commands.
pub const GROUP_PARTS_SINCE_VERSION: u32 = 10;

/// First rules of group commands by which a group is stored in parts, each with a key of its own.
pub const GROUP_PARTS_SINCE_RULES: u32 = 2;

/// Newest rules of group commands that this build applies.
pub const GROUP_RULES: u32 = GROUP_PARTS_SINCE_RULES;

/// Newest rules of group commands that every node applies, if all understand this version.
pub const fn group_rules(understood: u32) -> u32 {
    match understood {
        GROUP_PARTS_SINCE_VERSION.. => GROUP_RULES,
        GROUP_RULES_SINCE_VERSION.. => 1,
        _ => 0,
    }
}

/// First version in which a command changes single settings of a topic, and carries the limit on a node's
/// replicas.
pub const SETTINGS_SINCE_VERSION: u32 = 9;

const HEAD_BYTES: usize = 10;
const RING_BYTES: usize = 4;
/// Length of the fields before a compacted batch, besides the head: its ring version and its length as
/// appended.
const CAME_BYTES: usize = RING_BYTES + 4;
const COMPACT_BYTES: usize = 16;

const KIND_APPEND: u8 = 1;
const KIND_TRIM: u8 = 2;
const KIND_ROLL: u8 = 3;
const KIND_META: u8 = 4;
/// The kind of [`Command::Group`].
pub const KIND_GROUP: u8 = 5;
const KIND_ROUTED: u8 = 6;
const KIND_FENCE: u8 = 7;
const KIND_COMPACT: u8 = 8;
const KIND_COMPACTED: u8 = 9;

/// Fields that a leader adds to a batch when it proposes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The leader's wall time, ms since 1970.
    pub leader_time_ms: i64,
    /// Version of the ring that routed its keys; 0 if no ring did.
    pub ring_version: u32,
    /// From this batch on, the partition measures the age of producers by its own clock. Leaders' wall
    /// clocks can't make that clock jump.
    pub own_clock: bool,
    /// From this batch on, the partition keeps the last batch of producers that it would otherwise forget,
    /// and counts refused batches toward its segments. It is never set without `own_clock`.
    pub long_memory: bool,
}

impl Stamp {
    const fn version(self) -> u8 {
        match (self.long_memory, self.own_clock) {
            (true, _) => 3,
            (false, true) => 2,
            (false, false) => 1,
        }
    }

    const fn ring_bytes(self) -> usize {
        if self.ring_version == 0 {
            0
        } else {
            RING_BYTES
        }
    }

    /// Makes a stamp from a command's version, time and ring version.
    fn read(
        version: u8,
        kind: u8,
        leader_time_ms: i64,
        ring_version: u32,
    ) -> Result<Stamp, CommandError> {
        match version {
            0 => Err(CommandError::Damaged("its version or kind is 0")),
            1..=3 => Ok(Stamp {
                leader_time_ms,
                ring_version,
                own_clock: version >= 2,
                long_memory: version >= 3,
            }),
            _ => Err(CommandError::Newer { version, kind }),
        }
    }
}

/// A command to a state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Appends one record batch, format v2, which the leader has already checked.
    Append {
        /// Fields that the leader added.
        stamp: Stamp,
        /// The batch as the producer built it.
        batch: Bytes,
    },
    /// Raises the log start offset: records below it may be removed.
    Trim {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// The new log start offset.
        to_offset: u64,
    },
    /// Ends the active segment here, so that it can be trimmed although it is not full.
    Roll {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
    },
    /// Sets the routing barrier: from here on, records routed by an older ring are refused.
    Fence {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// Oldest ring that is still accepted.
        ring_version: u32,
    },
    /// Lets every replica compact its log: below an offset, only the last record of each key stays.
    Compact {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// Offset below which the log is compacted; the end of a segment.
        to_offset: u64,
        /// Offset below which a tombstone is removed, even if it is the last record of its key.
        tombstones_below: u64,
    },
    /// An [`Command::Append`] from which compaction removed records. It is never proposed. It replaces the
    /// append in the log, and has the same effect.
    Compacted {
        /// Fields that the leader added to the append.
        stamp: Stamp,
        /// The length in bytes of the batch that was appended.
        came_bytes: u32,
        /// The remaining batch, under the same header.
        batch: Bytes,
    },
    /// A command of the metadata group. A command of a kind newer than this build reads as one without a
    /// kind, which is never proposed: the machine must stop there too.
    Meta(MetaCommand),
    /// A command of a consumer group. A command of a kind newer than this build reads as one without a
    /// kind.
    Group(GroupCommand),
}

/// Bytes that are not a command known to this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A command that a newer build wrote.
    #[error(
        "command version {version}, kind {kind} is newer than this build understands (version {COMMAND_VERSION}); upgrade this node"
    )]
    Newer {
        /// The layout's version.
        version: u8,
        /// The kind.
        kind: u8,
    },
    /// Not a command at all.
    #[error("command is damaged: {0}")]
    Damaged(&'static str),
}

impl Command {
    /// Length of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        HEAD_BYTES
            + match self {
                Command::Append { stamp, batch } => stamp.ring_bytes() + batch.len(),
                Command::Compacted { batch, .. } => CAME_BYTES + batch.len(),
                Command::Compact { .. } => COMPACT_BYTES,
                Command::Fence { .. } => RING_BYTES,
                Command::Trim { .. } => 8,
                Command::Roll { .. } => 0,
                Command::Meta(command) => command.encoded_len(),
                Command::Group(command) => command.encoded_len(),
            }
    }

    /// Length in bytes of the encoding as appended to the log. Compaction does not change it, so counts
    /// based on it do not depend on when a replica saw the batch.
    pub fn log_bytes(&self) -> usize {
        match self {
            Command::Compacted {
                stamp, came_bytes, ..
            } => HEAD_BYTES + stamp.ring_bytes() + *came_bytes as usize,
            _ => self.encoded_len(),
        }
    }

    /// Stamp and batch of an append, compacted or not.
    pub fn as_append(&self) -> Option<(Stamp, &Bytes)> {
        match self {
            Command::Append { stamp, batch } | Command::Compacted { stamp, batch, .. } => {
                Some((*stamp, batch))
            }
            _ => None,
        }
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let body = self.encode_head(out);
        out.put_slice(&body);
    }

    /// Appends the first part of the encoding to `out` and returns the rest, so that a batch need not be
    /// copied to join its head.
    pub fn encode_head(&self, out: &mut impl BufMut) -> Bytes {
        let (kind, time) = match self {
            Command::Append { stamp, .. } if stamp.ring_version == 0 => {
                (KIND_APPEND, stamp.leader_time_ms)
            }
            Command::Append { stamp, .. } => (KIND_ROUTED, stamp.leader_time_ms),
            Command::Fence { leader_time_ms, .. } => (KIND_FENCE, *leader_time_ms),
            Command::Compact { leader_time_ms, .. } => (KIND_COMPACT, *leader_time_ms),
            Command::Compacted { stamp, .. } => (KIND_COMPACTED, stamp.leader_time_ms),
            Command::Trim { leader_time_ms, .. } => (KIND_TRIM, *leader_time_ms),
            Command::Roll { leader_time_ms } => (KIND_ROLL, *leader_time_ms),
            Command::Meta(command) => (KIND_META, command.leader_time_ms),
            Command::Group(command) => (KIND_GROUP, command.leader_time_ms),
        };
        out.put_u8(self.as_append().map_or(1, |(stamp, _)| stamp.version()));
        out.put_u8(kind);
        out.put_i64(time);
        match self {
            Command::Append { stamp, batch } => {
                if stamp.ring_version != 0 {
                    out.put_u32(stamp.ring_version);
                }
                batch.clone()
            }
            Command::Compacted {
                stamp,
                came_bytes,
                batch,
            } => {
                out.put_u32(stamp.ring_version);
                out.put_u32(*came_bytes);
                batch.clone()
            }
            Command::Compact {
                to_offset,
                tombstones_below,
                ..
            } => {
                let mut body = BytesMut::with_capacity(COMPACT_BYTES);
                body.put_u64(*to_offset);
                body.put_u64(*tombstones_below);
                body.freeze()
            }
            Command::Fence { ring_version, .. } => {
                Bytes::copy_from_slice(&ring_version.to_be_bytes())
            }
            Command::Trim { to_offset, .. } => Bytes::copy_from_slice(&to_offset.to_be_bytes()),
            Command::Roll { .. } => Bytes::new(),
            Command::Meta(command) => Bytes::from(command.encode_to_vec()),
            Command::Group(command) => Bytes::from(command.encode_to_vec()),
        }
    }

    /// The whole encoding.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out.freeze()
    }

    /// The encoding in two parts, a head and the body that follows it. The body of an append is the batch
    /// itself, without a copy.
    pub fn to_parts(&self) -> (Bytes, Bytes) {
        if !matches!(self, Command::Append { .. } | Command::Compacted { .. }) {
            return (self.to_bytes(), Bytes::new());
        }
        let mut head = BytesMut::with_capacity(HEAD_BYTES + CAME_BYTES);
        let batch = self.encode_head(&mut head);
        (head.freeze(), batch)
    }

    /// Reads the result of [`Command::to_parts`]. A batch in it shares `body`'s memory.
    pub fn from_parts(head: Bytes, body: Bytes) -> Result<Command, CommandError> {
        match body.is_empty() {
            true => Command::decode(head),
            false if head.len() == HEAD_BYTES => Command::read(head, body),
            false if head.len() == HEAD_BYTES + RING_BYTES && head.get(1) == Some(&KIND_ROUTED) => {
                Command::read_routed(head, body)
            }
            false
                if head.len() == HEAD_BYTES + CAME_BYTES
                    && head.get(1) == Some(&KIND_COMPACTED) =>
            {
                Command::read_compacted(head, body)
            }
            false => Err(CommandError::Damaged("its head has the wrong length")),
        }
    }

    /// Reads a command. A batch in it shares `bytes`' memory.
    pub fn decode(mut bytes: Bytes) -> Result<Command, CommandError> {
        if bytes.len() < HEAD_BYTES {
            return Err(CommandError::Damaged("it is shorter than its head"));
        }
        if bytes.get(1) == Some(&KIND_ROUTED) && bytes.len() >= HEAD_BYTES + RING_BYTES {
            let head = bytes.split_to(HEAD_BYTES + RING_BYTES);
            return Command::read_routed(head, bytes);
        }
        if bytes.get(1) == Some(&KIND_COMPACTED) && bytes.len() >= HEAD_BYTES + CAME_BYTES {
            let head = bytes.split_to(HEAD_BYTES + CAME_BYTES);
            return Command::read_compacted(head, bytes);
        }
        let head = bytes.split_to(HEAD_BYTES);
        Command::read(head, bytes)
    }

    /// Reads a head with a ring version and a length, and the remaining batch after it.
    fn read_compacted(mut head: Bytes, batch: Bytes) -> Result<Command, CommandError> {
        let (version, kind) = (head.get_u8(), head.get_u8());
        let leader_time_ms = head.get_i64();
        let (ring_version, came_bytes) = (head.get_u32(), head.get_u32());
        Ok(Command::Compacted {
            stamp: Stamp::read(version, kind, leader_time_ms, ring_version)?,
            came_bytes,
            batch,
        })
    }

    /// Reads a head with a ring version, and the batch after it.
    fn read_routed(mut head: Bytes, batch: Bytes) -> Result<Command, CommandError> {
        let (version, kind) = (head.get_u8(), head.get_u8());
        let (leader_time_ms, ring_version) = (head.get_i64(), head.get_u32());
        if ring_version == 0 {
            return Err(CommandError::Damaged("a routed batch has no ring"));
        }
        let stamp = Stamp::read(version, kind, leader_time_ms, ring_version)?;
        Ok(Command::Append { stamp, batch })
    }

    /// Reads a head of [`HEAD_BYTES`] and the body after it.
    fn read(mut head: Bytes, mut bytes: Bytes) -> Result<Command, CommandError> {
        let version = head.get_u8();
        let kind = head.get_u8();
        let leader_time_ms = head.get_i64();
        match (version, kind) {
            (_, KIND_APPEND) => Ok(Command::Append {
                stamp: Stamp::read(version, kind, leader_time_ms, 0)?,
                batch: bytes,
            }),
            (1, KIND_TRIM) if bytes.len() == 8 => Ok(Command::Trim {
                leader_time_ms,
                to_offset: bytes.get_u64(),
            }),
            (1, KIND_ROLL) if bytes.is_empty() => Ok(Command::Roll { leader_time_ms }),
            (1, KIND_META) => MetaCommand::decode(bytes)
                .map(Command::Meta)
                .map_err(|_| CommandError::Damaged("a metadata command does not decode")),
            (1, KIND_GROUP) => GroupCommand::decode(bytes)
                .map(Command::Group)
                .map_err(|_| CommandError::Damaged("a group command does not decode")),
            (1, KIND_FENCE) if bytes.len() == RING_BYTES => Ok(Command::Fence {
                leader_time_ms,
                ring_version: bytes.get_u32(),
            }),
            (1, KIND_COMPACT) if bytes.len() == COMPACT_BYTES => Ok(Command::Compact {
                leader_time_ms,
                to_offset: bytes.get_u64(),
                tombstones_below: bytes.get_u64(),
            }),
            (1, KIND_COMPACT) => Err(CommandError::Damaged("a compaction has the wrong length")),
            (1, KIND_COMPACTED) => Err(CommandError::Damaged("a compacted batch is cut short")),
            (1, KIND_FENCE) => Err(CommandError::Damaged("a fence has the wrong length")),
            (1, KIND_ROUTED) => Err(CommandError::Damaged("a routed batch is cut short")),
            (1, KIND_TRIM) => Err(CommandError::Damaged("a trim has the wrong length")),
            (1, KIND_ROLL) => Err(CommandError::Damaged("a roll has a body")),
            (0, _) | (_, 0) => Err(CommandError::Damaged("its version or kind is 0")),
            _ => Err(CommandError::Newer { version, kind }),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Append { batch, .. } => write!(f, "append of {} bytes", batch.len()),
            Command::Compact { to_offset, .. } => write!(f, "compact to offset {to_offset}"),
            Command::Compacted { batch, .. } => {
                write!(f, "append, compacted to {} bytes", batch.len())
            }
            Command::Fence { ring_version, .. } => write!(f, "fence before ring {ring_version}"),
            Command::Trim { to_offset, .. } => write!(f, "trim to offset {to_offset}"),
            Command::Roll { .. } => f.write_str("roll"),
            Command::Meta(_) => f.write_str("metadata command"),
            Command::Group(command) => write!(f, "command of group {}", command.group),
        }
    }
}

/// Reply of a group's state machine to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// No content, as for a blank or membership entry, a trim or a roll.
    Done,
    /// The batch is in the log.
    Appended {
        /// Offset of its first record.
        base_offset: u64,
        /// True if the batch was appended before, at `base_offset`.
        duplicate: bool,
    },
    /// The command was committed and changes nothing.
    Refused(WireError),
    /// Reply of the metadata group.
    Meta(MetaReply),
    /// Reply of a consumer group.
    Group(GroupReply),
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
