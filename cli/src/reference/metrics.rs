//! The page of the metrics.

use ropewalk_node::metrics::names::{ALL, Family};

use super::{check, code, table, text};

const INTRODUCTION: &str = "# Metrics

`GET /metrics` of a node's `--http` port serves these families, in the OpenMetrics text format. The series of a
histogram end in `_bucket`, `_sum` and `_count`. [Observe](../observe.md) has them by subject, with the stages of the
produce path and the bounds of the page.

";

fn row(family: &Family) -> Vec<String> {
    let labels: Vec<String> = family.labels.iter().map(|label| code(label)).collect();
    vec![
        code(family.name),
        family.kind.name().to_owned(),
        family.unit().to_owned(),
        labels.join(", "),
        text(family.help),
    ]
}

#[test]
fn the_page_of_the_metrics_is_as_the_code_says() {
    let headings = ["name", "type", "unit", "labels", "meaning"];
    let page = INTRODUCTION.to_owned() + &table(&headings, ALL.iter().map(row));
    check("metrics.md", &page);
}
