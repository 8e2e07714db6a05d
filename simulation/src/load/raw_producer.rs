//! A raw producer: it uses the wire protocol directly, sends one batch after another, and does what the
//! client library never does. It repeats batches that were answered, leaves gaps, and continues in an epoch
//! that a newer one has fenced.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use ropewalk_client::Compression;
use ropewalk_proto::batch::BatchBuilder;
use ropewalk_proto::error::{ErrorCode, Outcome, Retry};
use ropewalk_proto::v1;
use tokio::time::sleep;

use super::publisher::WITHOUT_SEQUENCE;
use super::{Clients, MAIN, operator, record, topic_name};
use crate::ask::{Ask, Node, first};
use crate::history::{Event, Place, RecordName};

/// Batches it may send again: fewer than a partition remembers.
const REMEMBERED: usize = 5;
/// Rounds over all nodes before the outcome of a batch is left unknown.
const ROUNDS: usize = 8;
const PAUSE: Duration = Duration::from_millis(200);
const BATCH_BYTES: usize = 4 << 10;
const VALUE_BYTES: usize = 30;

/// Produces until told to stop.
pub async fn run(clients: &Clients) {
    let who = 9_000;
    operator::create_topic(clients, who).await;
    let mut random = SmallRng::seed_from_u64(clients.seed_of(who));
    let nodes: Vec<&str> = clients.nodes.iter().map(String::as_str).collect();
    let partition = random.random_range(0..clients.plan.load.partitions);
    let mut stranger = RawProducer {
        clients,
        ask: Ask::new(&nodes, &topic_name(MAIN)),
        place: Place {
            topic: MAIN,
            partition,
        },
        random,
        life: Life::default(),
        fenced: None,
        written: VecDeque::new(),
        made: 0,
    };
    while clients.sending() {
        stranger.act().await;
        let pause_ms = stranger
            .random
            .random_range(0..=2 * clients.plan.load.stranger_every_ms);
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// A producer's epoch.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    id: u64,
    epoch: u32,
    next: i32,
    /// True if the next batch may follow. False until the first batch is written, and after a refused one. A
    /// refused batch may still be in the log, and another batch with its sequence would be taken for it.
    goes_on: bool,
}

impl Life {
    /// Takes note of its next batch's outcome.
    fn ended(&mut self, batch: &Batch, ended: &Ended) {
        self.goes_on = matches!(ended, Ended::At(_));
        if self.goes_on {
            self.next += batch.names.len() as i32;
        }
    }
}

/// A batch and the names of its records.
#[derive(Debug, Clone)]
struct Batch {
    names: Vec<RecordName>,
    bytes: Bytes,
}

enum Ended {
    At(u64),
    Refused { unknown: bool, error: String },
}

struct RawProducer<'a> {
    clients: &'a Clients,
    ask: Ask,
    place: Place,
    random: SmallRng,
    life: Life,
    /// An earlier epoch; a batch of a later one is in the log.
    fenced: Option<Life>,
    /// Batches that were acknowledged in this epoch.
    written: VecDeque<Batch>,
    made: u64,
}

