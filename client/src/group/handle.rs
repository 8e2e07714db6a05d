//! What an application can do about a subscription while it reads from it elsewhere.

use std::fmt;
use std::sync::Arc;

use ropewalk_proto::v1;
use tokio::sync::{mpsc, oneshot};

use super::commit::Waiter;
use super::rebalance::TopicPartition;
use super::settings::Command;
use super::shared::Shared;
use crate::admin::Admin;
use crate::client::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::PartitionId;
use crate::record::Offset;

/// Commits, seeks, pauses and stops a subscription. Cheap to clone; a [`super::Subscription`] derefs
/// to its own.
#[derive(Clone)]
pub struct SubscriptionHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) group: String,
}

impl SubscriptionHandle {
    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The name of this member in the group. Another one after the session was lost.
    pub fn member_id(&self) -> String {
        self.shared.state.lock().member_id.clone()
    }

    /// Counts the assignments of the group. 0 before the first.
    pub fn generation(&self) -> u64 {
        self.shared.state.lock().generation
    }

    /// The partitions this member has now, those that it is about to give up among them.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let state = self.shared.state.lock();
        let names = state.parts.values().map(|part| part.name.clone());
        names.collect()
    }

    /// Number of batches that could not be read and were skipped: none unless the subscription was told to
    /// ([`super::SubscriptionBuilder::on_unreadable`]).
    pub fn skipped_batches(&self) -> u64 {
        self.shared.state.lock().readers.skips.batches()
    }

    /// Commits what is done so far, and waits until that is safe.
    ///
    /// While the coordinator is looked for this waits, at most until the subscription ends.
    ///
    /// # Errors
    /// `NotOwner` if a partition was taken from this member: what was done there comes again
    /// elsewhere. Otherwise what the coordinator said, or why the subscription has ended.
    pub async fn commit(&self) -> Result<()> {
        self.ask(|waiter| Command::Commit(Some(waiter))).await
    }

    /// Commits what is done so far, at the next opportunity. What is refused is tried again with the
    /// next commit.
    pub fn commit_async(&self) {
        // If there is no room, commits are waiting: each of them takes what is done by then.
        let _ = self.commands.try_send(Command::Commit(None));
    }

    /// Hands out no more records of this partition, until [`SubscriptionHandle::resume`] or until it
    /// is assigned anew. The member keeps it.
    ///
    /// # Errors
    /// `InvalidArgument` if the partition is not this member's.
    pub fn pause(&self, topic: &str, partition: u32) -> Result<()> {
        self.set_paused(topic, partition, true)
    }

    /// Hands out records of this partition again.
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

    /// Goes on elsewhere in a partition: the next record of it is the one there, and the next commit
    /// takes that position. Deliveries of it that are out count no more.
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
                // Meanwhile it was lost, and one of a later topic of the name was assigned.
                false => Err(Error::invalid(format!(
                    "{topic}/{partition} was taken from this member meanwhile; see assignment()"
                ))),
            })
    }

    /// How far what this member has committed is behind, by partition, as the brokers have it.
    ///
    /// # Errors
    /// As for [`Admin::group_lag`].
    pub async fn lag(&self) -> Result<Vec<v1::PartitionLag>> {
        let admin = Admin::new(self.inner.clone());
        let mut lags = admin.group_lag(&self.group).await?;
        let state = self.shared.state.lock();
        lags.retain(|lag| state.has(&lag.topic, lag.partition));
        Ok(lags)
    }

    /// Ends the stream of records: [`super::Subscription::run`] drains its handlers, commits and
    /// leaves. Who reads the stream itself then calls [`super::Subscription::close`].
    pub fn shutdown(&self) {
        self.shared.stop();
    }

    /// Has the member do something, and waits for it.
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
