//! Fixtures for the tests of checks.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::batch::{BatchBuilder, Compression};
use ropewalk_proto::command::{Command, Stamp};
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_raft_store::inspect::{CastVote, InspectedEntry, Inspection, LogPlace, Payload};

use super::{Check, Now, Seen, Starts};
use crate::history::{Event, Place, RecordName};
use crate::load::{Found, Log};
use crate::observe::committed_model::{Committed, CommittedModel, Record};
use crate::observe::{Image, Look, Replica, State};

/// The partition of the fixtures.
pub const PLACE: Place = Place {
    topic: 0,
    partition: 0,
};

/// Its Raft group.
pub const GROUP: GroupId = GroupId(5);

/// Input of a check.
#[derive(Debug, Default)]
pub struct Story {
    pub history: Vec<(Duration, Event)>,
    pub logs: BTreeMap<Place, Log>,
    pub truth: CommittedModel,
    pub fresh: Vec<Committed>,
    pub look: Look,
}

impl Story {
    /// A history of events, one each ms.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Story {
        let times = (0..).map(Duration::from_millis);
        Story {
            history: times.zip(events).collect(),
            ..Story::default()
        }
    }

    pub fn log_mut(&mut self) -> &mut Log {
        self.logs.get_mut(&PLACE).expect("a log")
    }

    /// Adds the committed entries of the look to the truth.
    pub fn learn(&mut self) {
        self.fresh = self.truth.learn(&self.look);
    }

    fn starts(&self) -> Starts {
        let mut starts = Starts::default();
        starts.learn(self.history.iter().map(|(_, event)| event), &self.fresh);
        starts
    }

    pub fn look(&self, check: &mut dyn Check) -> Result<(), String> {
        check.look(&Now {
            starts: &self.starts(),
            look: &self.look,
            truth: &self.truth,
            fresh: &self.fresh,
            news: &self.history,
        })
    }

    pub fn end(&self, check: &mut dyn Check) -> Result<(), String> {
        check.end(&Seen {
            starts: &self.starts(),
            history: &self.history,
            logs: &self.logs,
            truth: &self.truth,
            look: &self.look,
        })
    }
}

/// Content of every record of the fixtures.
pub const CONTENT: u32 = 5;

pub fn sent(name: RecordName, content: u32) -> Event {
    Event::Sent {
        name,
        topic: 0,
        key: Some(1),
        content,
    }
}

pub fn acknowledged(name: RecordName, offset: u64) -> Event {
    Event::Acknowledged {
        name,
        place: PLACE,
        offset,
    }
}

/// A log of records of one key.
pub fn log(start: u64, names: impl IntoIterator<Item = RecordName>) -> BTreeMap<Place, Log> {
    let records = (start..).zip(names).map(|(offset, name)| Found {
        offset,
        name: Some(name),
        key: Some(1),
        content: CONTENT,
    });
    let records = records.collect();
    BTreeMap::from([(PLACE, Log { start, records })])
}

/// A replica in a live image, with the inspection that `make` fills in.
pub fn replica(id: u64, make: impl FnOnce(&mut Inspection)) -> Replica {
    let mut seen = Inspection::empty(GROUP, ReplicaId(id));
    make(&mut seen);
    let last = seen.entries.last().map(|entry| entry.place);
    seen.last = seen.last.max(last).max(seen.purged);
    Replica {
        host: format!("node-{id}"),
        image: Image::Live,
        setbacks: 0,
        losses: 0,
        on_damaged_disk: false,
        seen,
        state: None,
    }
}

/// The same replica in a durable image.
pub fn durable(replica: Replica) -> Replica {
    Replica {
        image: Image::Durable,
        ..replica
    }
}

pub fn vote(term: u64, candidate: u64, committed: bool) -> Option<CastVote> {
    Some(CastVote {
        term,
        candidate: ReplicaId(candidate),
        committed,
    })
}

pub fn place(term: u64, index: u64) -> Option<LogPlace> {
    Some(LogPlace { term, index })
}

/// A state without trims.
pub fn state(next_offset: u64) -> State {
    State {
        next_offset,
        log_start: 0,
        purgeable_index: 0,
        refused: Default::default(),
        groups: Default::default(),
    }
}

fn of(term: u64, index: u64, digest: u32, payload: Payload) -> InspectedEntry {
    InspectedEntry {
        place: LogPlace { term, index },
        bytes: 100,
        digest: digest.into(),
        payload,
    }
}

pub fn blank(term: u64, index: u64) -> InspectedEntry {
    of(term, index, 0, Payload::Blank)
}

/// An entry whose content depends on its digest.
pub fn entry(term: u64, index: u64, digest: u32) -> InspectedEntry {
    let leader_time_ms = i64::from(digest);
    let payload = Payload::Command(Command::Roll { leader_time_ms });
    of(term, index, digest, payload)
}

pub fn voters(term: u64, index: u64, voters: &[u64]) -> InspectedEntry {
    let set = voters.iter().copied().map(ReplicaId).collect();
    of(term, index, 1, Payload::Voters(vec![set]))
}

/// A batch of records of these names, in term 1.
pub fn append(term: u64, index: u64, names: &[RecordName]) -> InspectedEntry {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 20);
    for (producer, number) in names {
        let header = ropewalk_client::Header {
            key: "name".to_owned(),
            value: Some(format!("{producer} {number}").into()),
        };
        let pushed = batch.push(Some(b"key-1"), None, &[header], 0);
        assert!(pushed.expect("a record"), "it fits");
    }
    let batch = batch.build();
    let command = Command::Append {
        stamp: Stamp::default(),
        batch,
    };
    of(term, index, 2, Payload::Command(command))
}

