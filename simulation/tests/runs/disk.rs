//! Contract of every simulated disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ropewalk_raft_store::disk::{Change, ChangeBatch, ScanLimit};
use ropewalk_raft_store::{Disk, DiskError};
use ropewalk_simulation::disk::{DiskFault, DiskKind, Setbacks, SimDisk};

/// Number of values written before an event.
const SYNCED: u32 = 20;
const UNSYNCED: u32 = 10;

fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

fn value(number: u32) -> Bytes {
    Bytes::from(vec![number as u8; 60 + number as usize * 311 % 4_000])
}

fn put(number: u32) -> ChangeBatch {
    let change = Change::Put {
        key: Bytes::copy_from_slice(&number.to_be_bytes()),
        head: Bytes::new(),
        body: value(number),
    };
    ChangeBatch {
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

/// Number of values. They must be the first ones, unchanged.
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
        // A process without power writes nothing to the disk.
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

/// One life of a host; the same seed leads to the same life.
async fn live(machine: &dyn SimDisk, seed: u64) {
    let mut random = random(seed);
    let mut next = 0;
    for _ in 0..6 {
        let disk = open(machine);
        next = count(&*disk).await;
        for _ in 0..random.random_range(0..60) {
            let sync = random.random_ratio(1, 3);
            write(&*disk, [next], sync).await;
            next += 1;
        }
        if random.random() {
            machine.crash();
        } else {
            machine.power_loss(&mut random);
        }
    }
    assert!(next > 0);
}

async fn the_same_life_on_the_same_seed_leaves_the_same_image(kind: DiskKind) {
    let mut images = Vec::new();
    for seed in 0..10 {
        let (one, other) = (kind.machine(seed), kind.machine(seed));
        live(&*one, seed).await;
        live(&*other, seed).await;
        let image = one.image();
        // Not `assert_eq`, which would print them.
        assert!(image == other.image(), "seed {seed}");
        let (one, other) = (open(&*one), open(&*other));
        assert!(pairs(&*one).await.expect("a scan") == pairs(&*other).await.expect("a scan"));
        images.push(image);
    }
    images.dedup();
    assert_eq!(images.len(), 10, "one seed is like another");
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
    the_same_life_on_the_same_seed_leaves_the_same_image,
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

/// Content of each image that can be read.
async fn images(machine: &dyn SimDisk) -> [Option<Vec<(Bytes, Bytes)>>; 2] {
    let mut read = [None, None];
    for (read, disk) in read.iter_mut().zip([machine.live(), machine.survivor()]) {
        if let Some(disk) = disk {
            *read = pairs(&*disk).await.ok();
        }
    }
    read
}

#[tokio::test]
async fn a_database_whose_version_is_the_same_holds_the_same() {
    for seed in 0..20 {
        let mut random = random(seed);
        let machine = DiskKind::Rocks.machine(seed);
        let mut disk = Some(open(&*machine));
        let (mut of, mut changes) = (BTreeMap::new(), 0);
        for _ in 0..60 {
            match random.random_range(0..10) {
                0 => machine.crash(),
                1 => machine.power_loss(&mut random),
                2 => machine.wipe(),
                // A process that ends by itself.
                3 => disk = None,
                _ => {
                    let number = random.random_range(0..30);
                    let sync = random.random();
                    if let Some(disk) = &disk {
                        let _ = disk.commit(put(number), sync).await;
                    }
                }
            }
            if disk.is_none() && random.random() {
                disk = Some(open(&*machine));
            }
            let version = machine.version().expect("a database has one");
            let images = images(&*machine).await;
            assert_eq!(machine.version(), Some(version), "looking changes nothing");
            let first = of.entry(version).or_insert_with(|| {
                changes += 1;
                images.clone()
            });
            assert_eq!(*first, images, "seed {seed}");
        }
        assert!(changes > 10, "seed {seed}: {changes} versions");
    }
}

/// Outcome for a damaged database.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    AtOpen,
    OnRead,
    Nothing,
}

async fn look(machine: &dyn SimDisk, hurt: &str, written: u32) -> Found {
    let disk = match machine.open() {
        Err(DiskError::Damaged(_)) => return Found::AtOpen,
        opened => opened.unwrap_or_else(|error| panic!("{hurt}: {error}")),
    };
    match pairs(&*disk).await {
        Err(DiskError::Damaged(_)) => return Found::OnRead,
        Err(error) => panic!("{hurt}: {error}"),
        Ok(pairs) => {
            let expected = (0..written).map(value);
            let found = pairs.into_iter().map(|(_, value)| value);
            assert!(found.eq(expected), "{hurt}: served wrong");
        }
    }
    Found::Nothing
}

#[tokio::test]
async fn a_damaged_database_is_refused_or_its_damage_found_on_reading_and_nothing_wrong_is_served()
{
    const WRITTEN: u32 = 60;
    let mut found = BTreeMap::<_, u32>::new();
    for seed in 0..400 {
        let machine = DiskKind::Rocks.machine(seed);
        assert_eq!(machine.damage(&mut random(seed)), None);
        let disk = open(&*machine);
        write(&*disk, 0..WRITTEN, true).await;
        machine.crash();
        // Not the machine's seed: this generator's first draw would equal the machine's.
        let hurt = machine.damage(&mut random(!seed)).expect("files are there");
        let file = hurt.split(':').next().unwrap_or_default();
        let kind = file.rsplit('.').next().unwrap_or_default();
        let mut kind = kind.split('-').next().unwrap_or_default().to_string();
        if hurt.contains(": cut") {
            kind.push_str(" cut");
        }
        if random(seed).random() {
            machine.power_loss(&mut random(seed));
        }
        let what = look(&*machine, &hurt, WRITTEN).await;
        *found.entry((kind, what)).or_default() += 1;
    }
    for (kind, what) in [
        ("MANIFEST", Found::AtOpen),
        ("MANIFEST cut", Found::AtOpen),
        ("log", Found::AtOpen),
        ("log cut", Found::AtOpen),
        ("sst", Found::OnRead),
        ("blob", Found::OnRead),
    ] {
        let times = found.get(&(kind.to_string(), what));
        assert!(times.is_some(), "{kind}: {found:?}");
    }
    // A manifest's damage is never found after the open, when RocksDB has read it and acted on it.
    let mut later = found.keys().filter(|(_, what)| *what != Found::AtOpen);
    assert!(
        !later.any(|(kind, _)| kind.starts_with("MANIFEST")),
        "{found:?}"
    );
}

/// This holds even where RocksDB itself would open the database in silence, without the later writes.
#[tokio::test]
async fn a_log_hurt_under_a_process_that_writes_on_and_loses_its_power_is_refused_or_whole() {
    const WRITTEN: u32 = 8;
    let mut refused = 0;
    for seed in 0..3_000 {
        let machine = DiskKind::Rocks.machine(seed);
        let disk = open(&*machine);
        write(&*disk, 0..1, true).await;
        let hurt = machine.damage(&mut random(!seed)).expect("files are there");
        // A log that a process writes to is never cut: it might lose its end unnoticed, since the mark is as
        // old as its last sync.
        if hurt.contains(".log: ") {
            write(&*disk, 1..WRITTEN, true).await;
            machine.power_loss(&mut random(seed));
            drop(disk);
            let found = look(&*machine, &hurt, WRITTEN).await;
            refused += u32::from(found == Found::AtOpen);
        }
    }
    assert!(refused > 100, "{refused}");
}
