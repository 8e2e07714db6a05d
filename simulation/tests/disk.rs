//! What every disk of the simulation must do to deserve the name.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ropewalk_raft_store::disk::{Batch, Change, ScanLimit};
use ropewalk_raft_store::{Disk, DiskError};
use ropewalk_simulation::disk::{DiskFault, DiskKind, Setbacks, SimDisk};

/// How much is written before something happens.
const SYNCED: u32 = 20;
const UNSYNCED: u32 = 10;

fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

fn value(number: u32) -> Bytes {
    Bytes::from(vec![number as u8; 60 + number as usize * 311 % 4_000])
}

fn put(number: u32) -> Batch {
    let change = Change::Put {
        key: Bytes::copy_from_slice(&number.to_be_bytes()),
        head: Bytes::new(),
        body: value(number),
    };
    Batch {
        changes: vec![change],
    }
}

fn open(machine: &dyn SimDisk) -> Arc<dyn Disk> {
    machine.open().expect("it opens")
}

async fn write(disk: &dyn Disk, numbers: impl IntoIterator<Item = u32>, sync: bool) {
    for number in numbers {
        disk.commit(put(number), sync).await.expect("a commit");
    }
}

async fn pairs(disk: &dyn Disk) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
    let everything = Bytes::new()..Bytes::from_static(&[255]);
    let limit = ScanLimit {
        max_bytes: usize::MAX,
        max_pairs: usize::MAX,
    };
    disk.scan(everything, limit).await
}

/// How many values there are; they must be the first ones, and as they were written.
async fn count(disk: &dyn Disk) -> u32 {
    let pairs = pairs(disk).await.expect("a scan");
    for ((key, found), number) in pairs.iter().zip(0_u32..) {
        assert_eq!(key.as_ref(), number.to_be_bytes());
        assert_eq!(*found, value(number));
    }
    pairs.len() as u32
}

async fn what_was_synced_survives_power_loss_and_a_prefix_of_the_rest(kind: DiskKind) {
    let mut kept = Vec::new();
    for seed in 0..20 {
        let machine = kind.machine(seed);
        let disk = open(&*machine);
        write(&*disk, 0..SYNCED, true).await;
        write(&*disk, SYNCED..SYNCED + UNSYNCED, false).await;
        machine.power_loss(&mut random(seed));
        // What the process does after it has no power is lost on it.
        let _ = disk.commit(put(99), true).await;
        drop(disk);
        let count = count(&*open(&*machine)).await;
        assert!((SYNCED..=SYNCED + UNSYNCED).contains(&count));
        kept.push(count);
    }
    kept.sort_unstable();
    kept.dedup();
    assert!(kept.len() > 3, "one run is like the other: {kept:?}");
}

async fn all_that_was_written_survives_the_end_of_a_process(kind: DiskKind) {
    let machine = kind.machine(1);
    let disk = open(&*machine);
    write(&*disk, 0..SYNCED, true).await;
    write(&*disk, SYNCED..SYNCED + UNSYNCED, false).await;
    machine.crash();
    drop(disk);
    assert_eq!(count(&*open(&*machine)).await, SYNCED + UNSYNCED);
    machine.wipe();
    assert_eq!(count(&*open(&*machine)).await, 0);
}

async fn a_look_sees_what_is_there_and_what_a_power_loss_would_leave(kind: DiskKind) {
    let machine = kind.machine(1);
    let disk = open(&*machine);
    write(&*disk, 0..SYNCED, true).await;
    write(&*disk, SYNCED..SYNCED + UNSYNCED, false).await;
    let (live, survivor) = (machine.live(), machine.survivor());
    let looked = count(&*live.expect("it is open")).now_or_never();
    assert_eq!(looked, Some(SYNCED + UNSYNCED));
    let looked = count(&*survivor.expect("it opens")).now_or_never();
    assert_eq!(looked, Some(SYNCED));
    write(&*disk, [SYNCED + UNSYNCED], true).await;
    let survivor = machine.survivor().expect("it opens");
    assert_eq!(count(&*survivor).await, SYNCED + UNSYNCED + 1);
    assert_eq!(machine.setbacks(), Setbacks::default());
}

