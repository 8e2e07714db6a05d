//! Builds the `ropewalk` binary from this checkout.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

/// The first build compiles RocksDB for about 15 minutes; this script reports progress meanwhile.
const WITH_PROGRESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/with-progress");

/// Builds the binary in the profile of this program, and returns its path, in the folder of this program.
pub async fn command() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let own = std::env::current_exe().context("finding this program's folder")?;
    let folder = own.parent().context("this program is in no folder")?;
    let mut command = Command::new(WITH_PROGRESS);
    command
        .arg(cargo)
        // Without the features of the whole workspace, Cargo would compile the dependencies a second time.
        .args(["build", "--workspace", "--bin", "ropewalk"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.status().await.context("running cargo")?;
    anyhow::ensure!(built.success(), "building ropewalk failed");
    Ok(folder.join("ropewalk"))
}
