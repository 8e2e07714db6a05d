//! The life of a node across failures of its disk: it is run again, comes back without data, or stops.

use std::collections::VecDeque;
use std::io;
use std::iter::{once, repeat_with};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_node::env::{SystemClock, TcpNet};
use ropewalk_node::supervise::{DataDirectory, SuperviseError, supervise};
use ropewalk_node::{Config, Env, Ready, RunError};
use ropewalk_raft_store::data_dir::DataDirError;
use ropewalk_raft_store::disk::{Disk, DiskError, MemoryDisk};
use tokio_util::sync::CancellationToken;

use crate::failed_disk::FullAfter;
use crate::support::free_address;

const WHY: &str = "block 7 rots";
/// Longest life of a node that does not serve.
const LATE: Duration = Duration::from_secs(60);
const OTHER: &str = "127.0.0.1:1";
const KEPT: &str = "scripted/quarantine";
/// Maximum number of attempts to reopen a failed disk.
const OPEN_TRIES: usize = 30;

type Opened = Result<Arc<dyn Disk>, DiskError>;

/// A data directory whose database opens as a script says.
#[derive(Debug, Default)]
struct Scripted {
    /// Results of the calls that open the database, in order.
    opens: Mutex<VecDeque<Opened>>,
    cluster: Mutex<Option<String>>,
    damage: Mutex<Option<String>>,
    kept: Mutex<Option<String>>,
    /// Number of times that the cluster is still not stored.
    full_for: Mutex<u32>,
}

impl Scripted {
    fn of(cluster: Option<&str>, opens: impl IntoIterator<Item = Opened>) -> Scripted {
        Scripted {
            opens: Mutex::new(opens.into_iter().collect()),
            cluster: Mutex::new(cluster.map(str::to_owned)),
            ..Scripted::default()
        }
    }

    fn kept(&self) -> Option<String> {
        self.kept.lock().clone()
    }

    fn is_used_up(&self) -> bool {
        self.left() == 0
    }

    /// Number of results left.
    fn left(&self) -> usize {
        self.opens.lock().len()
    }

    /// Refuses while an earlier database is kept, as every directory does.
    fn check_room(&self) -> Result<(), DataDirError> {
        match self.kept() {
            Some(_) => Err(DataDirError::Unlooked {
                path: PathBuf::from("scripted"),
                kept: PathBuf::from(KEPT),
            }),
            None => Ok(()),
        }
    }

    fn failed(kind: io::ErrorKind) -> DataDirError {
        DataDirError::Io {
            path: PathBuf::from("scripted"),
            source: kind.into(),
        }
    }
}

impl DataDirectory for Scripted {
    fn open_disk(&self) -> Result<Arc<dyn Disk>, DataDirError> {
        let next = self.opens.lock().pop_front();
        let opened = next.expect("as many results as calls");
        opened.map_err(|source| DataDirError::Database {
            path: PathBuf::from("scripted"),
            source,
        })
    }

    fn cluster(&self) -> Result<Option<String>, DataDirError> {
        Ok(self.cluster.lock().clone())
    }

    fn remember_cluster(&self, cluster: &str) -> Result<(), DataDirError> {
        let mut full_for = self.full_for.lock();
        if *full_for > 0 {
            *full_for -= 1;
            return Err(Scripted::failed(io::ErrorKind::StorageFull));
        }
        *self.cluster.lock() = Some(cluster.to_owned());
        Ok(())
    }

    fn damage(&self) -> Result<Option<String>, DataDirError> {
        Ok(self.damage.lock().clone())
    }

    fn note_damage(&self, why: &str) -> Result<(), DataDirError> {
        self.check_room()?;
        *self.damage.lock() = Some(why.to_owned());
        Ok(())
    }

    fn set_aside(&self) -> Result<PathBuf, DataDirError> {
        self.check_room()?;
        let Some(why) = self.damage.lock().take() else {
            return Err(Scripted::failed(io::ErrorKind::NotFound));
        };
        *self.kept.lock() = Some(why);
        Ok(PathBuf::from(KEPT))
    }
}

fn empty() -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::new())
}

fn opens(disk: Arc<dyn Disk>) -> Opened {
    Ok(disk)
}

fn fails() -> Opened {
    Err(DiskError::Failed("Input/output error".to_owned()))
}

