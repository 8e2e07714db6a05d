//! Runs that need no node: help, bad usage, and an unreachable cluster.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::ropewalk;

#[tokio::test]
async fn bad_usage_ends_with_2_before_anything_is_asked_of_a_cluster() {
    let wrong: [&[&str]; 29] = [
        &[],
        &["fly"],
        &["topic"],
        &["topic", "list", "--no-such-flag"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic", "create", "t", "--retention", "7"],
        &["topic", "create", "t", "--retention-size", "1.5GiB"],
        &["topic", "create", "t", "--set", "retention"],
        &["topic", "create", "t", "--set", "no-such-setting=1"],
        &["consume", "t", "--from", "yesterday"],
        &["produce", "t", "--compression", "rar"],
        &["produce", "t", "--key", "k"],
        &["produce", "t", "--tombstone"],
        &["produce", "t", "-k", "k", "--value", "v", "--tombstone"],
        &["produce", "t", "--value", "v", "-i", "jsonl"],
        &["produce", "t", "-i", "jsonl", "--key-separator", ":"],
        &["produce", "t", "--keep-partitions"],
        &["consume"],
        &["consume", "t", "--format", "%x"],
        &["consume", "t", "--format", "%v", "-o", "json"],
        &["consume", "--pattern", "("],
        &["trace"],
        &["trace", ""],
        &["trace", "id", "--from", "@7"],
        &["partition", "transfer", "t", "--to", "1"],
        &["partition", "move", "t/0", "--replicas", "1,1"],
        &["--bootstrap", "nowhere", "topic", "list"],
        &["-o", "xml", "topic", "list"],
        &["bench", "produce", "--topic", "t", "--rate", "fast"],
    ];
    for args in wrong {
        let done = ropewalk(args).await;
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(
            !done.err.is_empty() && done.out.is_empty(),
            "{args:?}: {done:?}"
        );
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_there_ends_with_1_within_the_timeout() {
    let begun = Instant::now();
    // No process listens on port 1 of this machine.
    let args = [
        "topic",
        "list",
        "--bootstrap",
        "127.0.0.1:1",
        "--timeout",
        "500ms",
    ];
    let error = ropewalk(&args).await.refused(1);
    assert!(error.contains("127.0.0.1:1 is not reachable"), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn where_every_address_refuses_a_command_ends_after_5_seconds_and_says_what_to_start() {
    let begun = Instant::now();
    let args = ["topic", "list", "--bootstrap", "127.0.0.1:1,localhost:1"];
    let error = ropewalk(&args).await.refused(1);
    assert!(
        error.contains("127.0.0.1:1, localhost:1 are not reachable"),
        "{error}"
    );
    assert!(error.contains("`ropewalk dev`"), "{error}");
    let took = begun.elapsed();
    let wanted = Duration::from_secs(4)..Duration::from_secs(10);
    assert!(wanted.contains(&took), "{took:?}");
}

#[tokio::test]
async fn help_names_every_command_there_is_and_none_that_is_not() {
    let help = ropewalk(&["--help"]).await.ok();
    let commands = [
        "dev",
        "node",
        "topic",
        "produce",
        "consume",
        "group",
        "trace",
        "partition",
        "cluster",
        "bench",
        "completions",
        "version",
    ];
    let named = |command: &str| {
        help.lines()
            .any(|line| line.trim_start().starts_with(&format!("{command} ")))
    };
    for command in commands {
        assert!(named(command), "{command} is missing:\n{help}");
        ropewalk(&[command, "--help"]).await.ok();
    }
    for command in ["queue", "dlq", "schema", "backup", "user", "acl", "quota"] {
        assert!(!named(command), "{command} does not work yet:\n{help}");
    }
}

#[tokio::test]
async fn the_version_is_a_command_too() {
    let flag = ropewalk(&["--version"]).await.ok();
    assert_eq!(ropewalk(&["version", "-o", "table"]).await.ok(), flag);
    let told = ropewalk(&["version"]).await.lines();
    assert_eq!(told[0]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn completions_are_printed_for_a_shell() {
    let script = ropewalk(&["completions", "bash"]).await.ok();
    assert!(script.contains("ropewalk") && script.contains("--bootstrap"));
}
