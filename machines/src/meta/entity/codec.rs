//! Keys and values of entities as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::machine::{MachineError, StateWrite};

/// A key: the prefix of an entity, and the rest.
pub fn key(prefix: u8, rest: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(prefix);
    rest(&mut key);
    key.freeze()
}

/// The effect that stores a value, or removes the key of one that is gone.
pub fn effect(key: Bytes, value: Option<&impl Message>) -> StateWrite {
    let value = value.map(|value| value.encode_to_vec().into());
    StateWrite { key, value }
}

/// The effect that removes a key.
pub fn removal(key: Bytes) -> StateWrite {
    StateWrite { key, value: None }
}

/// A stored message.
pub fn read<M: Message + Default>(bytes: Bytes) -> Result<M, MachineError> {
    M::decode(bytes).map_err(|error| damaged(&error.to_string()))
}

/// The error for bytes that do not parse.
pub fn damaged(what: &str) -> MachineError {
    MachineError::Damaged(format!("cluster metadata: {what}"))
}
