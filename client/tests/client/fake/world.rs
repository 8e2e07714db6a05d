//! State shared by all nodes: topics, logs, and the script.

use std::collections::BTreeMap;

use bytes::Bytes;
use ropewalk_proto::batch::{BatchView, Limits};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;

use super::TOPIC;
use super::groups::Groups;

/// A produce request as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub node_id: u64,
    pub partition: u32,
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub count: i32,
    pub bytes: usize,
    pub traceparent: String,
    /// Number of earlier requests.
    pub number: usize,
}

/// Reaction to a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Follow the rules.
    Obey,
    /// Refuse it, and write nothing.
    Refuse(ErrorCode),
    /// Refuse it, and answer after this number of requests.
    RefuseLate(ErrorCode, usize),
    /// Follow the rules, but break the stream before the answer.
    ObeyAndBreak,
    /// Break the stream before the request is read.
    Break,
    /// Follow the rules, and answer after this number of requests.
    ObeyLate(usize),
    /// Follow the rules, but send no answer.
    ObeyInSilence,
    /// Send no answer, and write nothing.
    Ignore,
}

/// One partition.
#[derive(Debug, Default)]
pub struct Log {
    pub leader: u64,
    pub epoch: u64,
    pub start: u64,
    pub batches: Vec<(u64, Bytes)>,
    pub end: u64,
    pub producers: BTreeMap<i64, Vec<(i16, i32, i32, u64)>>,
}

/// Refuses a fetch, or returns none to follow the rules.
type FetchScript = Box<dyn FnMut(&v1::FetchRequest) -> Option<ErrorCode> + Send>;

pub struct World {
    pub addresses: Vec<String>,
    pub logs: Vec<Log>,
    /// Incremented when the topic is deleted and created again.
    pub topic_id: u64,
    pub ring_version: u32,
    pub partitioner: v1::Partitioner,
    pub max_batch_bytes: u32,
    pub cleanup: v1::Cleanup,
    pub seen: Vec<Seen>,
    pub script: Box<dyn FnMut(&Seen) -> Act + Send>,
    /// True if a refusal names the leader.
    pub hints: bool,
    pub metadata_asked: usize,
    pub next_producer: u64,
    /// True if the cluster has a controller, which allocates producer ids.
    pub led: bool,
    /// Number of calls to create or delete a topic whose answers get lost.
    pub lost_answers: usize,
    pub fetch_script: FetchScript,
    /// True if the nodes support filters. The fake's filter is a number n: it selects every n-th batch.
    pub knows_filters: bool,
    pub groups: Groups,
}

impl World {
    pub fn new(addresses: Vec<String>, partitions: u32) -> World {
        let log = || Log {
            leader: 1,
            epoch: 1,
            ..Log::default()
        };
        World {
            addresses,
            logs: (0..partitions).map(|_| log()).collect(),
            topic_id: 1,
            ring_version: 1,
            partitioner: v1::Partitioner::Ring,
            max_batch_bytes: 1 << 20,
            cleanup: v1::Cleanup::Delete,
            seen: Vec::new(),
            script: Box::new(|_| Act::Obey),
            hints: true,
            metadata_asked: 0,
            next_producer: 1_000,
            led: true,
            lost_answers: 0,
            fetch_script: Box::new(|_| None),
            knows_filters: true,
            groups: Groups::new(),
        }
    }

    /// The answer to a call whose change was already made.
    pub fn too_late(&mut self, code: ErrorCode) -> tonic::Status {
        if self.lost_answers > 0 {
            self.lost_answers -= 1;
            return tonic::Status::unavailable("the connection broke");
        }
        WireError::new(code, "that was done before").into()
    }

    pub fn node(&self, node_id: u64) -> v1::NodeInfo {
        v1::NodeInfo {
            node_id,
            address: self.addresses[node_id as usize - 1].clone(),
            state: v1::NodeState::Active as i32,
            ..Default::default()
        }
    }

    pub fn topic(&self) -> v1::TopicInfo {
        let partitions = (0..)
            .zip(&self.logs)
            .map(|(partition, log)| v1::PartitionInfo {
                partition,
                leader_node_id: log.leader,
                leader_epoch: log.epoch,
                log_start_offset: log.start,
                high_watermark: log.end,
                ..Default::default()
            });
        v1::TopicInfo {
            name: TOPIC.into(),
            topic_id: self.topic_id,
            partitions: partitions.collect(),
            settings: Some(v1::TopicSettings {
                max_batch_bytes: self.max_batch_bytes,
                partitioner: self.partitioner as i32,
                cleanup: self.cleanup as i32,
                ..Default::default()
            }),
            ring_version: self.ring_version,
            ..Default::default()
        }
    }

