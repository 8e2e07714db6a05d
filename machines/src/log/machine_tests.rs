//! Whatever the entries: offsets are dense, replicas are equal however they reached their state, and the
//! sparse index finds every offset and time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1::{GroupPosition, PositionsCommitted, group_command};

use super::super::keys::PARTS_VERSION;
use super::*;

const DAYS_100_MS: i64 = 100 * 24 * 3_600_000;

#[derive(Debug, Clone)]
enum Step {
    Append {
        producer: i64,
        epoch: i16,
        sequence: Sequence,
        count: usize,
        bytes: usize,
        time_ms: i64,
    },
    Trim {
        percent: u64,
    },
    Roll,
    Blank,
    NextTerm,
    Restart,
}

#[derive(Debug, Clone)]
enum Sequence {
    Next,
    Again,
    Gap,
    Zero,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![
        6 => Just(Sequence::Next),
        1 => Just(Sequence::Again),
        1 => Just(Sequence::Gap),
        1 => Just(Sequence::Zero),
    ];
    let append = (
        -1i64..3,
        0i16..3,
        sequence,
        1usize..6,
        0usize..40_000,
        -DAYS_100_MS..DAYS_100_MS,
    )
        .prop_map(
            |(producer, epoch, sequence, count, bytes, time_ms)| Step::Append {
                producer,
                epoch,
                sequence,
                count,
                bytes,
                time_ms,
            },
        );
    prop_oneof![
        12 => append,
        2 => Just(Step::Roll),
        1 => (0u64..110).prop_map(|percent| Step::Trim { percent }),
        1 => Just(Step::Blank),
        1 => Just(Step::NextTerm),
        1 => Just(Step::Restart),
    ]
}

fn batch(producer: (i64, i16, i32), count: usize, bytes: usize, time_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for n in 0..count {
        let value = vec![b'v'; bytes / count];
        assert!(
            builder
                .push(None, Some(&value), &[], time_ms - n as i64)
                .unwrap()
        );
    }
    builder.set_producer(producer.0, producer.1, producer.2);
    builder.build()
}

/// A batch that got its offset.
#[derive(Debug)]
struct Accepted {
    log_index: u64,
    base_offset: u64,
    count: u64,
    max_timestamp_ms: i64,
}

/// One replica with its disk, and the expected records.
#[derive(Default)]
struct Replica {
    machine: PartitionMachine,
    disk: BTreeMap<Bytes, Bytes>,
    log: Vec<(u64, Option<Command>)>,
    accepted: Vec<Accepted>,
    checkpoints: Vec<(u64, Bytes)>,
    last: BTreeMap<(i64, i16), (i32, usize)>,
}

impl Replica {
    fn entry(&mut self, term: u64, command: Option<Command>) -> Reply {
        self.log.push((term, command.clone()));
        let index = self.log.len() as u64;
        let bytes = entry_bytes(&command);
        let applied = self
            .machine
            .apply(index, term, bytes, command.as_ref())
            .unwrap();
        for effect in applied.effects {
            match effect.value {
                Some(value) => self.disk.insert(effect.key, value),
                None => self.disk.remove(&effect.key),
            };
        }
        if applied.checkpoint {
            self.checkpoints.push((index, self.machine.checkpoint()));
        }
        applied.reply
    }

    fn restart(&mut self) {
        let pairs = self
            .disk
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let mut loaded = PartitionMachine::default();
        loaded.load(self.machine.applied(), pairs).unwrap();
        if !self.log.is_empty() {
            assert_eq!(loaded, self.machine);
        }
        self.machine = loaded;
    }

