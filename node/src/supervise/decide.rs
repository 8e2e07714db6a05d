//! The decisions about a node that has lost its database: open it again, set it aside, or stop. They depend on
//! nothing but their arguments.

use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_raft_store::data_dir::DataDirError;
use ropewalk_raft_store::disk::DiskError;

use super::SuperviseError;
use crate::config::Config;
use crate::run::RunError;

/// Maximum number of attempts to reopen the disk: readers of the failed disk must release it first.
pub(super) const OPEN_TRIES: u32 = 30;

/// Next step of a node that has no open database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Open the same database again.
    OpenAgain,
    /// Set the database aside for this damage, and come back to the cluster with an empty one.
    SetAside(String),
    /// End with the error.
    Stop,
}

/// Decides after a run that ended with an error. Damage counts, however the run ended.
pub(super) fn after_run(error: &RunError) -> Next {
    match (error, error.damage()) {
        (_, Some(why)) => Next::SetAside(why.to_owned()),
        (RunError::DiskFailed(why), None) if is_planted(PlantedBug::FailedDiskSetAside) => {
            Next::SetAside(why.clone())
        }
        (RunError::DiskFailed(_), None) => Next::OpenAgain,
        (_, None) => Next::Stop,
    }
}

/// Decides after an attempt to open the database. `tries_left` is the number of attempts that may follow.
pub(super) fn after_open(error: &DataDirError, tries_left: u32) -> Next {
    match error {
        DataDirError::Database {
            source: DiskError::Damaged(why),
            ..
        } => Next::SetAside(why.clone()),
        _ if tries_left > 0 => Next::OpenAgain,
        _ => Next::Stop,
    }
}

/// Checks that a node can come back without its data. It must know its cluster, and have another node to ask.
pub(super) fn check_return(
    cluster: Option<&str>,
    config: &Config,
    why: &str,
) -> Result<(), SuperviseError> {
    let why = why.to_owned();
    let Some(cluster) = cluster else {
        return Err(SuperviseError::UnknownCluster { why });
    };
    let mut seeds = config.seeds.iter().map(|seed| seed.trim());
    if seeds.any(|seed| !seed.is_empty() && seed != config.advertise) {
        return Ok(());
    }
    let cluster = cluster.to_owned();
    Err(SuperviseError::NoSeeds { why, cluster })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use ropewalk_raft_store::StoreError;

    use super::*;
    use crate::ListenError;
    use crate::cluster::StartError;

    const WHY: &str = "block 7 rots";

    fn damaged() -> DiskError {
        DiskError::Damaged(WHY.to_owned())
    }

    fn failed() -> DiskError {
        DiskError::Failed("Input/output error".to_owned())
    }

    fn database(source: DiskError) -> DataDirError {
        DataDirError::Database {
            path: PathBuf::from("data"),
            source,
        }
    }

    fn config(seeds: &[&str]) -> Config {
        Config {
            advertise: "a:1".to_owned(),
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn damage_sets_the_database_aside_wherever_the_run_found_it() {
        let found = [
            RunError::Damaged(WHY.to_owned()),
            RunError::Store(StoreError::Disk(damaged())),
            RunError::Start(StartError::Store(StoreError::Disk(damaged()))),
            RunError::Start(StartError::Identity(WHY.to_owned())),
            RunError::Start(StartError::Damaged(WHY.to_owned())),
        ];
        for error in found {
            assert_eq!(
                after_run(&error),
                Next::SetAside(WHY.to_owned()),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_failed_disk_is_opened_again_and_any_other_end_is_final() {
        let failure = RunError::DiskFailed("no space left".to_owned());
        assert_eq!(after_run(&failure), Next::OpenAgain);
        let others = [
            RunError::MetadataEnded,
            RunError::Start(StartError::StartedTwice("a copy".to_owned())),
            RunError::Start(StartError::OtherCluster {
                is: "c1".to_owned(),
                remembered: "c2".to_owned(),
            }),
            RunError::Store(StoreError::Disk(failed())),
            RunError::Listen(ListenError {
                address: "a:1".to_owned(),
                source: io::ErrorKind::AddrInUse.into(),
            }),
        ];
        for error in others {
            assert_eq!(after_run(&error), Next::Stop, "{error:?}");
        }
    }

    #[test]
    fn a_disk_that_does_not_open_is_tried_again_while_tries_are_left() {
        let unlooked = DataDirError::Unlooked {
            path: PathBuf::from("data"),
            kept: PathBuf::from("data/quarantine"),
        };
        for error in [database(failed()), unlooked] {
            assert_eq!(after_open(&error, 1), Next::OpenAgain, "{error}");
            assert_eq!(after_open(&error, 0), Next::Stop, "{error}");
        }
    }

    #[test]
    fn a_disk_that_opens_as_damaged_is_set_aside_at_the_first_try() {
        for tries_left in [0, 1, OPEN_TRIES] {
            let next = after_open(&database(damaged()), tries_left);
            assert_eq!(next, Next::SetAside(WHY.to_owned()));
        }
    }

    #[test]
    fn a_node_comes_back_only_to_a_cluster_it_knows_and_through_another_node() {
        let others = config(&["a:1", "b:1"]);
        assert!(check_return(Some("c1"), &others, WHY).is_ok());
        let unknown = check_return(None, &others, WHY);
        assert!(
            matches!(&unknown, Err(SuperviseError::UnknownCluster { why }) if why == WHY),
            "{unknown:?}"
        );
        let alone: [&[&str]; 3] = [&[], &["a:1"], &["", " a:1 "]];
        for alone in alone {
            let refused = check_return(Some("c1"), &config(alone), WHY);
            assert!(
                matches!(&refused, Err(SuperviseError::NoSeeds { cluster, .. }) if cluster == "c1"),
                "{alone:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_damage_and_the_remedy() {
        let refused = check_return(None, &config(&[]), WHY).expect_err("no cluster");
        let said = refused.to_string();
        assert!(
            said.contains(WHY) && said.contains("no data was moved or deleted"),
            "{said}"
        );
        assert!(said.contains("move the data directory away"), "{said}");
        let refused = check_return(Some("c1"), &config(&[]), WHY).expect_err("no seeds");
        let said = refused.to_string();
        assert!(
            said.contains(WHY) && said.contains("in cluster c1"),
            "{said}"
        );
        assert!(said.contains("--seeds"), "{said}");
    }
}