/// An accepted batch whose first record is at `base_offset`.
pub fn committed(base_offset: u64, names: &[RecordName]) -> Committed {
    let index = base_offset + 1;
    let records = (base_offset..).zip(names).map(|(offset, name)| Record {
        offset,
        name: Some(*name),
        key: Some(1),
        content: CONTENT,
        is_tombstone: false,
        timestamp_ms: 0,
        index,
        ring: 1,
    });
    Committed {
        group: GROUP,
        place: Some(PLACE),
        records: records.collect(),
        entry: append(1, index, names),
        base_offset: Some(base_offset),
        after_a_gap: false,
    }
}

/// The same batch, routed by a ring.
pub fn committed_by_ring(ring: u32, base_offset: u64, names: &[RecordName]) -> Committed {
    let mut one = committed(base_offset, names);
    for record in &mut one.records {
        record.ring = ring;
    }
    if let Payload::Command(Command::Append { stamp, .. }) = &mut one.entry.payload {
        stamp.ring_version = ring;
    }
    one
}

/// An accepted batch of one record from a producer.
pub fn committed_of(producer: i64, epoch: i16, sequence: i32) -> Committed {
    let mut batch = BatchBuilder::new(Compression::None, 1 << 10);
    assert!(batch.push(None, None, &[], 0).expect("a record"));
    batch.set_producer(producer, epoch, sequence);
    let batch = batch.build();
    let mut one = committed(0, &[]);
    one.entry.payload = Payload::Command(Command::Append {
        stamp: Stamp::default(),
        batch,
    });
    one
}

pub fn of_command(index: u64, command: Command) -> Committed {
    Committed {
        group: GROUP,
        place: Some(PLACE),
        entry: of(1, index, 3, Payload::Command(command)),
        base_offset: None,
        records: Vec::new(),
        after_a_gap: false,
    }
}

/// The truth, if these records of [`CONTENT`] are committed.
pub fn truth_of(names: &[RecordName]) -> CommittedModel {
    let mut truth = CommittedModel::default();
    truth.name(GROUP, PLACE);
    let group = truth.group_mut(GROUP).expect("a group");
    group.records = committed(0, names).records;
    truth
}

/// The truth, if records with these times are committed.
pub fn truth_at(times_ms: &[i64]) -> CommittedModel {
    let names: Vec<RecordName> = (0..).zip(times_ms).map(|(number, _)| (1, number)).collect();
    let mut truth = truth_of(&names);
    let group = truth.group_mut(GROUP).expect("a group");
    for (record, time_ms) in group.records.iter_mut().zip(times_ms) {
        record.timestamp_ms = *time_ms;
    }
    truth
}

/// Fixtures of consumer groups.
pub mod groups {
    use ropewalk_proto::v1::{
        GroupCommand, GroupMember, GroupPlace, GroupPosition, GroupTopic, MemberJoins,
        PartitionsReleased, PositionsCommitted, group_command,
    };

    use super::{CONTENT, PLACE, of_command};
    use crate::history::{Event, Life, Place};
    use crate::observe::committed_model::Committed;

    /// The member of the fixtures.
    pub const LIFE: Life = Life {
        group: 0,
        member: 0,
        life: 0,
    };

    pub fn delivered_at(place: Place, offset: u64) -> Event {
        Event::Delivered {
            who: LIFE,
            place,
            offset,
            name: Some((1, offset)),
            key: Some(1),
            content: CONTENT,
        }
    }

    pub fn delivered(offset: u64) -> Event {
        delivered_at(PLACE, offset)
    }

    pub fn processed(offset: u64) -> Event {
        Event::Processed {
            who: LIFE,
            place: PLACE,
            offset,
        }
    }

    fn command(index: u64, kind: group_command::Kind) -> Committed {
        let command = GroupCommand {
            leader_time_ms: 0,
            group: "group-0".to_owned(),
            kind: Some(kind),
            rules: 1,
        };
        of_command(index, ropewalk_proto::command::Command::Group(command))
    }

    /// A member joins the group to read one topic of one partition.
    pub fn join(index: u64, member_id: &str) -> Committed {
        let member = GroupMember {
            member_id: member_id.to_owned(),
            ..GroupMember::default()
        };
        let topic = GroupTopic {
            topic_id: 1,
            name: "topic-0".to_owned(),
            partitions: 1,
            growths: Vec::new(),
        };
        let joins = MemberJoins {
            member: Some(member),
            rebalance_ms: 0,
            topics: vec![topic],
            session: 0,
        };
        command(index, group_command::Kind::Joins(joins))
    }

    pub fn commit(index: u64, member_id: &str, epoch: u64, offset: u64) -> Committed {
        let position = GroupPosition {
            topic_id: 1,
            partition: 0,
            epoch,
            offset,
            note: String::new(),
        };
        let committed = PositionsCommitted {
            member_id: member_id.to_owned(),
            positions: vec![position],
            ..PositionsCommitted::default()
        };
        command(index, group_command::Kind::Committed(committed))
    }

    pub fn released(index: u64, member_id: &str, epoch: u64) -> Committed {
        let released = PartitionsReleased {
            member_id: member_id.to_owned(),
            partitions: vec![GroupPlace {
                topic_id: 1,
                partition: 0,
                epoch,
            }],
        };
        command(index, group_command::Kind::Released(released))
    }
}
