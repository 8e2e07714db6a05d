//! Final check of the demo. Each acknowledged record exists exactly once, unchanged, at the offset that the
//! acknowledgement named. The records of a key are in the order in which they were sent. The check is pure: its
//! input is the records sent, the acknowledgements and the records read.

use std::collections::BTreeMap;

use crate::flights::Flight;

/// Position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Partition of the record.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

/// Record as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// Position at which it was read.
    pub place: Place,
    /// Key of the record.
    pub key: Option<Vec<u8>>,
    /// Value of the record.
    pub value: Vec<u8>,
    /// Number of the record, from its header.
    pub row: usize,
}

/// Compares the records `read` with the records `sent` and their acknowledged positions. `acked` has one
/// position for each record, in the order sent. `read` has the records of each partition in the order read.
/// Returns the number of keys, or the first fault.
pub fn check(sent: &[Flight], acked: &[Place], read: &[ReadBack]) -> Result<usize, String> {
    if acked.len() != sent.len() {
        return Err(format!(
            "{} sent, but {} acknowledged",
            sent.len(),
            acked.len()
        ));
    }
    let mut times_seen = vec![0_u32; sent.len()];
    let mut last_read: BTreeMap<u32, u64> = BTreeMap::new();
    for record in read {
        let row = record.row;
        let Place { partition, offset } = record.place;
        if last_read
            .insert(partition, offset)
            .is_some_and(|before| before >= offset)
        {
            return Err(format!(
                "partition {partition} was not read in its order, at {offset}"
            ));
        }
        let (Some(flight), Some(place), Some(seen)) =
            (sent.get(row), acked.get(row), times_seen.get_mut(row))
        else {
            return Err(format!("record {row} was read, but never sent"));
        };
        *seen += 1;
        if *seen > 1 {
            return Err(format!(
                "record {row} is there more than once, again at {:?}",
                record.place
            ));
        }
        if record.place != *place {
            return Err(format!(
                "record {row} was acknowledged at {place:?}, read at {:?}",
                record.place
            ));
        }
        let key = flight.key.as_deref().map(str::as_bytes);
        if record.value != flight.value.as_bytes() || record.key.as_deref() != key {
            return Err(format!("record {row} was changed"));
        }
    }
    if let Some(row) = times_seen.iter().position(|seen| *seen == 0) {
        return Err(format!(
            "record {row}, acknowledged at {:?}, is lost",
            acked[row]
        ));
    }
    in_order_per_key(sent, acked)
}

fn in_order_per_key(sent: &[Flight], acked: &[Place]) -> Result<usize, String> {
    let mut last: BTreeMap<&str, Place> = BTreeMap::new();
    for (flight, place) in sent.iter().zip(acked) {
        let Some(key) = flight.key.as_deref() else {
            continue;
        };
        match last.insert(key, *place) {
            Some(before) if before.partition != place.partition => {
                return Err(format!(
                    "key {key} is in two partitions, at {before:?} and {place:?}"
                ));
            }
            Some(before) if before.offset >= place.offset => {
                return Err(format!(
                    "key {key} is out of order, {before:?} was sent before {place:?}"
                ));
            }
            _ => {}
        }
    }
    Ok(last.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: u32, offset: u64) -> Place {
        Place { partition, offset }
    }

    /// Returns three records: two with the same key, one without a key.
    fn history() -> (Vec<Flight>, Vec<Place>, Vec<ReadBack>) {
        let flight = |key: Option<&str>, value: &str| Flight {
            key: key.map(String::from),
            value: value.into(),
        };
        let sent = vec![
            flight(Some("a"), "1"),
            flight(None, "2"),
            flight(Some("a"), "3"),
        ];
        let acked = vec![place(0, 0), place(1, 0), place(0, 1)];
        let read = sent
            .iter()
            .zip(&acked)
            .enumerate()
            .map(|(row, (flight, place))| ReadBack {
                place: *place,
                key: flight.key.clone().map(String::into_bytes),
                value: flight.value.clone().into_bytes(),
                row,
            });
        let read = read.collect();
        (sent, acked, read)
    }

    #[test]
    fn a_history_without_fault_passes() {
        let (sent, acked, read) = history();
        assert_eq!(check(&sent, &acked, &read), Ok(1));
    }

    #[test]
    fn every_fault_is_seen() {
        type Fault = fn(&mut Vec<Place>, &mut Vec<ReadBack>);
        let faults: [(&str, Fault); 8] = [
            ("lost", |_, read| drop(read.remove(1))),
            ("more than once", |_, read| {
                let mut again = read[0].clone();
                again.place.offset = 7;
                read.push(again);
            }),
            ("its order", |_, read| read.reverse()),
            ("never sent", |_, read| read[0].row = 99),
            ("changed", |_, read| read[2].value.push(b'!')),
            ("acknowledged at", |_, read| read[2].place.offset += 1),
            ("out of order", |acked, read| {
                acked.swap(0, 2);
                read[0].place = acked[0];
                read[2].place = acked[2];
                read.reverse();
            }),
            ("two partitions", |acked, read| {
                acked[2] = place(2, 0);
                read[2].place = acked[2];
            }),
        ];
        for (named, fault) in faults {
            let (sent, mut acked, mut read) = history();
            fault(&mut acked, &mut read);
            let error = check(&sent, &acked, &read).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn what_was_not_acknowledged_is_not_passed_over() {
        let (sent, mut acked, read) = history();
        acked.pop();
        assert!(check(&sent, &acked, &read).is_err());
    }
}
