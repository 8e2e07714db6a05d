//! Results of a measurement.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Maximum recorded latency; longer ones are recorded as this.
const LONGEST_US: u64 = 3_600 * 1_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Counters of one producer or reader while it runs.
#[derive(Debug)]
pub struct Tally {
    pub records: u64,
    pub bytes: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    latency_us: Histogram<u64>,
}

impl Tally {
    pub fn new() -> anyhow::Result<Tally> {
        let latency_us = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?;
        Ok(Tally {
            records: 0,
            bytes: 0,
            errors: 0,
            first_error: None,
            latency_us,
        })
    }

    /// Counts a record with its latency.
    pub fn took(&mut self, bytes: u64, latency: Duration) {
        self.records += 1;
        self.bytes += bytes;
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        self.latency_us.saturating_record(latency_us.max(1));
    }

    /// Counts records without a meaningful latency.
    pub fn passed(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }

    /// Counts a failed record.
    pub fn failed(&mut self, error: &impl ToString) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        // Both have the same bounds, so no value can be lost.
        let _ = self.latency_us.add(other.latency_us);
    }

    /// The latency quantiles, if any were recorded.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let ms = |us: u64| us as f64 / 1_000.0;
        (!self.latency_us.is_empty()).then(|| Quantiles {
            p50: ms(self.latency_us.value_at_quantile(0.5)),
            p99: ms(self.latency_us.value_at_quantile(0.99)),
            p999: ms(self.latency_us.value_at_quantile(0.999)),
            max: ms(self.latency_us.max()),
        })
    }
}

/// Latencies, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// The result, as printed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub records: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub records_per_s: f64,
    /// Millions of bytes a second.
    pub mb_per_s: f64,
    /// Time from the intended send to the acknowledgement; null if the run does not publish.
    pub ack_ms: Option<Quantiles>,
    /// Time from the intended send to the arrival at a reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_ms: Option<Quantiles>,
    pub errors: u64,
}

impl Report {
    /// Sums up the counts of a run that took `elapsed`.
    pub fn new(tally: &Tally, elapsed: Duration) -> Report {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        Report {
            records: tally.records,
            bytes: tally.bytes,
            seconds: rounded(seconds),
            records_per_s: rounded(tally.records as f64 / seconds),
            mb_per_s: rounded(tally.bytes as f64 / 1e6 / seconds),
            ack_ms: tally.quantiles(),
            end_to_end_ms: None,
            errors: tally.errors,
        }
    }

    /// Formats the result as lines, for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} records, {:.1} MB in {:.1} s\n{:.0} records/s, {:.1} MB/s\n",
            self.records,
            self.bytes as f64 / 1e6,
            self.seconds,
            self.records_per_s,
            self.mb_per_s
        );
        for (what, latency) in [
            ("acknowledged", &self.ack_ms),
            ("end to end", &self.end_to_end_ms),
        ] {
            if let Some(Quantiles {
                p50,
                p99,
                p999,
                max,
            }) = latency
            {
                text.push_str(&format!(
                    "{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms\n"
                ));
            }
        }
        text.push_str(&format!("{} errors", self.errors));
        text
    }
}

/// Rounds to three decimal places, the precision of a measurement.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_the_contract_says() {
        let mut tally = Tally::new().unwrap();
        tally.took(1_000, Duration::from_millis(2));
        let mut other = Tally::new().unwrap();
        other.took(1_000, Duration::from_millis(2));
        other.failed(&"no");
        tally.add(other);
        let json = serde_json::to_value(Report::new(&tally, Duration::from_secs(2))).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "ack_ms",
                "bytes",
                "errors",
                "mb_per_s",
                "records",
                "records_per_s",
                "seconds"
            ]
        );
        assert_eq!(json["records_per_s"], 1.0);
        assert_eq!(json["errors"], 1);
        let p50 = json["ack_ms"]["p50"].as_f64().unwrap();
        assert!((p50 - 2.0).abs() < 0.01, "{p50}");
        assert_eq!(json["ack_ms"].as_object().unwrap().len(), 4);
    }

    #[test]
    fn a_latency_past_all_bounds_is_counted_at_the_bound() {
        let mut tally = Tally::new().unwrap();
        tally.took(1, Duration::from_secs(1_000_000));
        assert!(tally.quantiles().unwrap().max >= 3_600_000.0);
    }
}
