//! The life of a node across failures of its disk: it is run again, comes back without data, or stops.

use std::collections::VecDeque;
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

type Opened = Result<Arc<dyn Disk>, DiskError>;

/// A data directory whose database opens as a script says.
#[derive(Debug, Default)]
struct Scripted {
    /// Results of the calls that open the database, in order.
    opens: Mutex<VecDeque<Opened>>,
    cluster: Mutex<Option<String>>,
    damage: Mutex<Option<String>>,
    kept: Mutex<Option<String>>,
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
        self.opens.lock().is_empty()
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
        *self.cluster.lock() = Some(cluster.to_owned());
        Ok(())
    }

    fn damage(&self) -> Result<Option<String>, DataDirError> {
        Ok(self.damage.lock().clone())
    }

    fn note_damage(&self, why: &str) -> Result<(), DataDirError> {
        *self.damage.lock() = Some(why.to_owned());
        Ok(())
    }

    fn set_aside(&self) -> Result<PathBuf, DataDirError> {
        *self.kept.lock() = self.damage.lock().take();
        Ok(PathBuf::from("scripted/quarantine"))
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
    let config = config(free_address(), seeds);
    let stop = CancellationToken::new();
    let mut served = 0;
    let on_ready = |_: Ready| {
        served += 1;
        stop.cancel();
    };
    let late = async {
        tokio::time::sleep(LATE).await;
        stop.cancel();
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = supervise(directory, config, env, on_ready, stop.clone()) => ended,
        never = late => never,
    };
    (served, ended)
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_failed_is_run_again_once_its_database_opens() {
    let disk = empty();
    // The node's identity is persisted, and the cluster it founds is not.
    let full = FullAfter {
        disk: disk.clone(),
        batches: AtomicU32::new(1),
    };
    let script = [opens(Arc::new(full)), fails(), fails(), opens(disk)];
    let directory = Scripted::of(None, script);
    let (served, ended) = live(&directory, &[]).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert!(served == 1 && directory.is_used_up());
    assert!(directory.cluster.lock().is_some(), "its cluster is kept");
    assert_eq!(directory.kept(), None);
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
