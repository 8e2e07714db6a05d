//! A run for a person who looks for a bug: the actions of nodes and partitions, in short lines.
//!
//! Client events are summed up per second. A line that repeats at once is suppressed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Entry;
use crate::load::topic_name;

/// Interval of the sums of client events, and time for which a repeated line is suppressed.
const SUM_UP: Duration = Duration::from_secs(1);
/// Length at which values are cut; the trace has more of them.
const VALUE_CHARS: usize = 120;
/// Number of recent lines remembered; beyond it, lines may repeat.
const REMEMBERED: usize = 4_096;

/// Target of client events.
const HISTORY: &str = "ropewalk_simulation::history";
/// Target of openraft's leader changes.
const RAFT_ROLE: &str = "openraft::engine::handler::server_state_handler";

/// Writes a story during the run. Clones write the same one.
#[derive(Clone)]
pub struct Story {
    telling: Arc<Mutex<Telling>>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").finish_non_exhaustive()
    }
}

struct Telling {
    out: Box<dyn Write + Send>,
    /// Client events by host, kind and partition.
    sums: BTreeMap<(String, String, String), u64>,
    summed_up: Duration,
    /// Last time of each line, with the number of suppressed repeats since.
    said: BTreeMap<String, (Duration, u64)>,
    /// Partition of each replica, and name of each address.
    names: BTreeMap<String, String>,
}

impl Story {
    /// A story that goes to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Story {
        let telling = Telling {
            out,
            sums: BTreeMap::new(),
            summed_up: Duration::ZERO,
            said: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        Story {
            telling: Arc::new(Mutex::new(telling)),
        }
    }

    /// Filter of the events it is made of.
    pub fn filter() -> Targets {
        Targets::new()
            .with_target("ropewalk", LevelFilter::DEBUG)
            .with_target(RAFT_ROLE, LevelFilter::INFO)
            .with_target("turmoil", LevelFilter::TRACE)
    }

    /// Writes the pending sums.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(&self) -> io::Result<()> {
        let mut telling = self.telling.lock();
        let at = telling.summed_up + SUM_UP;
        telling.sum_up(at)?;
        telling.out.flush()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Story {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Entry::remember_host(attributes, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Of the network, a story shows only the hosts that came and went.
        let metadata = event.metadata();
        let module = metadata.module_path().unwrap_or_default();
        let of_hosts = matches!(module, "turmoil::sim" | "turmoil::world");
        if metadata.target() == "turmoil" && !of_hosts {
            return;
        }
        if let Some(entry) = Entry::read(event, &context) {
            // A closed terminal ends the story, not the run.
            let _ = self.telling.lock().hear(&entry);
        }
    }
}

impl Telling {
    fn hear(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.at >= self.summed_up + SUM_UP {
            self.sum_up(entry.at)?;
        }
        match entry.target {
            HISTORY => {
                self.count(entry);
                Ok(())
            }
            "turmoil" => self.host(entry),
            RAFT_ROLE => self.role(entry),
            _ => self.event(entry),
        }
    }

    /// Writes the sums of client events since the last time.
    fn sum_up(&mut self, now: Duration) -> io::Result<()> {
        for ((host, kind, partition), count) in std::mem::take(&mut self.sums) {
            let what = format!("{kind} ×{count}");
            self.line(self.summed_up + SUM_UP, &host, &partition, &what)?;
        }
        self.summed_up = Duration::from_secs(now.as_secs());
        Ok(())
    }

    fn count(&mut self, entry: &Entry) {
        let Some(text) = entry.field("event") else {
            return;
        };
        let kind = text.split([' ', '(', '{']).next().unwrap_or_default();
        let place = (
            entry.host.clone().unwrap_or_default(),
            kind.to_lowercase(),
            place(text).unwrap_or_default(),
        );
        *self.sums.entry(place).or_default() += 1;
    }

    fn host(&mut self, entry: &Entry) -> io::Result<()> {
        let address = entry.field("addr").unwrap_or_default();
        match entry.message.as_str() {
            "New" => {
                let name = entry.field("nodename").unwrap_or_default();
                let name = name.trim_matches('"').to_string();
                self.names.insert(address.to_string(), name);
                Ok(())
            }
            "Crash" | "Bounce" => {
                let name = self.names.get(address).cloned();
                let name = name.unwrap_or_else(|| address.to_string());
                let what = match entry.message.as_str() {
                    "Crash" => "goes down",
                    _ => "comes back",
                };
                self.line(entry.at, &name, "", what)
            }
            _ => Ok(()),
        }
    }

