//! A node stops with an error if it finds damage outside its partitions; its supervisor then sets the
//! database aside. It never continues as a voter that may have forgotten its vote.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_node::env::{SystemClock, TcpNet};
use ropewalk_node::{Config, Env, RunError};
use ropewalk_raft_store::disk::MemoryDisk;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
/// The first byte of the keys of the node's own values, and of those of its replicas.
const OWN: u8 = 1;
const REPLICA: u8 = 3;

fn config() -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut config = Config {
        advertise: address.clone(),
        listen: address,
        ..Config::default()
    };
    config.limits.election_timeout_ms = 300;
    config.limits.heartbeat_ms = 50;
    config.limits.scrub_interval_ms = 50;
    config
}

/// Runs a node. Once it serves, damages the values under keys that begin with `first`.
async fn ends_damaged(disk: &Arc<MemoryDisk>, config: &Config, first: Option<u8>) -> RunError {
    let env = Env {
        clock: Arc::new(SystemClock),
        disk: disk.clone(),
        net: Arc::new(TcpNet),
        seed: 1,
        log_lines_lost: || 0,
    };
    let (ready, is_ready) = oneshot::channel();
    let running = ropewalk_node::run(config.clone(), env, CancellationToken::new(), ready);
    let damaged = async {
        if let (Some(first), Ok(_)) = (first, is_ready.await) {
            assert!(disk.damage(|key, _| key.first() == Some(&first)) > 0);
        }
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(running, damaged) })
        .await
        .expect("the node ends");
    ended.expect_err("a node with damaged data does not go on")
}

#[tokio::test]
async fn a_node_whose_own_values_or_metadata_replica_rot_stops_and_is_not_started_on_them_again() {
    for first in [OWN, REPLICA] {
        let (disk, config) = (Arc::new(MemoryDisk::new()), config());
        let found = ends_damaged(&disk, &config, Some(first)).await;
        assert!(matches!(found, RunError::Damaged(_)), "{found}");
        let again = ends_damaged(&disk, &config, None).await;
        assert!(again.damage().is_some(), "{again}");
    }
}
