//! The README's first block of commands, run as printed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, binary};

const README: &str = include_str!("../../../README.md");
const NODES: u16 = 3;

/// The commands under "Use it".
fn block() -> &'static str {
    let (_, section) = README.split_once("## Use it").unwrap();
    let (_, rest) = section.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// A base port above which the ports of `ropewalk dev` are free.
fn free_base_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut bases = (0..1_000).map(|_| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port().saturating_sub(1)
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

#[tokio::test]
async fn the_readme_block_runs_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    built_checkout(dir.path());
    let base_port = free_base_port();
    let path = std::env::var("PATH").unwrap();
    let running = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        // The shell waits for the nodes, so that none of them outlives the test.
        .arg(format!(
            "trap 'kill $! 2>/dev/null; wait' EXIT\n{}",
            block()
        ))
        .current_dir(dir.path())
        .env(
            "PATH",
            format!("{}:{path}", dir.path().join("bin").display()),
        )
        .env("ROPEWALK_BASE_PORT", base_port.to_string())
        .env("ROPEWALK_DATA_DIR", dir.path().join("data"))
        .env("ROPEWALK_BOOTSTRAP", format!("127.0.0.1:{}", base_port + 1))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = timeout(PATIENCE, running)
        .await
        .expect("the block ends")
        .unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    let log = fs::read_to_string(dir.path().join("dev.log")).unwrap_or_default();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{out}\n{err}\n{log}");
    for expected in ["\"key\":\"N14228\"", "trip-17", "\"lag_records\":0"] {
        assert!(
            out.contains(expected),
            "no {expected} in {out}\n{err}\n{log}"
        );
    }
}
