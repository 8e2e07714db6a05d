//! Metrics about the node's replicas and the groups it coordinates. This part of the page could be long:
//! beyond a bound, partitions are shown by topic only.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::LeaderInfo;
use crate::coordinator::{self, GroupPhase};
use crate::metrics::names::{self, Family};
use crate::metrics::page::Page;
use crate::ops::{OpsContext, Services};

use super::flag;

/// A family, and its value for each row.
type Column<T> = (&'static Family, fn(&T) -> f64);

/// Sums over the replicas of one topic on this node.
#[derive(Debug, Default)]
struct OfTopic {
    replicas: usize,
    leaders: usize,
    log_bytes: u64,
}

pub(super) fn write(page: &mut Page, seen: &OpsContext) -> fmt::Result {
    let Some(joined) = seen.joined.get() else {
        return Ok(());
    };
    replicas(page, seen, joined)?;
    match joined.lag.last() {
        Some(last) => groups(page, &last),
        None => Ok(()),
    }
}

fn replicas(page: &mut Page, seen: &OpsContext, joined: &Services) -> fmt::Result {
    let all = joined.partitions.all();
    let led = seen.cluster.leaders().led();
    let (mut topics, mut stopped) = (BTreeMap::<&str, OfTopic>::new(), 0);
    for partition in &all {
        let id = partition.id();
        // The map has at most one entry for each replica. The rows below are limited to `metrics_topics`.
        let of_topic = topics.entry(&id.topic).or_default();
        of_topic.replicas += 1;
        of_topic.leaders += usize::from(led.contains_key(&id.group));
        of_topic.log_bytes += partition.log_bytes();
        stopped += usize::from(!partition.is_running());
    }
    page.one(&names::REPLICAS, all.len() as f64)?;
    page.one(&names::REPLICAS_STOPPED, f64::from(stopped as u32))?;
    let leaders: usize = topics.values().map(|topic| topic.leaders).sum();
    page.one(&names::LEADERS, leaders as f64)?;
    let bound = seen.limits.metrics_topics;
    let rows: [Column<OfTopic>; 3] = [
        (&names::TOPIC_PARTITIONS, |topic| topic.replicas as f64),
        (&names::TOPIC_LEADERS, |topic| topic.leaders as f64),
        (&names::TOPIC_LOG_BYTES, |topic| topic.log_bytes as f64),
    ];
    for (family, value) in rows {
        let topics = topics.iter().take(bound);
        page.rows(
            family,
            topics.map(|(name, topic)| ([("topic", *name)], value(topic))),
        )?;
    }
    let left_out = all.len() > seen.limits.metrics_partitions;
    page.one(&names::PARTITIONS_LEFT_OUT, flag(left_out))?;
    if left_out {
        return Ok(());
    }
    // Only from the leader, so that each partition has one row in the cluster.
    let led: Vec<Led> = all
        .iter()
        .filter_map(|partition| {
            let id = partition.id();
            let told = led.get(&id.group)?;
            Some((id.topic.as_str(), id.partition.to_string(), told))
        })
        .collect();
    each(page, &led)
}

/// A partition led here: its topic, its number, and its report.
type Led<'a> = (&'a str, String, &'a LeaderInfo);

/// Writes the families with one row for each partition.
fn each(page: &mut Page, led: &[Led]) -> fmt::Result {
    let families: [Column<LeaderInfo>; 3] = [
        (&names::PARTITION_HIGH_WATERMARK, |told| {
            told.high_watermark as f64
        }),
        (&names::PARTITION_LOG_START, |told| {
            told.log_start_offset as f64
        }),
        (&names::PARTITION_IN_SYNC, |told| told.in_sync.len() as f64),
    ];
    for (family, value) in families {
        let rows = led.iter().map(|(topic, partition, told)| {
            let labels = [("topic", *topic), ("partition", partition.as_str())];
            (labels, value(told))
        });
        page.rows(family, rows)?;
    }
    Ok(())
}

fn groups(page: &mut Page, last: &coordinator::LagSnapshot) -> fmt::Result {
    page.one(&names::GROUPS, last.count as f64)?;
    page.one(&names::GROUPS_LEFT_OUT, last.left_out as f64)?;
    let age = last.at.elapsed().as_secs_f64();
    page.one(&names::GROUP_LAG_AGE, age)?;
    let groups = last.groups.iter();
    let members = groups.map(|group| ([("group", group.name.as_str())], group.members as f64));
    page.rows(&names::GROUP_MEMBERS, members)?;
    let states = last.groups.iter().flat_map(|group| {
        GroupPhase::ALL.map(|phase| {
            let labels = [("group", group.name.as_str()), ("state", phase.name())];
            (labels, flag(group.phase == phase))
        })
    });
    page.rows(&names::GROUP_STATE, states)?;
    let lags: Vec<_> = last
        .lags
        .iter()
        .map(|lag| (lag, lag.partition.to_string()))
        .collect();
    let labels = |(lag, partition): &'_ (&'_ coordinator::PartitionLagSnapshot, String)| {
        [
            ("group", lag.group.clone()),
            ("topic", lag.topic.clone()),
            ("partition", partition.clone()),
        ]
    };
    let records = lags.iter().map(|lag| (labels(lag), lag.0.records as f64));
    page.rows(&names::GROUP_LAG_RECORDS, records)?;
    let waited = lags.iter().filter_map(|lag| {
        let waited_ms = lag.0.waited_ms?;
        Some((labels(lag), waited_ms as f64 / 1e3))
    });
    page.rows(&names::GROUP_LAG_SECONDS, waited)
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, text};
    use prometheus_client::registry::Registry;
    use ropewalk_proto::ids::NodeId;

    use super::*;

    /// A node that leads this many partitions of topics with long names.
    #[derive(Debug)]
    struct Many(Vec<(String, u32, LeaderInfo)>);

    impl Collector for Many {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            let led = self.0.iter();
            let led = led.map(|(topic, number, told)| (topic.as_str(), number.to_string(), told));
            each(&mut Page::new(encoder), &led.collect::<Vec<_>>())
        }
    }

    #[test]
    fn five_thousand_partitions_are_a_page_of_a_few_megabytes() {
        let info = LeaderInfo {
            node: NodeId(1),
            epoch: 7,
            in_sync: vec![NodeId(1), NodeId(2), NodeId(3)],
            log_start_offset: 1_234_567_890_123,
            high_watermark: 1_234_567_999_999,
            log_bytes: 0,
        };
        let partition = |number| ("orders-of-the-day.v1".to_owned(), number, info.clone());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Many((0..5_000).map(partition).collect())));
        let mut page = String::new();
        let began = tokio::time::Instant::now();
        text::encode(&mut page, &registry).unwrap();
        println!("{} bytes in {:?}", page.len(), began.elapsed());
        assert_eq!(
            page.lines().filter(|line| !line.starts_with('#')).count(),
            15_000
        );
        assert!(page.len() < 2 << 20, "{} bytes", page.len());
    }
}
