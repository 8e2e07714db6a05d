//! The seam to what a group means: a pure state machine.

use std::fmt;

use bytes::Bytes;
use ropewalk_proto::command::{Command, CommandError, Reply};

/// A deterministic state machine: the same commands give the same state everywhere. No clock, no
/// randomness, no I/O, no await.
///
/// It lives in memory and is mirrored on the disk as small keyed effects, which ride along with
/// the log unsynced; whatever a power loss takes of them is applied again from the log.
pub trait Machine: fmt::Debug + Send + Sync + 'static {
    /// Rebuilds the state from the effects on the disk: keys as [`Effect::key`] gave them, in
    /// order. `applied` is the log index they are exactly the state of.
    fn load(&mut self, applied: u64, effects: Vec<(Bytes, Bytes)>) -> Result<(), MachineError>;

    /// Applies one committed entry at `index` of `term`. Blank and membership entries come as
    /// `None`. `entry_bytes` is the entry's size in the log, the same on every replica.
    fn apply(
        &mut self,
        index: u64,
        term: u64,
        entry_bytes: u64,
        command: Option<&Command>,
    ) -> Result<Applied, MachineError>;

    /// The whole state, for a checkpoint.
    fn checkpoint(&self) -> Bytes;

    /// Replaces the state by that of a checkpoint and returns all of it as effects.
    fn restore(&mut self, checkpoint: Bytes) -> Result<Vec<Effect>, MachineError>;

    /// The log index at or below which nothing will be read again: the newest checkpoint at or
    /// below it becomes the group's snapshot, and the log up to that checkpoint may be purged.
    fn purgeable_index(&self) -> u64;
}

/// What applying one entry did.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// For the proposer.
    pub reply: Reply,
    /// For the disk.
    pub effects: Vec<Effect>,
    /// True if the state as of this entry may be kept as a checkpoint. Some of the large ones are left out.
    pub checkpoint: bool,
}

/// One keyed piece of state that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Unique within the group.
    pub key: Bytes,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// Why a replica can't go on applying. It stops, rather than become a different replica.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// The log holds a command of a newer build.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// State on the disk, or a checkpoint, that does not parse.
    #[error("the state of this replica is damaged: {0}")]
    Damaged(String),
}
