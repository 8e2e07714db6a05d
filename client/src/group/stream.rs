//! The subscription as a stream of deliveries.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::task::AbortOnDropHandle;

use super::delivery::Delivery;
use super::handle::SubscriptionHandle;
use super::rebalance::TopicPartition;
use super::settings::Command;
use crate::admin::PartitionLag;
use crate::error::Result;
use crate::record::Offset;

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

    /// Name of the group.
    pub fn group(&self) -> &str {
        self.handle.group()
    }

    /// As [`SubscriptionHandle::member_id`].
    pub fn member_id(&self) -> String {
        self.handle.member_id()
    }

    /// As [`SubscriptionHandle::generation`].
    pub fn generation(&self) -> u64 {
        self.handle.generation()
    }

    /// As [`SubscriptionHandle::assignment`].
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.handle.assignment()
    }

    /// As [`SubscriptionHandle::skipped_batches`].
    pub fn skipped_batches(&self) -> u64 {
        self.handle.skipped_batches()
    }

    /// As [`SubscriptionHandle::commit`].
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::commit`].
    pub async fn commit(&self) -> Result<()> {
        self.handle.commit().await
    }

    /// As [`SubscriptionHandle::commit_async`].
    pub fn commit_async(&self) {
        self.handle.commit_async();
    }

    /// As [`SubscriptionHandle::pause`].
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::pause`].
    pub fn pause(&self, topic: &str, partition: u32) -> Result<()> {
        self.handle.pause(topic, partition)
    }

    /// As [`SubscriptionHandle::resume`].
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::pause`].
    pub fn resume(&self, topic: &str, partition: u32) -> Result<()> {
        self.handle.resume(topic, partition)
    }

    /// As [`SubscriptionHandle::seek`].
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::seek`].
    pub async fn seek(&self, topic: &str, partition: u32, to: Offset) -> Result<()> {
        self.handle.seek(topic, partition, to).await
    }

    /// As [`SubscriptionHandle::lag`].
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::lag`].
    pub async fn lag(&self) -> Result<Vec<PartitionLag>> {
        self.handle.lag().await
    }

    /// As [`SubscriptionHandle::shutdown`].
    pub fn shutdown(&self) {
        self.handle.shutdown();
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

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("group", &self.handle.group)
            .finish_non_exhaustive()
    }
}
