//! Readers. One follows a partition from its beginning, is stopped now and then, and resumes from its stored
//! position. The other reads a whole partition once.

use std::time::Duration;

use futures_util::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, ConsumedRecord, ErrorKind, Offset, Reader};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Clients, MAIN, record, topic_name, until_done};
use crate::history::{Event, Place, RecordName};

/// Maximum number of records after which a following reader stores its position.
const STORE_EVERY: u64 = 20;
/// Time limit for the next record when everything is read.
const PATIENCE: Duration = Duration::from_secs(30);

/// One record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: u64,
    /// The record's name; none if it has none.
    pub name: Option<RecordName>,
    /// Its key.
    pub key: Option<u32>,
    /// Checksum of key and value.
    pub content: u32,
}

/// Content of a partition at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The log start offset.
    pub start: u64,
    /// Records, in order of offset.
    pub records: Vec<Found>,
}

impl Log {
    /// The record at an offset.
    pub fn at(&self, offset: u64) -> Option<&Found> {
        let place = self
            .records
            .binary_search_by_key(&offset, |found| found.offset);
        self.records.get(place.ok()?)
    }

    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        let last = self.records.last();
        last.map_or(self.start, |found| found.offset + 1)
    }
}

/// The record that was read.
pub fn found(read: &ConsumedRecord) -> Found {
    Found {
        offset: read.offset,
        name: record::name(&read.headers),
        key: record::key(read.key.as_deref()),
        content: record::content(read.key.as_deref(), read.value.as_deref()),
    }
}

/// Records that a reader received a record.
pub fn got(clients: &Clients, reader: u32, place: Place, found: Found) {
    clients.history.add(Event::Read {
        reader,
        place,
        offset: found.offset,
        name: found.name,
        content: found.content,
    });
}

/// Follows a partition until the run ends.
pub async fn follow(clients: &Clients, partition: u32) {
    let who = 1_000 + u64::from(partition);
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    let mut client = clients.connect(who).await;
    let mut follower = Follower {
        clients,
        place: Place {
            topic: MAIN,
            partition,
        },
        stored: 0,
    };
    loop {
        let every_ms = clients.plan.load.resume_every_ms;
        let span = random.random_range(every_ms / 2..=every_ms * 3 / 2);
        // In the end the reader runs undisturbed, so that it reaches the end of the log.
        let span = if clients.sending() {
            span
        } else {
            u64::MAX >> 20
        };
        let stop = Instant::now() + Duration::from_millis(span);
        follower.read(&client, stop).await;
        if clients.sending() && random.random_bool(0.2) {
            client = clients.connect(random.random()).await;
        }
    }
}

struct Follower<'a> {
    clients: &'a Clients,
    place: Place,
    /// The position from which it resumes after a stop.
    stored: u64,
}

impl Follower<'_> {
    /// Reads from the stored position until it is stopped or fails.
    async fn read(&mut self, client: &Client, stop: Instant) {
        let Place { topic, partition } = self.place;
        let from = Offset::At(self.stored);
        let mut reader = until_done("beginning to read", || {
            client
                .reader(&topic_name(topic), partition)
                .from(from)
                .build()
        })
        .await;
        self.clients.history.add(Event::Began {
            reader: partition,
            place: self.place,
            offset: self.stored,
        });
        while let Ok(Some(next)) = timeout_at(stop, reader.next()).await {
            match next {
                Ok(record) => {
                    got(self.clients, partition, self.place, found(&record));
                    self.store(reader.position());
                }
                Err(error) if error.kind() == ErrorKind::Trimmed => {
                    self.skip(client, reader.position()).await;
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, partition, "the reader begins anew");
                    return;
                }
            }
        }
    }

    fn store(&mut self, position: u64) {
        let mut followed = self.clients.followed.lock();
        followed.insert(self.place, position);
        if position >= self.stored + STORE_EVERY {
            self.stored = position;
        }
    }

    /// Continues at the log start offset, since its next record was trimmed.
    async fn skip(&mut self, client: &Client, from: u64) {
        let Place { topic, partition } = self.place;
        let name = topic_name(topic);
        let begin = until_done("asking where the log begins", || {
            client.offset(&name, partition, Offset::Beginning)
        })
        .await;
        let to = begin.max(from);
        self.clients.history.add(Event::Skipped {
            reader: partition,
            place: self.place,
            from,
            to,
        });
        self.stored = to;
        self.store(to);
    }
}

/// Reads a partition from its beginning to its end.
///
/// # Errors
/// The reason why it could not be read.
pub async fn read_all(clients: &Clients, place: Place) -> Result<Log, String> {
    let client = clients.connect(2_000 + u64::from(place.partition)).await;
    let name = topic_name(place.topic);
    loop {
        let mut reader = until_done("beginning to read", || {
            let reader = client.reader(&name, place.partition);
            reader.from(Offset::Beginning).build()
        })
        .await;
        let end = until_done("asking for the end", || {
            client.offset(&name, place.partition, Offset::End)
        })
        .await;
        if let Some(log) = read_to(&mut reader, end).await? {
            return Ok(log);
        }
    }
}

/// All records before `end`; none if some were trimmed meanwhile.
async fn read_to(reader: &mut Reader, end: u64) -> Result<Option<Log>, String> {
    let mut log = Log {
        start: reader.position(),
        records: Vec::new(),
    };
    while reader.position() < end {
        let record = timeout(PATIENCE, reader.next()).await;
        let record = record.map_err(|_| format!("nothing came after {}", reader.position()))?;
        match record.ok_or("the reader ended")? {
            Ok(record) => log.records.push(found(&record)),
            Err(error) if error.kind() == ErrorKind::Trimmed => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Some(log))
}
