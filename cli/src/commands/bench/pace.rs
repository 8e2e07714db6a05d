//! Intended send times of records. Latency counts from the intended time. Otherwise the records that were not
//! sent during a slow answer would hide it ("coordinated omission").

use std::time::Duration;

use tokio::time::Instant;

/// Maximum lateness of the timer itself. That much is not counted as latency of the cluster; anything beyond
/// it is.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// Intended send times of one producer's records.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    end: Instant,
    /// Interval between two records; none sends as fast as there is room.
    interval: Option<Duration>,
    sent: u32,
    woken: Option<Instant>,
}

impl Pace {
    /// Schedules `rate` records per second from `start` to `end`; without a rate, as many as there is room
    /// for.
    pub fn new(start: Instant, end: Instant, rate: Option<f64>) -> Pace {
        let interval = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        Pace {
            start,
            end,
            interval,
            sent: 0,
            woken: None,
        }
    }

    /// Waits until the next record is due, and returns the time from which its latency counts. None after the
    /// end. Cancel-safe: after a cancelled wait, the same record is next.
    pub async fn next(&mut self) -> Option<Instant> {
        let Some(interval) = self.interval else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        let intended = self.start + interval * self.sent;
        if intended >= self.end {
            return None;
        }
        if intended > Instant::now() {
            tokio::time::sleep_until(intended).await;
            self.woken = Some(Instant::now());
        }
        self.sent += 1;
        Some(begins(intended, self.woken))
    }
}

fn begins(intended: Instant, woken: Option<Instant>) -> Instant {
    let late = woken.map_or(Duration::ZERO, |woken| {
        woken.saturating_duration_since(intended)
    });
    intended + late.min(TIMER_RESOLUTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn records_are_due_at_the_rate_asked_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start, start + 100 * MS, Some(100.0));
        let mut due = Vec::new();
        while let Some(begins) = pace.next().await {
            due.push((begins - start).as_millis());
        }
        assert_eq!(due, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    }

    #[tokio::test(start_paused = true)]
    async fn records_held_up_count_from_when_they_were_due() {
        let start = Instant::now();
        let mut pace = Pace::new(start, start + 1_000 * MS, Some(100.0));
        pace.next().await;
        tokio::time::advance(200 * MS).await;
        let second = pace.next().await.unwrap();
        assert_eq!(second - start, 10 * MS, "200 ms late, and it shows");
    }

    #[test]
    fn only_the_timers_own_lateness_is_forgiven() {
        let intended = Instant::now();
        assert_eq!(begins(intended, None), intended);
        assert_eq!(begins(intended, Some(intended + MS / 2)), intended + MS / 2);
        assert_eq!(begins(intended, Some(intended + 50 * MS)), intended + MS);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_only_the_end_stops_it() {
        let start = Instant::now();
        let mut pace = Pace::new(start, start + 5 * MS, None);
        assert_eq!(pace.next().await, Some(start));
        assert_eq!(pace.next().await, Some(start));
        tokio::time::advance(5 * MS).await;
        assert_eq!(pace.next().await, None);
    }
}
