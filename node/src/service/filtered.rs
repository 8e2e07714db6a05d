//! Filters in fetches: compiled once per stream, and applied so that the node's other work is not held up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use tokio::time::timeout;

use super::{Caller, Serving};
use crate::env::cpu_bound;
use crate::filter::{Budget, Filter, Origin, Outcome, unreadable};
use crate::partition::Fetched;
use crate::unpack::UnpackError;

/// Maximum time that a fetch waits for its turn. After that its reader must retry later.
const TURN_WITHIN: Duration = Duration::from_secs(2);

/// Filter last used on a stream: a reader always sends the same one.
#[derive(Debug, Default)]
pub struct LastFilter(Mutex<Option<Arc<Filter>>>);

impl LastFilter {
    /// Returns the filter of a request, if it has one.
    ///
    /// # Errors
    /// `InvalidFilter`.
    pub fn get(&self, source: &str) -> Result<Option<Arc<Filter>>, WireError> {
        if source.is_empty() {
            return Ok(None);
        }
        if let Some(last) = &*self.0.lock()
            && last.source() == source
        {
            return Ok(Some(last.clone()));
        }
        let filter = Arc::new(Filter::compile(source)?);
        *self.0.lock() = Some(filter.clone());
        Ok(Some(filter))
    }
}

/// Removes batches from the answer to a fetch from offset `from` that the filter does not select. Returns the
/// next offset to read from.
///
/// # Errors
/// `CorruptBatch`, `FilterTooCostly` and `Overloaded`, if the first batch fails. A later failure ends this
/// answer early, and the next fetch reports it.
pub(super) async fn apply(
    serving: &Serving,
    filter: &Filter,
    origin: Origin<'_>,
    from: u64,
    fetched: &mut Fetched,
) -> Result<u64, WireError> {
    let mut next = from;
    let mut budget = Budget::default();
    let mut left = Vec::new();
    for (base_offset, epoch, batch) in std::mem::take(&mut fetched.batches) {
        let outcome = one(
            serving,
            filter,
            origin,
            (base_offset, batch),
            next,
            &mut budget,
        );
        let outcome = match outcome.await {
            Ok(outcome) => outcome,
            Err(error) if next == from => return Err(error),
            Err(_) => break,
        };
        next = outcome.next_offset;
        left.extend(outcome.batch.map(|batch| (base_offset, epoch, batch)));
        if outcome.stopped || budget.is_spent() {
            break;
        }
    }
    fetched.batches = left;
    Ok(next)
}

/// Filters one batch in a turn of its own, so that other work gets its turns.
async fn one(
    serving: &Serving,
    filter: &Filter,
    origin: Origin<'_>,
    (base_offset, batch): (u64, Bytes),
    from: u64,
    budget: &mut Budget,
) -> Result<Outcome, WireError> {
    let unreadable = |error| unreadable(&origin, base_offset, &error);
    let view = BatchView::trusted(batch).map_err(unreadable)?;
    let unpacker = &serving.partitions.unpackers().readers;
    let most_bytes = serving.limits.unpack_batch_bytes;
    let unpacked = match unpacker.unpack(&view, most_bytes).await {
        Ok(unpacked) => unpacked,
        Err(UnpackError::Batch(error)) => return Err(unreadable(error)),
        Err(UnpackError::Overloaded(_)) => return Err(overloaded()),
    };
    let payload = unpacked.payload();
    let turn = timeout(TURN_WITHIN, unpacker.turn()).await;
    let _turn = turn.map_err(|_| overloaded())?;
    cpu_bound(|| filter.apply(&origin, base_offset, &view, payload, from, budget))
}

fn overloaded() -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        "filter evaluation on this node is overloaded; read more slowly, or without filters",
    )
}

/// Checks whether a filter can be used. It names no resource, so every caller may ask, also before the node
/// has joined its cluster.
///
/// # Errors
/// `InvalidFilter`.
pub fn check_filter(
    _caller: &Caller,
    request: &v1::CheckFilterRequest,
) -> Result<v1::CheckFilterResponse, WireError> {
    if request.filter.is_empty() {
        return Err(WireError::new(
            ErrorCode::InvalidFilter,
            "filter is empty; leave it out to read everything",
        ));
    }
    Filter::compile(&request.filter)?;
    Ok(v1::CheckFilterResponse {})
}
