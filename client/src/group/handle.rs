//! Controls of a subscription, usable while another task reads from it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::commit::Waiter;
use super::rebalance::TopicPartition;
use super::settings::Command;
use super::shared::Shared;
use crate::admin::{Admin, PartitionLag};
use crate::client::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::PartitionId;
use crate::record::Offset;

/// Commits, seeks, pauses and stops a subscription, from other tasks than the one that reads it. Cheap to
/// clone. A [`super::Subscription`] has the same methods.
#[derive(Clone)]
pub struct SubscriptionHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) group: String,
}

impl SubscriptionHandle {
    /// Name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Id of this member in the group. It changes after the session was lost.
    pub fn member_id(&self) -> String {
        self.shared.state.lock().member_id.clone()
    }

    /// Generation of the group's assignment; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.shared.state.lock().generation
    }

    /// The partitions of this member, including those that it is about to release.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let state = self.shared.state.lock();
        let names = state.parts.values().map(|part| part.name.clone());
        names.collect()
    }

    /// Number of unreadable batches that were skipped. It stays 0 unless the subscription allows it
    /// ([`super::SubscriptionBuilder::on_unreadable`]).
    pub fn skipped_batches(&self) -> u64 {
        self.shared.state.lock().readers.skips.batches()
    }

    /// Commits the acknowledged records, and waits until the commit is durable.
    ///
    /// Without a coordinator this waits, at most until the subscription ends.
    ///
    /// # Errors
    /// `NotOwner` if another member has a partition by now: it gets the records acknowledged there again.
    /// Otherwise the error of the coordinator, or the reason for the end of the subscription.
    pub async fn commit(&self) -> Result<()> {
        self.ask(|waiter| Command::Commit(Some(waiter))).await
    }

    /// Commits the acknowledged records at the next opportunity. The next commit retries a refused one.
    pub fn commit_async(&self) {
        // If there is no room, commits are waiting, and each includes the records acknowledged by then.
        let _ = self.commands.try_send(Command::Commit(None));
    }

    /// Stops deliveries of this partition until [`SubscriptionHandle::resume`], or until it is assigned
    /// again. The member keeps the partition.
    ///
    /// # Errors
    /// `InvalidArgument` if this member does not have the partition.
    pub fn pause(&self, topic: &str, partition: u32) -> Result<()> {
        self.set_paused(topic, partition, true)
    }

    /// Resumes deliveries of this partition.
    ///
    /// # Errors
    /// As for [`SubscriptionHandle::pause`].
    pub fn resume(&self, topic: &str, partition: u32) -> Result<()> {
        self.set_paused(topic, partition, false)
    }

    fn set_paused(&self, topic: &str, partition: u32, paused: bool) -> Result<()> {
        self.shared.change(|state| {
            let part = state.named(topic, partition)?;
            part.paused = paused;
            Ok(())
        })
    }

    /// Moves to another offset of a partition: the next delivery is the record there, and the next commit
    /// takes that offset. Outstanding deliveries of the partition no longer count.
    ///
    /// # Errors
    /// As for [`crate::Client::offset`], and as for [`SubscriptionHandle::pause`].
    pub async fn seek(&self, topic: &str, partition: u32, to: Offset) -> Result<()> {
        let place = self.shared.state.lock().place_of(topic, partition)?;
        let of = PartitionId::new(topic, place.topic_id, partition);
        let (_, offset) = self.inner.place(of, to).await?;
        self.shared
            .change(|state| match state.place_of(topic, partition)? == place {
                true => state.seek(topic, partition, offset),
                // Meanwhile it was lost, and a partition of a later topic of the name was assigned.
                false => Err(Error::invalid(format!(
                    "{topic}/{partition} was taken from this member meanwhile; see assignment()"
                ))),
            })
    }

    /// Lag of this member's committed offsets by partition, as the nodes report it.
    ///
    /// # Errors
    /// As for [`Admin::group_lag`].
    pub async fn lag(&self) -> Result<Vec<PartitionLag>> {
        let admin = Admin::new(self.inner.clone());
        let mut lags = admin.group_lag(&self.group).await?;
        let state = self.shared.state.lock();
        lags.retain(|lag| state.has(&lag.topic, lag.partition));
        Ok(lags)
    }

    /// Ends the stream of records. [`super::Subscription::run_concurrent`] then waits for its handlers,
    /// commits and leaves. An application that reads the stream itself then calls
    /// [`super::Subscription::close`].
    pub fn shutdown(&self) {
        self.shared.stop();
    }

    /// Sends the member a command, and waits for its outcome.
    pub(super) async fn ask(&self, command: impl FnOnce(Waiter) -> Command) -> Result<()> {
        let (waiter, answer) = oneshot::channel();
        if self.commands.send(command(waiter)).await.is_err() {
            return Err(self.ended());
        }
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    pub(super) fn ended(&self) -> Error {
        let closed = || {
            let message = format!("the subscription of group {:?} is closed", self.group);
            Error::new(ErrorKind::Closed, message)
        };
        self.shared.failure().unwrap_or_else(closed)
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
