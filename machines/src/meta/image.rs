//! The metadata on the disk and in checkpoints, entity by entity. Each value that can change by itself has a key
//! of its own; a checkpoint is one message with the whole state.

use bytes::Bytes;
use prost::Message;
use ropewalk_proto::v1::MetaState;

use super::entity::codec::{damaged, read};
use super::machine::State;
use crate::machine::{MachineError, StateWrite};

/// The log index of the newest checkpoint. This key belongs to the machine, not to an entity.
pub(super) const CHECKPOINTED: u8 = b'k';

/// The changes by the current entry as effects. `checkpointed` is its index if a checkpoint follows it.
pub(super) fn settle(state: &mut State, checkpointed: Option<u64>) -> Vec<StateWrite> {
    let mut effects = Vec::new();
    let [counters, others @ ..] = state.entities();
    counters.add_effects(state, &mut effects);
    effects.extend(checkpointed.map(checkpointed_effect));
    for entity in others {
        entity.add_effects(state, &mut effects);
    }
    for entity in state.entities_mut() {
        entity.settle();
    }
    effects
}

/// The whole state as effects.
pub(super) fn everything(state: &mut State, checkpointed: u64) -> Vec<StateWrite> {
    for entity in state.entities_mut() {
        entity.touch_all();
    }
    settle(state, Some(checkpointed))
}

/// Rebuilds the state, and the log index of the newest checkpoint, from stored values.
pub(super) fn load(effects: Vec<(Bytes, Bytes)>) -> Result<(State, u64), MachineError> {
    let mut state = State::default();
    let mut whole = MetaState::default();
    let mut checkpointed = 0;
    for (key, value) in effects {
        let prefix = key.first().copied().unwrap_or_default();
        if prefix == CHECKPOINTED {
            let bytes = value[..].try_into();
            checkpointed = u64::from_be_bytes(bytes.map_err(|_| damaged("checkpoint mark"))?);
            continue;
        }
        let mut entities = state.entities().into_iter();
        let entity = entities.find(|entity| entity.prefixes().contains(&prefix));
        let entity = entity.ok_or_else(|| damaged("a key has an unknown kind"))?;
        entity.load(&key, value, &mut whole)?;
    }
    take(&mut state, whole)?;
    Ok((state, checkpointed))
}

/// The whole state as one message.
pub(super) fn checkpoint(state: &State, applied: u64) -> Bytes {
    let mut whole = MetaState {
        applied_index: applied,
        ..state.counters()
    };
    for entity in state.entities() {
        entity.add_values(&mut whole);
    }
    whole.encode_to_vec().into()
}

/// The state in a checkpoint, and its log index.
pub(super) fn restore(checkpoint: Bytes) -> Result<(State, u64), MachineError> {
    let whole: MetaState = read(checkpoint)?;
    let applied = whole.applied_index;
    let mut state = State::default();
    take(&mut state, whole)?;
    Ok((state, applied))
}

fn take(state: &mut State, mut whole: MetaState) -> Result<(), MachineError> {
    let mut entities = state.entities_mut().into_iter();
    entities.try_for_each(|entity| entity.restore(&mut whole))
}

fn checkpointed_effect(index: u64) -> StateWrite {
    StateWrite {
        key: Bytes::from_static(&[CHECKPOINTED]),
        value: Some(Bytes::copy_from_slice(&index.to_be_bytes())),
    }
}
