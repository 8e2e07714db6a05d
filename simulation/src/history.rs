//! What clients did and were told, each with its simulated time. Checks read it; nothing else does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ropewalk_client::v1::TopicSettings;

use crate::fault::What;
use crate::load::settings::Sieving;

/// One record's name in a run: which producer sent it, and its number there. A producer that takes
/// the place of another has a number of its own.
pub type RecordName = (u32, u64);

/// A partition of one of a run's topics. Topic 0 is the one that is written and read all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's number; no two topics of a run have the same.
    pub topic: u32,
    /// The partition.
    pub partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { topic, partition } = self;
        write!(f, "{}/{partition}", crate::load::topic_name(*topic))
    }
}

/// One start of a member of a consumer group. Whoever takes its place, also under its name, is
/// another life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// The number of its group.
    pub group: u32,
    /// Which member.
    pub member: u32,
    /// Which start of it.
    pub life: u32,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Life {
            group,
            member,
            life,
        } = self;
        write!(f, "member {member} of group {group} in life {life}")
    }
}

/// Settings that are changed one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// The dirty part of a log at which it is compacted, in percent.
    MinDirtyPercent,
    /// The time that a record without a value stays.
    DeleteHorizonMs,
}

impl Setting {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Setting::MinDirtyPercent => "min_dirty_percent",
            Setting::DeleteHorizonMs => "delete_horizon",
        }
    }
}

/// What can be asked besides producing and reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Make a topic.
    CreateTopic {
        /// Its number.
        topic: u32,
        /// How many partitions.
        partitions: u32,
        /// Its settings.
        settings: TopicSettings,
    },
    /// Change a topic's settings, to these.
    AlterTopic {
        /// Its number.
        topic: u32,
        /// All of them, as they are to be.
        settings: TopicSettings,
    },
    /// Change one setting of a topic.
    SetOne {
        /// Its number.
        topic: u32,
        /// The setting.
        setting: Setting,
        /// The new value.
        value: i64,
    },
    /// List the values of those settings, of all topics.
    ListSettings,
    /// Give a topic more partitions.
    GrowTopic {
        /// Its number.
        topic: u32,
        /// How many in all.
        partitions: u32,
    },
    /// Delete a topic.
    DeleteTopic {
        /// Its number.
        topic: u32,
    },
    /// Which topics there are.
    ListTopics,
    /// Where a partition begins.
    Beginning {
        /// Which.
        place: Place,
    },
    /// Where it ends.
    End {
        /// Which.
        place: Place,
    },
    /// The first offset at or after a time.
    AtTime {
        /// Where.
        place: Place,
        /// In ms since 1970.
        time_ms: i64,
    },
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// An offset.
    Offset(u64),
    /// The numbers of the topics there are.
    Topics(Vec<u32>),
    /// Values of settings, by topic.
    Settings(BTreeMap<(u32, Setting), i64>),
    /// It was not done, or that is not known.
    Failed {
        /// Whether it may have been done all the same.
        unknown: bool,
        /// What was said.
        error: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A producer was given a record.
    Sent {
        /// The record.
        name: RecordName,
        /// To which topic.
        topic: u32,
        /// Its key, if it has one.
        key: Option<u32>,
        /// A checksum over its key and value.
        content: u32,
    },
    /// It was acknowledged.
    Acknowledged {
        /// The record.
        name: RecordName,
        /// Where it is.
        place: Place,
        /// At which offset.
        offset: u64,
    },
    /// It was not acknowledged.
    Failed {
        /// The record.
        name: RecordName,
        /// Whether it may be there all the same.
        unknown: bool,
        /// What was said.
        error: String,
    },
    /// A producer was given an epoch, the first together with its id.
    Epoch {
        /// Its id.
        producer: u64,
        /// The epoch.
        epoch: u32,
    },
    /// A reader begins, or goes on from what it had stored.
    Began {
        /// Which reader.
        reader: u32,
        /// Where it reads.
        place: Place,
        /// From which offset on.
        offset: u64,
    },
    /// A reader got a record.
    Read {
        /// Which reader.
        reader: u32,
        /// Where it reads.
        place: Place,
        /// At which offset.
        offset: u64,
        /// The record; none if it bears no name.
        name: Option<RecordName>,
        /// A checksum over its key and value.
        content: u32,
    },
    /// A reader was told that what it was to read next is trimmed, and goes on elsewhere.
    Skipped {
        /// Which reader.
        reader: u32,
        /// Where it reads.
        place: Place,
        /// What it was to read.
        from: u64,
        /// Where it goes on.
        to: u64,
    },
    /// The reader with a filter, and what it is to get.
    Sifts(Sieving),
    /// A reader with a filter was led past records without getting one.
    Passed {
        /// Which reader.
        reader: u32,
        /// Where it reads.
        place: Place,
        /// The first of them.
        from: u64,
        /// The first behind them.
        to: u64,
    },
    /// A group begins at the end of the partitions as they are then.
    BeginsAtTheEnd {
        /// Its number.
        group: u32,
    },
    /// A member of a group has joined.
    Joined {
        /// Who.
        who: Life,
        /// How many handlers it has side by side; none if it takes one record after the other.
        handlers: usize,
    },
    /// A partition is a member's now.
    Assigned {
        /// Whose.
        who: Life,
        /// Which.
        place: Place,
    },
    /// A partition is to go to another member, or is another's already.
    Taken {
        /// From whom.
        who: Life,
        /// Which.
        place: Place,
        /// Whether nothing of it can be committed any more.
        lost: bool,
    },
    /// A member was given a record, or its handler began.
    Delivered {
        /// Who.
        who: Life,
        /// Where it is.
        place: Place,
        /// At which offset.
        offset: u64,
        /// The record; none if it bears no name.
        name: Option<RecordName>,
        /// Its key.
        key: Option<u32>,
        /// A checksum over its key and value.
        content: u32,
    },
    /// A member has finished with a record.
    Processed {
        /// Who.
        who: Life,
        /// Where it is.
        place: Place,
        /// At which offset.
        offset: u64,
    },
    /// A call was made.
    Called {
        /// The call's number.
        number: u64,
        /// What was asked.
        call: Call,
    },
    /// A call was answered.
    Answered {
        /// The call's number.
        number: u64,
        /// How.
        answer: Answer,
    },
    /// A fault fell.
    Fault(What),
}