async fn an_io_error_lasts_until_the_disk_is_opened_again(kind: DiskKind) {
    let machine = kind.machine(1);
    let disk = open(&*machine);
    write(&*disk, 0..SYNCED, true).await;
    machine.set_fault(DiskFault::Io);
    let failed = disk.commit(put(SYNCED), true).await;
    assert!(matches!(failed, Err(DiskError::Failed(_))), "{failed:?}");
    assert!(machine.open().is_err(), "a disk with errors opens");
    machine.set_fault(DiskFault::None);
    let still = disk.commit(put(SYNCED), true).await;
    assert!(matches!(still, Err(DiskError::Failed(_))), "{still:?}");
    machine.crash();
    drop(disk);
    let disk = open(&*machine);
    assert_eq!(count(&*disk).await, SYNCED);
    write(&*disk, [SYNCED], true).await;
    assert_eq!(count(&*disk).await, SYNCED + 1);
}

async fn a_full_disk_refuses_and_loses_nothing(kind: DiskKind) {
    let machine = kind.machine(1);
    let disk = open(&*machine);
    write(&*disk, 0..SYNCED, true).await;
    machine.set_fault(DiskFault::LowSpace);
    assert_eq!(disk.free_bytes().expect("a number"), 0);
    write(&*disk, [SYNCED], true).await;
    machine.set_fault(DiskFault::Full);
    let refused = disk.commit(put(SYNCED + 1), true).await;
    assert!(matches!(refused, Err(DiskError::Full(_))), "{refused:?}");
    machine.set_fault(DiskFault::None);
    assert!(disk.free_bytes().expect("a number") > 0);
    let still = disk.commit(put(SYNCED + 1), true).await;
    assert!(still.is_err(), "it works again without being opened again");
    machine.crash();
    drop(disk);
    let disk = open(&*machine);
    assert_eq!(count(&*disk).await, SYNCED + 1);
    write(&*disk, [SYNCED + 1], true).await;
}

async fn what_a_slow_disk_is_syncing_may_be_lost_with_the_power(kind: DiskKind) {
    tokio::time::pause();
    let mut lost = 0;
    for seed in 0..20 {
        let machine = kind.machine(seed);
        let disk = open(&*machine);
        machine.set_fault(DiskFault::SlowMs(50));
        write(&*disk, 0..2, true).await;
        let begun = tokio::time::Instant::now();
        write(&*disk, [2], true).await;
        // The timer rounds up to its next tick.
        assert!((50..=51).contains(&begun.elapsed().as_millis()));
        drop(disk.commit(put(3), true));
        machine.power_loss(&mut random(seed));
        drop(disk);
        let count = count(&*open(&*machine)).await;
        assert!((3..=4).contains(&count));
        lost += 4 - count;
    }
    assert!((1..20).contains(&lost), "lost {lost} times of 20");
}

/// Each test, on each kind of disk.
macro_rules! on_each_disk {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::DiskKind::Memory).await;
            })*
        }
        mod rocks {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::DiskKind::Rocks).await;
            })*
        }
    };
}

on_each_disk!(
    what_was_synced_survives_power_loss_and_a_prefix_of_the_rest,
    all_that_was_written_survives_the_end_of_a_process,
    an_io_error_lasts_until_the_disk_is_opened_again,
    a_full_disk_refuses_and_loses_nothing,
    what_a_slow_disk_is_syncing_may_be_lost_with_the_power,
    a_look_sees_what_is_there_and_what_a_power_loss_would_leave,
);

#[tokio::test]
async fn a_damaged_value_of_a_memory_disk_is_one_value_and_differs() {
    for seed in 0..50 {
        let machine = DiskKind::Memory.machine(seed);
        assert_eq!(machine.damage(&mut random(seed)), None);
        let disk = open(&*machine);
        write(&*disk, 0..SYNCED, true).await;
        let before = pairs(&*disk).await.expect("a scan");
        machine.damage(&mut random(seed)).expect("values are there");
        let after = pairs(&*disk).await.expect("a scan");
        let differing = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other);
        assert_eq!((before.len(), differing.count()), (after.len(), 1));
    }
}
