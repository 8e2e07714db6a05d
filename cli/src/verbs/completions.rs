//! `ropewalk completions`: what a shell needs to complete this command line.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;

pub fn run(shell: Shell) -> anyhow::Result<()> {
    // Gathered first: the generator panics where its writer fails, as a closed pipe does.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ropewalk", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(())
}
