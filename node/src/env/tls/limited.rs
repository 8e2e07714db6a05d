//! Log lines that the other end can cause, and could cause without end.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many lines a window on what somebody should look into.
const TROUBLE: (u32, Duration) = (10, Duration::from_secs(10));
/// And on what is as it should be while TLS is being switched on.
const SWITCHING: (u32, Duration) = (1, Duration::from_secs(30));

/// Says which lines may be logged.
#[derive(Debug)]
pub(super) struct Limited {
    lines: u32,
    length: Duration,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Limited {
    pub fn of_trouble() -> Limited {
        Limited::new(TROUBLE)
    }

    pub fn of_switching() -> Limited {
        Limited::new(SWITCHING)
    }

    fn new((lines, length): (u32, Duration)) -> Limited {
        Limited {
            lines,
            length,
            window: Mutex::default(),
        }
    }

    /// Whether to log now: then how many lines were left out since the last one.
    pub fn allow(&self) -> Option<u64> {
        let mut window = self.window.lock();
        let now = Instant::now();
        if window.begun.is_none_or(|begun| now - begun >= self.length) {
            window.begun = Some(now);
            window.said = 0;
        }
        if window.said == self.lines {
            window.unsaid += 1;
            return None;
        }
        window.said += 1;
        Some(std::mem::take(&mut window.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_some_lines_a_window_and_a_count_of_the_rest() {
        let limited = Limited::of_trouble();
        let said = (0..1_000).filter_map(|_| limited.allow()).count();
        assert_eq!(said, TROUBLE.0 as usize);
        tokio::time::advance(TROUBLE.1).await;
        assert_eq!(limited.allow(), Some(1_000 - u64::from(TROUBLE.0)));
        assert_eq!(limited.allow(), Some(0));
    }
}
