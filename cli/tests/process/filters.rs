//! Filters through the command: the records that are printed, those that count as read, and invalid filters.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Cluster;

const PARTITIONS: u64 = 4;

/// Three nodes, and the numbers below 1,000 as JSON: 3 in 10 of type `placed`, 7 in 10 `paid`.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3, &[]).await;
    let partitions = PARTITIONS.to_string();
    let create = ["topic", "create", "orders", "--partitions", &partitions];
    cluster.run(&create).await.ok();
    for hundred in 0..10 {
        let first = hundred * 100;
        for (kind, codec, numbers) in [
            ("placed", "zstd", first..first + 30),
            ("paid", "none", first + 30..first + 100),
        ] {
            let line = |n: u32| format!("key-{}={{\"n\": {n}}}\n", n % 37);
            let input: String = numbers.map(line).collect();
            let header = format!("ce_type={kind}");
            let produce = [
                "produce",
                "orders",
                "--key-separator",
                "=",
                "--header",
                &header,
            ];
            let produce = [&produce[..], &["--compression", codec]].concat();
            cluster.run_with(input.as_bytes(), &produce).await.ok();
        }
    }
    cluster
}

fn numbers(rows: &[Value]) -> BTreeSet<u64> {
    let values = rows.iter().map(|row| row["value"].as_str().unwrap());
    let parsed = values.map(|value| serde_json::from_str::<Value>(value).unwrap());
    parsed.map(|value| value["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_group_reads_what_its_filter_finds_and_has_no_lag_in_the_end() {
    let cluster = cluster().await;
    let filter = "type == 'placed' && json.n >= 500";
    let consume = ["consume", "orders", "--group", "g", "--filter", filter];
    let rows = cluster.run(&consume).await.lines();
    let wanted: BTreeSet<u64> = (500..1_000).filter(|n| n % 100 < 30).collect();
    assert_eq!((rows.len(), numbers(&rows)), (150, wanted));
    let lag = cluster.run(&["group", "lag", "g"]).await.lines();
    assert_eq!(lag.len(), PARTITIONS as usize);
    for row in &lag {
        assert_eq!(row["lag_records"], 0, "{row}");
        assert_eq!(row["committed"], row["high_watermark"], "{row}");
    }
    assert_eq!(cluster.run(&consume).await.lines().len(), 0);

    // Without a group, even if the last record of a partition does not match.
    let rows = cluster
        .run(&["consume", "orders", "--filter", "json.n < 30"])
        .await;
    assert_eq!(numbers(&rows.lines()), (0..30).collect());
    let none = ["consume", "orders", "--filter", "key == 'nobody'"];
    assert_eq!(cluster.run(&none).await.lines().len(), 0);
    let all = cluster.run(&["consume", "orders"]).await.lines();
    assert_eq!((all.len(), numbers(&all).len()), (1_000, 1_000));
}

#[tokio::test]
async fn an_invalid_filter_and_one_that_explodes_are_refused_and_the_cluster_serves_on() {
    let cluster = cluster().await;
    let nested = "(".repeat(3_000);
    let loops = "json.a.all(a, json.a.all(b, json.a.all(c, true)))";
    let copies = format!("value{} != ''", " + value".repeat(200));
    let states = "value.matches('((a{0,99}){0,99}){0,99}')";
    for (filter, place) in [
        ("type = 'placed'", "line 1, column 6"),
        ("type == 'placed' &&\n  kye == ''", "line 2, column 3"),
        (nested.as_str(), "line 1, column "),
        (loops, "line 1, column 8"),
        (copies.as_str(), "line 1, column "),
        (states, "line 1, column 7"),
    ] {
        for group in [&["--group", "g"][..], &[]] {
            let consume = [&["consume", "orders", "--filter", filter], group].concat();
            let error = cluster.run(&consume).await.refused(1);
            assert!(error.contains(place), "{error}");
        }
    }
    assert_eq!(cluster.run(&["group", "list"]).await.lines().len(), 0);

    let large = format!(
        "large={{\"n\": 1000, \"x\": \"{}\"}}\n",
        "x".repeat(200_000)
    );
    let produce = ["produce", "orders", "--key-separator", "="];
    cluster.run_with(large.as_bytes(), &produce).await.ok();
    let costly = ["consume", "orders", "--filter", "value.matches('x*y')"];
    let error = cluster.run(&costly).await.refused(1);
    assert!(
        error.contains("offset") && error.contains("too long for matches()"),
        "{error}"
    );
    let all = cluster
        .run(&["consume", "orders", "--filter", "json.n >= 0"])
        .await;
    assert_eq!(numbers(&all.lines()), (0..=1_000).collect());
}
