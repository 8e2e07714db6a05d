//! Refused commands, checkpoints, and results that must be the same on every replica.

use super::*;

#[test]
fn a_command_of_a_newer_build_stops_the_machine() {
    let mut machine = MetaMachine::new();
    let newer = Command::Meta(MetaCommand {
        leader_time_ms: 0,
        kind: None,
    });
    let stopped = machine.apply(1, 1, 10, Some(&newer));
    assert!(matches!(stopped, Err(MachineError::Command(_))));
}

#[test]
fn a_command_of_a_partition_is_refused() {
    let mut machine = MetaMachine::new();
    let roll = Command::Roll { leader_time_ms: 0 };
    let applied = machine.apply(1, 1, 10, Some(&roll)).unwrap();
    assert!(matches!(applied.reply, Reply::Refused(_)));
}

#[test]
fn a_checkpoint_comes_every_thousand_entries_and_frees_the_log_below_it() {
    let mut machine = MetaMachine::new();
    for index in 1..=2_500 {
        let applied = machine.apply(index, 1, 10, None).unwrap();
        assert_eq!(applied.checkpoint, index % 1_000 == 0, "at {index}");
    }
    assert_eq!(machine.purgeable_index(), 2_000);
}

#[test]
fn damaged_state_is_refused_by_name() {
    let pair = |key: &'static [u8], value: &'static [u8]| {
        vec![(Bytes::from_static(key), Bytes::from_static(value))]
    };
    for effects in [
        pair(b"x", b""),
        pair(b"k", b"short"),
        pair(b"n\0\0\0\0\0\0\0\x01", b"\xff\xff"),
        pair(b"u\0\0\0\0\0\0\0\x01\0\0\0\0", b""),
    ] {
        let loaded = MetaMachine::new().load(1, effects);
        assert!(matches!(loaded, Err(MachineError::Damaged(_))));
    }
    let restored = MetaMachine::new().restore(Bytes::from_static(b"\xff\xff\xff"));
    assert!(matches!(restored, Err(MachineError::Damaged(_))));
}

fn any_command() -> impl Strategy<Value = Kind> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let state = prop_oneof![
        Just(NodeState::Active),
        Just(NodeState::Draining),
        Just(NodeState::Decommissioning),
        Just(NodeState::Removed),
    ];
    prop_oneof![
        (1..9u8, 1..6u64).prop_map(|(id, host)| register(id, &format!("host{host}:1"))),
        (1..6u64, state).prop_map(|(node, state)| set_state(node, state)),
        (name.clone(), 1..5u32, 1..4u32).prop_map(|(n, p, r)| create(n, p, r)),
        name.clone().prop_map(delete),
        name.clone()
            .prop_map(|name| alter(name, settings::defaults())),
        (1..20u64).prop_map(producers),
        (0..20u64, 0..3u32).prop_map(|(id, epoch)| renew(id, epoch)),
        (name.clone(), 1..4u32, prop::collection::vec(1..7u64, 1..5))
            .prop_map(|(name, to, nodes)| raise::raise(name, to, &nodes)),
        (1..12u64, prop::collection::vec(1..7u64, 1..4))
            .prop_map(|(group, nodes)| moved(GroupId(group), &nodes)),
        (1..12u64, 0..40u64).prop_map(|(group, replica)| {
            let replica = first_replica_id("c1").0 + replica;
            settled(GroupId(group), [replica])
        }),
        (1..12u64, 0..40u64).prop_map(|(group, replica)| {
            damaged(GroupId(group), first_replica_id("c1").0 + replica)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_disk_and_checkpoint_give_back_the_same_state(
        commands in prop::collection::vec(any_command(), 0..60)
    ) {
        let mut bench = Bench::cluster(3);
        for command in commands {
            let _ = bench.run(command);
        }
        let view = bench.machine.to_view();
        let mut replicas: Vec<_> = view
            .partitions()
            .flat_map(|p| p.replicas.iter().chain(&p.retiring))
            .map(|place| place.replica)
            .chain(view.nodes.values().map(|node| node.meta_replica))
            .collect();
        let count = replicas.len();
        replicas.sort_unstable();
        replicas.dedup();
        prop_assert_eq!(replicas.len(), count);
        for partition in view.partitions() {
            let nodes: std::collections::BTreeSet<_> =
                partition.replicas.iter().map(|place| place.node).collect();
            prop_assert_eq!(nodes.len(), partition.replicas.len());
        }

        let mut loaded = MetaMachine::new();
        let effects = bench.disk.clone().into_iter().collect();
        loaded.load(bench.index, effects).unwrap();
        prop_assert_eq!(&loaded.state, &bench.machine.state);

        let mut restored = MetaMachine::new();
        let effects = restored.restore(bench.machine.checkpoint()).unwrap();
        prop_assert_eq!(&restored.state, &bench.machine.state);
        prop_assert_eq!(restored.purgeable_index(), bench.index);
        let effects = effects.into_iter();
        let effects: Vec<_> = effects.filter_map(|e| Some((e.key, e.value?))).collect();
        let mut reloaded = MetaMachine::new();
        let mut effects = effects;
        effects.sort();
        reloaded.load(bench.index, effects).unwrap();
        prop_assert_eq!(&reloaded.state, &bench.machine.state);
    }
}
