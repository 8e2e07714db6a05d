//! Rate limit for the log lines of libraries: outsiders can trigger them at will, with failed votes or reset
//! streams. This project's own lines have valves at their call sites.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use ropewalk_node::log_limiter::LogLimiter;
use tracing::Metadata;
use tracing::callsite::Identifier;

/// One valve per call site in a library that has logged a line. The build bounds their number.
static PLACES: LazyLock<Mutex<HashMap<Identifier, LogLimiter>>> = LazyLock::new(Mutex::default);

/// Returns true if a line may be written now. Called once per line.
pub fn passes(metadata: &Metadata<'_>) -> bool {
    if metadata.target().starts_with("ropewalk") {
        return true;
    }
    let mut places = PLACES.lock();
    places
        .entry(metadata.callsite())
        .or_default()
        .pass()
        .is_some()
}

/// Number of lines dropped since the start.
pub fn left_out() -> u64 {
    PLACES.lock().values().map(LogLimiter::left_out).sum()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::each::EachLine;
    use super::*;

    #[derive(Debug, Default, Clone)]
    struct Count(std::sync::Arc<std::sync::atomic::AtomicU64>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_library_writes_a_few_lines_from_one_place_and_this_project_all() {
        let count = Count::default();
        let paced = EachLine(passes);
        let lines = tracing_subscriber::registry().with(count.clone().with_filter(paced));
        let written = |write: &dyn Fn()| {
            let before = count.0.load(std::sync::atomic::Ordering::Relaxed);
            for _ in 0..1_000 {
                write();
            }
            count.0.load(std::sync::atomic::Ordering::Relaxed) - before
        };
        tracing::subscriber::with_default(lines, || {
            let own = written(&|| tracing::warn!(target: "ropewalk_node", "own"));
            let one = written(&|| tracing::warn!(target: "h2", "theirs"));
            let other = written(&|| tracing::warn!(target: "h2", "theirs, elsewhere"));
            assert_eq!(own, 1_000);
            // Another second may start meanwhile.
            assert!(
                (5..=100).contains(&one) && (5..=100).contains(&other),
                "{one} {other}"
            );
        });
        assert!(left_out() >= 1_800);
    }
}
