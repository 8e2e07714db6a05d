//! A run, from the first node's start to the last check.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use ropewalk_client::Client;
use ropewalk_client::TopicSettings;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Found, check, check_reader};
use crate::cluster::Fleet;
use crate::fault_kind::{Counts, Kind};
use crate::history::History;
use crate::machine::Machine;
use crate::readers::{self, Seen};
use crate::schedule::Schedule;
use crate::workload::{Plan, publish};

const TOPIC: &str = "torture";
/// File of all records and their outcomes, one record a line.
const HISTORY: &str = "history.jsonl";
const PARTITIONS: u32 = 6;
/// Time limit for the cluster to recover after the last fault.
const WELL_WITHIN: Duration = Duration::from_secs(120);
/// Time limit for other waits that should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between two checks of the nodes during a fault.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Delivery timeouts of the producers: some give up soon.
const PATIENCES: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// Settings of a run.
#[derive(Debug)]
pub struct Order {
    /// The binary of the nodes.
    pub binary: PathBuf,
    /// Directory of the run.
    pub dir: PathBuf,
    /// Duration of the faults.
    pub time: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// Records per second of each producer.
    pub rate: u32,
    /// Requested kinds of faults.
    pub kinds: Vec<Kind>,
}

/// Outcome of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Duration of the faults, in seconds.
    pub seconds: u64,
    /// Number of faults of each kind that took effect.
    pub fired: Counts,
    /// Kinds that this machine cannot produce, with the reason.
    pub skipped: Vec<(&'static str, String)>,
    /// Counts of the records.
    pub records: Found,
    /// Number of lives of the readers.
    pub reader_lives: u64,
    /// Time until the cluster had recovered after the last fault, in ms.
    pub well_after_ms: u128,
    /// Number of times that a node found its database damaged and started with an empty one.
    pub replaced: u64,
}

