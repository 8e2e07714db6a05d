//! `ropewalk consume --group`: a member of a consumer group that prints what it is given. **A record
//! counts as read once it is written to stdout and whoever reads that is still there**, not before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use ropewalk_client::{Client, Delivery, Rebalance, Subscription, Trimmed};
use tokio::signal::ctrl_c;
use tokio::time::{Instant, timeout};

use super::Context;
use super::consume::row;
use super::span;
use super::taken::Taken;
use crate::args::ConsumeArgs;
use crate::logs;
use crate::output::{Outlet, Stream};

/// Records printed before they are flushed and counted as read.
const AT_ONCE: usize = 1_000;
/// Without a record for so long, it is looked whether the group has read everything.
const IDLE: Duration = Duration::from_millis(300);
/// A reader of stdout that has had enough, as `head`, is gone so long after the last bytes were written.
const GONE_WITHIN: Duration = Duration::from_millis(100);
/// So long partitions of other members are waited for, after the last record and the last change of the own.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// The end of each partition that stood at the start.
type Ends = BTreeMap<u32, u64>;

pub async fn run(context: &Context, args: &ConsumeArgs, group: &str) -> anyhow::Result<()> {
    let client = context.client().await?;
    let ends = match args.follow {
        true => None,
        false => Some(ends(&client, &args.topic).await?),
    };
    let subscription = client
        .subscribe(group)
        .topics([args.topic.as_str()])
        .start_at(span::place(args.from))
        .filter(args.filter.clone().unwrap_or_default())
        .on_trimmed(Trimmed::SkipToBeginning)
        .on_unreadable(args.unreadable())
        .on_rebalance(tell_missing)
        .build()
        .await?;
    let outlet = Outlet::new();
    let mut printer = Printer {
        out: context.output.stream(),
        taken: Taken::new(),
        has_reader: outlet.has_reader(),
        left: args.count.unwrap_or(u64::MAX),
    };
    let (mut subscription, mut interrupted) = (subscription, Box::pin(ctrl_c()));
    let read = tokio::select! {
        biased;
        () = outlet.closed() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        Ok(()) = &mut interrupted => Ok(()),
        read = read(&client, &mut subscription, args, group, ends, &mut printer) => read,
    };
    let flushed = printer.flush();
    let ended = printer.out.end();
    let gone = outlet.has_reader() && timeout(GONE_WITHIN, outlet.closed()).await.is_ok();
    if flushed.is_ok() && !gone {
        printer.still_read();
    }
    let closed = subscription.close().await;
    read?;
    flushed?;
    ended?;
    Ok(closed?)
}

/// A topic may be created later, and it may be mistyped: only the user knows.
fn tell_missing(what: &Rebalance) {
    if let Rebalance::TopicsMissing(topics) = what {
        logs::say(&format!(
            "ropewalk: topic {} does not exist; waiting until it is created, see `ropewalk topic list`",
            topics.join(", ")
        ));
    }
}

async fn ends(client: &Client, topic: &str) -> anyhow::Result<Ends> {
    let spans = span::everything(client, topic).await?;
    let ends = spans.into_iter();
    Ok(ends
        .filter_map(|span| Some((span.partition, span.end?)))
        .collect())
}

/// Prints until the count, or the ends, are reached.
async fn read(
    client: &Client,
    subscription: &mut Subscription,
    args: &ConsumeArgs,
    group: &str,
    ends: Option<Ends>,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut others = Others {
        own: BTreeSet::new(),
        since: Instant::now(),
    };
    while printer.left > 0 {
        let next = match subscription.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.flush()?;
                match timeout(printer.patience(), subscription.next()).await {
                    Ok(next) => next,
                    Err(_) if printer.taken.waits() => {
                        printer.still_read();
                        continue;
                    }
                    Err(_) => {
                        let Some(ends) = &ends else { continue };
                        subscription.commit().await?;
                        let behind = behind(client, &args.topic, group, ends).await?;
                        if others.hold_it_up(subscription, &behind, group) {
                            continue;
                        }
                        return Ok(());
                    }
                }
            }
        };
        let Some(delivery) = next else { return Ok(()) };
        printer.print(&args.topic, delivery?)?;
        others.since = Instant::now();
    }
    Ok(())
}

/// The partitions in which the group, with all its members, has not read up to the ends.
async fn behind(
    client: &Client,
    topic: &str,
    group: &str,
    ends: &Ends,
) -> anyhow::Result<BTreeSet<u32>> {
    let lag = client.admin().group_lag(group).await?;
    let positions = lag.into_iter().filter(|lag| lag.topic == topic);
    let positions: BTreeMap<u32, u64> = positions
        .map(|lag| (lag.partition, lag.committed.unwrap_or(0)))
        .collect();
    let behind = ends.iter().filter(|(partition, end)| {
        let position = positions.get(partition);
        position.is_none_or(|position| position < end)
    });
    Ok(behind.map(|(partition, _)| *partition).collect())
}

/// The waiting for partitions that are other members', or on their way from one to another.
struct Others {
    /// The partitions that this member had when it was last looked.
    own: BTreeSet<u32>,
    /// Since when neither those have changed nor a record has come.
    since: Instant,
}

impl Others {
    /// Whether to wait for these partitions. Others may take for ever, and those of this member may not.
    fn hold_it_up(
        &mut self,
        subscription: &Subscription,
        behind: &BTreeSet<u32>,
        group: &str,
    ) -> bool {
        let own = subscription.assignment().into_iter();
        let own: BTreeSet<u32> = own.map(|one| one.partition).collect();
        if own != self.own {
            self.own = own;
            self.since = Instant::now();
        }
        if behind.is_empty() {
            return false;
        }
        if !behind.is_disjoint(&self.own) || self.since.elapsed() < OTHERS_WITHIN {
            return true;
        }
        let partitions: Vec<String> = behind.iter().map(u32::to_string).collect();
        logs::say(&format!(
            "ropewalk: other members of group {group} have not read partitions {} up to the ends that stood at the start, and are not waited for any longer; see `ropewalk group lag {group}`",
            partitions.join(", ")
        ));
        false
    }
}

struct Printer {
    out: Stream,
    taken: Taken<Delivery>,
    /// Somebody reads stdout, and may stop.
    has_reader: bool,
    left: u64,
}

impl Printer {
    fn print(&mut self, topic: &str, delivery: Delivery) -> io::Result<()> {
        row(topic, &delivery, &mut self.out)?;
        self.left -= 1;
        match self.taken.print(delivery) >= AT_ONCE {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.taken.flushed().into_iter().for_each(Delivery::done);
        if !self.has_reader {
            self.still_read();
        }
        Ok(())
    }

    /// What is written has been read: its reader is still there.
    fn still_read(&mut self) {
        self.taken.still_read().into_iter().for_each(Delivery::done);
    }

    /// How long to wait for the next record before something else is looked at.
    fn patience(&self) -> Duration {
        match self.taken.waits() {
            true => GONE_WITHIN,
            false => IDLE,
        }
    }
}
