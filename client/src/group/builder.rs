//! The settings of a subscription.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::handle::SubscriptionHandle;
use super::member::{Member, draw_member_id};
use super::readers::Readers;
use super::rebalance::{Listener, Rebalance};
use super::settings::Settings;
use super::shared::Shared;
use super::state::Limits;
use super::stream::Subscription;
use crate::client::Inner;
use crate::error::{Error, Result};
use crate::reader::{Skips, Trimmed, Unreadable};
use crate::record::Offset;

/// Commands that may wait for the member.
const COMMANDS: usize = 64;
/// Reports of skipped batches that may wait for the member. Further ones are only logged and counted.
const SKIPPED: usize = 64;
/// What times may be set to.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a session lasts where neither the application nor the coordinator has said it.
const SESSION: Duration = Duration::from_secs(10);

/// Says how to consume as a member of a group.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct SubscriptionBuilder {
    inner: Arc<Inner>,
    settings: Settings,
    listener: Listener,
    trimmed: Trimmed,
    unreadable: Unreadable,
    max_decompressed_bytes: usize,
    memory_bytes: usize,
    max_in_flight: usize,
    patience: Duration,
    filter: String,
}

impl SubscriptionBuilder {
    pub(crate) fn new(inner: Arc<Inner>, group: &str) -> SubscriptionBuilder {
        let patience = inner.request_timeout;
        let client = format!(
            "ropewalk-client {}, process {}",
            env!("CARGO_PKG_VERSION"),
            std::process::id()
        );
        SubscriptionBuilder {
            inner,
            settings: Settings {
                group: group.to_owned(),
                topics: Vec::new(),
                pattern: String::new(),
                instance_id: String::new(),
                client,
                session: None,
                rebalance_within: Duration::from_secs(30),
                start_at: Offset::Beginning,
                auto_commit: Some(Duration::from_secs(1)),
                max_poll: Duration::from_secs(300),
            },
            listener: Listener::default(),
            trimmed: Trimmed::default(),
            unreadable: Unreadable::default(),
            max_decompressed_bytes: 64 << 20,
            memory_bytes: 32 << 20,
            max_in_flight: 4_096,
            patience,
            filter: String::new(),
        }
    }

