//! What a Raft entry asks of a group's state machine, as bytes: a version, a kind, and a body.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version of the command's layout: 3 of a batch whose stamp says `long_memory`, 2 of one that says `own_clock`, else 1 |
//! | 1 | kind |
//! | 8 | the leader's wall time in ms since 1970, big endian |
//! | 4 | of a batch that was routed by a ring: the ring's version, big endian |
//! | 4 | of a batch that was compacted: the length it came with, big endian; before it, always, a ring |
//! | n | body: the record batch as it came; a trim's offset; a metadata or group command |
//!
//! A node that meets a version or kind it does not know must stop applying that group rather than
//! skip the entry: replicas that apply different things are no replicas. A leader proposes only
//! what every node of the cluster has said it understands.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::error::WireError;
use crate::v1::{GroupCommand, GroupReply, MetaCommand, MetaReply};

/// The newest command layout this build writes and reads.
pub const COMMAND_VERSION: u8 = 3;

/// The newest commands this build applies, as a node tells the metadata group when it registers. What
/// is newer than every node understands is not proposed.
///
/// | version | since then |
/// |---|---|
/// | 1 | the first |
/// | 2 | `ReplicaDamaged` |
/// | 3 | `Group`, `Fence`, and the ring of an append |
/// | 4 | `Compact`, `Compacted`, and the settings of a topic that ask for them |
/// | 5 | the external address of a node |
/// | 6 | `RaiseReplicas` |
/// | 7 | batches from which on a partition goes by its own clock |
/// | 8 | memberships that settle nothing before all that is wished for is among them |
/// | 9 | rings that begin above those of deleted topics, the bound of a topic on timestamps, a long memory of producers, `RenewProducer`, starts of nodes, registrations that name whose place they take, rules 1 of group commands, changes of single settings, and a bound on replicas in what creates a topic |
pub const UNDERSTOOD_VERSION: u32 = 9;

/// Since when consumer groups, rings of appends and fences are understood.
pub const GROUPS_SINCE_VERSION: u32 = 3;

/// Since when topics can be compacted.
pub const COMPACTION_SINCE_VERSION: u32 = 4;

/// Since when the metadata keeps external addresses.
pub const EXTERNAL_SINCE_VERSION: u32 = 5;

/// Since when a topic can get more replicas.
pub const RAISE_SINCE_VERSION: u32 = 6;

/// Since when partitions tell the age of producers by a clock of their own.
pub const OWN_CLOCK_SINCE_VERSION: u32 = 7;

/// Since when a membership of an older wish's time settles nothing.
pub const SETTLE_SINCE_VERSION: u32 = 8;

/// Since when a deleted topic's ring versions are remembered.
pub const RINGS_SINCE_VERSION: u32 = 9;

/// Since when topics have a bound on timestamps.
pub const TIMESTAMPS_SINCE_VERSION: u32 = 9;

/// Since when partitions have a long memory of producers, and the metadata gives out their epochs.
pub const PRODUCERS_SINCE_VERSION: u32 = 9;

/// Since when registrations tell a node's start, and name whose place they take.
pub const IDENTITY_SINCE_VERSION: u32 = 9;

/// Since when commands of consumer groups name the rules by which they are applied.
pub const GROUP_RULES_SINCE_VERSION: u32 = 9;

/// The newest rules of group commands that this build applies.
pub const GROUP_RULES: u32 = 1;
/// Since when a command changes single settings of a topic, and names how many replicas a node may hold.
pub const SETTINGS_SINCE_VERSION: u32 = 9;

const HEAD_BYTES: usize = 10;
const RING_BYTES: usize = 4;
/// What stands before a compacted batch, beside the head: its ring, and the length it came with.
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

