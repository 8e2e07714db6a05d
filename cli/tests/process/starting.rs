//! Start of a node, the errors that prevent it, and its stop.

use std::fs;
use std::net::TcpListener;

use crate::support::{Cluster, PATIENCE, ropewalk};

#[tokio::test]
async fn a_config_file_with_an_unknown_key_is_refused_by_the_keys_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, "lisen = '127.0.0.1:7101'\n").unwrap();
    let args = ["node", "--config", path.to_str().unwrap()];
    let error = ropewalk(&args).await.refused(2);
    assert!(
        error.contains("unknown setting lisen; did you mean listen"),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_without_a_place_for_its_data_is_bad_usage() {
    let error = ropewalk(&["node", "--listen", "127.0.0.1:7101"])
        .await
        .refused(2);
    assert!(error.contains("--data-dir"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = [
        "node",
        "--listen",
        &address,
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let done = ropewalk(&args).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains(&format!("cannot listen on {address}")),
        "{done:?}"
    );
}

#[tokio::test]
async fn a_data_directory_in_use_of_another_program_or_a_newer_build_is_refused() {
    let cluster = Cluster::start(1, &[]).await;
    let running = cluster.nodes[0].data_dir();
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.doc"), "mine").unwrap();
    let newer = tempfile::tempdir().unwrap();
    fs::write(
        newer.path().join("FORMAT"),
        "ropewalk data directory, format 999\n",
    )
    .unwrap();
    let refused = [
        (running.as_path(), "in use by another process"),
        (foreign.path(), "not created by Ropewalk"),
        (newer.path(), "format 999"),
    ];
    for (dir, why) in refused {
        let args = [
            "node",
            "--listen",
            "127.0.0.1:7101",
            "--data-dir",
            dir.to_str().unwrap(),
        ];
        let error = ropewalk(&args).await.refused(1);
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(
        fs::read_to_string(foreign.path().join("thesis.doc")).unwrap(),
        "mine"
    );
}

#[tokio::test]
async fn a_node_told_to_stop_ends_well_and_comes_back_as_the_same() {
    let mut cluster = Cluster::start(1, &[]).await;
    cluster
        .run(&[
            "topic",
            "create",
            "t",
            "--partitions",
            "1",
            "--replicas",
            "1",
        ])
        .await
        .ok();
    cluster
        .run_with(b"one\ntwo\n", &["produce", "t"])
        .await
        .ok();
    let ended = cluster.nodes[0].terminate(PATIENCE).await.unwrap();
    assert!(
        ended.success(),
        "{ended}; {}",
        cluster.nodes[0].last_words()
    );
    let ready = cluster.nodes[0].start(PATIENCE).await.unwrap();
    assert_eq!(ready.node_id, cluster.ids[0]);
    assert_eq!(cluster.run(&["consume", "t"]).await.lines().len(), 2);
}
