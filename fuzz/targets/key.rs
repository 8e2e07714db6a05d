//! Any bytes as what a disk keeps: keys of the store, pairs of a machine's state, and checkpoints. Bytes that
//! are none of ours are refused.

#![no_main]

use bytes::Bytes;
use keys::{Key, Part};
use libfuzzer_sys::fuzz_target;
use ropewalk_fuzz::{joined, pieces, write_seeds};
use ropewalk_machines::log::PartitionMachine;
use ropewalk_machines::meta::MetaMachine;
use ropewalk_machines::{Machine, StateWrite};
use ropewalk_proto::ids::ReplicaId;

/// The file itself, since its crate compiles RocksDB.
#[allow(dead_code)]
#[path = "../../raft-store/src/keys.rs"]
mod keys;

fuzz_target!(init: write_seeds(seeds()), |data: &[u8]| {
    let all: Vec<Bytes> = pieces(data).collect();
    for bytes in &all {
        if let Some(key) = Key::decode(bytes) {
            assert_eq!(key.encode(), bytes);
        }
        restore::<PartitionMachine>(bytes);
        restore::<MetaMachine>(bytes);
    }
    let (pairs, _) = all.as_chunks::<2>();
    let pairs: Vec<(Bytes, Bytes)> = pairs.iter().cloned().map(|[k, v]| (k, v)).collect();
    load::<PartitionMachine>(&pairs);
    load::<MetaMachine>(&pairs);
});

/// A state that does not parse is refused; one that does can be written again.
fn load<M: Machine + Default>(pairs: &[(Bytes, Bytes)]) {
    let mut machine = M::default();
    if machine.load(pairs.len() as u64, pairs.to_vec()).is_ok() {
        let _ = machine.checkpoint();
        let _ = machine.purgeable_index();
    }
}

fn restore<M: Machine + Default>(checkpoint: &Bytes) {
    let mut machine = M::default();
    if machine.restore(checkpoint.clone()).is_ok() {
        let _ = machine.checkpoint();
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let replica = ReplicaId(7);
    let parts = [
        Part::Vote,
        Part::Committed,
        Part::Purged,
        Part::Applied,
        Part::Effect(Bytes::from_static(b"c")),
        Part::Checkpoint(9),
        Part::Log(10),
        Part::Quarantine,
        Part::Note,
    ];
    let of_replica = parts.into_iter().map(|part| Key::Of(replica, part));
    let of_node = [
        Key::Local(Bytes::from_static(b"name")),
        Key::Record(replica),
    ];
    let keys = of_node.into_iter().chain(of_replica);
    let stored = joined(keys.map(|key| key.encode()));
    vec![
        stored,
        state_of(PartitionMachine::default()),
        state_of(MetaMachine::default()),
    ]
}

/// The pairs of a machine's own checkpoint.
fn state_of(mut machine: impl Machine) -> Vec<u8> {
    let checkpoint = machine.checkpoint();
    let effects = machine.restore(checkpoint).expect("its own checkpoint");
    let pairs = effects.into_iter().flat_map(|StateWrite { key, value }| {
        let value = value.unwrap_or_default();
        [key, value]
    });
    joined(pairs)
}
