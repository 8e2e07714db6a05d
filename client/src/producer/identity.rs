//! Identity of a producer, by which a partition distinguishes a repeated batch from a new one.

use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;

use crate::client::{Idempotency, Inner, bounded};
use crate::connections::Node;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub id: i64,
    pub epoch: i16,
}

/// Obtains a new producer id.
pub(super) async fn new(inner: &Inner) -> Result<Identity> {
    ask(inner, v1::InitProducerRequest::default()).await
}

/// Obtains the next epoch of the same id. It begins at sequence 0, and fences the previous epoch.
pub(super) async fn renewed(inner: &Inner, identity: Identity) -> Result<Identity> {
    let request = v1::InitProducerRequest {
        producer_id: identity.id.unsigned_abs(),
        producer_epoch: u32::from(identity.epoch.unsigned_abs()),
    };
    ask(inner, request).await
}

async fn ask(inner: &Inner, request: v1::InitProducerRequest) -> Result<Identity> {
    let call =
        |mut node: Node, within| async move { node.init_producer(bounded(request, within)).await };
    // An id whose answer was lost is never used.
    let given = inner
        .call("taking a producer id", Idempotency::ToRepeat, call)
        .await?;
    let id = i64::try_from(given.producer_id);
    let epoch = i16::try_from(given.producer_epoch);
    match (id, epoch) {
        (Ok(id), Ok(epoch)) => Ok(Identity { id, epoch }),
        _ => Err(Error::new(
            ErrorKind::Cluster(ErrorCode::UnsupportedVersion),
            format!(
                "the cluster gave producer id {} epoch {}, which fit no batch; upgrade this client",
                given.producer_id, given.producer_epoch
            ),
        )),
    }
}

/// The sequence number after `count` records from `first` on; it wraps to 0 after the highest.
pub(super) fn sequence_after(first: i32, count: u32) -> i32 {
    ((first as u32).wrapping_add(count) & i32::MAX as u32) as i32
}