    /// Topics to consume, beside those named before.
    pub fn topics<T: Into<String>>(
        mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> SubscriptionBuilder {
        let topics = topics.into_iter().map(Into::into);
        self.settings.topics.extend(topics);
        self
    }

    /// A regular expression; topics whose whole name it matches are consumed too, also those that
    /// are created later.
    pub fn pattern(mut self, pattern: impl Into<String>) -> SubscriptionBuilder {
        self.settings.pattern = pattern.into();
        self
    }

    /// Where to begin in partitions of which the group has no position. The default is the beginning.
    /// It is committed before anything is read, so that nothing is skipped if another member goes on.
    pub fn start_at(mut self, place: Offset) -> SubscriptionBuilder {
        self.settings.start_at = place;
        self
    }

    /// Makes this a static member: whoever joins under this name next, within the session, has what
    /// it had, and no partition moves. Without a name, each start is a new member.
    pub fn instance_id(mut self, name: impl Into<String>) -> SubscriptionBuilder {
        self.settings.instance_id = name.into();
        self
    }

    /// How operators see where this member runs. The default names this library and the process.
    pub fn client_name(mut self, name: impl Into<String>) -> SubscriptionBuilder {
        self.settings.client = name.into();
        self
    }

    /// After so long without a word from it a member is out, and its partitions go to others. The
    /// default is the cluster's (`group_session_ms`), which is 10 s unless somebody set it.
    pub fn session(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.session = Some(timeout);
        self
    }

    /// How long it may take to finish with a partition that is to go to another member. The default
    /// is 30 s.
    pub fn rebalance_within(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.rebalance_within = timeout;
        self
    }

    /// How often what is done is committed; with none, only when the application commits. The default
    /// is every second.
    pub fn auto_commit(mut self, every: Option<Duration>) -> SubscriptionBuilder {
        self.settings.auto_commit = every;
        self
    }

    /// A member whose application leaves records waiting for so long leaves its group, with an error.
    /// The default is 5 min.
    pub fn max_poll(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.max_poll = timeout;
        self
    }

    /// How many bytes of batches, as they are stored, may wait to be handed out, of all partitions
    /// together, and how many bytes of records may be out and not done. One batch of each partition
    /// comes even if it is larger. The default is 32 MiB.
    pub fn memory_bytes(mut self, bytes: usize) -> SubscriptionBuilder {
        self.memory_bytes = bytes;
        self
    }

    /// How many records may be out and not done; past it the stream waits. The default is 4,096.
    pub fn max_in_flight(mut self, records: usize) -> SubscriptionBuilder {
        self.max_in_flight = records;
        self
    }

    /// What to do when the group's position was trimmed by retention. The default is to fail.
    pub fn on_trimmed(mut self, trimmed: Trimmed) -> SubscriptionBuilder {
        self.trimmed = trimmed;
        self
    }

    /// Policy for a batch that does not unpack or parse, and for records that can't be filtered. The
    /// default is to fail, and every member that reads on there fails too. What is skipped counts as
    /// read, and the listener is told [`Rebalance::Skipped`]. A batch whose CRC does not match always
    /// fails.
    pub fn on_unreadable(mut self, unreadable: Unreadable) -> SubscriptionBuilder {
        self.unreadable = unreadable;
        self
    }

    /// How large one batch may become when it is unpacked, in bytes. The default is 64 MiB.
    pub fn max_decompressed_bytes(mut self, bytes: usize) -> SubscriptionBuilder {
        self.max_decompressed_bytes = bytes;
        self
    }

    /// For how long a partition may be unreadable before the listener is told
    /// [`Rebalance::Unreadable`]. The default is the client's request timeout.
    pub fn patience(mut self, patience: Duration) -> SubscriptionBuilder {
        self.patience = patience;
        self
    }

    /// Only records for which this expression of the Common Expression Language is true, as `type ==
    /// 'order.placed' && json.total > 100`: the cluster looks at them before it sends them. The others
    /// count as read. All members of a group should have the same one: what a member left out does not
    /// come again to another. The default, and
    /// an empty one, is to read everything.
    pub fn filter(mut self, expression: impl Into<String>) -> SubscriptionBuilder {
        self.filter = expression.into();
        self
    }

    /// Who is told what happens to the subscription beside the records. Called by the task that keeps
    /// the session alive: it must return soon, and not wait for anything.
    pub fn on_rebalance(
        mut self,
        listener: impl Fn(&Rebalance) + Send + Sync + 'static,
    ) -> SubscriptionBuilder {
        self.listener = Listener::new(listener);
        self
    }

    /// Joins the group, and waits for the first assignment, which may be empty.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that make no sense;
    /// [`ErrorCode::InvalidFilter`](crate::ErrorCode::InvalidFilter) with the place of the mistake in a
    /// filter, and `UnsupportedVersion` if the cluster knows none; what the coordinator said; or what the last
    /// node asked said, if there was no coordinator for three session timeouts.
    pub async fn build(self) -> Result<Subscription> {
        self.check()?;
        self.inner.check_filter(&self.filter).await?;
        let (tell, skipped) = mpsc::channel(SKIPPED);
        let mut skips = Skips::default();
        skips.policy = self.unreadable;
        // Where there is no room, it is in the log and in the count.
        skips.listener(move |skipped| drop(tell.try_send(skipped.clone())));
        let readers = Readers {
            inner: self.inner.clone(),
            trimmed: self.trimmed,
            max_decompressed_bytes: self.max_decompressed_bytes,
            patience: self.patience,
            filter: self.filter,
            skips,
            share_bytes: 0,
        };
        let limits = Limits {
            max_in_flight: self.max_in_flight,
            memory_bytes: self.memory_bytes,
            session: self.settings.session.unwrap_or(SESSION),
        };
        let shared = Shared::new(readers, limits, draw_member_id(&self.inner));
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (joined, first) = oneshot::channel();
        let handle = SubscriptionHandle {
            inner: self.inner.clone(),
            shared: shared.clone(),
            commands,
            group: self.settings.group.clone(),
        };
        let member = Member::new(
            self.inner,
            shared,
            self.settings,
            self.listener,
            (receiver, skipped),
            joined,
        );
        let member = AbortOnDropHandle::new(tokio::spawn(member.run()));
        first.await.map_err(|_| handle.ended())?;
        Ok(Subscription {
            handle,
            _member: member,
        })
    }

    fn check(&self) -> Result<()> {
        let settings = &self.settings;
        let times = [
            ("session", settings.session.unwrap_or(SESSION)),
            ("rebalance_within", settings.rebalance_within),
            ("max_poll", settings.max_poll),
            ("auto_commit", settings.auto_commit.unwrap_or(LONGEST)),
        ];
        for (name, time) in times {
            if !(SHORTEST..=LONGEST).contains(&time) {
                return Err(Error::invalid(format!(
                    "{name} of {time:?}; choose between {SHORTEST:?} and {LONGEST:?}"
                )));
            }
        }
        if settings.group.is_empty() {
            return Err(Error::invalid("a group without a name; give it one"));
        }
        if settings.topics.is_empty() && settings.pattern.is_empty() {
            return Err(Error::invalid(
                "a subscription to nothing; name topics, or give a pattern",
            ));
        }
        if self.memory_bytes == 0 || self.max_in_flight == 0 {
            return Err(Error::invalid(
                "memory_bytes or max_in_flight of 0; choose at least 1",
            ));
        }
        Ok(())
    }
}
