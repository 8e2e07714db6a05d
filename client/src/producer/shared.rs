//! State that the handle of a producer shares with its lanes: routing, memory, streams, and the end.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::accumulator::{Accumulator, BatchConfig};
use super::batch::{Choice, NewRecord};
use super::builder::Settings;
use super::handle::Handle;
use super::identity::Identity;
use super::memory::{Memory, MemoryPermit};
use super::partition_sender;
use super::pending::BatchSlot;
use super::produce_stream::ProduceStreams;
use super::rules::Rules;
use crate::client::Inner;
use crate::error::{Error, Result};
use crate::metadata::{PartitionId, Topic, unknown_partition};

pub(super) struct Shared {
    pub inner: Arc<Inner>,
    pub topic: String,
    pub settings: Settings,
    pub memory: Memory,
    pub links: ProduceStreams,
    /// Ends all tasks.
    pub stop: CancellationToken,
    pub(super) shape: BatchConfig,
    pub(super) rules: Arc<Rules>,
    pub(super) routing: RwLock<Routing>,
    /// True while records can be routed; false while the topic or its ring is being replaced.
    pub(super) open: watch::Sender<bool>,
    /// Error for further records, once the producer has ended.
    failed: OnceLock<Error>,
    /// The partition of keyless records, until its batch is full or leaves.
    sticky: AtomicU32,
}

/// Routing of records.
#[derive(Debug)]
pub(super) struct Routing {
    pub topic: Arc<Topic>,
    /// The identity with which lanes start.
    pub identity: Identity,
    pub lanes: Vec<Handle>,
    /// The ring or the topic is being replaced: sends wait.
    pub moving: bool,
}

/// Result of routing a record.
#[derive(Debug)]
pub(super) enum Routed {
    Placed(BatchSlot),
    /// The ring or the topic is being replaced; try again afterwards.
    Wait,
}

impl Shared {
    pub fn new(
        inner: Arc<Inner>,
        topic_name: String,
        settings: Settings,
        shape: BatchConfig,
        topic: Arc<Topic>,
        identity: Identity,
    ) -> Arc<Shared> {
        let first = inner.draw() % u64::from(topic.partitions());
        let rules = Arc::new(Rules::of(&topic));
        let lanes = handles(0..topic.partitions(), shape, &rules);
        Arc::new(Shared {
            inner,
            topic: topic_name,
            memory: Memory::new(settings.buffer_bytes),
            settings,
            links: ProduceStreams::default(),
            stop: CancellationToken::new(),
            shape,
            rules,
            routing: RwLock::new(Routing {
                topic,
                identity,
                lanes,
                moving: false,
            }),
            open: watch::channel(true).0,
            failed: OnceLock::new(),
            sticky: AtomicU32::new(first as u32),
        })
    }

    /// Adds a record, with its memory, to its partition.
    pub fn route(
        self: &Arc<Self>,
        record: &NewRecord,
        memory: &mut MemoryPermit,
    ) -> Result<Routed> {
        let routing = self.routing.read();
        // Checked under the lock, so that no record is accepted after the end.
        self.check_open()?;
        self.rules.check(&record.record)?;
        if routing.moving {
            return Ok(Routed::Wait);
        }
        let by_ring = Choice::ByRing(routing.topic.partitioner.ring_version());
        let chosen = record.record.partition.or_else(|| {
            let own = self.settings.partitioner.as_ref()?;
            own.choose(record.record.key.as_deref(), routing.topic.partitions())
        });
        let place = match (chosen, &record.record.key) {
            (Some(partition), _) => {
                self.push(&routing, partition, record, Choice::ByCaller, memory)?
            }
            (None, Some(key)) => {
                let mut partition = routing.topic.partitioner.partition(key);
                if is_planted(PlantedBug::MappingOfItsOwn) {
                    let own = partition + routing.identity.id.unsigned_abs() as u32;
                    partition = own % routing.topic.partitions();
                }
                self.push(&routing, partition, record, by_ring, memory)?
            }
            (None, None) => self.push_keyless(&routing, record, by_ring, memory)?,
        };
        Ok(Routed::Placed(place))
    }

    pub(super) fn push(
        self: &Arc<Self>,
        routing: &Routing,
        partition: u32,
        record: &NewRecord,
        choice: Choice,
        memory: &mut MemoryPermit,
    ) -> Result<BatchSlot> {
        let handle = routing
            .lanes
            .get(partition as usize)
            .ok_or_else(|| unknown_partition(&self.topic, partition, routing.topic.partitions()))?;
        let pushed = handle.gathered.push(record, choice, memory)?;
        if pushed.lane_needed {
            let of = PartitionId::new(&self.topic, routing.topic.id, partition);
            partition_sender::start(self.clone(), handle, of, routing.identity);
        }
        Ok(pushed.place)
    }

    /// Adds a record without a key: such records fill one partition's batch before the next one's.
    fn push_keyless(
        self: &Arc<Self>,
        routing: &Routing,
        record: &NewRecord,
        choice: Choice,
        memory: &mut MemoryPermit,
    ) -> Result<BatchSlot> {
        let at = self.sticky.load(Ordering::Relaxed);
        let count = routing.topic.partitions();
        if let Some(handle) = routing.lanes.get((at % count) as usize)
            && let Some(place) = handle.gathered.push_keyless(record, choice, memory)?
        {
            return Ok(place);
        }
        let next = at.wrapping_add(1) % count;
        self.sticky.store(next, Ordering::Relaxed);
        self.push(routing, next, record, choice, memory)
    }

    /// Asks the cluster for the topic's rules; keeps the known ones if it does not answer.
    pub async fn ask_for_rules(self: &Arc<Self>) {
        if let Ok(topic) = self.inner.refresh(&self.topic).await {
            self.rules.learn(&topic);
        }
    }

    pub fn check_open(&self) -> Result<()> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Rejects further records, including those that wait for room.
    pub fn refuse(&self, error: Error) {
        // Set under the lock: a record is either routed before the end, or rejected.
        let routing = self.routing.write();
        let _ = self.failed.set(error);
        drop(routing);
        self.memory.close();
        self.open.send_replace(true);
    }

    /// Fails everything in flight, and ends all tasks.
    pub fn fail(&self, error: Error) {
        self.refuse(error.clone());
        for lane in &self.routing.read().lanes {
            lane.gathered.close(&error);
        }
        self.stop.cancel();
    }
}

/// Handles of new lanes, whose tasks start with their first record.
pub(super) fn handles(
    partitions: std::ops::Range<u32>,
    shape: BatchConfig,
    rules: &Arc<Rules>,
) -> Vec<Handle> {
    let gathered = |partition| Arc::new(Accumulator::new(partition, shape, rules.clone()));
    let handle = |partition| Handle::new(gathered(partition));
    partitions.map(handle).collect()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
