//! Keeps a line of the log from being written as often as somebody outside likes: so many in a while, and
//! then a count of what was left out with the next one that is written.
//!
//! One valve a place in the code: a flood there must not silence what is said elsewhere.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many lines of one kind, in how long.
type Pace = (u32, Duration);

const OFTEN: Pace = (5, Duration::from_secs(1));
const RARELY: Pace = (1, Duration::from_secs(30));
const SELDOM: Pace = (1, Duration::from_secs(60));

/// Lets through five lines a second, unless it was made to let through fewer.
#[derive(Debug)]
pub struct Valve {
    pace: Pace,
    inside: Mutex<Inside>,
}

impl Default for Valve {
    fn default() -> Valve {
        Valve::of(OFTEN)
    }
}

#[derive(Debug, Default)]
struct Inside {
    since: Option<Instant>,
    said: u32,
    untold: u64,
    left_out: u64,
}

impl Valve {
    /// One for what is as it should be: a line in half a minute.
    pub fn rare() -> Valve {
        Valve::of(RARELY)
    }

    /// One for what goes wrong again at every attempt until somebody does something: a line a minute.
    pub fn seldom() -> Valve {
        Valve::of(SELDOM)
    }

    fn of(pace: Pace) -> Valve {
        Valve {
            pace,
            inside: Mutex::default(),
        }
    }

    /// Whether a line may be written now; if so, how many were left out since the last.
    pub fn pass(&self) -> Option<u64> {
        let (lines, window) = self.pace;
        let mut inside = self.inside.lock();
        if inside.since.is_none_or(|since| since.elapsed() >= window) {
            inside.since = Some(Instant::now());
            inside.said = 0;
        }
        if inside.said >= lines {
            inside.untold += 1;
            inside.left_out += 1;
            return None;
        }
        inside.said += 1;
        Some(std::mem::take(&mut inside.untold))
    }

    /// How many lines were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.inside.lock().left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_in_a_while_and_a_count_of_the_rest() {
        for valve in [Valve::default(), Valve::rare(), Valve::seldom()] {
            let (lines, window) = valve.pace;
            let left_out = 100 - u64::from(lines);
            let passed = (0..100).filter(|_| valve.pass() == Some(0)).count();
            assert_eq!(passed, lines as usize);
            tokio::time::advance(window).await;
            assert_eq!(valve.pass(), Some(left_out));
            let told_again = valve.pass().filter(|left_out| *left_out > 0);
            assert_eq!(told_again, None);
            assert!(valve.left_out() >= left_out);
        }
    }
}
