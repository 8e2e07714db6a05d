//! `ropewalk version`.

use serde::Serialize;

use crate::args;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    commit: Option<&'static str>,
}

pub fn run(output: Output) -> anyhow::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: args::commit(),
    };
    Ok(output.one(&version, |_| format!("ropewalk {}", args::version()))?)
}
