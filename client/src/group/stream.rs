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

/// A member of a consumer group, as a [`Stream`] of the records of its partitions. Each partition's
/// come in order.
///
/// Changes of leaders and coordinators pass unseen, but for what the rebalance listener is told. An
/// error is the stream's last item but for its end; it comes when no coordinator could be found for
/// three session timeouts, or for what waiting does not mend.
///
/// [`Subscription::close`] it: where it is only dropped, nothing more is committed, and the others
/// get its partitions once its session is over.
pub struct Subscription {
    pub(super) handle: SubscriptionHandle,
    pub(super) _member: AbortOnDropHandle<()>,
}

impl Subscription {
    /// What else can be done about the subscription, for other tasks.
    pub fn handle(&self) -> SubscriptionHandle {
        self.handle.clone()
    }

    /// Commits what is done (unless commits are manual), and leaves; a static member does not leave,
    /// so that its next start within the session goes on with the same partitions.
    ///
    /// Deliveries that are out count as not done: they come again to whoever is next.
    ///
    /// # Errors
    /// If the last commit was refused, or no coordinator could be told; why the subscription has
    /// ended, if it has before.
    pub async fn close(self) -> Result<()> {
        let close = |reply| Command::Close { leave: None, reply };
        self.handle.ask(close).await
    }

    /// Closes, and leaves the group also where the member is a static one.
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
    /// Handles and deliveries may live on; what fetches for them must not.
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
