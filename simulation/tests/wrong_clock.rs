//! One node's clock is wrong by more than anything is kept for, each node's in turn: nothing goes for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_simulation::ask::{Ask, Contents};
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::disk::DiskKind;
use tokio::time::sleep;
use turmoil::Sim;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const TOPIC: &str = "flights";
const GROUP: &str = "billing";
const DAYS_100_MS: i64 = 100 * 24 * 3_600_000;
/// Longer than a leader takes to look for what is too old.
const WRONG_FOR: Duration = Duration::from_secs(30);

/// Seldom, so that leaders come to look while all that is there was written by a right clock, or by a wrong
/// one.
const PUBLISH_EVERY: Duration = Duration::from_secs(50);

/// What the operator found in the end: how many records it had published, what is there, and where the
/// group is.
type Found = (usize, Contents, Option<u64>);

fn step_for(sim: &mut Sim<'_>, time: Duration) {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.step().expect("no host fails");
    }
}

#[test]
fn a_clock_that_is_wrong_by_100_days_has_nothing_trimmed_and_no_group_forgotten() {
    let seed = 11;
    let mut sim = cluster::simulation(seed, Duration::from_secs(600), Duration::from_millis(1));
    let nodes = Cluster::start(&mut sim, seed, NODES.len(), DiskKind::Memory);
    let (ready, over) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let found: Arc<Mutex<Option<Found>>> = Arc::default();
    let (is_ready, is_over, tells) = (ready.clone(), over.clone(), found.clone());
    sim.client("operator", async move {
        let ask = Ask::new(&NODES, TOPIC);
        ask.create_topic(None).await;
        ask.publish("key", "first").await;
        ask.seek_group(GROUP, 1).await;
        is_ready.store(true, Ordering::Relaxed);
        let mut published = 1;
        while !is_over.load(Ordering::Relaxed) {
            sleep(PUBLISH_EVERY).await;
            ask.publish("key", "another").await;
            published += 1;
        }
        *tells.lock() = Some((published, ask.contents().await, ask.committed(GROUP).await));
        Ok(())
    });
    while !ready.load(Ordering::Relaxed) {
        sim.step().expect("no host fails");
    }
    for name in NODES {
        for skew_ms in [DAYS_100_MS, 0, -DAYS_100_MS, 0] {
            nodes.machine(name).clock().set_skew_ms(skew_ms);
            step_for(&mut sim, WRONG_FOR);
        }
    }
    over.store(true, Ordering::Relaxed);
    while found.lock().is_none() {
        sim.step().expect("no host fails");
    }
    let (published, contents, committed) = found.lock().take().expect("it was told");
    assert_eq!(contents.log_start_offset, 0);
    assert!(
        contents.values().len() >= published,
        "{published}: {contents:?}"
    );
    assert_eq!(committed, Some(1));
}
