//! Keeps a line of the log from being written as often as somebody outside likes: so many a second, and
//! then a count of what was left out with the next one that is written.
//!
//! One valve a place in the code: a flood there must not silence what is said elsewhere.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines of one kind a second.
const LINES: u32 = 5;
/// What counts as a second.
const SECOND: Duration = Duration::from_secs(1);

/// Lets through so many lines a second.
#[derive(Debug, Default)]
pub struct Valve(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    since: Option<Instant>,
    said: u32,
    untold: u64,
    left_out: u64,
}

impl Valve {
    /// Whether a line may be written now; if so, how many were left out since the last.
    pub fn pass(&self) -> Option<u64> {
        let mut inside = self.0.lock();
        if inside.since.is_none_or(|since| since.elapsed() >= SECOND) {
            inside.since = Some(Instant::now());
            inside.said = 0;
        }
        if inside.said >= LINES {
            inside.untold += 1;
            inside.left_out += 1;
            return None;
        }
        inside.said += 1;
        Some(std::mem::take(&mut inside.untold))
    }

    /// How many lines were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.0.lock().left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_a_second_and_a_count_of_the_rest() {
        let valve = Valve::default();
        let passed = (0..100).filter(|_| valve.pass() == Some(0)).count();
        assert_eq!(passed, LINES as usize);
        tokio::time::advance(SECOND).await;
        assert_eq!(valve.pass(), Some(95));
        assert_eq!(valve.pass(), Some(0), "what was told is not told again");
        assert_eq!(valve.left_out(), 95);
    }
}
