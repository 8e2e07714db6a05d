//! The life of a node in one process: it runs, is run again on a reopened disk, and comes back to its cluster
//! after its database was damaged.
//!
//! [`supervise`] is shared by the binary and the simulator. `decide.rs` holds the decisions, apart from what
//! carries them out; `directory.rs` is the seam to the data directory. No exit code, no signal and no message to
//! a terminal may come in here.

mod decide;
mod directory;

use std::sync::Arc;
use std::time::Duration;

use ropewalk_raft_store::Disk;
use ropewalk_raft_store::data_dir::DataDirError;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::decide::{Next, OPEN_TRIES, after_open, after_run, check_return};
pub use self::directory::{DataDirectory, LocalDirectory};
use crate::config::Config;
use crate::env::Env;
use crate::run::{self, Ready, RunError};

/// Interval between two attempts to reopen the disk after a failure.
const OPEN_EVERY: Duration = Duration::from_secs(1);
/// Interval between two attempts to store the cluster of the node.
const REMEMBER_EVERY: Duration = Duration::from_secs(5);

/// Reason why a node ended, and does not run again in this process.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The node ended by itself, and running it again in this process would not help.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The database is damaged, and the node was never in a cluster that it could come back to.
    #[error(
        "database is damaged: {why}; no data was moved or deleted now. It is not known which cluster this node was in, so it does not come back by itself: move the data directory away and start with an empty one"
    )]
    UnknownCluster {
        /// The damage.
        why: String,
    },
    /// The database is damaged, and the settings name no other node to come back through.
    #[error(
        "database is damaged: {why}; no data was moved or deleted now. The node was in cluster {cluster}, and its settings name no other node of it: start it with --seeds that name one. If no other node is left, keep all of the directory: it is the only copy"
    )]
    NoSeeds {
        /// The damage.
        why: String,
        /// Cluster of the node.
        cluster: String,
    },
    /// The database is marked as damaged, and did not close for this process to set it aside.
    #[error(
        "database is damaged: {why}; it is marked, and not set aside yet, because it did not close: {reason}. Start the node again: it sets the database aside then"
    )]
    StillOpen {
        /// The damage.
        why: String,
        /// Error of the last attempt to open it again.
        reason: String,
    },
}

/// Runs a node until `shutdown`. After a disk failure, reopens the disk and runs the node again, as often as that
/// works. A damaged database is set aside, and the node runs on an empty one, which it can fill only from its own
/// cluster.
///
/// `env` makes the environment of each run around its opened disk. `on_ready` is called each time the node serves.
///
/// # Errors
/// The reason why the node cannot go on in this process. The directory is as the error says.
pub async fn supervise(
    directory: &dyn DataDirectory,
    mut config: Config,
    mut env: impl FnMut(Arc<dyn Disk>) -> Env + Send,
    mut on_ready: impl FnMut(Ready) + Send,
    shutdown: CancellationToken,
) -> Result<(), SuperviseError> {
    let mut disk = first_disk(directory, &config)?;
    loop {
        config.member_of = directory.cluster()?;
        let env = env(disk);
        let error = match run_once(directory, &config, env, &shutdown, &mut on_ready).await {
            Err(error) if !shutdown.is_cancelled() => error,
            done => return Ok(done?),
        };
        // A mark that is set by now stays for the next start.
        disk = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                tracing::info!("node stops before its disk is open again");
                return Ok(());
            }
            next = next_disk(directory, &config, error) => next?,
        };
    }
}

/// Runs the node once, and remembers its cluster beside the database: as soon as the node serves, or as soon as
/// the directory takes it.
async fn run_once(
    directory: &dyn DataDirectory,
    config: &Config,
    env: Env,
    shutdown: &CancellationToken,
    on_ready: &mut (impl FnMut(Ready) + Send),
) -> Result<(), RunError> {
    let (says, is_ready) = oneshot::channel();
    let running = run::run(config.clone(), env, shutdown.clone(), says);
    tokio::pin!(running);
    let said = tokio::select! {
        done = &mut running => return done,
        Ok(said) = is_ready => said,
    };
    let cluster = said.cluster_id.clone();
    let mut remembered = remember(directory, &cluster);
    on_ready(said);
    loop {
        tokio::select! {
            biased;
            done = &mut running => return done,
            () = tokio::time::sleep(REMEMBER_EVERY), if !remembered => {
                remembered = remember(directory, &cluster);
            }
        }
    }
}

