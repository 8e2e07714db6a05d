//! Handlers instead of a loop: they run concurrently, but one at a time for records with the same key.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::assignment::TopicPartitionId;
use super::delivery::{Delivery, DoneToken};
use super::key_queues::KeyQueues;
use super::stream::Subscription;
use crate::error::{Error, Result};
use crate::event::{self, Cause};

/// Failure that ended [`Subscription::run_concurrent`].
#[derive(Debug)]
pub enum RunError<E> {
    /// A handler failed.
    Handler(E),
    /// The subscription failed.
    Subscription(Error),
}

impl<E> From<Error> for RunError<E> {
    fn from(error: Error) -> RunError<E> {
        RunError::Subscription(error)
    }
}

impl<E: fmt::Display> fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Handler(error) => write!(f, "a handler failed: {error}"),
            RunError::Subscription(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for RunError<E> {}

/// Records that must run one at a time: those with the same key, and those of one partition without a key.
type Key = (TopicPartitionId, Option<Bytes>);

/// The running handlers, and the deliveries that wait for one.
struct Work<E> {
    lanes: KeyQueues<Key, (Delivery, DoneToken)>,
    tasks: JoinSet<(Key, std::result::Result<(), E>)>,
    ended: Option<std::result::Result<(), RunError<E>>>,
}

impl Subscription {
    /// Calls `handler` for every record, up to `concurrency` at a time, each in a task of its own. Records
    /// with the same key run in order, one at a time; so do the records of a partition without a key. A
    /// record is acknowledged once its handler has returned `Ok`. A handler runs as in [`Delivery::handle`]:
    /// in a span, and the events it sends have the record as their cause.
    ///
    /// Ends when [`super::SubscriptionHandle::shutdown`] is called: it waits for running handlers, commits
    /// the acknowledged records, and closes the member like [`Subscription::close`]. Dropping the future
    /// cancels the handlers, and commits nothing further.
    ///
    /// # Errors
    /// The first error of a handler, after which commits do not pass its record; or the error of the
    /// subscription. Both come after the other running handlers have ended and the acknowledged records were
    /// committed.
    ///
    /// # Panics
    /// If a handler panics.
    pub async fn run_concurrent<F, Fut, E>(
        mut self,
        concurrency: usize,
        handler: F,
    ) -> std::result::Result<(), RunError<E>>
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send,
        E: Send + 'static,
    {
        let handler = Arc::new(handler);
        let mut taken = self.handle.shared.taken.subscribe();
        let mut work = Work {
            lanes: KeyQueues::new(concurrency.max(1)),
            tasks: JoinSet::new(),
            ended: None,
        };
        loop {
            work.start(&handler);
            if work.ended.is_some() && work.lanes.running() == 0 {
                break;
            }
            tokio::select! {
                Some(finished) = work.tasks.join_next() => work.finished(finished),
                next = self.next(), if work.ended.is_none() => work.take(next),
                Ok(()) = taken.changed() => work.lanes.retain(|(_, ticket)| ticket.counts()),
            }
        }
        // Commits may be manual; then this is the only one.
        let committed = self.commit().await;
        let closed = self.close().await;
        let ended = work.ended.unwrap_or(Ok(()));
        ended.and(committed.and(closed).map_err(RunError::Subscription))
    }
}

impl<E: Send + 'static> Work<E> {
    fn take(&mut self, next: Option<Result<Delivery>>) {
        match next {
            Some(Ok(mut delivery)) => {
                if let Some(ticket) = delivery.take_ticket() {
                    let key = (ticket.place, delivery.key.clone());
                    self.lanes.push(key, (delivery, ticket));
                }
            }
            Some(Err(error)) => self.end(Err(RunError::Subscription(error))),
            None => self.end(Ok(())),
        }
    }

    fn start<F, Fut>(&mut self, handler: &Arc<F>)
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send,
    {
        while let Some((key, (delivery, ticket))) = self.lanes.start() {
            if !ticket.counts() {
                self.lanes.finished(&key);
                continue;
            }
            let handler = handler.clone();
            self.tasks.spawn(async move {
                let (cause, span) = (Cause::of(&delivery), delivery.span());
                let handled = async move { handler(delivery).await }.instrument(span);
                let result = event::handling(cause, handled).await;
                if result.is_ok() {
                    ticket.ack();
                }
                (key, result)
            });
        }
    }

    fn finished(
        &mut self,
        finished: std::result::Result<(Key, std::result::Result<(), E>), JoinError>,
    ) {
        match finished {
            Ok((key, result)) => {
                self.lanes.finished(&key);
                if let Err(error) = result {
                    self.end(Err(RunError::Handler(error)));
                }
            }
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Starts no more handlers. Waiting records are delivered again elsewhere.
    fn end(&mut self, why: std::result::Result<(), RunError<E>>) {
        self.lanes.retain(|_| false);
        self.ended.get_or_insert(why);
    }
}