fn damaged() -> Opened {
    Err(DiskError::Damaged(WHY.to_owned()))
}

fn env(disk: Arc<dyn Disk>) -> Env {
    Env {
        clock: Arc::new(SystemClock),
        disk,
        net: Arc::new(TcpNet),
        seed: 1,
        log_lines_lost: || 0,
    }
}

fn config(address: String, seeds: &[&str]) -> Config {
    Config {
        advertise: address.clone(),
        listen: address,
        seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        ..Config::default()
    }
}

/// Supervises a node, which is asked to stop once it serves, or when it is late. Returns the number of times
/// that it served, with the end.
async fn live(directory: &Scripted, seeds: &[&str]) -> (u32, Result<(), SuperviseError>) {
    let stop = CancellationToken::new();
    let mut served = 0;
    let on_ready = |_: Ready| {
        served += 1;
        stop.cancel();
    };
    let late = tokio::time::sleep(LATE);
    let ended = live_until(directory, seeds, &stop, on_ready, late).await;
    (served, ended)
}

/// Supervises a node, which is asked to stop once `over` ends.
async fn live_until(
    directory: &Scripted,
    seeds: &[&str],
    stop: &CancellationToken,
    on_ready: impl FnMut(Ready) + Send,
    over: impl Future<Output = ()>,
) -> Result<(), SuperviseError> {
    let config = config(free_address(), seeds);
    let over = async {
        over.await;
        stop.cancel();
        std::future::pending().await
    };
    tokio::select! {
        ended = supervise(directory, config, env, on_ready, stop.clone()) => ended,
        never = over => never,
    }
}

