//! Quarantine of a damaged database: keeps its remains for the operator, and lets the node rejoin its cluster
//! with an empty one.

use anyhow::bail;
use ropewalk_node::Config;
use ropewalk_raft_store::data_dir::{DataDir, DataDirError};
use ropewalk_raft_store::disk::DiskError;

/// Description of the damage, if damage is the reason that a database could not be opened.
pub fn damage(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<DataDirError>() {
        Some(DataDirError::Database {
            source: DiskError::Damaged(what),
            ..
        }) => Some(what.clone()),
        _ => None,
    }
}

/// Sets a closed database aside, so that the next one starts empty. Fails, and changes nothing, if the node
/// could not rejoin without it.
pub fn set_aside(locked: &DataDir, config: &Config, why: &str) -> anyhow::Result<()> {
    check(locked, config, why)?;
    if locked.damage()?.is_none() {
        locked.note_damage(why)?;
    }
    let kept = locked.set_aside()?;
    tracing::error!(
        kept = %kept.display(),
        why,
        "the database is damaged and was set aside; this node comes back to its cluster without \
         data, as a new one. Find out what damages the disk, and delete what is kept when nobody \
         needs it: a second one is not set aside"
    );
    Ok(())
}

/// Checks that the node can rejoin without data. It must know its cluster, and have another node to ask.
pub fn check(locked: &DataDir, config: &Config, why: &str) -> anyhow::Result<()> {
    let Some(cluster) = locked.cluster()? else {
        bail!(
            "the database is damaged: {why}; nothing was changed. It is not known which cluster \
             this node was in, so it does not come back by itself: move the data directory away and \
             start with an empty one"
        );
    };
    let mut seeds = config.seeds.iter().map(|seed| seed.trim());
    if seeds.any(|seed| !seed.is_empty() && seed != config.advertise) {
        return Ok(());
    }
    bail!(
        "the database is damaged: {why}; nothing was changed. The node was in cluster {cluster}, \
         and has nobody to come back through: start it with --seeds that name a living node of that \
         cluster. If there is none, what the directory holds is all there is"
    )
}
