//! Order of the events on a path: each below its cause, and siblings by time. Causes come from headers that
//! anybody may write, so they can be inconsistent.

use std::collections::BTreeMap;

use super::row::{Event, PathRow};

/// Orders the events. Each appears once, whatever its headers contain. An event without a known cause, or
/// with itself as its only cause, is at the top.
pub fn in_order(mut events: Vec<Event>) -> Vec<PathRow> {
    events.sort_by(|a, b| place(a).cmp(&place(b)));
    let causes = causes(&events);
    let mut effects: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    for (effect, cause) in causes.iter().enumerate() {
        if let Some(cause) = cause {
            effects[*cause].push(effect);
        }
    }
    let tops = (0..events.len()).filter(|event| causes[*event].is_none());
    // The remaining events form cycles, which are cut at their oldest event.
    let order = walk(tops.chain(0..events.len()), &effects);
    let first_ms = events.first().map_or(0, |first| first.time_ms);
    let rows = order.into_iter().map(|Step { event, depth }| {
        let cause = causes[event].filter(|_| depth > 0);
        let since_ms = cause.map_or(first_ms, |cause| events[cause].time_ms);
        PathRow {
            depth,
            delta_ms: events[event].time_ms.saturating_sub(since_ms),
            event: events[event].clone(),
        }
    });
    rows.collect()
}

fn place(event: &Event) -> (i64, &str, u32, u64) {
    (event.time_ms, &event.topic, event.partition, event.offset)
}

/// The cause of each event, if it was found. If an event was published twice, the cause is the first copy.
fn causes(events: &[Event]) -> Vec<Option<usize>> {
    let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        if let Some(id) = &event.event_id {
            by_id.entry(id).or_insert(number);
        }
    }
    let cause = |event: &Event| {
        let id = event.causation_id.as_ref()?;
        let itself = event.event_id.as_ref() == Some(id);
        by_id.get(id.as_str()).copied().filter(|_| !itself)
    };
    events.iter().map(cause).collect()
}

struct Step {
    event: usize,
    depth: usize,
}

/// Visits unvisited events below each top, in order. It is iterative, because a path can be as long as the
/// number of events found.
fn walk(tops: impl Iterator<Item = usize>, effects: &[Vec<usize>]) -> Vec<Step> {
    let mut seen = vec![false; effects.len()];
    let mut order = Vec::with_capacity(effects.len());
    for top in tops {
        let mut next = vec![Step {
            event: top,
            depth: 0,
        }];
        while let Some(step) = next.pop() {
            if std::mem::replace(&mut seen[step.event], true) {
                continue;
            }
            let depth = step.depth + 1;
            let below = effects[step.event].iter().rev();
            next.extend(below.map(|&event| Step { event, depth }));
            order.push(step);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Row;

    fn event(id: &str, cause: &str, time_ms: i64) -> Event {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Event {
            event_id: some(id),
            event_type: Some(format!("type {id}")),
            source: None,
            topic: "t".into(),
            partition: 0,
            offset: u64::try_from(time_ms).unwrap(),
            time_ms,
            key: None,
            correlation_id: None,
            causation_id: some(cause),
            trace_id: None,
        }
    }

    fn order(events: &[(&str, &str, i64)]) -> Vec<(usize, String, i64)> {
        let events = events.iter();
        let rows = in_order(events.map(|(id, of, at)| event(id, of, *at)).collect());
        let rows = rows.into_iter();
        rows.map(|row| {
            (
                row.depth,
                row.event.event_id.unwrap_or_default(),
                row.delta_ms,
            )
        })
        .collect()
    }

    fn row(depth: usize, id: &str, delta_ms: i64) -> (usize, String, i64) {
        (depth, id.to_owned(), delta_ms)
    }

    #[test]
    fn events_stand_below_their_cause_and_beside_each_other_by_time() {
        let found = [
            ("d", "b", 40),
            ("c", "a", 30),
            ("b", "a", 20),
            ("a", "", 10),
            ("e", "c", 35),
        ];
        let expected = [
            row(0, "a", 0),
            row(1, "b", 10),
            row(2, "d", 20),
            row(1, "c", 20),
            row(2, "e", 5),
        ];
        assert_eq!(order(&found), expected);
    }

    #[test]
    fn an_effect_that_a_wrong_clock_puts_before_its_cause_stays_below_it() {
        assert_eq!(
            order(&[("b", "a", 5), ("a", "", 10)]),
            [row(0, "a", 5), row(1, "b", -5)]
        );
    }

    #[test]
    fn what_makes_no_sense_is_shown_all_the_same_and_once() {
        let found = [
            ("self", "self", 1),
            ("orphan", "nobody", 2),
            ("x", "y", 3),
            ("y", "x", 4),
            ("", "x", 5),
            ("twice", "", 6),
            ("twice", "", 7),
            ("once", "twice", 8),
        ];
        let expected = [
            row(0, "self", 0),
            row(0, "orphan", 1),
            row(0, "twice", 5),
            row(1, "once", 2),
            row(0, "twice", 6),
            row(0, "x", 2),
            row(1, "y", 1),
            row(1, "", 2),
        ];
        assert_eq!(order(&found), expected);
        assert!(in_order(Vec::new()).is_empty());
    }

    #[test]
    fn a_path_may_be_as_long_as_what_was_found() {
        let chain = (0..10_000).map(|at: i64| {
            let cause = at.checked_sub(1).filter(|cause| *cause >= 0);
            let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
            event(&at.to_string(), &cause, at)
        });
        let rows = in_order(chain.rev().collect());
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows.last().map(|row| row.depth), Some(9_999));
        assert!(rows.iter().all(|row| row.cells()[0].len() < 200));
    }

    #[test]
    fn a_row_reads_as_the_contract_says() {
        let mut event = event("e", "c", 1_769_817_600_123);
        event.key = Some(bytes::Bytes::from_static(b"\xff\x1b"));
        let row = PathRow {
            depth: 2,
            delta_ms: 17,
            event,
        };
        let json = serde_json::to_string(&row).unwrap();
        let expected = concat!(
            r#"{"depth":2,"delta_ms":17,"event_id":"e","event_type":"type e","source":null,"topic":"t","#,
            r#""partition":0,"offset":1769817600123,"timestamp":"2026-01-31T00:00:00.123Z","#,
            r#""key":{"base64":"/xs="},"correlation_id":null,"causation_id":"c","trace_id":null}"#
        );
        assert_eq!(json, expected);
        let cells = row.cells();
        assert_eq!(cells[0], "   └─ type e");
        assert_eq!(cells[1], "t/0@1769817600123");
        assert_eq!(cells[2], "\u{fffd}\\u{1b}");
    }
}
