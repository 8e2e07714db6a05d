//! Exit codes: 0 done, 1 the cluster refused or failed the command, 2 bad usage. One line on stderr states
//! the error and the remedy. No other module decides an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::logs;
use crate::output::shown;

pub const FAILED: u8 = 1;
pub const BAD_USAGE: u8 = 2;

/// Invalid input of the user. The text names the invalid part, and a valid alternative.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends the command with "bad usage".
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// Prints the error, if there is one, and returns the exit code.
pub fn report(done: anyhow::Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    // The reader of our output has read enough (`ropewalk consume t | head`).
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    logs::say(&format!("ropewalk: {}", one_line(&error)));
    match error.downcast_ref::<Usage>() {
        Some(_) => ExitCode::from(BAD_USAGE),
        None => ExitCode::from(FAILED),
    }
}

/// Returns true if no process reads stdout any longer.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Formats the error and its causes on one line, without causes that the text before already quotes. Much of
/// the text comes from others, so control characters must not reach the terminal.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    shown(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_is_one_line_and_says_nothing_twice() {
        let inner = io::Error::other("disk\nis gone");
        let error = anyhow::Error::new(inner)
            .context("writing failed: disk is gone")
            .context("produce");
        assert_eq!(one_line(&error), "produce: writing failed: disk is gone");
    }

    #[test]
    fn a_server_s_message_cannot_write_over_the_terminal() {
        let error = anyhow::anyhow!("topic \u{1b}[2J\u{9b}1A is unknown");
        assert_eq!(one_line(&error), "topic \\u{1b}[2J\\u{9b}1A is unknown");
    }

    #[test]
    fn a_broken_pipe_is_found_under_its_context() {
        let broken: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        let error = broken.context("printing").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&usage("no")));
    }
}
