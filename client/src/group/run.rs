//! Handlers in place of a loop: side by side, but one after the other for the records of one key.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::assignment::Place;
use super::delivery::{Delivery, Ticket};
use super::lanes::Lanes;
use super::stream::Subscription;
use crate::error::{Error, Result};
use crate::event::{self, Cause};

/// Why [`Subscription::run`] has ended before it was told to.
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

/// What must be handled one after the other: the records of one key, and all without one, in their
/// partition.
type Key = (Place, Option<Bytes>);

/// The handlers at work, and what waits for them.
struct Work<E> {
    lanes: Lanes<Key, (Delivery, Ticket)>,
    tasks: JoinSet<(Key, std::result::Result<(), E>)>,
    ended: Option<std::result::Result<(), RunError<E>>>,
}

impl Subscription {
    /// Hands every record to `handler`, up to `concurrency` at a time, each in a task of its own.
    /// Records of one key (those without one: of one partition) are handled in order, one at a time.
    /// A record is done once its handler has returned `Ok`. A handler runs as within
    /// [`Delivery::handle`]: in a span, and what events it sends know their cause.
    ///
    /// Ends when [`super::SubscriptionHandle::shutdown`] is called: handlers at work are waited for,
    /// what they did is committed, and the member closes as with [`Subscription::close`]. Dropping
    /// the future stops handlers where they are, and commits nothing more.
    ///
    /// # Errors
    /// The first error of a handler, whose record is not committed past; or the subscription's. Both
    /// after the other handlers at work were waited for, and what is done was committed.
    ///
    /// # Panics
    /// If a handler does.
    pub async fn run<F, Fut, E>(
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
            lanes: Lanes::new(concurrency.max(1)),
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
        // Commits may be manual; then this is the one that counts.
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
                    ticket.done();
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

    /// Takes nothing more. What has not been begun comes again elsewhere.
    fn end(&mut self, why: std::result::Result<(), RunError<E>>) {
        self.lanes.retain(|_| false);
        self.ended.get_or_insert(why);
    }
}
