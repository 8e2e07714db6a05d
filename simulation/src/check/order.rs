//! Records of one producer and key stand in the order in which they were sent, and none is there
//! twice.

use std::collections::BTreeMap;

use super::{Check, Seen};

/// The check.
#[derive(Debug)]
pub struct OrderPerKey;

impl Check for OrderPerKey {
    fn name(&self) -> &'static str {
        "order-per-key"
    }

    fn end(&self, seen: &Seen<'_>) -> Result<(), String> {
        for (partition, log) in seen.logs {
            let mut last = BTreeMap::new();
            for found in log {
                let (producer, number) = found.name;
                let before = last.insert((producer, found.key), number);
                if before.is_some_and(|before| before >= number) {
                    return Err(format!(
                        "partition {partition}, offset {}: record {number} of producer {producer} and key {} stands after {before:?}",
                        found.offset, found.key
                    ));
                }
            }
        }
        Ok(())
    }
}
