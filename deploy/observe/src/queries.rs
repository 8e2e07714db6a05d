//! Queries of the dashboards and rules, as asked of a healthy cluster.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::prometheus::deployed;

/// Metric families that have no samples in this cluster, each with the reason.
const EXPLAINED: &[(&str, &str)] = &[(
    "ropewalk_tls_certificate_expiry_timestamp_seconds",
    "the cluster has no TLS",
)];

/// Values substituted for the variables of the dashboards.
const VARIABLES: &[(&str, &str)] = &[
    ("$__rate_interval", "15s"),
    ("$namespace", ".*"),
    ("$job", ".*"),
    ("$topic", ".*"),
    ("$group", ".*"),
];

/// A query and its source.
#[derive(Debug)]
pub struct Query {
    /// Panel or rule of the query.
    pub place: String,
    /// Query text sent to Prometheus.
    pub text: String,
    is_rule: bool,
}

impl Query {
    /// Creates a query that belongs to no panel or rule.
    pub fn of_text(text: &str) -> Query {
        Query {
            place: text.to_owned(),
            text: text.to_owned(),
            is_rule: false,
        }
    }

    /// True if an empty result is a failure. A rule returns nothing in a healthy cluster; its metric families are
    /// queried separately.
    pub fn must_answer(&self) -> bool {
        let explained = EXPLAINED.iter().any(|(name, _)| self.text.contains(name));
        !self.is_rule && !explained
    }
}

/// All queries of the dashboards and rules, and the metric families in the rules.
pub fn all() -> anyhow::Result<Vec<Query>> {
    let mut all = Vec::new();
    for name in ["cluster", "groups"] {
        let text = fs::read_to_string(deployed(&format!("dashboards/{name}.json")))?;
        let board: Value = serde_json::from_str(&text).with_context(|| format!("{name}.json"))?;
        let before = all.len();
        for panel in board["panels"].as_array().into_iter().flatten() {
            panel_queries(name, panel, &mut all)?;
        }
        ensure!(all.len() > before, "{name}.json has no queries");
    }
    let rules = fs::read_to_string(deployed("rules.yaml"))?;
    let mut families = BTreeSet::new();
    for (name, text) in alerts(&rules) {
        families.extend(names(text).map(str::to_owned));
        all.push(Query {
            place: name.to_owned(),
            text: text.to_owned(),
            is_rule: true,
        });
    }
    ensure!(!families.is_empty(), "rules.yaml has no queries");
    all.extend(families.into_iter().map(|family| Query {
        place: "a family in the rules".to_owned(),
        ..Query::of_text(&family)
    }));
    Ok(all)
}

fn panel_queries(board: &str, panel: &Value, all: &mut Vec<Query>) -> anyhow::Result<()> {
    for target in panel["targets"].as_array().into_iter().flatten() {
        let text = target["expr"]
            .as_str()
            .context("a target without a query")?;
        let text = VARIABLES
            .iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            });
        ensure!(!text.contains('$'), "{board}.json: a variable in {text}");
        let title = panel["title"].as_str().unwrap_or_default();
        all.push(Query {
            place: format!("{board}: {title}"),
            text,
            is_rule: false,
        });
    }
    Ok(())
}

/// Alerts of a rules file, in the layout of this project: the query is one line below `expr: >-`.
fn alerts(rules: &str) -> impl Iterator<Item = (&str, &str)> {
    rules.split("- alert: ").skip(1).filter_map(|alert| {
        let (name, rest) = alert.split_once('\n')?;
        let (_, rest) = rest.split_once("expr: >-\n")?;
        Some((name, rest.lines().next()?.trim()))
    })
}

/// Metric families that a query names.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        *word == "up" || word.starts_with("ropewalk_") || word.starts_with("process_")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_has_a_query_and_an_entry_in_the_runbook() {
        let rules = fs::read_to_string(deployed("rules.yaml")).unwrap();
        let found: Vec<_> = alerts(&rules).collect();
        assert_eq!(found.len(), rules.matches("- alert: ").count());
        let book = deployed("../../../../docs/alerts.md");
        let book = fs::read_to_string(book).unwrap();
        for (name, text) in found {
            assert!(names(text).count() > 0, "{name}");
            assert!(book.contains(&format!("\n## {name}\n")), "{name}");
            let link = format!("runbook_url: docs/alerts.md#{}\n", name.to_lowercase());
            assert!(rules.contains(&link), "{name}");
        }
    }

    #[test]
    fn every_query_of_a_dashboard_is_found() {
        let all = all().unwrap();
        assert!(all.iter().any(|query| query.place.starts_with("cluster: ")));
        assert!(all.iter().any(|query| query.place.starts_with("groups: ")));
        assert!(all.iter().all(|query| !query.text.contains('$')));
    }
}
