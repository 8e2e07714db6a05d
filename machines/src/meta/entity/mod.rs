//! The kinds of things that the metadata holds, and all that is known about each, in one file or folder.
//!
//! An entity's file has its values, its keys and its format on the disk, its part of checkpoints and views, and
//! the commands that change it. The table in `machine` names every entity and its commands.

pub mod cluster;
pub mod codec;
pub mod node;
pub mod producer;
pub mod rows;
pub mod table;
pub mod topic;

use bytes::Bytes;
use ropewalk_proto::command::{COMMAND_VERSION, CommandError};
use ropewalk_proto::error::WireError;
use ropewalk_proto::v1::{MetaState, meta_reply};

use super::machine::State;
use super::view::MetadataImage;
use crate::machine::{MachineError, StateWrite};

/// The kind byte of a metadata command, for error messages (see `proto/src/command.rs`).
const KIND_META: u8 = 4;

/// The result of a command: a reply's kind, no content, or the reason for a refusal.
pub type Outcome = Result<Option<meta_reply::Kind>, WireError>;

/// One kind of thing in the metadata. It remembers its changes by the current entry until they are settled.
pub trait Entity {
    /// The first bytes of its keys on the disk. No other entity has them.
    fn prefixes(&self) -> &'static [u8];

    /// Adds its changes by the current entry.
    fn add_effects(&self, state: &State, effects: &mut Vec<StateWrite>);

    /// Marks all its values as changed.
    fn touch_all(&mut self);

    /// Forgets the changes, which are now effects.
    fn settle(&mut self);

    /// True if the current entry changed its part of a view.
    fn shows(&self) -> bool {
        false
    }

    /// Adds its counters and other single values. Those of all entities share one key: a change of them calls
    /// [`cluster::Cluster::touch`].
    fn add_counters(&self, _whole: &mut MetaState) {}

    /// Adds its other values.
    fn add_values(&self, whole: &mut MetaState);

    /// Adds a stored value to the message of the whole state, from which `restore` takes it. So a state on
    /// the disk and a checkpoint pass the same checks. Keys come in their order.
    fn load(&self, key: &[u8], value: Bytes, whole: &mut MetaState) -> Result<(), MachineError>;

    /// Takes its part from the message of the whole state.
    fn restore(&mut self, whole: &mut MetaState) -> Result<(), MachineError>;

    /// Adds its part to a view.
    fn show(&self, _view: &mut MetadataImage) {}
}

/// A command, and the facts about it that its proposers need.
pub trait Apply {
    /// The lowest command version of a node that can apply it.
    fn since_version(&self) -> u32;

    /// True if it may be proposed again after an unknown outcome: a second time it changes nothing, or wastes
    /// a few ids.
    fn is_repeatable(&self) -> bool;

    /// Changes the state, or refuses to and changes nothing. An error stops the machine.
    fn apply(&self, state: &mut State) -> Result<Outcome, CommandError>;
}

/// The error for a command of a newer build. The machine stops at it.
pub fn newer() -> CommandError {
    CommandError::Newer {
        version: COMMAND_VERSION,
        kind: KIND_META,
    }
}
