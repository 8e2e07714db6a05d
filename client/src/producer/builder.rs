//! The settings of a producer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::batch::Compression;

use super::Producer;
use super::accumulator::Shape;
use super::identity;
use super::shared::Shared;
use crate::client::Inner;
use crate::error::{Error, Result};

/// The most batches a partition remembers of one producer: more in flight could not be told from
/// new ones when they are sent again.
pub(super) const MAX_IN_FLIGHT: usize = 16;
/// No batch below this: its header and a record of some use must fit.
const LEAST_BATCH_BYTES: usize = 128;

/// Says how a producer is to work.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct ProducerBuilder {
    inner: Arc<Inner>,
    topic: String,
    settings: Settings,
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub linger: Duration,
    pub batch_bytes: usize,
    pub buffer_bytes: usize,
    pub in_flight: usize,
    pub compression: Compression,
    pub delivery_timeout: Duration,
    pub partitioner: Option<OwnPartitioner>,
    /// How long the node may take over one batch before it is sent again elsewhere.
    pub answer_timeout: Duration,
}

/// How the caller chooses partitions.
#[derive(Clone)]
pub(super) struct OwnPartitioner(Arc<Choose>);

/// From a record's key and the number of partitions.
type Choose = dyn Fn(Option<&[u8]>, u32) -> Option<u32> + Send + Sync;

impl OwnPartitioner {
    pub fn choose(&self, key: Option<&[u8]>, partitions: u32) -> Option<u32> {
        (self.0)(key, partitions)
    }
}

impl fmt::Debug for OwnPartitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnPartitioner")
    }
}

impl ProducerBuilder {
    pub(crate) fn new(inner: Arc<Inner>, topic: &str) -> ProducerBuilder {
        let answer_timeout = inner.request_timeout;
        ProducerBuilder {
            inner,
            topic: topic.to_owned(),
            settings: Settings {
                linger: Duration::from_millis(1),
                batch_bytes: 256 << 10,
                buffer_bytes: 64 << 20,
                in_flight: 8,
                compression: Compression::None,
                delivery_timeout: Duration::from_secs(120),
                partitioner: None,
                answer_timeout,
            },
        }
    }

    /// How long a record may wait for others to share its batch. The default is 1 ms; 0 sends at
    /// once whenever fewer batches than [`ProducerBuilder::in_flight`] are under way.
    pub fn linger(mut self, linger: Duration) -> ProducerBuilder {
        self.settings.linger = linger;
        self
    }

    /// How many bytes a batch gathers, before compression. The default is 256 KiB; at least 128, and
    /// never more than the topic takes. A larger record goes in a batch of its own.
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.settings.batch_bytes = bytes;
        self
    }

    /// How many bytes of records may wait for their acknowledgement; past it,
    /// [`Producer::send`] waits. The default is 64 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// How many batches of one partition may be under way at a time, 1 to 16. The default is 8.
    pub fn in_flight(mut self, batches: usize) -> ProducerBuilder {
        self.settings.in_flight = batches;
        self
    }

    /// How batches are compressed. The default is not at all.
    pub fn compression(mut self, compression: Compression) -> ProducerBuilder {
        self.settings.compression = compression;
        self
    }

    /// How long a record may take from [`Producer::send`] to its acknowledgement, with all waiting
    /// and all tries. The default is 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Chooses the partition of each record that names none, from its key and how many
    /// partitions there are; `None` leaves it to the topic's own mapping, which is the default: by
    /// key, and records without a key by batch. Whoever chooses another partition for a key than
    /// before gives up the order between what went to the one and to the other.
    pub fn partitioner<F>(mut self, choose: F) -> ProducerBuilder
    where
        F: Fn(Option<&[u8]>, u32) -> Option<u32> + Send + Sync + 'static,
    {
        self.settings.partitioner = Some(OwnPartitioner(Arc::new(choose)));
        self
    }

    /// Makes the producer: looks up the topic, and takes a producer id, under which the partitions
    /// know a batch that comes twice.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that make no sense, `UnknownTopic`, or what the cluster said
    /// if it could not be asked within the client's request timeout.
    pub async fn build(self) -> Result<Producer> {
        let ProducerBuilder {
            inner,
            topic: name,
            settings,
        } = self;
        check(&settings)?;
        let topic = inner.topic_as_of_now(&name).await?;
        let shape = Shape {
            compression: settings.compression,
            batch_bytes: settings.batch_bytes,
            linger: settings.linger,
        };
        let identity = identity::new(&inner).await?;
        Ok(Producer::start(Shared::new(
            inner, name, settings, shape, topic, identity,
        )))
    }
}

fn check(settings: &Settings) -> Result<()> {
    if !(1..=MAX_IN_FLIGHT).contains(&settings.in_flight) {
        return Err(Error::invalid(format!(
            "in_flight of {} batches; choose 1 to {MAX_IN_FLIGHT}",
            settings.in_flight
        )));
    }
    if settings.batch_bytes < LEAST_BATCH_BYTES {
        return Err(Error::invalid(format!(
            "batch_bytes of {}; choose at least {LEAST_BATCH_BYTES}",
            settings.batch_bytes
        )));
    }
    if settings.buffer_bytes == 0 {
        return Err(Error::invalid(
            "buffer_bytes of 0; choose at least what one record takes",
        ));
    }
    Ok(())
}
