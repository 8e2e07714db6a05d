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
use crate::reader::{OnTrimmed, OnUnreadable, Skips};
use crate::record::Offset;

/// Capacity of the member's command queue.
const COMMANDS: usize = 64;
/// Capacity of the queue of reports on skipped batches. Further ones are only logged and counted.
const SKIPPED: usize = 64;
/// Bounds of all durations.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Session timeout if neither the application nor the coordinator has set one.
const SESSION: Duration = Duration::from_secs(10);

/// Builder of a [`Subscription`], a member of a consumer group.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before build()"]
pub struct SubscriptionBuilder {
    inner: Arc<Inner>,
    settings: Settings,
    listener: Listener,
    trimmed: OnTrimmed,
    unreadable: OnUnreadable,
    max_decompressed_bytes: usize,
    memory_bytes: usize,
    max_in_flight: usize,
    unavailable_timeout: Duration,
    filter: String,
}

impl SubscriptionBuilder {
    pub(crate) fn new(inner: Arc<Inner>, group: &str) -> SubscriptionBuilder {
        let unavailable_timeout = inner.request_timeout;
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
                session_timeout: None,
                rebalance_timeout: Duration::from_secs(30),
                from: Offset::Beginning,
                auto_commit: Some(Duration::from_secs(1)),
                max_poll_interval: Duration::from_secs(300),
            },
            listener: Listener::default(),
            trimmed: OnTrimmed::default(),
            unreadable: OnUnreadable::default(),
            max_decompressed_bytes: 64 << 20,
            memory_bytes: 32 << 20,
            max_in_flight: 4_096,
            unavailable_timeout,
            filter: String::new(),
        }
    }

    /// Adds topics to consume.
    pub fn topics<T: Into<String>>(
        mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> SubscriptionBuilder {
        let topics = topics.into_iter().map(Into::into);
        self.settings.topics.extend(topics);
        self
    }

    /// Sets a regular expression. The member also consumes the topics whose whole name it matches, including
    /// those created later.
    pub fn pattern(mut self, pattern: impl Into<String>) -> SubscriptionBuilder {
        self.settings.pattern = pattern.into();
        self
    }

    /// Start position in partitions without a committed offset. The default is the beginning. The start is
    /// committed before any record is read, so no record is skipped if another member continues.
    pub fn from(mut self, place: Offset) -> SubscriptionBuilder {
        self.settings.from = place;
        self
    }

    /// Makes this a static member: the next member to join with this name within the session gets the same
    /// partitions, without a rebalance. Without a name, each start is a new member.
    pub fn instance_id(mut self, name: impl Into<String>) -> SubscriptionBuilder {
        self.settings.instance_id = name.into();
        self
    }

    /// Name of this member that operators see. The default names this library and the process.
    pub fn client_name(mut self, name: impl Into<String>) -> SubscriptionBuilder {
        self.settings.client = name.into();
        self
    }

    /// Session timeout: a member that is silent this long leaves the group, and its partitions go to others.
    /// The default is the cluster's (`group_session_ms`), which is 10 s unless an operator set it.
    pub fn session_timeout(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.session_timeout = Some(timeout);
        self
    }

    /// Maximum time to finish with a partition that is revoked. The default is 30 s.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.rebalance_timeout = timeout;
        self
    }

    /// Interval of automatic commits of acknowledged records; none leaves all commits to the application. The
    /// default is 1 s.
    pub fn auto_commit(mut self, every: Option<Duration>) -> SubscriptionBuilder {
        self.settings.auto_commit = every;
        self
    }

    /// Maximum time for which the application may leave records waiting. After it, the member leaves the
    /// group, with an error. The default is 5 min.
    pub fn max_poll_interval(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.settings.max_poll_interval = timeout;
        self
    }

    /// Bound on the bytes of fetched batches, as stored, that wait for the application, over all partitions.
    /// It also bounds the bytes of records that are delivered but not acknowledged. One batch per partition
    /// is fetched even if it is larger. The default is 32 MiB.
    pub fn memory_bytes(mut self, bytes: usize) -> SubscriptionBuilder {
        self.memory_bytes = bytes;
        self
    }

    /// Maximum number of records delivered but not acknowledged; at the limit, the stream waits. The default
    /// is 4,096.
    pub fn max_in_flight(mut self, records: usize) -> SubscriptionBuilder {
        self.max_in_flight = records;
        self
    }

    /// Policy if retention trimmed the log past the group's offset. The default is to fail.
    pub fn on_trimmed(mut self, trimmed: OnTrimmed) -> SubscriptionBuilder {
        self.trimmed = trimmed;
        self
    }

    /// Policy for a batch that does not unpack or parse, and for records that can't be filtered. The default
    /// is to fail; every member that reads on from there then fails too. Skipped records count as read, and
    /// the listener gets [`Rebalance::Skipped`]. A batch whose CRC does not match always fails.
    pub fn on_unreadable(mut self, unreadable: OnUnreadable) -> SubscriptionBuilder {
        self.unreadable = unreadable;
        self
    }

    /// Maximum size of one unpacked batch, in bytes. The default is 64 MiB.
    pub fn max_decompressed_bytes(mut self, bytes: usize) -> SubscriptionBuilder {
        self.max_decompressed_bytes = bytes;
        self
    }

    /// Time for which a partition may be unreadable before the listener gets [`Rebalance::Unreadable`]. The
    /// default is the client's request timeout.
    pub fn unavailable_timeout(mut self, timeout: Duration) -> SubscriptionBuilder {
        self.unavailable_timeout = timeout;
        self
    }

    /// Delivers only the records for which this expression of the Common Expression Language is true, as
    /// `type == 'order.placed' && json.total > 100`. The cluster evaluates it before it sends the records.
    /// The others count as read. All members of a group should have the same filter: records that one member
    /// filtered out are not delivered to another. The default is the empty filter, which delivers everything.
    pub fn filter(mut self, expression: impl Into<String>) -> SubscriptionBuilder {
        self.filter = expression.into();
        self
    }

    /// Listener for all events of the subscription other than records. The task that keeps the session alive
    /// calls it, so it must return soon and must not block.
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
    /// `InvalidArgument` for invalid settings. [`ErrorCode::InvalidFilter`](crate::ErrorCode::InvalidFilter)
    /// with the position of the mistake in a filter. `UnsupportedVersion` if the cluster supports no filters.
    /// Otherwise the error of the coordinator, or the most telling error of the nodes if no coordinator took
    /// the member for three session timeouts.
    pub async fn build(self) -> Result<Subscription> {
        self.check()?;
        self.inner.check_filter(&self.filter).await?;
        let (tell, skipped) = mpsc::channel(SKIPPED);
        let mut skips = Skips::default();
        skips.policy = self.unreadable;
        // A report without room in the queue is still logged and counted.
        skips.listener(move |skipped| drop(tell.try_send(skipped.clone())));
        let readers = Readers {
            inner: self.inner.clone(),
            trimmed: self.trimmed,
            max_decompressed_bytes: self.max_decompressed_bytes,
            unavailable_timeout: self.unavailable_timeout,
            filter: self.filter,
            skips,
            share_bytes: 0,
        };
        let limits = Limits {
            max_in_flight: self.max_in_flight,
            memory_bytes: self.memory_bytes,
            session: self.settings.session_timeout.unwrap_or(SESSION),
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
            (
                "session_timeout",
                settings.session_timeout.unwrap_or(SESSION),
            ),
            ("rebalance_timeout", settings.rebalance_timeout),
            ("max_poll_interval", settings.max_poll_interval),
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