/// What a leader writes on a batch when it proposes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The leader's wall time, ms since 1970.
    pub leader_time_ms: i64,
    /// The version of the ring its keys were routed by; 0 if they were not.
    pub ring_version: u32,
    /// From this batch on, the partition tells the age of producers by a clock of its own, which leaders'
    /// wall clocks can't make jump.
    pub own_clock: bool,
    /// From this batch on, the partition keeps the last batch of producers that it would have forgotten,
    /// and counts refused batches toward its segments. Never without `own_clock`.
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

    /// Reads version and time; the ring, if there is one, follows in another place.
    fn read(
        version: u8,
        kind: u8,
        leader_time_ms: i64,
        ring_version: u32,
    ) -> Result<Stamp, CommandError> {
        match version {
            0 => Err(CommandError::Damaged("version or kind 0")),
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

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Append one record batch, format v2, already checked by the leader.
    Append {
        /// What the leader wrote on it.
        stamp: Stamp,
        /// The batch as the producer built it.
        batch: Bytes,
    },
    /// Raise the log start offset: what lies below may go.
    Trim {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// The new log start offset.
        to_offset: u64,
    },
    /// End the segment under way here, so that it can be trimmed though it is not full.
    Roll {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
    },
    /// From here on, what was routed by an older ring is refused.
    Fence {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// The oldest ring that is still taken.
        ring_version: u32,
    },
    /// Let every replica compact its log: of each key only the last record below an offset stays.
    Compact {
        /// The leader's wall time when it proposed this, ms since 1970.
        leader_time_ms: i64,
        /// Below which offset; the end of a segment.
        to_offset: u64,
        /// Records without a value below this offset go, too, if they are the last of their key.
        tombstones_below: u64,
    },
    /// An [`Command::Append`] from which compaction took records. Nobody proposes this: it stands in
    /// the log where the append stood, and does whatever that did.
    Compacted {
        /// What the leader wrote on the append.
        stamp: Stamp,
        /// The length in bytes of the batch that was appended.
        came_bytes: u32,
        /// What is left of it, under the same header.
        batch: Bytes,
    },
    /// A command of the metadata group. One of a kind that is newer than this build reads as one
    /// without a kind, which nobody proposes: the machine must stop there too.
    Meta(MetaCommand),
    /// A command of a consumer group. One of a kind that is newer than this build reads as one
    /// without a kind.
    Group(GroupCommand),
}

/// Bytes that are no command this build knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Written by a newer build.
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
    #[error("not a command: {0}")]
    Damaged(&'static str),
}

impl Command {
    /// The length of the encoding in bytes.
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

    /// The length in bytes of the encoding with which this was appended to the log. Compaction does
    /// not change it: what is counted by it is the same whether a replica saw the batch before or after.
    pub fn log_bytes(&self) -> usize {
        match self {
            Command::Compacted {
                stamp, came_bytes, ..
            } => HEAD_BYTES + stamp.ring_bytes() + *came_bytes as usize,
            _ => self.encoded_len(),
        }
    }

    /// Stamp and batch of an append, whether or not compaction was at work on it.
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

    /// Appends the first part of the encoding to `out` and returns the rest of it, so that a batch
    /// need not be copied to stand behind its head.
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

    /// The encoding on its own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out.freeze()
    }

    /// The encoding in two parts, a head and a body that follows it: an appended batch is the body
    /// as it lies, and is not copied.
    pub fn to_parts(&self) -> (Bytes, Bytes) {
        if !matches!(self, Command::Append { .. } | Command::Compacted { .. }) {
            return (self.to_bytes(), Bytes::new());
        }
        let mut head = BytesMut::with_capacity(HEAD_BYTES + CAME_BYTES);
        let batch = self.encode_head(&mut head);
        (head.freeze(), batch)
    }

    /// Reads what [`Command::to_parts`] gave; a batch in it shares `body`'s memory.
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
            false => Err(CommandError::Damaged("a head of the wrong length")),
        }
    }

    /// Reads a command; a batch in it shares `bytes`' memory.
    pub fn decode(mut bytes: Bytes) -> Result<Command, CommandError> {
        if bytes.len() < HEAD_BYTES {
            return Err(CommandError::Damaged("shorter than its head"));
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

    /// Reads a head with a ring and a length, and what is left of the batch.
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

    /// Reads a head with a ring, and the batch that follows it.
    fn read_routed(mut head: Bytes, batch: Bytes) -> Result<Command, CommandError> {
        let (version, kind) = (head.get_u8(), head.get_u8());
        let (leader_time_ms, ring_version) = (head.get_i64(), head.get_u32());
        if ring_version == 0 {
            return Err(CommandError::Damaged("a routed batch without a ring"));
        }
        let stamp = Stamp::read(version, kind, leader_time_ms, ring_version)?;
        Ok(Command::Append { stamp, batch })
    }

    /// Reads a head of [`HEAD_BYTES`] and the body that follows it.
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
                .map_err(|_| CommandError::Damaged("a metadata command that does not parse")),
            (1, KIND_GROUP) => GroupCommand::decode(bytes)
                .map(Command::Group)
                .map_err(|_| CommandError::Damaged("a group command that does not parse")),
            (1, KIND_FENCE) if bytes.len() == RING_BYTES => Ok(Command::Fence {
                leader_time_ms,
                ring_version: bytes.get_u32(),
            }),
            (1, KIND_COMPACT) if bytes.len() == COMPACT_BYTES => Ok(Command::Compact {
                leader_time_ms,
                to_offset: bytes.get_u64(),
                tombstones_below: bytes.get_u64(),
            }),
            (1, KIND_COMPACT) => Err(CommandError::Damaged("a compaction of the wrong length")),
            (1, KIND_COMPACTED) => Err(CommandError::Damaged("a compacted batch that is cut")),
            (1, KIND_FENCE) => Err(CommandError::Damaged("a fence of the wrong length")),
            (1, KIND_ROUTED) => Err(CommandError::Damaged("a routed batch that is cut")),
            (1, KIND_TRIM) => Err(CommandError::Damaged("a trim of the wrong length")),
            (1, KIND_ROLL) => Err(CommandError::Damaged("a roll with a body")),
            (0, _) | (_, 0) => Err(CommandError::Damaged("version or kind 0")),
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

/// What a group's state machine answers to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Nothing to say: a blank or membership entry, a trim, a roll.
    Done,
    /// The batch has its place.
    Appended {
        /// The offset of its first record.
        base_offset: u64,
        /// It was there already; `base_offset` is where.
        duplicate: bool,
    },
    /// The command was committed, and changes nothing.
    Refused(WireError),
    /// The metadata group's answer.
    Meta(MetaReply),
    /// A group's answer.
    Group(GroupReply),
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