    fn take(&mut self, step: Step, term: &mut u64) {
        match step {
            Step::Append {
                producer,
                epoch,
                sequence,
                count,
                bytes,
                time_ms,
            } => {
                let (last, last_count) =
                    self.last.get(&(producer, epoch)).copied().unwrap_or((0, 0));
                let (first, count) = match sequence {
                    Sequence::Next => (last + last_count as i32, count),
                    Sequence::Again => (last, last_count.max(1)),
                    Sequence::Gap => (last + last_count as i32 + 3, count),
                    Sequence::Zero => (0, count),
                };
                let batch = batch((producer, epoch, first), count, bytes, time_ms);
                let before = self.machine.next_offset();
                let command = Command::Append {
                    stamp: Stamp {
                        leader_time_ms: time_ms,
                        own_clock: true,
                        long_memory: *term > 2,
                        ..Stamp::default()
                    },
                    batch,
                };
                let reply = self.entry(*term, Some(command));
                let after = self.machine.next_offset();
                match reply {
                    Reply::Appended {
                        base_offset,
                        duplicate: false,
                    } => {
                        assert_eq!((base_offset, after), (before, before + count as u64));
                        self.last.insert((producer, epoch), (first, count));
                        self.accepted.push(Accepted {
                            log_index: self.log.len() as u64,
                            base_offset,
                            count: count as u64,
                            max_timestamp_ms: time_ms,
                        });
                    }
                    Reply::Appended {
                        base_offset,
                        duplicate: true,
                    } => {
                        assert_eq!(after, before);
                        assert!(
                            self.accepted
                                .iter()
                                .any(|batch| batch.base_offset == base_offset)
                        );
                    }
                    Reply::Refused(error) => {
                        assert_eq!(after, before);
                        assert!(matches!(
                            error.code,
                            ErrorCode::ProducerFenced
                                | ErrorCode::OutOfOrderSequence
                                | ErrorCode::UnknownProducer
                                | ErrorCode::DuplicateSequence
                        ));
                        assert!(producer >= 0);
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Trim { percent } => {
                let to_offset = self.machine.next_offset() * percent / 100;
                let before = self.machine.log_start();
                self.entry(
                    *term,
                    Some(Command::Trim {
                        leader_time_ms: 0,
                        to_offset,
                    }),
                );
                let after = self.machine.log_start();
                assert_eq!(after, to_offset.min(self.machine.next_offset()).max(before));
            }
            Step::Roll => {
                self.entry(*term, Some(Command::Roll { leader_time_ms: 0 }));
            }
            Step::Blank => {
                self.entry(*term, None);
            }
            Step::NextTerm => *term += 1,
            Step::Restart => self.restart(),
        }
    }

    /// Reads from the position that the index returns, as a reader does, and checks that it finds the batch
    /// of every offset.
    fn check_every_offset(&self) {
        for offset in 0..self.machine.next_offset() + 2 {
            let found = self
                .machine
                .locate(offset)
                .map(|start| self.walk(start, offset));
            let kept = (self.machine.log_start()..self.machine.next_offset()).contains(&offset);
            let expected = self.accepted.iter().find(|batch| {
                (batch.base_offset..batch.base_offset + batch.count).contains(&offset)
            });
            assert_eq!(
                found,
                expected.filter(|_| kept).map(|batch| batch.log_index)
            );
        }
    }

    fn walk(&self, start: ScanStart, offset: u64) -> u64 {
        assert!(start.log_index > self.machine.purgeable_index());
        let mut base_offset = start.base_offset;
        for index in start.log_index.. {
            let Some((_, Some(Command::Append { batch, .. }))) = self.log.get(index as usize - 1)
            else {
                continue;
            };
            if self.machine.is_refused(index) {
                continue;
            }
            base_offset += BatchView::trusted(batch.clone()).unwrap().record_count() as u64;
            if base_offset > offset {
                return index;
            }
        }
        unreachable!()
    }

    fn check_times(&self) {
        for time_ms in (0..11_000).step_by(500) {
            let expected = self.accepted.iter().find(|batch| {
                batch.base_offset + batch.count > self.machine.log_start()
                    && batch.max_timestamp_ms >= time_ms
            });
            let start = self.machine.locate_time(time_ms);
            if let Some(expected) =
                expected.filter(|_| self.machine.log_start() < self.machine.next_offset())
            {
                assert!(start.unwrap().log_index <= expected.log_index);
            }
        }
    }

    /// Builds a new replica from the snapshot that a leader would send, and the log behind it.
    fn rebuilt(&self) -> PartitionMachine {
        let purgeable = self.machine.purgeable_index();
        let snapshot = self
            .checkpoints
            .iter()
            .rev()
            .find(|(index, _)| *index <= purgeable);
        let mut machine = PartitionMachine::default();
        let mut from = 0;
        if let Some((index, checkpoint)) = snapshot {
            let effects = machine.restore(checkpoint.clone()).unwrap();
            let mut loaded = PartitionMachine::default();
            let pairs = effects
                .into_iter()
                .map(|effect| (effect.key, effect.value.unwrap()));
            loaded.load(*index, pairs.collect()).unwrap();
            assert_eq!(loaded, machine);
            assert_eq!(machine.purgeable_index(), *index);
            from = *index;
        }
        for (index, (term, command)) in (1..).zip(&self.log).skip(from as usize) {
            machine
                .apply(index, *term, entry_bytes(command), command.as_ref())
                .unwrap();
        }
        machine
    }
}

fn entry_bytes(command: &Option<Command>) -> u64 {
    command
        .as_ref()
        .map_or(1, |command| command.encoded_len() as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn replicas_agree_and_every_offset_is_found(steps in prop::collection::vec(step(), 1..120)) {
        let mut replica = Replica::default();
        let mut term = 1;
        for step in steps {
            replica.take(step, &mut term);
        }
        replica.check_every_offset();
        replica.check_times();
        if !replica.log.is_empty() {
            prop_assert_eq!(replica.rebuilt(), replica.machine.clone());
            replica.restart();
        }
    }

    #[test]
    fn a_checkpoint_of_garbage_is_refused_and_never_panics(bytes: Vec<u8>) {
        let _ = PartitionMachine::default().restore(bytes.into());
    }
}

#[test]
fn a_checkpoint_of_a_newer_layout_is_refused() {
    let mut machine = PartitionMachine::default();
    let newer = Checkpoint {
        version: PARTS_VERSION + 1,
        pairs: Vec::new(),
    };
    let refused = machine.restore(newer.encode_to_vec().into()).unwrap_err();
    assert!(refused.to_string().contains("version 4"), "{refused}");
}

#[test]
fn a_roll_without_records_makes_no_checkpoint() {
    let mut machine = PartitionMachine::default();
    let roll = Command::Roll { leader_time_ms: 0 };
    assert!(!machine.apply(1, 1, 10, Some(&roll)).unwrap().checkpoint);
    let append = Command::Append {
        stamp: Stamp::default(),
        batch: batch((-1, -1, -1), 1, 10, 0),
    };
    machine.apply(2, 1, 100, Some(&append)).unwrap();
    assert!(machine.apply(3, 1, 10, Some(&roll)).unwrap().checkpoint);
    assert!(!machine.apply(4, 1, 10, Some(&roll)).unwrap().checkpoint);
}

#[test]
fn a_metadata_command_in_a_partition_stops_the_replica() {
    let stray = Command::Meta(Default::default());
    assert!(
        PartitionMachine::default()
            .apply(1, 1, 10, Some(&stray))
            .is_err()
    );
}

#[test]
fn behind_a_fence_only_what_was_routed_by_the_new_ring_is_taken() {
    let mut machine = PartitionMachine::default();
    let mut index = 0;
    let mut apply = |command: Command| {
        index += 1;
        machine.apply(index, 1, 10, Some(&command)).unwrap().reply
    };
    let append = |ring_version, sequence| Command::Append {
        stamp: Stamp {
            ring_version,
            ..Stamp::default()
        },
        batch: batch((7, 0, sequence), 1, 10, 0),
    };
    let fence = |ring_version| Command::Fence {
        leader_time_ms: 0,
        ring_version,
    };
    let placed = |base_offset, duplicate| Reply::Appended {
        base_offset,
        duplicate,
    };
    assert_eq!(apply(append(1, 0)), placed(0, false));
    assert_eq!(apply(fence(2)), Reply::Done);
    let Reply::Refused(refused) = apply(append(1, 1)) else {
        panic!("a batch of the old ring was taken behind the fence");
    };
    assert_eq!(refused.code, ErrorCode::StaleRing);
    // A batch from before the fence, repeated because its answer was lost, keeps its offset.
    assert_eq!(apply(append(1, 0)), placed(0, true));
    assert_eq!(apply(append(2, 1)), placed(1, false));
    assert_eq!(apply(append(0, 2)), placed(2, false));
    assert_eq!(apply(fence(1)), Reply::Done);
    assert_eq!(machine.fence(), (2, 1));
    let mut replica = PartitionMachine::default();
    replica.restore(machine.checkpoint()).unwrap();
    assert_eq!(replica.fence(), (2, 1));
}

#[test]
fn a_state_with_groups_in_parts_says_that_an_older_build_cannot_read_it() {
    for (rules, version) in [(1, 1), (2, 4)] {
        let mut machine = PartitionMachine::default();
        let seek = group_command::Kind::Committed(PositionsCommitted {
            create: true,
            ..PositionsCommitted::default()
        });
        let command = Command::Group(GroupCommand {
            leader_time_ms: 5,
            group: "g".to_owned(),
            kind: Some(seek),
            rules,
        });
        let applied = machine.apply(1, 1, 100, Some(&command)).unwrap();
        let checkpoint: Checkpoint = value(&machine.checkpoint()).unwrap();
        assert_eq!(checkpoint.version, version);
        let core = applied.effects.iter();
        let mut core = core.filter(|effect| effect.key == Key::LogHeader.encode());
        let core = core.next().and_then(|effect| effect.value.clone()).unwrap();
        assert_eq!(LogHeader::read(&core).unwrap().version, version);
        let mut replica = PartitionMachine::default();
        replica.restore(machine.checkpoint()).unwrap();
        assert_eq!(replica.groups(), machine.groups());
    }
}

#[test]
fn a_disk_of_a_newer_layout_is_refused_by_its_version_whatever_else_is_there() {
    let core = LogHeader {
        version: PARTS_VERSION + 1,
        ..LogHeader::default()
    };
    let core = (Key::LogHeader.encode(), core.encode_to_vec().into());
    let unknown = (Bytes::from_static(b"z"), Bytes::new());
    let loaded = PartitionMachine::default().load(1, vec![core, unknown]);
    let refused = loaded.unwrap_err().to_string();
    assert!(refused.contains("layout version 5"), "{refused}");
}

#[test]
fn a_log_of_group_commands_rolls_and_its_checkpoint_holds_the_groups() {
    let mut machine = PartitionMachine::default();
    let command = Command::Group(GroupCommand {
        leader_time_ms: 5,
        group: "g".to_owned(),
        kind: Some(group_command::Kind::Committed(PositionsCommitted {
            member_id: String::new(),
            positions: vec![GroupPosition {
                topic_id: 3,
                offset: 9,
                ..GroupPosition::default()
            }],
            ..PositionsCommitted::default()
        })),
        rules: 0,
    });
    machine.apply(1, 1, 100, Some(&command)).unwrap();
    let roll = Command::Roll { leader_time_ms: 6 };
    assert!(machine.apply(2, 1, 10, Some(&roll)).unwrap().checkpoint);
    let mut replica = PartitionMachine::default();
    replica.restore(machine.checkpoint()).unwrap();
    assert_eq!(replica.groups(), machine.groups());
    let trim = Command::Trim {
        leader_time_ms: 7,
        to_offset: 0,
    };
    machine.apply(3, 1, 10, Some(&trim)).unwrap();
    assert_eq!(machine.purgeable_index(), 2);
}
