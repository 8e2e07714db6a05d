//! Runs Debian's Prometheus as a separate process, which ends with this program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use ropewalk_demo::cluster;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::queries::Query;

/// Timeout for the first scrape of all targets.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Interval at which the start is polled.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A running server.
#[derive(Debug)]
pub struct Prometheus {
    promtool: PathBuf,
    url: String,
    child: Child,
}

/// Path of a file of the Helm chart.
pub fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../helm/ropewalk/files")
        .join(path)
}

/// Checks the rules file and runs its tests.
pub async fn test_rules(bin: &Path) -> anyhow::Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules_test.yaml");
    for (verb, file) in [("check", deployed("rules.yaml")), ("test", tests)] {
        let mut promtool = Command::new(bin.join("promtool"));
        let done = promtool.args([verb, "rules"]).arg(file).output();
        let done = done.await.context("running promtool")?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let said = said + &String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "promtool {verb} rules:\n{said}");
    }
    Ok(())
}

impl Prometheus {
    /// Starts a server that scrapes the targets and evaluates the rules every second.
    pub async fn start(bin: &Path, dir: &Path, targets: &[String]) -> anyhow::Result<Prometheus> {
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [deployed("rules.yaml")],
            "scrape_configs": [{"job_name": "ropewalk", "static_configs": [{"targets": targets}]}],
        });
        // Every JSON document is also a YAML document.
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let address = format!("127.0.0.1:{}", cluster::free_port()?);
        let log = std::fs::File::create(dir.join("prometheus.log"))?;
        let child = Command::new(bin.join("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting prometheus")?;
        let server = Prometheus {
            promtool: bin.join("promtool"),
            url: format!("http://{address}"),
            child,
        };
        let up = Query::of_text("up");
        let begun = Instant::now();
        while server.ask(&up).await.unwrap_or(0) < targets.len() {
            ensure!(
                begun.elapsed() < READY_WITHIN,
                "prometheus does not scrape: see {}",
                dir.display()
            );
            sleep(LOOK_EVERY).await;
        }
        Ok(server)
    }

    /// Returns the number of samples of a query. A query that fails to evaluate is an error.
    pub async fn ask(&self, query: &Query) -> anyhow::Result<usize> {
        let mut promtool = Command::new(&self.promtool);
        let asked = promtool
            .args(["query", "instant", "--format=json", &self.url, &query.text])
            .output();
        let asked = asked.await.context("running promtool")?;
        let said = String::from_utf8_lossy(&asked.stderr);
        ensure!(
            asked.status.success(),
            "{}: {}: {said}",
            query.place,
            query.text
        );
        let samples: serde_json::Value = serde_json::from_slice(&asked.stdout)
            .with_context(|| format!("{}: promtool's answer", query.place))?;
        Ok(samples.as_array().map_or(0, Vec::len))
    }

    /// Kills the server.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending prometheus")
    }
}
