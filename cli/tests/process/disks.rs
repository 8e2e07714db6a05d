//! Separate small file systems for the nodes of a test. The test is run again inside a namespace where they
//! can be mounted. They are removed with the namespace, whatever the result of the test.

use std::fs::{self, File};
use std::io::{ErrorKind, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the test inside the namespace.
const INSIDE: &str = "ROPEWALK_TEST_IN_NAMESPACE";
/// Separate mounts and processes; with `--kill-child` no process outlives the outer test.
const NAMESPACE: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const MIB: usize = 1 << 20;

/// Location of a test run.
#[derive(Debug)]
pub enum Place {
    /// Inside a namespace: continue.
    Inside,
    /// The test ran in a namespace and passed, so it is complete.
    Done,
    /// This machine provides no namespaces; the text is its error.
    Nowhere(String),
}

/// Runs the test with this name (`file::function`) in a namespace, if possible.
#[track_caller]
pub fn enter(test: &str) -> Place {
    if std::env::var_os(INSIDE).is_some() {
        return Place::Inside;
    }
    let own = std::env::current_exe().unwrap();
    let mut why = String::new();
    // Root needs no user namespace; other users need one that makes them root inside.
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let mut probe = Command::new("unshare");
        probe
            .args(NAMESPACE)
            .args(user)
            .args(["mount", "-t", "tmpfs", "probe", "/mnt"]);
        match probe.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                why = String::from_utf8_lossy(&output.stderr).trim().to_string();
                continue;
            }
            Err(error) => {
                why = format!("unshare: {error}");
                continue;
            }
        }
        // Files that the test leaves in its directories go with this one, once the mounts are gone.
        let dir = tempfile::tempdir().unwrap();
        let mut inside = Command::new("unshare");
        inside
            .args(NAMESPACE)
            .args(user)
            .arg(&own)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .env("TMPDIR", dir.path());
        let output = inside.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && said.contains("1 passed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(passed, "in its namespace, {test}:\n{said}\n{errors}");
        return Place::Done;
    }
    Place::Nowhere(why)
}

/// Reports a test that could not run, even if the output of tests is captured.
pub fn say_loudly(what: &str) {
    let _ = writeln!(stderr(), "\n*** NOT TESTED HERE: {what} ***\n");
}

/// Mounts a file system of `mib` MiB as the data directory of a node of
/// [`crate::support::Cluster::start_in`].
#[track_caller]
pub fn mount(dir: &Path, node: usize, mib: usize) -> PathBuf {
    let data = dir.join(format!("node-{}", node + 1)).join("data");
    fs::create_dir_all(&data).unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "ropewalk"])
        .arg(&data);
    assert!(mount.status().unwrap().success());
    data
}

/// A file that takes space from the rest of its file system.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Filler {
    /// Takes `mib` MiB of the file system of `dir`, or all that is free.
    pub fn take(dir: &Path, mib: usize) -> Filler {
        let path = dir.join("filler");
        let mut file = File::create(&path).unwrap();
        let zeros = vec![0; MIB];
        for _ in 0..mib {
            match file.write_all(&zeros) {
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                written => written.unwrap(),
            }
        }
        Filler(path)
    }

    /// Frees the space.
    pub fn give_back(self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// Number of free bytes in the file system of `dir`.
pub fn free_bytes(dir: &Path) -> u64 {
    let mut df = Command::new("df");
    let output = df
        .args(["--output=avail", "-B1"])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap().trim().parse().unwrap()
}