impl Event {
    /// What it is called in counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Sent { .. } => "sent",
            Event::Acknowledged { .. } => "acknowledged",
            Event::Failed { .. } => "failed",
            Event::Epoch { .. } => "epochs",
            Event::Began { .. } => "readers",
            Event::Read { .. } => "read",
            Event::Skipped { .. } => "skipped",
            Event::Sifts(_) => "filters",
            Event::Passed { .. } => "filtered",
            Event::BeginsAtTheEnd { .. } => "groups-from-the-end",
            Event::Joined { .. } => "group-members",
            Event::Assigned { .. } => "assigned",
            Event::Taken { lost: true, .. } => "lost",
            Event::Taken { lost: false, .. } => "revoked",
            Event::Delivered { .. } => "delivered",
            Event::Processed { .. } => "processed",
            Event::Called { call, .. } => match call {
                Call::CreateTopic { .. } => "topic-creations",
                Call::AlterTopic { .. } | Call::SetOne { .. } => "topic-changes",
                Call::GrowTopic { .. } => "topic-growths",
                Call::DeleteTopic { .. } => "topic-deletions",
                Call::ListTopics | Call::ListSettings => "topic-lists",
                Call::Beginning { .. } | Call::End { .. } | Call::AtTime { .. } => "lookups",
            },
            Event::Answered { .. } => "answers",
            Event::Fault(_) => "faults",
        }
    }
}

/// All that happened in one run, in order. Clones are the same history.
#[derive(Debug, Clone, Default)]
pub struct History {
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

impl History {
    /// Adds what happens now.
    pub fn add(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        tracing::debug!(?event, "history");
        self.events.lock().push((at, event));
    }

    /// Adds a call; its answer goes under the number given back.
    pub fn call(&self, call: Call) -> u64 {
        let number = self.events.lock().len() as u64;
        self.add(Event::Called { number, call });
        number
    }

    /// Adds a fault; outside of any host there is no clock to ask.
    pub fn fault(&self, what: &What) {
        let mut events = self.events.lock();
        let at = events.last().map_or(Duration::ZERO, |(at, _)| *at);
        events.push((at, Event::Fault(what.clone())));
    }

    /// What happened so far.
    pub fn events(&self) -> MutexGuard<'_, Vec<(Duration, Event)>> {
        self.events.lock()
    }
}