    /// Handles a request by the script. Returns the reaction and the response.
    pub fn produce(
        &mut self,
        node_id: u64,
        request: &v1::ProduceRequest,
    ) -> (Act, v1::ProduceResponse) {
        let view = BatchView::check(request.batch.clone(), &Limits::new(8 << 20)).unwrap();
        let seen = Seen {
            node_id,
            partition: request.partition,
            producer: view.producer_id(),
            epoch: view.producer_epoch(),
            sequence: view.base_sequence(),
            count: view.record_count(),
            bytes: view.bytes().len(),
            traceparent: request.traceparent.clone(),
            number: self.seen.len(),
        };
        self.seen.push(seen.clone());
        let act = (self.script)(&seen);
        let result = match &act {
            Act::Obey | Act::ObeyAndBreak | Act::ObeyLate(_) | Act::ObeyInSilence => {
                self.append(node_id, request, &view)
            }
            Act::Refuse(code) | Act::RefuseLate(code, _) => {
                Err(WireError::new(*code, "the script says so"))
            }
            Act::Break | Act::Ignore => Ok((0, false)),
        };
        let mut response = v1::ProduceResponse {
            request_id: request.request_id,
            ..Default::default()
        };
        match result {
            Ok((base_offset, duplicate)) => {
                response.base_offset = base_offset;
                response.duplicate = duplicate;
            }
            Err(error) => response.error = Some(self.error(request.partition, error)),
        }
        (act, response)
    }

    pub fn error(&self, partition: u32, error: WireError) -> v1::Error {
        let named = self.hints && error.code == ErrorCode::NotLeader;
        let mut wire = v1::Error::from(error);
        if named {
            wire.leader = Some(self.node(self.logs[partition as usize].leader));
        }
        wire
    }

    fn append(
        &mut self,
        node_id: u64,
        request: &v1::ProduceRequest,
        view: &BatchView,
    ) -> Result<(u64, bool), WireError> {
        self.meant(request.topic_id)?;
        let most = self.max_batch_bytes as usize;
        if view.bytes().len() > most {
            return Err(WireError::new(ErrorCode::TooLarge, "over the limit"));
        }
        if self.cleanup == v1::Cleanup::Compact {
            let records = view.records(1 << 26).unwrap();
            if let Some(keyless) = records.iter().position(|record| record.key.is_none()) {
                let error = WireError::new(ErrorCode::InvalidRequest, "no key");
                return Err(error.at_record(keyless));
            }
        }
        if request.ring_version != 0 && request.ring_version != self.ring_version {
            return Err(WireError::new(ErrorCode::StaleRing, "an old ring"));
        }
        let log = self.led(node_id, request.topic_id, request.partition)?;
        let batches = log.producers.entry(view.producer_id()).or_default();
        let (epoch, sequence, count) = (
            view.producer_epoch(),
            view.base_sequence(),
            view.record_count(),
        );
        if let Some(&(last_epoch, ..)) = batches.last() {
            if epoch < last_epoch {
                return Err(WireError::new(ErrorCode::ProducerFenced, "an old epoch"));
            }
            if epoch > last_epoch {
                batches.clear();
            }
        }
        if let Some(known) = batches
            .iter()
            .rev()
            .take(16)
            .find(|known| (known.1, known.2) == (sequence, count))
        {
            return Ok((known.3, true));
        }
        match batches.last() {
            None if sequence != 0 => {
                return Err(WireError::new(ErrorCode::UnknownProducer, "who?"));
            }
            Some(last) if last.1 + last.2 != sequence => {
                return Err(WireError::new(ErrorCode::OutOfOrderSequence, "a gap"));
            }
            _ => {}
        }
        let base_offset = log.end;
        batches.push((epoch, sequence, count, base_offset));
        log.push(view.bytes().clone());
        Ok((base_offset, false))
    }

    /// Refuses a request for an earlier topic.
    fn meant(&self, topic_id: u64) -> Result<(), WireError> {
        if topic_id == 0 || topic_id == self.topic_id {
            return Ok(());
        }
        Err(WireError::topic_recreated(TOPIC, topic_id, self.topic_id))
    }

    pub fn led(
        &mut self,
        node_id: u64,
        topic_id: u64,
        partition: u32,
    ) -> Result<&mut Log, WireError> {
        self.meant(topic_id)?;
        let log = self.logs.get_mut(partition as usize);
        let log =
            log.ok_or_else(|| WireError::new(ErrorCode::UnknownPartition, "no such partition"))?;
        if log.leader != node_id {
            return Err(WireError::new(ErrorCode::NotLeader, "another node leads"));
        }
        Ok(log)
    }
}

impl Log {
    pub fn push(&mut self, batch: Bytes) {
        let view = BatchView::trusted(batch).unwrap();
        let count = u64::try_from(view.record_count()).unwrap();
        self.batches.push((self.end, view.into_bytes()));
        self.end += count;
    }

    /// Forgets all producers, like a partition that has not heard from them for a week.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    pub fn values(&self) -> Vec<String> {
        let batches = self.batches.iter();
        let records = batches.flat_map(|(_, batch)| {
            BatchView::trusted(batch.clone())
                .unwrap()
                .records(1 << 26)
                .unwrap()
        });
        records
            .map(|record| String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap())
            .collect()
    }
}