/// A disk that is full once the node's identity is persisted.
fn soon_full(disk: &Arc<MemoryDisk>) -> Opened {
    opens(Arc::new(FullAfter {
        disk: disk.clone(),
        batches: AtomicU32::new(1),
    }))
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_failed_is_run_again_once_its_database_opens() {
    let disk = empty();
    // The cluster that the node founds is not persisted.
    let script = [soon_full(&disk), fails(), fails(), opens(disk)];
    let directory = Scripted::of(None, script);
    let (served, ended) = live(&directory, &[]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert!(served == 1 && directory.is_used_up());
    assert!(directory.cluster.lock().is_some(), "its cluster is kept");
    assert_eq!(directory.kept(), None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_disk_that_does_not_open_ends_the_node_after_its_last_try() {
    let disk = empty();
    let tries = repeat_with(fails).take(OPEN_TRIES);
    let script = once(soon_full(&disk)).chain(tries).chain([opens(disk)]);
    let directory = Scripted::of(None, script);
    let (served, ended) = live(&directory, &[]).await;
    let failed = matches!(
        &ended,
        Err(SuperviseError::Directory(DataDirError::Database { .. }))
    );
    assert!(failed && served == 0, "{ended:?}");
    assert_eq!(directory.left(), 1, "one try more would have opened it");
    assert_eq!(directory.kept(), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_for_its_disk_to_open_stops_when_it_is_asked() {
    const LEFT: usize = OPEN_TRIES - 3;
    let script = once(soon_full(&empty())).chain(repeat_with(fails).take(OPEN_TRIES));
    let directory = Scripted::of(None, script);
    let stop = CancellationToken::new();
    let third_try = async {
        while directory.left() > LEFT {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = live_until(&directory, &[], &stop, |_| {}, third_try).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(directory.left(), LEFT, "it tried again after it was asked");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_could_not_be_stored_is_stored_later() {
    let directory = Scripted::of(None, [opens(empty())]);
    *directory.full_for.lock() = 3;
    let stop = CancellationToken::new();
    let stored = async {
        while directory.cluster.lock().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let living = live_until(&directory, &[], &stop, |_| {}, stored);
    let ended = tokio::time::timeout(LATE, living).await;
    let ended = ended.expect("the cluster is stored in time");
    assert!(ended.is_ok() && directory.is_used_up(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_open_at_the_start_ends_the_node_at_once() {
    let directory = Scripted::of(Some("c1"), [fails()]);
    let (served, ended) = live(&directory, &[OTHER]).await;
    let failed = matches!(
        &ended,
        Err(SuperviseError::Directory(DataDirError::Database { .. }))
    );
    assert!(failed && served == 0, "{ended:?}");
    assert_eq!(directory.kept(), None);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_database_is_set_aside_and_the_node_waits_for_its_own_cluster() {
    let directory = Scripted::of(Some("c1"), [damaged(), opens(empty())]);
    let (served, ended) = live(&directory, &[OTHER]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(served, 0, "it founds no cluster");
    assert_eq!(directory.kept().as_deref(), Some(WHY));
    assert_eq!(*directory.damage.lock(), None);
    assert!(directory.is_used_up());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_was_marked_before_a_crash_is_set_aside_unopened() {
    let directory = Scripted::of(Some("c1"), [opens(empty())]);
    directory.note_damage(WHY).expect("noted");
    let (_, ended) = live(&directory, &[OTHER]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(directory.kept().as_deref(), Some(WHY));
    assert!(directory.is_used_up(), "only the empty one was opened");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_database_without_a_way_back_is_left_as_it_is() {
    let stranded: [(Option<&str>, &[&str]); 2] = [(None, &[OTHER]), (Some("c1"), &[])];
    for (cluster, seeds) in stranded {
        let directory = Scripted::of(cluster, [damaged()]);
        let (_, ended) = live(&directory, seeds).await;
        let stranded = match cluster {
            None => matches!(&ended, Err(SuperviseError::UnknownCluster { .. })),
            Some(_) => matches!(&ended, Err(SuperviseError::NoSeeds { .. })),
        };
        assert!(stranded, "{ended:?}");
        assert_eq!(directory.kept(), None);
        assert_eq!(*directory.damage.lock(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_that_a_run_finds_is_marked_and_the_node_runs_on_an_empty_database() {
    let disk = empty();
    let directory = Scripted::of(None, [opens(disk.clone())]);
    let (served, ended) = live(&directory, &[]).await;
    assert!(ended.is_ok() && served == 1, "{ended:?}");
    assert!(disk.damage(|_, _| true) > 0);
    // Opened for the run that finds the damage, once more to see that it is closed, and then the empty one.
    let script = [opens(disk.clone()), opens(disk), opens(empty())];
    directory.opens.lock().extend(script);
    let (served, ended) = live(&directory, &[OTHER]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(served, 0, "it waits for its own cluster");
    assert!(directory.kept().is_some() && directory.is_used_up());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_database_that_does_not_close_is_set_aside_by_the_next_start() {
    let disk = empty();
    let directory = Scripted::of(None, [opens(disk.clone())]);
    let (served, ended) = live(&directory, &[]).await;
    assert!(ended.is_ok() && served == 1, "{ended:?}");
    assert!(disk.damage(|_, _| true) > 0);
    let script = once(opens(disk)).chain(repeat_with(fails).take(OPEN_TRIES));
    directory.opens.lock().extend(script);
    let (_, ended) = live(&directory, &[OTHER]).await;
    let open = matches!(&ended, Err(SuperviseError::StillOpen { .. }));
    assert!(open && directory.is_used_up(), "{ended:?}");
    assert_eq!(directory.kept(), None);
    let why = directory.damage.lock().clone();
    assert!(why.is_some(), "it is marked");
    directory.opens.lock().push_back(opens(empty()));
    let (_, ended) = live(&directory, &[OTHER]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(directory.kept(), why);
}

#[tokio::test(start_paused = true)]
async fn a_second_damaged_database_is_left_as_it_is_while_the_first_is_kept() {
    let directory = Scripted::of(Some("c1"), [damaged()]);
    *directory.kept.lock() = Some("block 3 rots".to_owned());
    let (_, ended) = live(&directory, &[OTHER]).await;
    let refused = matches!(
        &ended,
        Err(SuperviseError::Directory(DataDirError::Unlooked { .. }))
    );
    assert!(refused, "{ended:?}");
    assert_eq!(*directory.damage.lock(), None);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_no_other_run_can_help_ends_the_process() {
    let directory = Scripted::of(None, [opens(empty())]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let config = config(address, &[]);
    let running = supervise(&directory, config, env, |_| {}, CancellationToken::new());
    let ended = running.await.expect_err("the port is taken");
    let listen = matches!(&ended, SuperviseError::Run(RunError::Listen(_)));
    assert!(listen, "{ended}");
}
