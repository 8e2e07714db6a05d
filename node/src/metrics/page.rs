//! The response to a scrape while it is written. Each family is written once, with all its rows.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ropewalk_raft_store::Histogram;

use super::names::{Family, Kind};

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// The destination of families.
#[derive(Debug)]
pub struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    /// An empty page.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page(encoder)
    }

    /// Writes a family with a single value.
    pub fn one(&mut self, family: &Family, value: f64) -> fmt::Result {
        let encoder =
            self.0
                .encode_descriptor(family.stem(), family.help, None, family.kind.into())?;
        match family.kind {
            Kind::Counter => ConstCounter::new(value).encode(encoder),
            Kind::Gauge => ConstGauge::new(value).encode(encoder),
            Kind::Histogram => Err(fmt::Error),
        }
    }

    /// Writes a family with one value for each set of labels.
    pub fn rows<L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut encoder =
            self.0
                .encode_descriptor(family.stem(), family.help, None, family.kind.into())?;
        for (labels, value) in rows {
            let row = encoder.encode_family(&labels)?;
            match family.kind {
                Kind::Counter => ConstCounter::new(value).encode(row)?,
                Kind::Gauge => ConstGauge::new(value).encode(row)?,
                Kind::Histogram => return Err(fmt::Error),
            }
        }
        Ok(())
    }

    /// Writes a family of latencies, in seconds.
    pub fn latencies<'h, L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        self.histograms(family, rows, NANOS)
    }

    /// Writes a family of sizes, in bytes.
    pub fn sizes<'h, L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        self.histograms(family, rows, 1.0)
    }

    fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (L, &'h Histogram)>,
        unit: f64,
    ) -> fmt::Result {
        let mut encoder =
            self.0
                .encode_descriptor(family.stem(), family.help, None, family.kind.into())?;
        for (labels, histogram) in rows {
            let now = histogram.counts();
            let buckets = now.counts.iter().map(|(bound, count)| match *bound {
                u64::MAX => (f64::MAX, *count),
                bound => (bound as f64 / unit, *count),
            });
            let buckets: Vec<(f64, u64)> = buckets.collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let mut row = encoder.encode_family(&labels)?;
            row.encode_histogram::<NoLabelSet>(now.sum as f64 / unit, count, &buckets, None)?;
        }
        Ok(())
    }
}
