//! A reader with a filter. It follows a partition, receives the records that match, and is stopped now and
//! then. The history also has the offsets that it passed without a record.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_client::{Client, ErrorKind, Offset, Reader};
use tokio::time::{Instant, timeout};

use super::reader::{found, got};
use super::settings::Sieving;
use super::{Clients, MAIN, SIEVE, topic_name, until_done};
use crate::history::{Event, Place};

/// Time it waits for a record before it looks at its position.
const GLANCE: Duration = Duration::from_millis(500);

/// Reads until the run ends.
pub async fn follow(clients: &Clients, style: &Sieving) {
    let who = 8_000;
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    let client = clients.connect(who).await;
    clients.history.add(Event::Sifts(*style));
    let mut sieve = FilteredReader {
        clients,
        place: style.place(),
        next: 0,
    };
    loop {
        let every_ms = clients.plan.load.resume_every_ms;
        let span_ms = random.random_range(every_ms / 2..=every_ms * 3 / 2);
        sieve
            .read(&client, style, Duration::from_millis(span_ms))
            .await;
    }
}

struct FilteredReader<'a> {
    clients: &'a Clients,
    place: Place,
    /// All offsets before it were received or passed.
    next: u64,
}

impl FilteredReader<'_> {
    /// Reads for this long (once clients have stopped, without a limit), or until it fails.
    async fn read(&mut self, client: &Client, style: &Sieving, span: Duration) {
        let name = topic_name(MAIN);
        let from = Offset::At(self.next);
        let mut reader = until_done("beginning to sift", || {
            let reader = client.reader(&name, self.place.partition).from(from);
            reader.filter(style.expression()).build()
        })
        .await;
        self.clients.history.add(Event::Began {
            reader: SIEVE,
            place: self.place,
            offset: self.next,
        });
        let stop = Instant::now() + span;
        while Instant::now() < stop || !self.clients.sending() {
            match timeout(GLANCE, reader.next()).await {
                Ok(Some(Ok(record))) => {
                    self.pass(record.offset);
                    got(self.clients, SIEVE, self.place, found(&record));
                    self.next = record.offset + 1;
                }
                Ok(Some(Err(error))) if error.kind() == ErrorKind::Trimmed => {
                    self.skip(client, &reader).await;
                    return;
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the filtered reader begins again");
                    return;
                }
                Ok(None) => return,
                Err(_) => {}
            }
            self.pass(reader.position());
            self.clients.sifted.store(self.next, Ordering::Relaxed);
        }
    }

    /// Records that the filter selected nothing before an offset.
    fn pass(&mut self, to: u64) {
        if to > self.next {
            self.clients.history.add(Event::Passed {
                reader: SIEVE,
                place: self.place,
                from: self.next,
                to,
            });
            self.next = to;
        }
    }

    /// Continues at the log start offset, since its next record was trimmed.
    async fn skip(&mut self, client: &Client, reader: &Reader) {
        let name = topic_name(MAIN);
        let begin = until_done("asking where the log begins", || {
            client.offset(&name, self.place.partition, Offset::Beginning)
        })
        .await;
        let to = begin.max(reader.position());
        self.clients.history.add(Event::Skipped {
            reader: SIEVE,
            place: self.place,
            from: self.next,
            to,
        });
        self.next = to;
    }
}
