//! Reloads changed certificate files, and warns before a certificate expires.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_tls::CertificateReloader;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::env::Clock;

/// Interval between two checks of the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time before its expiry from which a certificate is warned about, and the interval between two warnings.
const WARN_BEFORE_MS: i64 = 14 * DAY_MS;
const WARN_EVERY: Duration = Duration::from_secs(24 * 3_600);
const DAY_MS: i64 = 24 * 3_600_000;

/// Checks the files until it is dropped.
pub(super) async fn run(keeper: Arc<CertificateReloader>, clock: Arc<dyn Clock>) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: Option<Instant> = None;
    loop {
        look.tick().await;
        if keeper.look().await {
            warned = None;
        }
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) && warn(&keeper, &*clock) {
            warned = Some(Instant::now());
        }
    }
}

/// Logs a warning if the certificate expires soon. True if it has logged one.
fn warn(keeper: &CertificateReloader, clock: &dyn Clock) -> bool {
    let Some(not_after_ms) = keeper.current().not_after_ms else {
        return false;
    };
    let left_ms = not_after_ms.saturating_sub(clock.now_ms());
    if left_ms > WARN_BEFORE_MS {
        return false;
    }
    let days_left = left_ms.div_euclid(DAY_MS);
    if left_ms <= 0 {
        tracing::error!(
            not_after_ms,
            "node certificate has expired: nobody can connect to this node; replace the certificate"
        );
    } else {
        tracing::warn!(
            not_after_ms,
            days_left,
            "node certificate expires soon; replace it, and the node loads the new one by itself"
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::certificates::{Authority, Folder, HOST};
    use super::*;
    use crate::env::SystemClock;
    use ropewalk_tls::ClientAuth;

    #[tokio::test]
    async fn a_certificate_is_warned_of_in_its_last_two_weeks_and_after() {
        let ours = Authority::new("ours");
        for (days, warned) in [(15, false), (13, true), (0, true), (-1, true)] {
            let folder = Folder::new(&[&ours], &ours.issue(HOST, days));
            let keeper = CertificateReloader::open(folder.files(), ClientAuth::None).await;
            let keeper = keeper.expect("good files");
            assert_eq!(warn(&keeper, &SystemClock), warned, "{days} days");
        }
    }
}

#[cfg(test)]
#[allow(dead_code, reason = "each user of it uses a part")]
#[path = "../../../../tls/tests/certificates/mod.rs"]
mod certificates;
