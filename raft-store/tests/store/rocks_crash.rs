//! A process killed while it writes loses nothing that it acknowledged.

use std::io::Write;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LogIdOptionExt};
use ropewalk_proto::command::{Command as Proposal, Stamp};
use ropewalk_raft_store::disk::rocks::{ReclaimOptions, RocksDisk, RocksOptions};
use ropewalk_raft_store::types::Entry;
use ropewalk_raft_store::{Replica, Store, StoreOptions};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{GROUP, REPLICA, Sum, TERM, apply, log_id};

/// Passes the directory to the child. Without it, the child's test does nothing.
const DIRECTORY: &str = "ROPEWALK_CRASH_TEST_DIRECTORY";
const CHILD: &str = "rocks_crash::child::writes_until_it_is_killed";

/// Small enough that memtables fill and are flushed within a few hundred entries.
const OPTIONS: RocksOptions = RocksOptions {
    database_bytes: 1 << 20,
    // So often that some crashes hit it.
    reclaim: ReclaimOptions {
        every: Duration::from_millis(20),
        garbage_bytes: 1 << 20,
    },
};

/// An entry of up to 100 KB whose every byte depends on its index.
fn large_entry(index: u64) -> Entry {
    let length = (index * 7_919) % 100_000 + 1;
    let batch: Vec<u8> = (0..length).map(|at| (index * 31 + at) as u8).collect();
    let command = Proposal::Append {
        stamp: Stamp {
            leader_time_ms: index as i64,
            ..Stamp::default()
        },
        batch: batch.into(),
    };
    Entry {
        log_id: log_id(TERM, index),
        payload: EntryPayload::Normal(command),
    }
}

fn open_disk(path: &Path) -> Arc<RocksDisk> {
    Arc::new(RocksDisk::open(path, OPTIONS).expect("the database opens"))
}

async fn open_replica(disk: Arc<RocksDisk>) -> Replica<Sum> {
    let options = StoreOptions {
        tail_bytes: 0,
        ..StoreOptions::default()
    };
    let store = Store::open(disk, options).await.expect("the store opens");
    let replica = store.open_replica(GROUP, REPLICA, Sum::default()).await;
    replica.expect("the replica opens")
}

/// Index of the next entry.
async fn next_index(replica: &mut Replica<Sum>) -> u64 {
    let marks = replica.log.get_log_state().await.expect("marks");
    marks.last_log_id.next_index()
}

/// Applies the entries of the log that are not applied yet.
async fn catch_up(replica: &mut Replica<Sum>) {
    let (applied, _) = replica.state.applied_state().await.expect("a position");
    let next = next_index(replica).await;
    let rest = replica.log.try_get_log_entries(applied.next_index()..next);
    let rest = rest.await.expect("the log");
    apply(&mut replica.state, rest).await;
}

mod child {
    use super::*;

    /// The test below runs this as a separate process. Without the directory there is nothing to do.
    #[tokio::test]
    async fn writes_until_it_is_killed() {
        let Some(directory) = std::env::var_os(DIRECTORY) else {
            return;
        };
        let mut replica = open_replica(open_disk(directory.as_ref())).await;
        catch_up(&mut replica).await;
        let mut index = next_index(&mut replica).await;
        loop {
            // One to three entries an append, followed by their effects.
            let entries: Vec<_> = (index..=index + index % 3).map(large_entry).collect();
            index += entries.len() as u64;
            let appended = replica.log.blocking_append(entries.clone()).await;
            appended.expect("an append");
            // One line at a time, so that no line is cut in two.
            let line = format!("acknowledged {}\n", index - 1);
            let mut out = std::io::stdout();
            out.write_all(line.as_bytes()).expect("a reader");
            out.flush().expect("a reader");
            apply(&mut replica.state, entries).await;
        }
    }
}

/// Runs the child until it has acknowledged `acknowledgements` times, kills it at whatever point it has
/// reached, and returns the last acknowledged index.
async fn run_and_kill(directory: &Path, acknowledgements: usize) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", CHILD, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let out = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(out).lines();
    let mut last = None;
    let mut seen = 0;
    while let Some(line) = lines.next_line().await.expect("a line") {
        // The test harness may have begun the line.
        let Some((_, index)) = line.split_once("acknowledged ") else {
            continue;
        };
        last = Some(index.parse().expect("an index"));
        seen += 1;
        if seen == acknowledgements {
            child.start_kill().expect("a kill");
        }
    }
    let status = child.wait().await.expect("an end");
    assert!(was_killed(status), "the child ended by itself: {status}");
    assert!(seen >= acknowledgements);
    last
}

fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[tokio::test]
async fn whatever_a_killed_process_acknowledged_is_there_when_it_starts_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut before = 0;
    for acknowledgements in [1, 5, 200, 2, 61, 17, 33] {
        let last = run_and_kill(directory.path(), acknowledgements).await;
        let last = last.expect("an acknowledgement");
        assert!(last >= before, "the child began behind what was there");
        let disk = open_disk(directory.path());
        let mut replica = open_replica(disk.clone()).await;
        let next = next_index(&mut replica).await;
        assert!(
            next > last,
            "{last} was acknowledged, the log ends at {next}"
        );
        for from in (0..next).step_by(64) {
            let to = next.min(from + 64);
            let held = replica.log.try_get_log_entries(from..to).await;
            let held = held.expect("the log");
            assert!(held.into_iter().eq((from..to).map(large_entry)));
        }
        // The state is that after some entry of the log, and continues from there.
        catch_up(&mut replica).await;
        assert_eq!(*replica.view.machine(), Sum::after(next - 1));
        before = next;
        drop(replica);
        // The database is closed once the committer's task has dropped it.
        while Arc::strong_count(&disk) > 1 {
            tokio::task::yield_now().await;
        }
    }
    assert!(before > 400, "too little was written to flush: {before}");
}
