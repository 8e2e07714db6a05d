//! A condition on each line of the log, beside the filter by level and target.

use tracing::subscriber::Interest;
use tracing::{Event, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

/// Passes the lines for which the function returns true, and is asked only about lines that are enabled.
///
/// Enabled levels and spans stay those of the other filter. `dynamic_filter_fn` would enable every span and
/// every level of every library, only to drop them: a tenth of a node's CPU time or more.
#[derive(Debug)]
pub struct EachLine(pub fn(&Metadata<'_>) -> bool);

impl<S> Filter<S> for EachLine {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        (self.0)(event.metadata())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing_subscriber::filter::FilterExt;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Layer, Registry};

    use super::*;

    #[test]
    fn a_condition_on_lines_leaves_the_levels_to_the_other_filter() {
        let both = EnvFilter::new("info").and(EachLine(|_| true));
        let hint = Filter::<Registry>::max_level_hint(&both);
        assert_eq!(hint, Some(LevelFilter::INFO));
    }

    #[derive(Debug, Default, Clone)]
    struct Spans(Arc<AtomicU64>);

    impl<S: tracing::Subscriber> Layer<S> for Spans {
        fn on_new_span(
            &self,
            _: &tracing::span::Attributes<'_>,
            _: &tracing::span::Id,
            _: Context<'_, S>,
        ) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn spans_below_the_level_stay_disabled_beside_a_condition_on_lines() {
        let spans = Spans::default();
        let both = EnvFilter::new("info").and(EachLine(|_| true));
        let lines = tracing_subscriber::registry().with(spans.clone().with_filter(both));
        tracing::subscriber::with_default(lines, || {
            assert!(tracing::debug_span!("fine").is_disabled());
            assert!(!tracing::info_span!("coarse").is_disabled());
        });
        assert_eq!(spans.0.load(Ordering::Relaxed), 1);
    }
}
