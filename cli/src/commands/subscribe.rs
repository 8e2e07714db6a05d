//! `ropewalk consume --group`: a member of a consumer group that prints its records. **A record counts as
//! read once the reader of stdout has taken it out of the pipe and is still there**, not before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use ropewalk_client::{Client, Delivery, OnTrimmed, Rebalance, Subscription, TopicPartition};
use tokio::time::{Instant, sleep, timeout};

use super::Context;
use super::interrupt::Interrupts;
use super::printer::RecordPrinter;
use super::taken::Taken;
use super::{consume, range};
use crate::args::ConsumeArgs;
use crate::logs;
use crate::output::Outlet;
use crate::parse::TopicPattern;

/// Records printed before they are flushed and counted as read.
const AT_ONCE: usize = 1_000;
/// Time without a record after which the command checks if the group has read everything.
const IDLE: Duration = Duration::from_millis(300);
/// Time after the last write within which a reader of stdout that has enough, such as `head`, is gone.
const GONE_WITHIN: Duration = Duration::from_millis(100);
/// Maximum wait for partitions of other members, from the last record and the last change of this member's
/// partitions.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// End offset of each partition at the start.
type Ends = BTreeMap<TopicPartition, u64>;

pub async fn run(
    context: &Context,
    args: &ConsumeArgs,
    group: &str,
    out: RecordPrinter,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    let (client, ends, mut subscription) = tokio::select! {
        joined = join(context, args, group) => joined?,
        () = interrupts.next() => return Ok(()),
    };
    let outlet = Outlet::new();
    let mut printer = Printer {
        out,
        taken: Taken::new(),
        outlet: &outlet,
        left: args.count.unwrap_or(u64::MAX),
    };
    let mut is_interrupted = false;
    let read = tokio::select! {
        biased;
        () = outlet.closed() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        () = interrupts.next() => {
            is_interrupted = true;
            Ok(())
        }
        read = read(&client, &mut subscription, group, ends, &mut printer) => read,
    };
    let flushed = printer.flush();
    let ended = printer.out.end();
    if read.is_ok() && flushed.is_ok() && outlet.has_reader() {
        tokio::select! {
            biased;
            () = outlet.closed() => {}
            () = interrupts.next() => {}
            () = printer.drained(is_interrupted) => {}
        }
    }
    let closed = subscription.close().await;
    read?;
    flushed?;
    ended?;
    Ok(closed?)
}

/// Joins the group. Without `--follow`, also looks up the end offsets.
async fn join(
    context: &Context,
    args: &ConsumeArgs,
    group: &str,
) -> anyhow::Result<(Client, Option<Ends>, Subscription)> {
    let client = context.client().await?;
    let ends = match args.follow {
        true => None,
        false => Some(ends(&client, args).await?),
    };
    let subscription = client
        .subscribe(group)
        .topics(args.topics.clone())
        .pattern(args.pattern.as_ref().map_or("", TopicPattern::text))
        .from(range::place(args.from))
        .filter(args.filter.clone().unwrap_or_default())
        .on_trimmed(OnTrimmed::SkipToBeginning)
        .on_unreadable(args.unreadable())
        .on_rebalance(tell)
        .build()
        .await?;
    Ok((client, ends, subscription))
}

/// Reports states that may need the user. A missing topic may be created later, or be mistyped. A full group
/// may get room.
fn tell(what: &Rebalance) {
    match what {
        Rebalance::TopicsMissing(topics) => logs::say(&format!(
            "ropewalk: topic {} does not exist; waiting until it is created, see `ropewalk topic list`",
            topics.join(", ")
        )),
        Rebalance::Refused(error) => {
            logs::say(&format!("ropewalk: {error}; waiting for room"));
        }
        _ => {}
    }
}

