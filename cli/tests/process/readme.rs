//! The commands of the README's first block, of the quickstart and of the tutorial, run as printed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, binary};

const README: &str = include_str!("../../../README.md");
const QUICKSTART: &str = include_str!("../../../docs/quickstart.md");
const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
const NODES: u16 = 3;

/// The blocks of commands of a page, in order.
fn blocks(page: &str) -> Vec<&str> {
    let parts = page.split("```sh\n").skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

/// The commands of the README under "Use it".
fn readme_block() -> &'static str {
    let (_, section) = README.split_once("## Use it").unwrap();
    blocks(section)[0]
}

/// A base port, a multiple of ten, above which the ports of three nodes are free.
fn free_base_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut bases = (0..1_000).map(|_| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port() / 10 * 10
    });
    let ports = |base: u16| (1..=NODES).flat_map(move |node| [base + node, base + 100 + node]);
    let found = bases.find(|base| *base < 65_000 && *base > 1_024 && ports(*base).all(free));
    found.expect("ports for three nodes")
}

/// A checkout with a command that is already built, so that `cargo` has nothing to do.
fn built_checkout(dir: &Path) {
    let cargo = dir.join("bin/cargo");
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join("target/release")).unwrap();
    fs::write(&cargo, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(binary(), dir.join("target/release/ropewalk")).unwrap();
}

/// Runs commands of a page in a checkout, and returns their output. Fails unless all of them succeed and the
/// output has these texts.
async fn runs(dir: &Path, base_port: u16, commands: &str, within: Duration, expected: &[&str]) {
    let path = std::env::var("PATH").unwrap();
    let running = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        // The shell waits for the nodes, so that none of them outlives the test.
        .arg(format!(
            "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{commands}"
        ))
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", dir.join("bin").display()))
        .env("ROPEWALK_BASE_PORT", base_port.to_string())
        .env("ROPEWALK_DATA_DIR", dir.join("data"))
        .env("ROPEWALK_BOOTSTRAP", format!("127.0.0.1:{}", base_port + 1))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = timeout(within, running)
        .await
        .expect("the commands end")
        .unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    let log = fs::read_to_string(dir.join("dev.log")).unwrap_or_default();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{out}\n{err}\n{log}");
    for text in expected {
        assert!(out.contains(text), "no {text} in {out}\n{err}\n{log}");
    }
}

#[tokio::test]
async fn the_readme_block_runs_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    built_checkout(dir.path());
    let expected = ["\"key\":\"N14228\"", "trip-17", "\"lag_records\":0"];
    let block = readme_block();
    runs(dir.path(), free_base_port(), block, PATIENCE, &expected).await;
}

#[tokio::test]
async fn the_quickstart_runs_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    built_checkout(dir.path());
    let commands = blocks(QUICKSTART).concat();
    let expected = [
        "N14228: landed IAH",
        "\"value\":\"landed MIA\"",
        "\"lag_records\":1",
    ];
    runs(dir.path(), free_base_port(), &commands, PATIENCE, &expected).await;
}

#[tokio::test]
async fn the_tutorial_runs_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    built_checkout(dir.path());
    // The page takes the command for installed.
    symlink(binary(), dir.path().join("bin/ropewalk")).unwrap();
    let base_port = free_base_port();
    let printed = blocks(TUTORIAL).concat();
    let (grpc, http) = (base_port / 10, (base_port + 100) / 10);
    let commands = printed
        .replace("127.0.0.1:710", &format!("127.0.0.1:{grpc}"))
        .replace("127.0.0.1:720", &format!("127.0.0.1:{http}"));
    let expected = ["customer-3 ", "\n70\n", "\n210\n", "\"committed\":0"];
    runs(dir.path(), base_port, &commands, 3 * PATIENCE, &expected).await;
}
