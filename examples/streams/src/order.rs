//! Progress of a group on each key. A record may be delivered again, after its partition moved to another member.
//! No record may be skipped, or be delivered before an older one.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use ropewalk_client::ConsumedRecord;

/// Number of the last record processed of each key.
#[derive(Debug, Default)]
pub struct Order {
    last: BTreeMap<u32, u64>,
    /// Number of repeated deliveries.
    pub again: u64,
}

/// Builds a record from a key and its number in that key.
pub fn record(key: u32, number: u64) -> ropewalk_client::Record {
    ropewalk_client::Record::new()
        .key(key.to_string())
        .value(number.to_string())
}

impl Order {
    /// Records that a record was processed. The numbers of a key begin with 1.
    pub fn processed(&mut self, record: &ConsumedRecord) -> anyhow::Result<()> {
        let key: u32 = parse(record.key.as_deref())?;
        let number: u64 = parse(record.value.as_deref())?;
        let last = self.last.entry(key).or_default();
        ensure!(
            number <= *last + 1,
            "key {key} is broken: {number} was processed after {last}, at {}/{}",
            record.partition,
            record.offset
        );
        if number == *last + 1 {
            *last = number;
        } else {
            self.again += 1;
        }
        Ok(())
    }

    /// Number of records of a key that were processed.
    pub fn of(&self, key: u32) -> u64 {
        self.last.get(&key).copied().unwrap_or_default()
    }
}

fn parse<T: std::str::FromStr>(bytes: Option<&[u8]>) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = std::str::from_utf8(bytes.unwrap_or_default())?;
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed(key: u32, number: u64) -> ConsumedRecord {
        ConsumedRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(key.to_string().into()),
            value: Some(number.to_string().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_record_may_come_again_but_none_may_be_left_out() {
        let mut order = Order::default();
        for (key, number) in [(1, 1), (2, 1), (1, 2), (1, 1), (1, 2), (1, 3)] {
            order.processed(&consumed(key, number)).unwrap();
        }
        assert_eq!((order.of(1), order.of(2), order.of(3)), (3, 1, 0));
        assert_eq!(order.again, 2);
        assert!(order.processed(&consumed(2, 3)).is_err());
    }
}