async fn ends(client: &Client, args: &ConsumeArgs) -> anyhow::Result<Ends> {
    let mut ends = Ends::new();
    for topic in consume::topics(client, args).await? {
        let ranges = range::everything(client, &topic).await?.into_iter();
        let topic: Arc<str> = topic.into();
        ends.extend(ranges.filter_map(|range| Some((place(&topic, range.partition), range.end?))));
    }
    Ok(ends)
}

fn place(topic: &Arc<str>, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition,
    }
}

/// Prints until the count or the end offsets are reached.
async fn read(
    client: &Client,
    subscription: &mut Subscription,
    group: &str,
    ends: Option<Ends>,
    printer: &mut Printer<'_>,
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
                        let behind = behind(client, group, ends).await?;
                        if others.hold_it_up(subscription, &behind, group) {
                            continue;
                        }
                        return Ok(());
                    }
                }
            }
        };
        let Some(delivery) = next else { return Ok(()) };
        printer.print(delivery?)?;
        others.since = Instant::now();
    }
    Ok(())
}

/// Partitions in which the group, over all members, has not reached the end offsets.
async fn behind(
    client: &Client,
    group: &str,
    ends: &Ends,
) -> anyhow::Result<BTreeSet<TopicPartition>> {
    let lag = client.admin().group_lag(group).await?;
    let positions: BTreeMap<TopicPartition, u64> = lag
        .into_iter()
        .map(|lag| {
            let at = lag.committed.unwrap_or(0);
            (place(&lag.topic.into(), lag.partition), at)
        })
        .collect();
    let behind = ends.iter().filter(|(partition, end)| {
        let position = positions.get(partition);
        position.is_none_or(|position| position < end)
    });
    Ok(behind.map(|(partition, _)| partition.clone()).collect())
}

/// Wait for partitions that other members have, or that are moving between members.
struct Others {
    /// Partitions of this member at the last check.
    own: BTreeSet<TopicPartition>,
    /// Time of the last record, or of the last change of those partitions.
    since: Instant,
}

impl Others {
    /// Returns true if the command must wait for these partitions: without a limit for its own, for a bounded
    /// time for those of other members.
    fn hold_it_up(
        &mut self,
        subscription: &Subscription,
        behind: &BTreeSet<TopicPartition>,
        group: &str,
    ) -> bool {
        let own: BTreeSet<TopicPartition> = subscription.assignment().into_iter().collect();
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
        let partitions: Vec<String> = behind.iter().map(TopicPartition::to_string).collect();
        logs::say(&format!(
            "ropewalk: group {group}: stopped waiting for other members, which have not read all records of partitions {}; see `ropewalk group lag {group}`",
            partitions.join(", ")
        ));
        false
    }
}

struct Printer<'a> {
    out: RecordPrinter,
    taken: Taken<Delivery>,
    outlet: &'a Outlet,
    left: u64,
}

impl Printer<'_> {
    fn print(&mut self, delivery: Delivery) -> io::Result<()> {
        self.out.print(delivery.topic(), &delivery)?;
        self.left -= 1;
        match self.taken.print(delivery, self.out.bytes()) >= AT_ONCE {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let read = self.taken.flushed(self.out.bytes(), self.outlet.unread());
        read.into_iter().for_each(Delivery::ack);
        if !self.outlet.has_reader() {
            self.still_read();
        }
        Ok(())
    }

    /// Marks records that have left the pipe as read: their reader is still there.
    fn still_read(&mut self) {
        let read = self.taken.still_read(self.outlet.unread());
        read.into_iter().for_each(Delivery::ack);
    }

    /// Waits until the reader has taken everything. After an interrupt, does not wait for a slow reader.
    async fn drained(&mut self, is_interrupted: bool) {
        loop {
            sleep(GONE_WITHIN).await;
            self.still_read();
            if !self.taken.waits() || is_interrupted {
                return;
            }
        }
    }

    /// Time to wait for the next record before the next check.
    fn patience(&self) -> Duration {
        match self.taken.waits() {
            true => GONE_WITHIN,
            false => IDLE,
        }
    }
}
