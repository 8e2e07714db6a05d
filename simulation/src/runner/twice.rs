//! One seed in two processes: what happened in both must be the same to the last byte.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::Job;
use super::child::Children;
use super::report::Report;

/// Lines told of that stand before the first that differs.
const CONTEXT: usize = 5;

/// What came of running a seed twice.
#[derive(Debug, Clone, Serialize)]
pub struct Twice {
    /// Which seed.
    #[serde(flatten)]
    pub job: Job,
    /// Lines that are the same in both traces, from the first on.
    pub same_lines: u64,
    /// What came of the runs, if the same came of both.
    pub report: Option<Report>,
    /// Where the traces go apart.
    pub difference: Option<Difference>,
}

/// The first line in which two traces differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which line, counted from 1.
    pub line: u64,
    /// What stands before it in both.
    pub before: Vec<String>,
    /// What one says; none if it has ended.
    pub one: Option<String>,
    /// What the other says.
    pub other: Option<String>,
}

impl Twice {
    /// Whether nothing told the runs apart.
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
    // Two runs that died before they wrote a word are not the same run.
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

/// How many lines two files share from the first on, and where they go apart.
///
/// # Errors
/// If they can't be read.
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
