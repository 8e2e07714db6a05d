//! Refresh of metadata, shared by all callers. One request runs at a time, for all topics that callers wait
//! for, with a minimum pause after the last one. A cluster that can't answer usefully gets as few requests
//! from a client of a thousand partitions as from a client of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use ropewalk_proto::v1;
use tokio::time::{Instant, sleep_until};

use crate::client::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{Topic, unknown_topic};

/// Pause between two consecutive requests; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The pause is short because it delays the resumption of publishing.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// Idle time after which the next request starts at once, and the pauses start over.
const QUIET: Duration = Duration::from_secs(1);

type Found = BTreeMap<String, Result<Arc<Topic>>>;
type Asking = Shared<BoxFuture<'static, Result<Arc<Found>>>>;

/// Requests of a client for metadata that is out of date.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    under_way: Option<Round>,
    /// The round after the current one, or after a pause.
    next: Option<Round>,
    pace: Pace,
}

#[derive(Debug)]
struct Round {
    topics: BTreeSet<String>,
    asking: Asking,
}

/// Pauses between requests; sets the earliest time of the next one.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    fn next(&mut self, now: Instant) -> Instant {
        let Some(last) = self.last.filter(|last| now < *last + QUIET) else {
            self.pause = FIRST_PAUSE;
            return now;
        };
        let next = last + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        next
    }
}

impl Inner {
    /// Asks the cluster about a topic; concurrent callers share the request.
    pub async fn refresh(self: &Arc<Self>, topic: &str) -> Result<Arc<Topic>> {
        let asking = self.asking(topic);
        let found = asking.await?;
        let found = found.get(topic).cloned();
        found.unwrap_or_else(|| Err(unknown_topic(topic)))
    }

    /// The request whose answer includes the topic.
    fn asking(self: &Arc<Self>, topic: &str) -> Asking {
        let mut rounds = self.refreshes.rounds.lock();
        if let Some(now) = &rounds.under_way
            && now.topics.contains(topic)
        {
            return now.asking.clone();
        }
        if let Some(next) = &mut rounds.next {
            next.topics.insert(topic.to_owned());
            return next.asking.clone();
        }
        let before = rounds.under_way.as_ref().map(|now| now.asking.clone());
        // A separate task, because the caller may stop polling while other callers wait as well.
        let task = tokio::spawn(self.clone().ask_after(before));
        let asking = async move {
            let ended = |_| Error::new(ErrorKind::Closed, "the runtime ended");
            task.await.map_err(ended)?
        };
        let asking = asking.boxed().shared();
        rounds.next = Some(Round {
            topics: [topic.to_owned()].into(),
            asking: asking.clone(),
        });
        asking
    }

    async fn ask_after(self: Arc<Self>, before: Option<Asking>) -> Result<Arc<Found>> {
        if let Some(before) = before {
            // Only its own callers need its outcome.
            let _ = before.await;
        }
        let at = self.refreshes.rounds.lock().pace.next(Instant::now());
        sleep_until(at).await;
        let topics = {
            let mut rounds = self.refreshes.rounds.lock();
            rounds.pace.last = Some(Instant::now());
            rounds.under_way = rounds.next.take();
            let now = rounds.under_way.as_ref();
            now.map(|now| now.topics.clone()).unwrap_or_default()
        };
        let answer = self.ask(&topics).await;
        self.refreshes.rounds.lock().under_way = None;
        answer.map(Arc::new)
    }

    async fn ask(&self, topics: &BTreeSet<String>) -> Result<Found> {
        let request = v1::MetadataRequest {
            topics: topics.iter().cloned().collect(),
        };
        let answer = self.metadata_of(request).await?;
        Ok(self.metadata.learn_all(topics, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_made_at_once_and_those_that_follow_after_pauses() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        let mut now = begin;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let next = pace.next(now).max(now);
            pauses.push((next - now).as_millis());
            now = next;
            pace.last = Some(now);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 160]);
        assert_eq!(pace.next(now + QUIET), now + QUIET);
        pace.last = Some(now + QUIET);
        assert_eq!(pace.next(now + QUIET), now + QUIET + FIRST_PAUSE);
    }
}
