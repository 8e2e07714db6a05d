//! Records sent and their outcomes, and the format in which they are stored.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// Keys of one producer's life.
const KEYS: u32 = 40;
/// Maximum length of a value's filling.
const FILLING: u64 = 1_500;

/// Position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// Name of a record: its producer, the life of that producer, and the number within the life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// The producer.
    pub producer: u32,
    /// Life of the producer. After an error that ends one, another begins, with keys of its own.
    pub life: u32,
    /// Number of the record in that life.
    pub number: u32,
}

/// Outcome of a record for its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// None yet.
    UnderWay,
    /// The record was appended.
    Acknowledged(Place),
    /// The record may have been appended.
    Unknown,
    /// The record was not appended and never will be.
    Refused,
}

/// One record in the history file.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    name: Name,
    outcome: Outcome,
}

/// Outcomes of one life's records, by number.
type Life = Vec<Outcome>;

/// Every record sent. Clones share the same history.
#[derive(Debug, Clone, Default)]
pub struct History {
    lives: Arc<Mutex<BTreeMap<(u32, u32), Life>>>,
    pauses: Arc<Mutex<BTreeMap<u32, Pause>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// Time without acknowledgements of a partition.
#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Instant,
    longest: Duration,
}

impl Name {
    /// The record's key. The keys take turns, so that each gets many records.
    pub fn key(&self) -> String {
        format!("{}-{}-{}", self.producer, self.life, self.number % KEYS)
    }

    /// The record's value. It contains the name and differs from any other value, to the last byte.
    pub fn value(&self) -> String {
        let mut text = format!("{} {} {} ", self.producer, self.life, self.number);
        let mut state = (u64::from(self.producer) << 40)
            ^ (u64::from(self.life) << 32)
            ^ u64::from(self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let length = (state >> 24) % FILLING;
        while (text.len() as u64) < length {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let _ = write!(text, "{state:016x}");
        }
        text
    }

    /// The name in a value.
    pub fn of_value(value: &[u8]) -> Option<Name> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split(' ').map(str::parse);
        Some(Name {
            producer: words.next()?.ok()?,
            life: words.next()?.ok()?,
            number: words.next()?.ok()?,
        })
    }
}

impl History {
    /// Records that a record is about to be sent.
    pub fn sent(&self, name: Name) {
        let mut lives = self.lives.lock();
        let life = lives.entry((name.producer, name.life)).or_default();
        assert_eq!(life.len(), name.number as usize, "records are sent in turn");
        life.push(Outcome::UnderWay);
    }

    /// Records the outcome of a record.
    pub fn ended(&self, name: Name, outcome: Outcome) {
        if let Outcome::Acknowledged(place) = outcome {
            let now = Instant::now();
            let mut pauses = self.pauses.lock();
            let pause = pauses.entry(place.partition).or_insert(Pause {
                since: now,
                longest: Duration::ZERO,
            });
            pause.longest = pause.longest.max(now - pause.since);
            pause.since = now;
        }
        let mut lives = self.lives.lock();
        let life = lives.get_mut(&(name.producer, name.life));
        if let Some(slot) = life.and_then(|life| life.get_mut(name.number as usize)) {
            *slot = outcome;
        }
    }

    /// The longest time without an acknowledgement since the last call, over all partitions. A pause that
    /// still lasts counts, too.
    pub fn longest_pause(&self) -> Duration {
        let now = Instant::now();
        let mut longest = Duration::ZERO;
        for pause in self.pauses.lock().values_mut() {
            longest = longest.max(pause.longest).max(now - pause.since);
            pause.longest = Duration::ZERO;
        }
        longest
    }

    /// Records an error that a client reported.
    pub fn complain(&self, error: String) {
        self.complaints.lock().push(error);
    }

    /// Errors since the last call.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.complaints.lock())
    }

    /// Writes every record and its outcome as lines of JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for (name, outcome) in self.all() {
            serde_json::to_writer(&mut file, &Line { name, outcome })?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    /// Every record and its outcome, in the order in which each producer sent them.
    pub fn all(&self) -> Vec<(Name, Outcome)> {
        let lives = self.lives.lock();
        let of_life = |(&(producer, life), outcomes): (&(u32, u32), &Life)| {
            let named = outcomes.iter().enumerate().map(move |(number, outcome)| {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let name = Name {
                    producer,
                    life,
                    number,
                };
                (name, *outcome)
            });
            named.collect::<Vec<_>>()
        };
        lives.iter().flat_map(of_life).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_name_and_nothing_else_looks_like_it() {
        let name = |number| Name {
            producer: 3,
            life: 1,
            number,
        };
        assert_eq!(Name::of_value(name(70).value().as_bytes()), Some(name(70)));
        assert_ne!(name(70).value(), name(71).value());
        assert_eq!(Name::of_value(b"something else"), None);
    }
}