/// Runs everything.
pub async fn tell(
    order: &Order,
    machine: &Machine,
    say: &(impl Fn(&str, String) + Sync),
) -> anyhow::Result<Report> {
    let skipped: Vec<(&'static str, String)> = order
        .kinds
        .iter()
        .filter_map(|kind| Some((kind.name(), kind.missing(machine)?.to_string())))
        .collect();
    for (kind, why) in &skipped {
        say("skipped", format!("{kind}: {why}"));
    }
    let able = |kind: &&Kind| kind.missing(machine).is_none();
    let kinds: Vec<Kind> = order.kinds.iter().filter(able).copied().collect();

    let minutes = order.time.as_secs() / 60;
    let mut fleet = Fleet::start(
        &order.dir,
        &order.binary,
        (order.nodes, order.nodes),
        minutes,
        machine,
    )
    .await?;
    let history = History::default();
    let played = play(order, &kinds, &mut fleet, &history, say).await;
    history.write(&order.dir.join(HISTORY))?;
    let played = played.and_then(|played| fleet.check_logs().map(|()| played));
    let (records, reader_lives, well_after) = match played {
        Ok(played) => played,
        Err(error) => {
            // The first error is the one that counts.
            if let Err(lost) = fleet.keep_data().await {
                say("lost", format!("the data of the nodes: {lost:#}"));
            }
            return Err(error);
        }
    };
    for kind in &kinds {
        ensure!(
            fleet.counts.contains_key(kind.name()),
            "the fault {} was on and never did anything",
            kind.name()
        );
    }
    Ok(Report {
        seed: order.seed,
        seconds: order.time.as_secs(),
        fired: fleet.counts,
        skipped,
        records,
        reader_lives,
        well_after_ms: well_after.as_millis(),
        replaced: fleet.replaced,
    })
}

async fn play(
    order: &Order,
    kinds: &[Kind],
    fleet: &mut Fleet,
    history: &History,
    say: &(impl Fn(&str, String) + Sync),
) -> anyhow::Result<(Found, u64, Duration)> {
    let client = connect(fleet).await?;
    let settings = TopicSettings::default().replicas(3);
    let admin = client.admin();
    admin.create_topic(TOPIC, PARTITIONS, settings).await?;
    fleet.well(&client, TOPIC, PATIENCE).await?;
    say(
        "started",
        format!("{} nodes, seed {}", order.nodes, order.seed),
    );

    let (stop, stopped) = watch::channel(false);
    let mut producers = JoinSet::new();
    for (producer, patience) in (0..).zip(PATIENCES) {
        let plan = Plan {
            producer,
            rate: order.rate,
            patience,
        };
        let (client, history) = (fleet.client().await?, history.clone());
        producers.spawn(publish(
            client,
            TOPIC.into(),
            plan,
            history,
            stopped.clone(),
        ));
    }
    let mut followers = JoinSet::new();
    let ends: Vec<watch::Sender<Option<u64>>> =
        (0..PARTITIONS).map(|_| watch::Sender::new(None)).collect();
    for (partition, end) in (0..).zip(&ends) {
        let client = fleet.client().await?;
        let seed = order.seed ^ u64::from(partition);
        let following = readers::follow(client, TOPIC.into(), partition, seed, end.subscribe());
        followers.spawn(async move { (partition, following.await) });
    }

    let raged = rage(order, kinds, fleet, &client, say).await;
    stop.send_replace(true);
    raged?;
    let well_after = fleet.well(&client, TOPIC, WELL_WITHIN).await?;
    say(
        "well",
        format!("{:.1} s after the last fault", well_after.as_secs_f64()),
    );
    let longest = PATIENCES.into_iter().max().unwrap_or_default() + PATIENCE;
    let all = async { while producers.join_next().await.is_some() {} };
    timeout(longest, all)
        .await
        .context("a producer does not end")?;

    let mut read = Vec::new();
    for (partition, end) in (0..).zip(&ends) {
        let (seen, at) = readers::everything(&client, TOPIC, partition, PATIENCE).await?;
        end.send_replace(Some(at));
        read.push(seen);
    }
    let sent = history.all();
    let found = check(&sent, &read).map_err(|wrong| anyhow!("the check does not hold: {wrong}"))?;
    let lives = timeout(PATIENCE, gather(&mut followers, &read));
    let lives = lives.await.context("a reader does not come to the end")??;
    fleet.supervise()?;
    Ok((found, lives, well_after))
}

/// Waits until the readers have reached the end, and checks the records that they read.
async fn gather(
    followers: &mut JoinSet<(u32, anyhow::Result<(Seen, u64)>)>,
    read: &[Seen],
) -> anyhow::Result<u64> {
    let mut all = 0;
    while let Some(done) = followers.join_next().await {
        let (partition, done) = done?;
        let (seen, lives) = done?;
        let holds = read
            .get(partition as usize)
            .context("an unknown partition")?;
        check_reader(partition, &seen, holds)
            .map_err(|wrong| anyhow!("the check does not hold: {wrong}"))?;
        all += lives;
    }
    Ok(all)
}

/// Runs one round of faults after another until the time is over.
async fn rage(
    order: &Order,
    kinds: &[Kind],
    fleet: &mut Fleet,
    client: &Client,
    say: &(impl Fn(&str, String) + Sync),
) -> anyhow::Result<()> {
    let mut schedule = Schedule::new(order.seed, kinds, order.nodes);
    let begun = Instant::now();
    // A slow machine gets more time, enough for every kind once.
    let all_at_least = kinds.len();
    let mut rounds = 0;
    while begun.elapsed() < order.time || rounds < all_at_least {
        rounds += 1;
        let Some(round) = schedule.next_round() else {
            sleep(order.time).await;
            break;
        };
        let alone = round.faults.iter().any(|fault| fault.kind.is_alone());
        if alone {
            fleet.well(client, TOPIC, WELL_WITHIN).await?;
        }
        let mut active = Vec::new();
        for fault in round.faults {
            let hold = fault.hold;
            let (fault, what) = fleet.inject(fault).await?;
            say(
                "fault",
                format!("{:>4} s  {what}, for {hold:?}", begun.elapsed().as_secs()),
            );
            active.push((Instant::now() + hold, fault));
        }
        active.sort_by_key(|(until, _)| *until);
        for (until, fault) in active {
            rest(fleet, until).await?;
            fleet.heal(fault).await?;
        }
        rest(fleet, Instant::now() + round.calm).await?;
        if alone {
            fleet.well(client, TOPIC, WELL_WITHIN).await?;
            fleet.clear_quarantines()?;
        }
    }
    Ok(())
}

/// Waits until then and fails if a node ends.
async fn rest(fleet: &mut Fleet, until: Instant) -> anyhow::Result<()> {
    while Instant::now() < until {
        fleet.supervise()?;
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn connect(fleet: &mut Fleet) -> anyhow::Result<Client> {
    let until = Instant::now() + PATIENCE;
    loop {
        fleet.supervise()?;
        let client = fleet.client().await?;
        match client.admin().cluster_status().await {
            Ok(status) if status.nodes.len() == fleet.nodes.len() => return Ok(client),
            found if Instant::now() > until => bail!("the cluster was not formed: {found:?}"),
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
