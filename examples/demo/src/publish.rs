//! Publishing at a steady pace, with the time of each acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ropewalk_client::{PendingAck, Producer, Record};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::check::Place;
use crate::flights::Flight;

/// Header with a record's number.
pub const ROW_HEADER: &str = "row";
/// Maximum number of records handed to the task that waits for acknowledgements.
const HANDED_OVER: usize = 1_024;

/// One acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// The record's number.
    pub row: usize,
    /// Its position.
    pub place: Place,
    /// Time of the acknowledgement.
    pub at: Instant,
}

/// Publishes one record after another and collects their acknowledgements concurrently.
#[derive(Debug)]
pub struct Publisher {
    producer: Producer,
    interval: Duration,
    due: Instant,
    row: usize,
    sent: mpsc::Sender<(usize, PendingAck)>,
    gathering: JoinHandle<anyhow::Result<Vec<Ack>>>,
}

impl Publisher {
    /// Begins now, with this many records per second.
    pub fn new(producer: Producer, rate: u32) -> Publisher {
        let (sent, tickets) = mpsc::channel(HANDED_OVER);
        Publisher {
            producer,
            interval: Duration::from_secs(1) / rate,
            due: Instant::now(),
            row: 0,
            sent,
            gathering: tokio::spawn(gather(tickets)),
        }
    }

    /// Publishes these flights after the earlier ones.
    pub async fn publish(&mut self, flights: &[Flight]) -> anyhow::Result<()> {
        for flight in flights {
            sleep_until(self.due).await;
            self.due += self.interval;
            let mut record = Record::new()
                .value(flight.value.clone())
                .header(ROW_HEADER, self.row.to_string());
            if let Some(key) = &flight.key {
                record = record.key(key.clone());
            }
            let ticket = self.producer.send(record).await;
            let ticket = ticket.with_context(|| format!("sending record {}", self.row))?;
            if self.sent.send((self.row, ticket)).await.is_err() {
                break;
            }
            self.row += 1;
        }
        Ok(())
    }

    /// Waits for every acknowledgement; the result is in the order of the records.
    pub async fn finish(self) -> anyhow::Result<Vec<Ack>> {
        drop(self.sent);
        self.producer.flush().await?;
        let mut acks = self.gathering.await??;
        acks.sort_by_key(|ack| ack.row);
        self.producer.close().await?;
        Ok(acks)
    }
}

async fn gather(mut tickets: mpsc::Receiver<(usize, PendingAck)>) -> anyhow::Result<Vec<Ack>> {
    let mut acks = Vec::new();
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((row, ticket)) = tickets.recv() => {
                waiting.push(async move { (row, ticket.await, Instant::now()) });
            }
            Some((row, receipt, at)) = waiting.next() => {
                let receipt: ropewalk_client::RecordMetadata =
                    receipt.with_context(|| format!("record {row} was not acknowledged"))?;
                let place = Place { partition: receipt.partition, offset: receipt.offset };
                acks.push(Ack { row, place, at });
            }
            else => return Ok(acks),
        }
    }
}

/// Longest time that any of `partitions` went without an acknowledgement after the kill.
pub fn longest_silence(acks: &[Ack], partitions: &[u32], killed: Instant) -> Duration {
    let mut heard: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
    for ack in acks
        .iter()
        .filter(|ack| partitions.contains(&ack.place.partition))
    {
        heard.entry(ack.place.partition).or_default().push(ack.at);
    }
    let silences = heard.into_values().map(|mut times| {
        times.retain(|time| *time > killed);
        times.push(killed);
        times.sort_unstable();
        let between = times.windows(2).map(|pair| pair[1] - pair[0]);
        between.max().unwrap_or_default()
    });
    silences.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_that_of_the_partition_that_waited_longest_after_the_kill() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let ack = |partition, ms| Ack {
            row: 0,
            place: Place {
                partition,
                offset: 0,
            },
            at: after(ms),
        };
        // Silence before the kill does not count, nor does a partition with another leader.
        let acks = [
            ack(0, 0),
            ack(0, 1_000),
            ack(0, 1_400),
            ack(1, 1_010),
            ack(1, 1_900),
            ack(2, 5_000),
        ];
        let silence = longest_silence(&acks, &[0, 1], after(1_005));
        assert_eq!(silence, Duration::from_millis(890));
    }
}
