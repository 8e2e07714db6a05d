//! Capabilities of this machine. Each is probed rather than guessed; a missing one is reported with the
//! machine's error.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// Namespaces of this program: everything created in them ends with them, and so do all processes.
const NAMESPACES: [&str; 6] = [
    "--mount",
    "--pid",
    "--net",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// Environment variable that is set inside them.
const INSIDE: &str = "ROPEWALK_TORTURE_INSIDE";

/// Capabilities, each with the reason if it is missing.
#[derive(Debug)]
pub struct Machine {
    /// Tracing of another process, to fail and delay its calls.
    pub strace: Result<(), String>,
    /// Networks between nodes that can be cut.
    pub networks: Result<(), String>,
    /// Small file systems.
    pub mounts: Result<(), String>,
    /// A library that shifts a node's wall clock.
    pub clocks: Result<PathBuf, String>,
}

/// The command that runs this program again in namespaces of its own; none if it is in them already.
///
/// # Errors
/// The reason why the namespaces cannot be created.
pub fn namespaces() -> Result<Option<Command>, String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut why = String::new();
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let mut probe = Command::new("unshare");
        probe
            .args(NAMESPACES)
            .args(user)
            .args(["mount", "-t", "tmpfs", "probe", "/mnt"]);
        match probe.output() {
            Ok(output) if output.status.success() => {
                let mut inside = Command::new("unshare");
                inside
                    .args(NAMESPACES)
                    .args(user)
                    .arg(&own)
                    .args(std::env::args_os().skip(1))
                    .env(INSIDE, "1");
                return Ok(Some(inside));
            }
            Ok(output) => {
                why = String::from_utf8_lossy(&output.stderr).trim().to_string();
            }
            Err(error) => why = format!("unshare: {error}"),
        }
    }
    Err(why)
}

impl Machine {
    /// Probes everything. `no_namespaces` is the reason why there are none, if so. Files built on the way are
    /// placed in `dir`.
    pub async fn probe(dir: &Path, no_namespaces: Option<&str>) -> Machine {
        let alone = || match no_namespaces {
            None => Ok(()),
            Some(why) => Err(format!("no namespaces: {why}")),
        };
        let networks = match alone() {
            Ok(()) => shell::line("ip link add probe0 type veth peer name probe1").await,
            Err(why) => Err(anyhow::anyhow!(why)),
        };
        if networks.is_ok() {
            let _ = shell::line("ip link del probe0").await;
        }
        let strace = shell::line("strace -qq -o /dev/null true").await;
        Machine {
            strace: strace.map(drop).map_err(|error| format!("{error:#}")),
            networks: networks.map(drop).map_err(|error| format!("{error:#}")),
            mounts: alone(),
            clocks: build_clock(dir).await,
        }
    }
}

async fn build_clock(dir: &Path) -> Result<PathBuf, String> {
    let source = dir.join("skew.c");
    let library = dir.join("skew.so");
    let build = async {
        tokio::fs::write(&source, include_str!("skew.c")).await?;
        let args = [
            "-shared".as_ref(),
            "-fPIC".as_ref(),
            "-O2".as_ref(),
            "-o".as_ref(),
            library.as_os_str(),
            source.as_os_str(),
            "-ldl".as_ref(),
        ];
        shell::run("cc", &args).await
    };
    let built = build.await;
    built
        .map(|_| library.clone())
        .map_err(|error| format!("{error:#}"))
}
