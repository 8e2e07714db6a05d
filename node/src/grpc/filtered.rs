//! Filters in fetches: read once a stream, and applied with the node's other work in mind.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Serving;
use crate::filter::{Budget, Filter, Origin};
use crate::partition::Fetched;

/// How long a fetch waits for its turn, before its reader is told to come back later.
const TURN_WITHIN: Duration = Duration::from_secs(2);

/// Who may evaluate filters now: half of the processors, at least one. The others are for what a cluster
/// lives by.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Turns {
        let processors = available_parallelism().map_or(1, |it| it.get());
        Turns(Semaphore::new((processors / 2).max(1)))
    }
}

/// The filter last used on a stream: a reader always sends the same one.
#[derive(Debug, Default)]
pub(super) struct LastFilter(Mutex<Option<Arc<Filter>>>);

impl LastFilter {
    /// The filter of a request, if it has one.
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

/// Leaves in an answer to a fetch from `from` on what the filter wants. The answer is the offset to read
/// on from.
///
/// # Errors
/// `CorruptBatch`, `FilterTooCostly` and `Overloaded`, if that is so right at the beginning: else the next fetch says
/// it, and this one is short.
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
        // One batch a turn, so that others have theirs.
        let turn = timeout(TURN_WITHIN, serving.filtering.0.acquire()).await;
        if turn.is_err() && next == from {
            return Err(overloaded());
        }
        let Ok(Ok(_turn)) = turn else { break };
        let outcome = match filter.apply(&origin, base_offset, &batch, next, &mut budget) {
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

fn overloaded() -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        "this node has more filters to evaluate than time for them; read more slowly, or without filters",
    )
}

/// Says whether a filter can be used.
///
/// # Errors
/// `InvalidFilter`.
pub(super) fn check(
    request: &v1::CheckFilterRequest,
) -> Result<v1::CheckFilterResponse, WireError> {
    if request.filter.is_empty() {
        return Err(WireError::new(
            ErrorCode::InvalidFilter,
            "the filter is empty; leave it out to read everything",
        ));
    }
    Filter::compile(&request.filter)?;
    Ok(v1::CheckFilterResponse {})
}