    /// Replaces openraft's replica ids by the partitions that readers know.
    fn role(&mut self, entry: &Entry) -> io::Result<()> {
        let replica = number_after(&entry.message, "id=").unwrap_or_default();
        let place = self.names.get(&format!("replica {replica}")).cloned();
        let host = entry.host.clone().unwrap_or_default();
        let place = place.unwrap_or_default();
        let what = entry.message.replacen("id=", "replica ", 1);
        self.line(entry.at, &host, &place, &what)
    }

    fn event(&mut self, entry: &Entry) -> io::Result<()> {
        let place = entry.field("partition").unwrap_or_default();
        if let Some(replica) = entry.field("replica") {
            let replica = format!("replica {replica}");
            self.names.insert(replica, place.to_string());
        }
        let mut what = match entry.level {
            Level::ERROR | Level::WARN => format!("{}: {}", entry.level, entry.message),
            _ => entry.message.clone(),
        };
        for (name, value) in &entry.fields {
            if *name != "partition" {
                what += &format!(" {name}={}", cut(value));
            }
        }
        let host = entry.host.as_deref().unwrap_or("-");
        let same = format!("{host} {place} {}", entry.message);
        match self.said_lately(same, entry.at) {
            None => Ok(()),
            Some(0) => self.line(entry.at, host, place, &what),
            Some(kept_back) => {
                let what = format!("{what} (and {kept_back} like it before)");
                self.line(entry.at, host, place, &what)
            }
        }
    }

    /// None if the line was written a moment ago; otherwise the number of suppressed repeats.
    fn said_lately(&mut self, line: String, now: Duration) -> Option<u64> {
        if self.said.len() >= REMEMBERED {
            self.said.retain(|_, (at, _)| *at + SUM_UP > now);
        }
        let (at, kept_back) = self.said.entry(line).or_insert((now, 0));
        if *at != now && *at + SUM_UP > now {
            *kept_back += 1;
            return None;
        }
        *at = now;
        Some(std::mem::take(kept_back))
    }

    fn line(&mut self, at: Duration, host: &str, place: &str, what: &str) -> io::Result<()> {
        let at = at.as_secs_f64();
        let host = if host.is_empty() { "-" } else { host };
        writeln!(self.out, "{at:>9.3}  {host:<11} {place:<10} {what}")
    }
}

/// Partition of a client event.
fn place(event: &str) -> Option<String> {
    let topic = number_after(event, "topic: ")?.parse().ok()?;
    let partition = number_after(event, "partition: ")?;
    Some(format!("{}/{partition}", topic_name(topic)))
}

/// The digits that follow a word.
fn number_after(text: &str, word: &str) -> Option<String> {
    let (_, after) = text.split_once(word)?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{self, Place};
    use crate::virtual_time;
    use tracing_subscriber::layer::SubscriberExt;

    /// Buffer of the written text, for the test to read.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(work: impl FnOnce()) -> Vec<String> {
        let page = Page::default();
        let story = Story::new(Box::new(page.clone()));
        let subscriber = tracing_subscriber::registry().with(story.clone());
        let _running = virtual_time::begin();
        tracing::subscriber::with_default(subscriber, work);
        story.finish().expect("a page never fails");
        let text = String::from_utf8(page.0.lock().clone()).expect("text");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    }

    #[test]
    fn what_clients_see_is_summed_up_by_the_second() {
        let acknowledged = |partition: u32| {
            let place = Place {
                topic: 0,
                partition,
            };
            let (name, offset) = ((0, 1), 7);
            let event = history::Event::Acknowledged {
                name,
                place,
                offset,
            };
            tracing::debug!(target: HISTORY, ?event, "history");
        };
        let lines = told(|| {
            acknowledged(0);
            acknowledged(1);
            acknowledged(0);
            virtual_time::set(Duration::from_millis(1_200));
            acknowledged(0);
        });
        let expected = [
            "1.000 - topic-0/0 acknowledged ×2",
            "1.000 - topic-0/1 acknowledged ×1",
            "2.000 - topic-0/0 acknowledged ×1",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn who_leads_is_told_by_node_and_partition_and_not_again_and_again() {
        let lines = told(|| {
            let span = tracing::info_span!("node", name = "node-1");
            let _entered = span.enter();
            tracing::debug!(target: "ropewalk_node", partition = "flights/3", replica = 12, "replica started");
            tracing::info!(target: RAFT_ROLE, "id={} becomes leader", 12);
            for ms in [0, 100, 200, 1_300] {
                virtual_time::set(Duration::from_millis(ms));
                tracing::warn!(target: "ropewalk_node", "still waiting");
            }
        });
        let expected = [
            "0.000 node-1 flights/3 replica started replica=12",
            "0.000 node-1 flights/3 replica 12 becomes leader",
            "0.000 node-1 WARN: still waiting",
            "1.300 node-1 WARN: still waiting (and 2 like it before)",
        ];
        assert_eq!(lines, expected);
    }
}
