//! Contract of a node's data directory, for the product's and the simulator's. A simulated node whose database is
//! marked as damaged comes back by it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ropewalk_node::config::Limits;
use ropewalk_node::supervise::{DataDirectory, LocalDirectory};
use ropewalk_raft_store::data_dir::DataDirError;
use ropewalk_raft_store::disk::{Change, ChangeBatch};
use ropewalk_raft_store::{Disk, DiskError};
use ropewalk_simulation::ask::Ask;
use ropewalk_simulation::cluster::{self, Cluster};
use ropewalk_simulation::directory::Directory;
use ropewalk_simulation::disk::{DiskFault, DiskKind};
use ropewalk_simulation::process::DiskCalls;
use tempfile::TempDir;

const WHY: &str = "block 7 rots";
const KEY: &[u8] = b"key";

/// A place for one data directory.
trait Place {
    /// The directory as the next process finds it. The last one must have ended.
    fn open(&self) -> Box<dyn DataDirectory>;

    /// Deletes the database that was set aside, as an operator does.
    fn delete_kept(&self);
}

struct Local(TempDir);

impl Local {
    fn new() -> Local {
        Local(tempfile::tempdir().expect("a folder"))
    }
}

impl Place for Local {
    fn open(&self) -> Box<dyn DataDirectory> {
        let opened = LocalDirectory::open(self.0.path(), &Limits::default());
        Box::new(opened.expect("a data directory"))
    }

    fn delete_kept(&self) {
        fs::remove_dir_all(self.0.path().join("quarantine")).expect("something is kept");
    }
}

struct Simulated(Arc<Directory>);

impl Simulated {
    fn new() -> Simulated {
        Simulated(Directory::new("node-1", DiskKind::Rocks.machine(1)))
    }
}

impl Place for Simulated {
    fn open(&self) -> Box<dyn DataDirectory> {
        Box::new(self.0.mount(Arc::default()))
    }

    fn delete_kept(&self) {
        assert!(self.0.kept().is_some(), "something is kept");
        self.0.delete_kept();
    }
}

async fn write(disk: &dyn Disk) {
    let change = Change::Put {
        key: Bytes::from_static(KEY),
        head: Bytes::new(),
        body: Bytes::from_static(b"value"),
    };
    let batch = ChangeBatch {
        changes: vec![change],
    };
    disk.commit(batch, true).await.expect("a commit");
}

async fn is_empty(disk: &dyn Disk) -> bool {
    let read = disk.get(Bytes::from_static(KEY)).await;
    read.expect("a read").is_none()
}

fn is_unlooked(done: Result<(), DataDirError>) -> bool {
    matches!(done, Err(DataDirError::Unlooked { .. }))
}

async fn what_is_beside_the_database_outlives_the_process(place: &dyn Place) {
    let directory = place.open();
    assert_eq!(directory.cluster().expect("readable"), None);
    assert_eq!(directory.damage().expect("readable"), None);
    for cluster in ["c1", "c1", "c2"] {
        directory.remember_cluster(cluster).expect("kept");
    }
    drop(directory);
    let directory = place.open();
    let cluster = directory.cluster().expect("readable");
    assert_eq!(cluster.as_deref(), Some("c2"));
}

async fn a_database_opens_again_only_once_it_is_closed(place: &dyn Place) {
    let directory = place.open();
    let disk = directory.open_disk().expect("it opens");
    write(&*disk).await;
    let refused = directory.open_disk().expect_err("it is open");
    let failed = matches!(
        &refused,
        DataDirError::Database {
            source: DiskError::Failed(_),
            ..
        }
    );
    assert!(failed, "no damage: {refused}");
    drop(disk);
    let disk = directory.open_disk().expect("it opens");
    assert!(!is_empty(&*disk).await);
}

async fn a_marked_database_is_set_aside_and_the_next_one_is_empty(place: &dyn Place) {
    let directory = place.open();
    directory.remember_cluster("c1").expect("kept");
    let disk = directory.open_disk().expect("it opens");
    write(&*disk).await;
    directory.note_damage(WHY).expect("noted");
    drop(disk);
    drop(directory);
    let directory = place.open();
    let why = directory.damage().expect("readable");
    assert_eq!(why.as_deref(), Some(WHY));
    directory.set_aside().expect("set aside");
    assert_eq!(directory.damage().expect("readable"), None);
    let disk = directory.open_disk().expect("it opens");
    assert!(is_empty(&*disk).await);
    let cluster = directory.cluster().expect("readable");
    assert_eq!(cluster.as_deref(), Some("c1"));
}

async fn a_second_one_is_refused_while_the_first_is_kept(place: &dyn Place) {
    let directory = place.open();
    drop(directory.open_disk().expect("it opens"));
    directory.note_damage(WHY).expect("noted");
    directory.set_aside().expect("set aside");
    let disk = directory.open_disk().expect("it opens");
    write(&*disk).await;
    drop(disk);
    assert!(is_unlooked(directory.note_damage("again")));
    assert!(is_unlooked(directory.set_aside().map(drop)));
    assert_eq!(directory.damage().expect("readable"), None);
    let disk = directory.open_disk().expect("it opens");
    assert!(!is_empty(&*disk).await, "nothing was changed");
    drop(disk);
    place.delete_kept();
    directory.note_damage("again").expect("noted");
    directory.set_aside().expect("set aside");
}

