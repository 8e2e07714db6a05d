//! The seam between a Raft group and what its entries mean: a pure state machine.

use std::fmt;

use bytes::Bytes;
use ropewalk_proto::command::{Command, CommandError, Reply};

/// A deterministic state machine: the same commands give the same state on every replica. No clock, no
/// randomness, no I/O, no await.
///
/// The state is in memory. The disk mirrors it as small keyed effects, which are written after the log
/// entries and not synced. The effects that a power loss takes are applied again from the log.
pub trait Machine: fmt::Debug + Send + Sync + 'static {
    /// Rebuilds the state from the effects on the disk, in the order of their keys ([`StateWrite::key`]).
    /// `applied` is the log index after which the state was exactly this.
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError>;

    /// Applies the committed entry at `index` of `term`. `command` is `None` for blank and membership
    /// entries. `entry_bytes` is the entry's size in the log, the same on every replica.
    fn apply(
        &mut self,
        index: u64,
        term: u64,
        entry_bytes: u64,
        command: Option<&Command>,
    ) -> Result<Applied, MachineError>;

    /// The whole state, for a checkpoint.
    fn checkpoint(&self) -> Bytes;

    /// Replaces the state with that of a checkpoint and returns all of it as effects.
    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<StateWrite>, MachineError>;

    /// Log index at or below which nothing is read again. The newest checkpoint at or below it becomes the
    /// group's snapshot, and the log up to that checkpoint may be purged.
    fn purgeable_index(&self) -> u64;
}

/// Result of applying one entry.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// Reply to the proposer.
    pub reply: Reply,
    /// Changes of the state, for the disk.
    pub effects: Vec<StateWrite>,
    /// True if the state after this entry may be kept as a checkpoint. The store skips some large ones.
    pub checkpoint: bool,
}

/// One keyed piece of state that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// Unique within the group.
    pub key: Bytes,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// Reason that a replica can't apply an entry. The replica stops rather than diverge from the others.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// A command in the log that this build can't read, because it is newer or damaged.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// State on the disk, or a checkpoint, that does not parse.
    #[error("replica state is damaged: {0}")]
    Damaged(String),
}