impl RawProducer<'_> {
    async fn act(&mut self) {
        if !self.life.goes_on {
            return self.begin().await;
        }
        match (self.random.random_range(0..10), self.fenced) {
            (0..2, _) => self.again().await,
            (2, _) => self.leave_a_gap().await,
            (3, Some(life)) => self.go_on_in(life).await,
            (4, _) => self.begin().await,
            _ => self.go_on().await,
        }
    }

    async fn go_on(&mut self) {
        let batch = self.make(self.life);
        let ended = self.deliver(&batch).await;
        self.life.ended(&batch, &ended);
        if self.life.goes_on {
            self.written.truncate(REMEMBERED - 1);
            self.written.push_front(batch.clone());
        }
        self.note(&batch, ended);
    }

    /// Repeats an acknowledged batch. The check expects the same offset.
    async fn again(&mut self) {
        let Some(batch) = self.written.iter().choose(&mut self.random).cloned() else {
            return;
        };
        if let Ended::At(offset) = self.deliver(&batch).await {
            self.note(&batch, Ended::At(offset));
        }
    }

    async fn leave_a_gap(&mut self) {
        let mut life = self.life;
        life.next += self.random.random_range(1..50);
        let batch = self.make(life);
        let ended = self.deliver(&batch).await;
        // The batch may yet be written, as soon as its gap is filled.
        if let Ended::At(_) | Ended::Refused { unknown: true, .. } = ended {
            self.life.goes_on = false;
        }
        self.note(&batch, ended);
    }

    async fn go_on_in(&mut self, fenced: Life) {
        let batch = self.make(fenced);
        let ended = self.deliver(&batch).await;
        self.note(&batch, ended);
    }

    /// Takes the next epoch (at the beginning, a new producer's first one) and writes in it. Sometimes other
    /// instances take epochs at the same time; the latest of them continues.
    async fn begin(&mut self) {
        let before = self.life;
        let mut taken = self.take_epoch(before).await;
        if self.random.random_bool(0.5) {
            let (one, other) = tokio::join!(self.take_epoch(before), self.take_epoch(before));
            let all = [taken, one, other];
            taken = all
                .into_iter()
                .max_by_key(|life| (life.id, life.epoch))
                .unwrap_or(taken);
        }
        self.life = taken;
        self.written.clear();
        self.go_on().await;
        let is_fenced = before.id == self.life.id && self.life.goes_on;
        self.fenced = is_fenced.then_some(before);
    }

    async fn take_epoch(&self, before: Life) -> Life {
        let answer = self.ask.until_answered(|mut node| async move {
            let request = v1::InitProducerRequest {
                producer_id: before.id,
                producer_epoch: before.epoch,
            };
            Ok(node.init_producer(request).await?.into_inner())
        });
        let answer = answer.await;
        self.clients.history.add(Event::Epoch {
            producer: answer.producer_id,
            epoch: answer.producer_epoch,
        });
        Life {
            id: answer.producer_id,
            epoch: answer.producer_epoch,
            ..Life::default()
        }
    }

    fn make(&mut self, life: Life) -> Batch {
        let count = self.random.random_range(1..=3);
        let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES);
        let mut names = Vec::new();
        for _ in 0..count {
            let name = (WITHOUT_SEQUENCE + 4, self.made);
            self.made += 1;
            let value = record::bytes_of(name, VALUE_BYTES);
            let headers = [record::named(name)];
            let pushed = builder.push(None, Some(&value), &headers, super::now_ms());
            debug_assert_eq!(pushed, Ok(true), "small records fit");
            let content = record::content(None, Some(&value));
            super::producer::sent(self.clients, name, MAIN, None, content);
            names.push(name);
        }
        builder.set_producer(life.id as i64, life.epoch as i16, life.next);
        Batch {
            names,
            bytes: builder.build(),
        }
    }

    /// Sends a batch to one node after another, until one gives a final answer.
    async fn deliver(&self, batch: &Batch) -> Ended {
        let mut unknown = false;
        let mut error = "no node answered".to_owned();
        for _ in 0..ROUNDS {
            for number in 0..self.clients.nodes.len() {
                match self
                    .ask
                    .once(number, |node| self.produce(node, batch))
                    .await
                {
                    Some(Ok(offset)) => return Ended::At(offset),
                    Some(Err(refused)) => {
                        let code = ErrorCode::from_number(refused.code);
                        unknown |= code.outcome() == Outcome::Unknown;
                        error = refused.message;
                        if code.retry() == Retry::Never {
                            return Ended::Refused { unknown, error };
                        }
                    }
                    None => unknown = true,
                }
            }
            sleep(PAUSE).await;
        }
        Ended::Refused { unknown, error }
    }

    async fn produce(
        &self,
        mut node: Node,
        batch: &Batch,
    ) -> Result<Result<u64, v1::Error>, tonic::Status> {
        let request = v1::ProduceRequest {
            request_id: 1,
            topic: topic_name(MAIN),
            partition: self.place.partition,
            batch: batch.bytes.clone(),
            ..Default::default()
        };
        let answers = node.produce(futures_util::stream::iter([request])).await?;
        let answer = first(answers).await?;
        Ok(answer.error.map_or(Ok(answer.base_offset), Err))
    }

    fn note(&self, batch: &Batch, ended: Ended) {
        for (delta, &name) in (0..).zip(&batch.names) {
            self.clients.history.add(match &ended {
                Ended::At(offset) => Event::Acknowledged {
                    name,
                    place: self.place,
                    offset: offset + delta,
                },
                Ended::Refused { unknown, error } => Event::Failed {
                    name,
                    unknown: *unknown,
                    error: error.clone(),
                },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_batch_in_doubt_is_used_by_no_other() {
        let batch = Batch {
            names: vec![(WITHOUT_SEQUENCE, 0), (WITHOUT_SEQUENCE, 1)],
            bytes: Bytes::new(),
        };
        let mut life = Life::default();
        life.ended(&batch, &Ended::At(100));
        assert!(life.goes_on);
        assert_eq!(life.next, 2);
        let unknown = false;
        let error = String::new();
        life.ended(&batch, &Ended::Refused { unknown, error });
        assert!(!life.goes_on, "what became of 2 and 3 is not known");
    }
}
