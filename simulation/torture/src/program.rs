//! Start and end of this crate's programs: in namespaces of their own if possible, with a binary to run and a
//! folder for their files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ropewalk_demo::build;

use crate::machine::namespaces;

/// Runs a program in namespaces of its own, so that mounts, networks and processes are private. If that is
/// impossible, the program receives the reason.
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

/// The requested binary, or that of this checkout.
pub async fn binary(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match asked {
        Some(binary) => Ok(binary),
        None => build::command().await,
    }
}

/// Folder for logs and data of a run.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// True if the user did not name the folder.
    is_own: bool,
}

impl Folder {
    /// The requested folder, or a new one.
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

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Ends a successful run: removes a folder that the user did not name.
    pub fn done(self) {
        if self.is_own {
            // Mounts below it end with the namespace.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
