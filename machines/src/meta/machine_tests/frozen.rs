//! Commands written with one build's defaults and limits have the same result in another build.

use super::*;
use crate::meta::settings::tests::TOMORROW;

/// A log of command version 8, one entry a line in hex, and after `=` the resulting state.
const LOG: &str = include_str!("log-of-version-8.hex");

#[test]
fn a_log_of_today_comes_to_the_same_state_under_the_defaults_of_tomorrow() {
    TOMORROW.set(Some(TopicSettings {
        replicas: 1,
        retention_ms: 1_000,
        retention_bytes: 1 << 30,
        segment_bytes: 1 << 20,
        max_batch_bytes: 8 << 20,
        partitioner: Partitioner::Murmur2.into(),
        cleanup: 1,
        delete_horizon_ms: 5,
        min_compaction_lag_ms: 6,
        min_dirty_percent: 7,
        max_timestamp_ahead_ms: 8,
    }));
    let resolved = settings::resolve(None).unwrap();
    assert_eq!(resolved.retention_ms, 1_000, "tomorrow has begun");
    let mut machine = MetaMachine::new();
    let (log, state) = LOG.split_once('=').unwrap();
    for (index, entry) in (1..).zip(log.lines()) {
        let command = Command::decode(unhex(entry)).unwrap();
        machine.apply(index, 1, 100, Some(&command)).unwrap();
    }
    let topics = &machine.to_view().topics;
    assert_eq!(topics["left-open"].settings.retention_ms, 604_800_000);
    assert_eq!(topics["left-open"].partitions[0].replicas.len(), 3);
    assert_eq!(machine.checkpoint(), unhex(state));
    TOMORROW.set(None);
}

fn unhex(text: &str) -> Bytes {
    let digits = text.trim().as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

#[test]
fn changes_of_different_settings_that_crossed_each_other_are_all_made() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let before = bench.machine.to_view().topics["t"].settings;
    // Each proposer knows the settings before the changes, and none of the other changes.
    for (name, value) in [
        ("retention", "1h"),
        ("retention_size", "1GiB"),
        ("segment_bytes", "1MiB"),
        ("cleanup", "compact"),
        ("min_dirty_percent", "20"),
    ] {
        bench.run(single("t", name, value)).unwrap();
    }
    let wanted = TopicSettings {
        retention_ms: 3_600_000,
        retention_bytes: 1 << 30,
        segment_bytes: 1 << 20,
        cleanup: 1,
        min_dirty_percent: 20,
        ..before
    };
    assert_eq!(bench.machine.to_view().topics["t"].settings, wanted);
    // A setting can be set back to a value that is 0.
    bench.run(single("t", "cleanup", "delete")).unwrap();
    assert_eq!(bench.machine.to_view().topics["t"].settings.cleanup, 0);
}

#[test]
fn one_setting_out_of_range_is_refused_and_one_of_a_newer_build_stops_the_machine() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let tiny = single("t", "segment_bytes", "1KiB");
    assert_eq!(bench.run(tiny), Err(ErrorCode::InvalidRequest));
    let none = single("none", "retention", "1h");
    assert_eq!(bench.run(none), Err(ErrorCode::UnknownTopic));
    let newer = Command::Meta(MetaCommand {
        leader_time_ms: 0,
        kind: Some(Kind::AlterTopic(AlterTopic {
            name: "t".into(),
            settings: None,
            changed: vec![2, 1_000],
        })),
    });
    let stopped = bench.machine.apply(9, 1, 10, Some(&newer));
    assert!(matches!(stopped, Err(MachineError::Command(_))));
}

#[test]
fn a_topic_past_the_bound_its_command_names_is_refused_with_the_arithmetic() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    let create = |partitions| {
        Kind::CreateTopic(CreateTopic {
            name: "u".into(),
            partitions,
            settings: None,
            max_replicas_per_node: 10,
        })
    };
    let command = Command::Meta(MetaCommand {
        leader_time_ms: 0,
        kind: Some(create(9)),
    });
    let Reply::Meta(MetaReply {
        kind: Some(meta_reply::Kind::Error(error)),
    }) = bench.machine.apply(9, 1, 10, Some(&command)).unwrap().reply
    else {
        panic!("nine partitions more fit nowhere");
    };
    assert_eq!(ErrorCode::from_number(error.code), ErrorCode::Overloaded);
    for part in [
        "9 partitions x 3 replicas = 27",
        "3 nodes x 10 replicas = 30",
        "8 partitions",
    ] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    bench.run(create(8)).unwrap();
}

fn single(topic: &str, name: &str, value: &str) -> Kind {
    let changes = settings::Changes::parse([(name, value)]).unwrap();
    Kind::AlterTopic(AlterTopic {
        name: topic.into(),
        settings: Some(changes.values),
        changed: changes.fields,
    })
}
