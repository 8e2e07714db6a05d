//! Rate limit of log lines that clients can trigger. It admits a few lines per window; the next admitted line
//! carries the number of suppressed ones.
//!
//! Each place in the code has its own limit: a flood there must not silence lines from elsewhere.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Number of lines, and the window in which they may be written.
type Pace = (u32, Duration);

const OFTEN: Pace = (5, Duration::from_secs(1));
const RARELY: Pace = (1, Duration::from_secs(30));
const SELDOM: Pace = (1, Duration::from_secs(60));

/// Rate limit of one log line: five a second by default.
#[derive(Debug)]
pub struct LogLimiter {
    pace: Pace,
    inside: Mutex<Inside>,
}

impl Default for LogLimiter {
    fn default() -> LogLimiter {
        LogLimiter::of(OFTEN)
    }
}

#[derive(Debug, Default)]
struct Inside {
    since: Option<Instant>,
    said: u32,
    untold: u64,
    left_out: u64,
}

impl LogLimiter {
    /// Creates a limit for normal events: one line per 30 seconds.
    pub fn rare() -> LogLimiter {
        LogLimiter::of(RARELY)
    }

    /// Creates a limit for errors that recur at every attempt until an operator acts: one line a minute.
    pub fn seldom() -> LogLimiter {
        LogLimiter::of(SELDOM)
    }

    fn of(pace: Pace) -> LogLimiter {
        LogLimiter {
            pace,
            inside: Mutex::default(),
        }
    }

    /// Returns the number of lines suppressed since the last one if a line may be written now, else `None`.
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

    /// Number of lines suppressed since the start.
    pub fn left_out(&self) -> u64 {
        self.inside.lock().left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_in_a_while_and_a_count_of_the_rest() {
        for valve in [
            LogLimiter::default(),
            LogLimiter::rare(),
            LogLimiter::seldom(),
        ] {
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
