//! The oldest compiler that the workspace declares, and what its dependencies declare. CI has only the newest one,
//! so no build would notice a dependency that needs more.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::root;

/// Version as three numbers: `1.89` is `1.89.0`.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split('.').filter_map(|part| part.parse().ok());
    parts.chain(std::iter::repeat(0)).take(3).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    let mut command = Command::new(cargo);
    let output = command.args(arguments).current_dir(root()).output();
    let output = output.expect("cargo starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "cargo {arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn no_dependency_needs_a_newer_compiler_than_the_workspace_declares() {
    let version = cargo(&["-vV"]);
    let mut lines = version.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("the host of this compiler");
    let text = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&text).expect("metadata");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let used: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let declared = numbers(env!("CARGO_PKG_RUST_VERSION"));
    for package in metadata["packages"].as_array().expect("packages") {
        let is_used = package["id"].as_str().is_some_and(|id| used.contains(id));
        let needed = package["rust_version"].as_str().filter(|_| is_used);
        assert!(
            needed.is_none_or(|needed| numbers(needed) <= declared),
            "{} {} needs Rust {}: declare it in Cargo.toml, or keep an older version",
            package["name"],
            package["version"],
            needed.unwrap_or_default()
        );
    }
}