/// Stores the cluster of the node; returns true if it is stored.
fn remember(directory: &dyn DataDirectory, cluster: &str) -> bool {
    let stored = directory.remember_cluster(cluster);
    if let Err(error) = &stored {
        tracing::error!(%error, "cluster id could not be stored, and this node tries again; until then it cannot come back by itself after damage: check the space of its disk");
    }
    stored.is_ok()
}

/// Disk of the first run: the node's database, or an empty one if it is damaged.
fn first_disk(
    directory: &dyn DataDirectory,
    config: &Config,
) -> Result<Arc<dyn Disk>, SuperviseError> {
    if let Some(why) = directory.damage()? {
        set_aside(directory, config, &why)?;
    }
    let opened = directory.open_disk();
    opened.or_else(|error| empty_instead(directory, config, error))
}

/// Disk of the run after one that ended with this error.
async fn next_disk(
    directory: &dyn DataDirectory,
    config: &Config,
    error: RunError,
) -> Result<Arc<dyn Disk>, SuperviseError> {
    match after_run(&error) {
        Next::SetAside(why) => {
            check(directory, config, &why)?;
            directory.note_damage(&why)?;
            // Opened once more, only to ensure that the failed run has closed it.
            match open_again(directory).await {
                Err(error) if after_open(&error, 0) == Next::Stop => {
                    let reason = match error {
                        DataDirError::Database { source, .. } => source.to_string(),
                        other => other.to_string(),
                    };
                    return Err(SuperviseError::StillOpen { why, reason });
                }
                closed => drop(closed),
            }
            set_aside(directory, config, &why)?;
            Ok(directory.open_disk()?)
        }
        Next::OpenAgain => {
            if let RunError::DiskFailed(reason) = &error {
                tracing::warn!(%reason, "disk failed; the node starts again on it");
            }
            let opened = open_again(directory).await;
            opened.or_else(|error| empty_instead(directory, config, error))
        }
        Next::Stop => Err(error.into()),
    }
}

/// Opens the database again, with as many attempts as it takes within a bound.
async fn open_again(directory: &dyn DataDirectory) -> Result<Arc<dyn Disk>, DataDirError> {
    let mut tries = 1;
    loop {
        let error = match directory.open_disk() {
            Ok(disk) => return Ok(disk),
            Err(error) => error,
        };
        if after_open(&error, OPEN_TRIES - tries) != Next::OpenAgain {
            return Err(error);
        }
        tracing::warn!(%error, tries, "disk cannot be opened again yet");
        tries += 1;
        tokio::time::sleep(OPEN_EVERY).await;
    }
}

/// Replaces a database that was rejected as damaged by an empty one.
fn empty_instead(
    directory: &dyn DataDirectory,
    config: &Config,
    error: DataDirError,
) -> Result<Arc<dyn Disk>, SuperviseError> {
    let Next::SetAside(why) = after_open(&error, 0) else {
        return Err(error.into());
    };
    set_aside(directory, config, &why)?;
    Ok(directory.open_disk()?)
}

/// Sets a closed database aside, so that the next one starts empty. Fails, and moves nothing, if the node
/// could not come back without it.
fn set_aside(
    directory: &dyn DataDirectory,
    config: &Config,
    why: &str,
) -> Result<(), SuperviseError> {
    check(directory, config, why)?;
    if directory.damage()?.is_none() {
        directory.note_damage(why)?;
    }
    let kept = directory.set_aside()?;
    tracing::error!(
        kept = %kept.display(),
        why,
        "database is damaged and was set aside; this node comes back to its cluster without \
         data, as a new one. Find out what damages the disk, and delete what is kept when nobody \
         needs it: a second one is not set aside"
    );
    Ok(())
}

/// Fails if the node could not come back without its database.
fn check(directory: &dyn DataDirectory, config: &Config, why: &str) -> Result<(), SuperviseError> {
    check_return(directory.cluster()?.as_deref(), config, why)
}
