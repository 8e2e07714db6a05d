//! One seed in two processes: their traces must be byte-identical.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::Job;
use super::child::Children;
use super::report::Report;

/// Number of lines shown before the first difference.
const CONTEXT: usize = 5;

/// Outcome of running a seed twice.
#[derive(Debug, Clone, Serialize)]
pub struct Twice {
    /// The run.
    #[serde(flatten)]
    pub job: Job,
    /// Number of equal lines from the beginning of both traces.
    pub same_lines: u64,
    /// Report of the runs, if both have the same.
    pub report: Option<Report>,
    /// First difference between the traces.
    pub difference: Option<Difference>,
}

/// The first line in which two traces differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Line number, from 1.
    pub line: u64,
    /// Lines before it in both traces.
    pub before: Vec<String>,
    /// Line of one trace; none at its end.
    pub one: Option<String>,
    /// Line of the other trace; none at its end.
    pub other: Option<String>,
}

impl Twice {
    /// True if the runs do not differ.
    pub fn is_same(&self) -> bool {
        self.difference.is_none() && self.report.is_some()
    }
}

/// Runs a job twice at the same time and compares.
///
/// # Errors
/// If traces can't be written or read.
pub async fn twice(children: &Children, job: Job) -> io::Result<Twice> {
    let folder = tempfile::tempdir()?;
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let (of_one, of_other) = tokio::join!(
        children.run(&job, Some(&one)),
        children.run(&job, Some(&other)),
    );
    // Two runs that died before they wrote a line are not the same run.
    for trace in [&one, &other] {
        File::options().create(true).append(true).open(trace)?;
    }
    let (same_lines, difference) = compare(&one, &other)?;
    let report = (of_one == of_other && same_lines > 0).then_some(of_one);
    Ok(Twice {
        job,
        same_lines,
        report,
        difference,
    })
}

/// Number of equal lines from the beginning of two files, and their first difference.
///
/// # Errors
/// If they cannot be read.
pub fn compare(one: &Path, other: &Path) -> io::Result<(u64, Option<Difference>)> {
    let mut one = BufReader::new(File::open(one)?);
    let mut other = BufReader::new(File::open(other)?);
    let mut before = VecDeque::new();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for line in 1.. {
        let (from_one, from_other) = (
            one.read_until(b'\n', &mut left)?,
            other.read_until(b'\n', &mut right)?,
        );
        if left != right {
            let difference = Difference {
                line,
                before: before.into(),
                one: (from_one > 0).then(|| text(&left)),
                other: (from_other > 0).then(|| text(&right)),
            };
            return Ok((line - 1, Some(difference)));
        }
        if from_one == 0 {
            return Ok((line - 1, None));
        }
        before.push_back(text(&left));
        if before.len() > CONTEXT {
            before.pop_front();
        }
        left.clear();
        right.clear();
    }
    unreachable!("a file has an end")
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_string()
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { seed, disk, .. } = &self.job;
        match &self.difference {
            Some(difference) => {
                writeln!(f, "seed {seed} on {disk}: DIFFERS")?;
                write!(f, "{difference}")
            }
            None if self.is_same() => {
                write!(f, "seed {seed} on {disk}: {} lines, same", self.same_lines)
            }
            None => write!(
                f,
                "seed {seed} on {disk}: DIFFERS in what came of it, or left no trace"
            ),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.before {
            writeln!(f, "         {line}")?;
        }
        let end = "(no more)";
        let line = self.line;
        writeln!(f, "{line:>7} < {}", self.one.as_deref().unwrap_or(end))?;
        write!(f, "{line:>7} > {}", self.other.as_deref().unwrap_or(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(one: &str, other: &str) -> (u64, Option<Difference>) {
        let folder = tempfile::tempdir().expect("a folder");
        let (left, right) = (folder.path().join("one"), folder.path().join("other"));
        std::fs::write(&left, one).expect("written");
        std::fs::write(&right, other).expect("written");
        compare(&left, &right).expect("read")
    }

    #[test]
    fn the_first_line_that_differs_is_told_with_those_before_it() {
        let (same, difference) = compared("a\nb\nc\nd\n", "a\nb\nx\nd\n");
        let difference = difference.expect("they differ");
        assert_eq!((same, difference.line), (2, 3));
        assert_eq!(difference.before, ["a", "b"]);
        assert_eq!(difference.one.as_deref(), Some("c"));
        assert_eq!(difference.other.as_deref(), Some("x"));
    }

    #[test]
    fn a_trace_that_ends_earlier_differs() {
        let (same, difference) = compared("a\nb\n", "a\n");
        let difference = difference.expect("they differ");
        assert_eq!(same, 1);
        assert_eq!(difference.one.as_deref(), Some("b"));
        assert_eq!(difference.other, None);
        assert_eq!(compared("a\nb\n", "a\nb\n"), (2, None));
    }
}
