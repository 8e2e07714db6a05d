//! The subscription as a stream of deliveries.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::task::AbortOnDropHandle;

use super::delivery::Delivery;
use super::handle::SubscriptionHandle;
use super::settings::Command;
use crate::error::Result;

/// A member of a consumer group, as a [`Stream`] of the records of its partitions. Records of the same
/// partition come in order.
///
/// Changes of leaders and coordinators are invisible, except for the events of the rebalance listener. After
/// an error the stream ends. It fails if no coordinator could be found for three session timeouts, or if a
/// failure does not go away with retries.
///
/// Call [`Subscription::close`] to end it. If it is only dropped, nothing more is committed, and the other
/// members get its partitions once its session is over.
pub struct Subscription {
    pub(super) handle: SubscriptionHandle,
    pub(super) _member: AbortOnDropHandle<()>,
}

impl Subscription {
    /// Controls of the subscription, for other tasks.
    pub fn handle(&self) -> SubscriptionHandle {
        self.handle.clone()
    }

    /// Commits the acknowledged records (unless commits are manual) and leaves. A static member does not
    /// leave, so that its next start within the session gets the same partitions.
    ///
    /// Outstanding deliveries count as not acknowledged: the next member to read gets them again.
    ///
    /// # Errors
    /// The refusal of the last commit, the failure to reach a coordinator, or the error that ended the
    /// subscription earlier.
    pub async fn close(self) -> Result<()> {
        let close = |reply| Command::Close { leave: None, reply };
        self.handle.ask(close).await
    }

    /// Closes, and leaves the group even as a static member.
    ///
    /// # Errors
    /// As for [`Subscription::close`].
    pub async fn close_and_leave(self) -> Result<()> {
        let leave = Some(true);
        let close = |reply| Command::Close { leave, reply };
        self.handle.ask(close).await
    }
}

impl Drop for Subscription {
    /// Handles and deliveries may outlive the subscription; its readers must not.
    fn drop(&mut self) {
        self.handle.shared.stop();
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.handle.shared.poll_next(context)
    }
}

impl Deref for Subscription {
    type Target = SubscriptionHandle;

    fn deref(&self) -> &SubscriptionHandle {
        &self.handle
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("group", &self.handle.group)
            .finish_non_exhaustive()
    }
}
