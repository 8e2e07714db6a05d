//! Actions of clients and the answers they received, each with its simulated time. Only the checks read it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ropewalk_proto::v1::TopicSettings;

use crate::fault::What;
use crate::load::settings::Sieving;

/// One record's name in a run: its producer's number, and the record's number there. A producer that replaces
/// another gets a number of its own.
pub type RecordName = (u32, u64);

/// A partition of one of a run's topics. Topic 0 is written and read all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's number; no two topics of a run share one.
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

/// One start of a member of a consumer group. A successor is another life, even under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Number of its group.
    pub group: u32,
    /// Number of the member.
    pub member: u32,
    /// Number of the start.
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

/// Settings that clients change one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Dirty part of a log, in percent, at which it is compacted.
    MinDirtyPercent,
    /// Time for which a record without a value is kept.
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

/// Calls other than produce and fetch.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Create a topic.
    CreateTopic {
        /// The topic's number.
        topic: u32,
        /// Number of partitions.
        partitions: u32,
        /// The topic's settings.
        settings: TopicSettings,
    },
    /// Replace a topic's settings.
    AlterTopic {
        /// The topic's number.
        topic: u32,
        /// All settings, with their new values.
        settings: TopicSettings,
    },
    /// Change one setting of a topic.
    SetOne {
        /// The topic's number.
        topic: u32,
        /// The setting.
        setting: Setting,
        /// The new value.
        value: i64,
    },
    /// List the values of those settings for all topics.
    ListSettings,
    /// Add partitions to a topic.
    GrowTopic {
        /// The topic's number.
        topic: u32,
        /// New total number of partitions.
        partitions: u32,
    },
    /// Delete a topic.
    DeleteTopic {
        /// The topic's number.
        topic: u32,
    },
    /// List the topics.
    ListTopics,
    /// Look up the log start offset of a partition.
    Beginning {
        /// The partition.
        place: Place,
    },
    /// Look up the end offset of a partition.
    End {
        /// The partition.
        place: Place,
    },
    /// Look up the first offset at or after a time.
    AtTime {
        /// The partition.
        place: Place,
        /// The time, in ms since 1970.
        time_ms: i64,
    },
}

/// Outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The call succeeded.
    Done,
    /// An offset.
    Offset(u64),
    /// Numbers of the existing topics.
    Topics(Vec<u32>),
    /// Values of settings, by topic.
    Settings(BTreeMap<(u32, Setting), i64>),
    /// The call failed, or its outcome is unknown.
    Failed {
        /// True if it may have been done all the same.
        unknown: bool,
        /// The error's text.
        error: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An application gave a record to a producer.
    Sent {
        /// The record.
        name: RecordName,
        /// The topic's number.
        topic: u32,
        /// The key, if it has one.
        key: Option<u32>,
        /// Checksum of key and value.
        content: u32,
    },
    /// A record was acknowledged.
    Acknowledged {
        /// The record.
        name: RecordName,
        /// Its partition.
        place: Place,
        /// Its offset.
        offset: u64,
    },
    /// A record was not acknowledged.
    Failed {
        /// The record.
        name: RecordName,
        /// True if it may have been appended all the same.
        unknown: bool,
        /// The error's text.
        error: String,
    },
    /// A producer was given an epoch. Its first epoch comes with its id.
    Epoch {
        /// The producer's id.
        producer: u64,
        /// The epoch.
        epoch: u32,
    },
    /// A reader begins, or resumes from its stored position.
    Began {
        /// The reader's number.
        reader: u32,
        /// Its partition.
        place: Place,
        /// Its first offset.
        offset: u64,
    },
    /// A reader received a record.
    Read {
        /// The reader's number.
        reader: u32,
        /// Its partition.
        place: Place,
        /// The record's offset.
        offset: u64,
        /// The record; none if it has no name.
        name: Option<RecordName>,
        /// Checksum of key and value.
        content: u32,
    },
    /// A reader's next offset was trimmed, and the reader continues at another one.
    Skipped {
        /// The reader's number.
        reader: u32,
        /// Its partition.
        place: Place,
        /// The offset it expected next.
        from: u64,
        /// The offset where it continues.
        to: u64,
    },
    /// The reader with a filter, and the records its filter selects.
    Sifts(Sieving),
    /// A reader with a filter moved past records that its filter rejected.
    Passed {
        /// The reader's number.
        reader: u32,
        /// Its partition.
        place: Place,
        /// Offset of the first of them.
        from: u64,
        /// The offset after the last of them.
        to: u64,
    },
    /// A group begins at the present end of its partitions.
    BeginsAtTheEnd {
        /// Number of the group.
        group: u32,
    },
    /// A member of a group has joined.
    Joined {
        /// The member's life.
        who: Life,
        /// Number of concurrent handlers; none if it processes one record after another.
        handlers: usize,
    },
    /// A partition was assigned to a member.
    Assigned {
        /// The member's life.
        who: Life,
        /// The partition.
        place: Place,
    },
    /// A partition was revoked from a member or lost by it.
    Taken {
        /// The member's life.
        who: Life,
        /// The partition.
        place: Place,
        /// True if the member can no longer commit its offset.
        lost: bool,
    },
    /// A member received a record, or its handler began.
    Delivered {
        /// The member's life.
        who: Life,
        /// The partition.
        place: Place,
        /// The record's offset.
        offset: u64,
        /// The record; none if it has no name.
        name: Option<RecordName>,
        /// The record's key.
        key: Option<u32>,
        /// Checksum of key and value.
        content: u32,
    },
    /// A member has finished with a record.
    Processed {
        /// The member's life.
        who: Life,
        /// The partition.
        place: Place,
        /// The record's offset.
        offset: u64,
    },
    /// A call was made.
    Called {
        /// The call's number.
        number: u64,
        /// The call.
        call: Call,
    },
    /// A call was answered.
    Answered {
        /// The call's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// A fault took effect.
    Fault(What),
}

impl Event {
    /// Its name in counts.
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

/// All events of one run, in order. Clones share the same history.
#[derive(Debug, Clone, Default)]
pub struct History {
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

impl History {
    /// Adds an event with the present time.
    pub fn add(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        tracing::debug!(?event, "history");
        self.events.lock().push((at, event));
    }

    /// Adds a call. Its answer is added under the returned number.
    pub fn call(&self, call: Call) -> u64 {
        let number = self.events.lock().len() as u64;
        self.add(Event::Called { number, call });
        number
    }

    /// Adds a fault. No clock can be asked outside of a host.
    pub fn fault(&self, what: &What) {
        let mut events = self.events.lock();
        let at = events.last().map_or(Duration::ZERO, |(at, _)| *at);
        events.push((at, Event::Fault(what.clone())));
    }

    /// All events so far.
    pub fn events(&self) -> MutexGuard<'_, Vec<(Duration, Event)>> {
        self.events.lock()
    }
}
