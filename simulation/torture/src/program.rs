//! How the programs of this crate begin and end: in namespaces of their own where that can be, with a
//! binary to run and a folder for what it leaves behind.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ropewalk_demo::build;

use crate::machine::namespaces;

/// Runs a program where mounts, networks and processes are its own, or else tells it why they are not.
pub fn run<F>(name: &str, program: impl FnOnce(Option<String>) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let why_not = match namespaces() {
        // The same program again.
        Ok(Some(mut inside)) => {
            return match inside.status().context("running unshare") {
                Ok(status) if status.success() => ExitCode::SUCCESS,
                Ok(_) => ExitCode::FAILURE,
                Err(error) => failed(name, &error),
            };
        }
        Ok(None) => None,
        Err(why) => Some(why),
    };
    let runtime = tokio::runtime::Runtime::new().context("starting tokio");
    match runtime.and_then(|runtime| runtime.block_on(program(why_not))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, &error),
    }
}

fn failed(name: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{name}: {error:#}");
    ExitCode::FAILURE
}

/// The binary that was asked for, or that of this checkout.
pub async fn binary(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match asked {
        Some(binary) => Ok(binary),
        None => build::command().await,
    }
}

/// Where logs and data of a run lie.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// Nobody asked for this folder.
    is_own: bool,
}

impl Folder {
    /// The one that was asked for, or a new one.
    pub fn new(name: &str, asked: Option<PathBuf>) -> anyhow::Result<Folder> {
        let is_own = asked.is_none();
        let dir = match asked {
            Some(dir) => dir,
            None => tempfile::Builder::new()
                .prefix(&format!("ropewalk-{name}-"))
                .tempdir()?
                .keep(),
        };
        std::fs::create_dir_all(&dir)?;
        Ok(Folder { dir, is_own })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// All went well: what nobody asked for goes.
    pub fn done(self) {
        if self.is_own {
            // What is mounted below goes with the namespace.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
