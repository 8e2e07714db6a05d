//! The settings of a producer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_proto::batch::Compression;

use super::Producer;
use super::accumulator::BatchConfig;
use super::identity;
use super::shared::Shared;
use crate::client::Inner;
use crate::error::{Error, Result};

/// Number of batches that a partition remembers of one producer. With more in flight, it could not tell a
/// retry from a new batch.
pub(super) const MAX_IN_FLIGHT: usize = 16;
/// Minimum size of a batch: its header and a useful record must fit.
const LEAST_BATCH_BYTES: usize = 128;

/// Builder of a [`Producer`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct ProducerBuilder {
    inner: Arc<Inner>,
    topic: String,
    settings: Settings,
}

/// All settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub linger: Duration,
    pub batch_bytes: usize,
    pub buffer_bytes: usize,
    pub in_flight: usize,
    pub compression: Compression,
    pub delivery_timeout: Duration,
    pub partitioner: Option<OwnPartitioner>,
    /// Time limit of a node's answer to one batch; after it, the batch is sent again elsewhere.
    pub answer_timeout: Duration,
}

/// The caller's choice of partitions.
#[derive(Clone)]
pub(super) struct OwnPartitioner(Arc<Choose>);

/// Chooses from a record's key and the number of partitions.
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
                linger: Duration::ZERO,
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

    /// Minimum time for which records wait for others to share their batch, unless it is full or flushed. The
    /// default is 0.
    ///
    /// After that time, a batch is sent at once if none of its partition is in flight. Otherwise it is sent with
    /// the next acknowledgement of its partition, or after 10 ms without one. A full batch is sent whenever fewer
    /// than [`ProducerBuilder::in_flight`] are in flight.
    pub fn linger(mut self, linger: Duration) -> ProducerBuilder {
        self.settings.linger = linger;
        self
    }

    /// Target size of a batch in bytes, before compression. The default is 256 KiB; the minimum is 128, and
    /// the maximum is the topic's limit. A larger record gets a batch of its own.
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Maximum size of unacknowledged records in bytes; at the limit, [`Producer::send`] waits. The default
    /// is 64 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Maximum number of batches in flight per partition, 1 to 16. The default is 8.
    pub fn in_flight(mut self, batches: usize) -> ProducerBuilder {
        self.settings.in_flight = batches;
        self
    }

    /// Compression of batches. The default is none.
    pub fn compression(mut self, compression: Compression) -> ProducerBuilder {
        self.settings.compression = compression;
        self
    }

    /// Maximum time from [`Producer::send`] to the acknowledgement of a record, including all waits and
    /// retries. The default is 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Chooses the partition of each record that names none, from its key and the number of partitions.
    /// `None` leaves the choice to the topic's own mapping, which is the default: by key, and by batch for
    /// records without a key. If the choice for a key changes, the order between its records in the two
    /// partitions is lost.
    pub fn partitioner<F>(mut self, choose: F) -> ProducerBuilder
    where
        F: Fn(Option<&[u8]>, u32) -> Option<u32> + Send + Sync + 'static,
    {
        self.settings.partitioner = Some(OwnPartitioner(Arc::new(choose)));
        self
    }

    /// Builds the producer: looks up the topic, and obtains a producer id, by which the partitions recognise
    /// duplicate batches.
    ///
    /// # Errors
    /// `InvalidArgument` for invalid settings, `UnknownTopic`, or the error of the cluster if it did not
    /// answer within the client's request timeout.
    pub async fn build(self) -> Result<Producer> {
        let ProducerBuilder {
            inner,
            topic: name,
            settings,
        } = self;
        check(&settings)?;
        let topic = inner.topic_as_of_now(&name).await?;
        let shape = BatchConfig {
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
