//! TLS on the command line: a node with TLS flags, the commands against it, and contradictory settings.

use std::fs;

use tokio::time::{Duration, Instant, sleep};

use crate::certificates::{Authority, Folder, HOST};
use crate::support::{Cluster, PATIENCE, ropewalk};

#[tokio::test]
async fn settings_of_tls_that_contradict_each_other_are_bad_usage() {
    let node = [
        "node",
        "--listen",
        "127.0.0.1:7101",
        "--data-dir",
        "nowhere",
    ];
    let wrong: [(&[&str], &str); 6] = [
        (&["--tls-mode", "on"], "--tls-cert"),
        (&["--tls-cert", "c", "--tls-key", "k"], "--tls-mode"),
        (&["--tls-mode", "on", "--tls-cert", "c"], "--tls-key"),
        (
            &["--tls-mode", "on", "--tls-cert", "c", "--tls-key", "k"],
            "--tls-ca",
        ),
        (
            &["--tls-mode", "off", "--tls-client-auth", "required"],
            "tls_client_auth",
        ),
        (
            &[
                "--tls-mode",
                "on",
                "--tls-cert",
                "c",
                "--tls-key",
                "k",
                "--tls-ca",
                "a",
            ],
            "c cannot be read",
        ),
    ];
    for (flags, named) in wrong {
        let error = ropewalk(&[&node, flags].concat()).await.refused(2);
        assert!(error.contains(named), "{flags:?}: {error}");
    }
    let wrong: [(&[&str], &str); 3] = [
        (&["--tls-cert", "c", "--tls-key", "k"], "--tls-ca"),
        (&["--tls-ca", "a", "--tls-key", "k"], "--tls-cert"),
        (&["--tls-ca", "nowhere.pem"], "nowhere.pem"),
    ];
    for (flags, named) in wrong {
        let error = ropewalk(&[flags, &["topic", "list"]].concat())
            .await
            .refused(2);
        assert!(error.contains(named), "{flags:?}: {error}");
    }
}

#[tokio::test]
async fn the_commands_speak_tls_to_a_node_and_say_what_is_wrong_if_not() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let folder = Folder::new(&[&ours], &ours.issue(HOST, 10));
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    fs::write(folder.path("foreign.pem"), foreign.pem()).unwrap();
    let foreign = path("foreign.pem");
    let shown = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let required = ["--tls-mode", "on", "--tls-client-auth", "required"];
    let mut cluster = Cluster::start(1, &[&shown[..], &required].concat()).await;

    let create = [
        "topic",
        "create",
        "t",
        "--partitions",
        "1",
        "--replicas",
        "1",
    ];
    cluster.run(&[&shown[..], &create].concat()).await.ok();
    let produce = [&shown[..], &["produce", "t"]].concat();
    cluster.run_with(b"one\n", &produce).await.ok();
    let consume = [&shown[..], &["consume", "t"]].concat();
    assert_eq!(cluster.run(&consume).await.lines().len(), 1);

    let wrong: [(&[&str], &str); 3] = [
        (&[], "accepts TLS only"),
        (&["--tls-ca", &ca], "--tls-cert"),
        (&["--tls-ca", &foreign], "signed by no CA"),
    ];
    for (flags, named) in wrong {
        // The node logs five refusals per second.
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let done = cluster.run(&[flags, &["topic", "list"]].concat()).await;
        let error = done.refused(1);
        assert!(error.contains(named), "{flags:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(15), "told late");
    }
    let said = [
        "it does not use TLS",
        "it sent no certificate",
        "it does not trust this node's certificate",
    ];
    let until = Instant::now() + PATIENCE;
    loop {
        let log = fs::read_to_string(cluster.nodes[0].log_path()).unwrap();
        if said.iter().all(|words| log.contains(words)) {
            break;
        }
        assert!(Instant::now() < until, "{log}");
        sleep(Duration::from_millis(50)).await;
    }
    let ended = cluster.nodes[0].terminate(PATIENCE).await.unwrap();
    assert!(ended.success(), "{ended}");
}
