//! `ropewalk consume --group`: a member of a consumer group that prints what it is given. **A record
//! counts as read once it is written to stdout**, not before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use ropewalk_client::{Client, Delivery, Subscription, Trimmed};
use tokio::signal::ctrl_c;
use tokio::time::timeout;

use super::Context;
use super::consume::row;
use super::span;
use crate::args::ConsumeArgs;
use crate::output::Stream;

/// Records printed before they are flushed and counted as read.
const AT_ONCE: usize = 1_000;
/// Without a record for so long, it is looked whether the group has read everything.
const IDLE: Duration = Duration::from_millis(300);

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
        .build()
        .await?;
    let mut printer = Printer {
        out: context.output.stream(),
        printed: Vec::new(),
        left: args.count.unwrap_or(u64::MAX),
    };
    let (mut subscription, mut interrupted) = (subscription, Box::pin(ctrl_c()));
    let read = tokio::select! {
        read = read(&client, &mut subscription, args, group, ends, &mut printer) => read,
        Ok(()) = &mut interrupted => Ok(()),
    };
    let flushed = printer.flush();
    let ended = printer.out.end();
    let closed = subscription.close().await;
    read?;
    flushed?;
    ended?;
    Ok(closed?)
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
    while printer.left > 0 {
        let next = match subscription.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.flush()?;
                match timeout(IDLE, subscription.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        let Some(ends) = &ends else { continue };
                        subscription.commit().await?;
                        if is_read(client, &args.topic, group, ends).await? {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
        };
        let Some(delivery) = next else { return Ok(()) };
        printer.print(&args.topic, delivery?)?;
    }
    Ok(())
}

/// Whether the group, with all its members, has read up to the ends.
async fn is_read(client: &Client, topic: &str, group: &str, ends: &Ends) -> anyhow::Result<bool> {
    let lag = client.admin().group_lag(group).await?;
    let positions = lag.into_iter().filter(|lag| lag.topic == topic);
    let positions: BTreeMap<u32, u64> = positions
        .map(|lag| (lag.partition, lag.committed.unwrap_or(0)))
        .collect();
    let read =
        |(partition, end): (&u32, &u64)| positions.get(partition).is_some_and(|at| at >= end);
    Ok(ends.iter().all(read))
}

struct Printer {
    out: Stream,
    /// Printed, but perhaps not written yet.
    printed: Vec<Delivery>,
    left: u64,
}

impl Printer {
    fn print(&mut self, topic: &str, delivery: Delivery) -> std::io::Result<()> {
        row(topic, &delivery, &mut self.out)?;
        self.printed.push(delivery);
        self.left -= 1;
        match self.printed.len() >= AT_ONCE {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        self.printed.drain(..).for_each(Delivery::done);
        Ok(())
    }
}
