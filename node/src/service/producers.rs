//! Ids and epochs for producers. They come from the metadata group, and this node refuses ids that nobody
//! allocated.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ropewalk_machines::meta::LAST_PRODUCER_EPOCH;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::command::PRODUCERS_SINCE_VERSION;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{self, meta_command, meta_reply};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::{Api, Serving};

/// Producer ids that a node takes from the metadata group at a time.
const PRODUCER_ID_BLOCK: u64 = 1_000;
/// Renewals that a node has in flight at the metadata group; others wait.
const RENEWALS_AT_ONCE: usize = 16;
/// Minimum interval between a node's questions to the metadata group about unknown ids.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Producer ids known to a node.
#[derive(Debug)]
pub struct ProducerIds {
    /// Block of ids left to assign.
    block: Mutex<Range<u64>>,
    renewals: Semaphore,
    heard: Mutex<AllocatedIds>,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds {
            block: Mutex::default(),
            renewals: Semaphore::new(RENEWALS_AT_ONCE),
            heard: Mutex::default(),
        }
    }
}

/// Last answer of the metadata group's leader.
#[derive(Debug, Default)]
struct AllocatedIds {
    /// Lowest id that was not allocated yet.
    next_id: u64,
    /// Time of the question.
    asked: Option<Instant>,
}

impl Api<'_> {
    /// Gives a new producer its id, or a known one its next epoch, which fences its earlier instance.
    pub async fn init_producer(
        &self,
        request: v1::InitProducerRequest,
    ) -> Result<v1::InitProducerResponse, WireError> {
        match request.producer_id {
            0 => new(self.serving).await,
            _ => renew(self.serving, request).await,
        }
    }
}

async fn new(serving: &Serving) -> Result<v1::InitProducerResponse, WireError> {
    let mut block = serving.producer_ids.block.lock().await;
    if block.is_empty() {
        *block = allocate(serving, PRODUCER_ID_BLOCK).await?;
    }
    let producer_id = block.start;
    block.start += 1;
    Ok(v1::InitProducerResponse {
        producer_id,
        producer_epoch: 0,
    })
}

async fn allocate(serving: &Serving, count: u64) -> Result<Range<u64>, WireError> {
    let kind = meta_command::Kind::AllocateProducerIds(v1::AllocateProducerIds { count });
    match serving.cluster.propose(kind).await? {
        Some(meta_reply::Kind::ProducerIds(ids)) => Ok(ids.first..ids.first + ids.count),
        _ => Err(unexpected()),
    }
}

async fn renew(
    serving: &Serving,
    request: v1::InitProducerRequest,
) -> Result<v1::InitProducerResponse, WireError> {
    let understood = serving.cluster.view().borrow().understood;
    match understood {
        0 => Err(WireError::new(
            ErrorCode::NoLeader,
            "a node of the cluster has not registered yet; try again shortly",
        )),
        1..PRODUCERS_SINCE_VERSION => renew_here(serving, request).await,
        _ => renew_by_log(serving, request).await,
    }
}

/// Derives the next epoch from the caller's own. Used while any node of the cluster cannot apply a renewal.
async fn renew_here(
    serving: &Serving,
    request: v1::InitProducerRequest,
) -> Result<v1::InitProducerResponse, WireError> {
    if request.producer_epoch >= LAST_PRODUCER_EPOCH {
        return new(serving).await;
    }
    Ok(v1::InitProducerResponse {
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch + 1,
    })
}

async fn renew_by_log(
    serving: &Serving,
    request: v1::InitProducerRequest,
) -> Result<v1::InitProducerResponse, WireError> {
    let _turn = serving.producer_ids.renewals.acquire().await.map_err(|_| {
        WireError::new(
            ErrorCode::NotServing,
            "this node is stopping; connect to another node",
        )
    })?;
    let kind = meta_command::Kind::RenewProducer(v1::RenewProducer {
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
    });
    match serving.cluster.propose(kind).await? {
        Some(meta_reply::Kind::RenewedProducer(renewed)) => Ok(v1::InitProducerResponse {
            producer_id: renewed.producer_id,
            producer_epoch: renewed.producer_epoch,
        }),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "internal error: the metadata group answered without a producer id; try again",
    )
}

impl Serving {
    /// Refuses a batch whose producer id was never allocated. A client with invented ids could evict the
    /// state that partitions keep of other producers.
    pub(super) async fn check_producer(&self, batch: &Bytes) -> Result<(), WireError> {
        let Some(id) = BatchView::unchecked_producer_id(batch) else {
            return Ok(());
        };
        match id.unsigned_abs() {
            0 => Err(never_allocated(0)),
            id if id < self.cluster.next_producer_id() => Ok(()),
            id => self.ask_for(id).await,
        }
    }

    /// Asks the metadata group's leader, since this node may only lag behind. The question is an allocation,
    /// and costs an id. One answer serves all callers that waited for it.
    async fn ask_for(&self, id: u64) -> Result<(), WireError> {
        let arrived = Instant::now();
        let mut heard = self.producer_ids.heard.lock().await;
        let answers = |heard: &AllocatedIds| {
            let since = heard.asked.is_some_and(|asked| asked >= arrived);
            since || id < heard.next_id
        };
        if !answers(&heard) {
            if let Some(asked) = heard.asked {
                tokio::time::sleep_until(asked + ASK_EVERY).await;
            }
            if id < self.cluster.next_producer_id() {
                return Ok(());
            }
            let asked = Instant::now();
            let drawn = allocate(self, 1).await.map_err(|error| {
                WireError::new(
                    ErrorCode::NoLeader,
                    format!("producer id {id} is unknown to this node, and the metadata group did not confirm it ({error}); try again"),
                )
            })?;
            *heard = AllocatedIds {
                next_id: drawn.start,
                asked: Some(asked),
            };
        }
        if id < heard.next_id {
            return Ok(());
        }
        Err(never_allocated(id))
    }
}

fn never_allocated(id: u64) -> WireError {
    WireError::new(
        ErrorCode::UnknownProducer,
        format!("producer id {id} was never allocated; get one with InitProducer, and begin again"),
    )
}