/// Each test, on each data directory.
macro_rules! on_each_directory {
    ($($test:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Local::new()).await;
            })*
        }
        mod simulated {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Simulated::new()).await;
            })*
        }
    };
}

on_each_directory!(
    what_is_beside_the_database_outlives_the_process,
    a_database_opens_again_only_once_it_is_closed,
    a_marked_database_is_set_aside_and_the_next_one_is_empty,
    a_second_one_is_refused_while_the_first_is_kept,
);

#[test]
fn a_disk_that_fails_or_is_full_fails_the_files_beside_the_database_too() {
    let place = Simulated::new();
    let (directory, disk) = (place.open(), place.0.disk());
    disk.set_fault(DiskFault::Full);
    assert!(directory.remember_cluster("c1").is_err());
    assert!(directory.note_damage(WHY).is_err());
    assert_eq!(directory.cluster().expect("readable"), None);
    disk.set_fault(DiskFault::Io);
    assert!(directory.cluster().is_err() && directory.damage().is_err());
    disk.set_fault(DiskFault::None);
    directory.note_damage(WHY).expect("noted");
    disk.set_fault(DiskFault::Io);
    assert!(directory.set_aside().is_err());
    assert_eq!(place.0.kept(), None);
}

#[test]
fn a_database_that_is_set_aside_is_told_with_the_state_of_its_disk() {
    let place = Simulated::new();
    let directory = place.open();
    directory.note_damage(WHY).expect("noted");
    directory.set_aside().expect("set aside");
    place.delete_kept();
    place.0.disk().damage(&mut SmallRng::seed_from_u64(1));
    directory.note_damage(WHY).expect("noted");
    directory.set_aside().expect("set aside");
    let told = place.0.all_set_aside().into_iter();
    let told: Vec<bool> = told.map(|one| one.was_damaged).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_mark_that_is_missing_is_no_failure_of_the_disk() {
    let place = Simulated::new();
    let calls = Arc::<DiskCalls>::default();
    let directory = place.0.mount(calls.clone());
    assert!(directory.set_aside().is_err());
    assert!(!calls.felt(DiskFault::Io));
    place.0.disk().set_fault(DiskFault::Io);
    assert!(directory.set_aside().is_err());
    assert!(calls.felt(DiskFault::Io));
}

#[test]
fn a_copied_directory_has_what_is_beside_the_database() {
    let place = Simulated::new();
    place.open().remember_cluster("c1").expect("kept");
    let copy = place.0.copy("node-2", 2);
    place.0.wipe();
    let of = |directory: &Arc<Directory>| {
        let mounted = directory.mount(Arc::default());
        mounted.cluster().expect("readable")
    };
    assert_eq!(of(&copy).as_deref(), Some("c1"));
    assert_eq!(of(&place.0), None);
}

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Progress of the last test; each side waits for the other's turn.
const WHOLE: u8 = 1;
const MARKED: u8 = 2;

#[test]
fn a_node_whose_database_is_marked_as_damaged_comes_back_as_a_new_one() {
    let seed = 3;
    let mut sim = cluster::simulation(seed, Duration::from_secs(120), Duration::from_millis(1));
    let nodes = Cluster::start(&mut sim, seed, NODES.len(), DiskKind::Memory);
    let turn = Arc::new(AtomicU8::new(0));
    let at = turn.clone();
    sim.client("observer", async move {
        let ask = Ask::new(&NODES, "flights");
        ask.create_topic(None).await;
        ask.publish("key", "value").await;
        let all = NODES.len();
        ask.until_partition(|one| one.in_sync_node_ids.len() == all)
            .await;
        let before = ask.partition().await.in_sync_node_ids;
        at.store(WHOLE, Ordering::Relaxed);
        while at.load(Ordering::Relaxed) < MARKED {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ask.until_partition(|one| {
            let mut held = one.in_sync_node_ids.iter();
            let new = held.any(|id| !before.contains(id));
            new && one.in_sync_node_ids.len() == all
        })
        .await;
        Ok(())
    });
    while turn.load(Ordering::Relaxed) < WHOLE {
        sim.step().expect("no host fails");
    }
    let directory = nodes.machine(NODES[2]).directory();
    nodes.crash(&mut sim, NODES[2]);
    let mounted = directory.mount(Arc::default());
    mounted.note_damage(WHY).expect("noted");
    let cluster = mounted.cluster().expect("readable");
    assert!(cluster.is_some(), "it served before");
    sim.bounce(NODES[2]);
    turn.store(MARKED, Ordering::Relaxed);
    while !sim.step().expect("the observer ends") {
        nodes.supervise(&mut sim);
    }
    assert_eq!(directory.kept().as_deref(), Some(WHY));
    assert_eq!(mounted.cluster().expect("readable"), cluster);
    assert_eq!(nodes.machine(NODES[2]).why_ended(), None);
}
