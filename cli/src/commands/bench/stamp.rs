//! Due time of a record inside its value, from which a reader in this process computes the latency.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

/// Size of a stamp within a value: the number of its run, and the due time.
pub const STAMP_BYTES: usize = 16;

/// Stamps of one run.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    run: u64,
    origin: Instant,
}

impl Stamp {
    /// Creates stamps for the run with this number, which distinguishes them from those of other runs in the
    /// topic.
    pub fn new(run: u64, origin: Instant) -> Stamp {
        Stamp { run, origin }
    }

    /// Returns `value` with a stamp in its first bytes.
    pub fn on(&self, value: &[u8], due: Instant) -> Bytes {
        let since = due.saturating_duration_since(self.origin);
        let due_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let mut stamped = BytesMut::with_capacity(value.len().max(STAMP_BYTES));
        stamped.extend_from_slice(&self.run.to_le_bytes());
        stamped.extend_from_slice(&due_us.to_le_bytes());
        stamped.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
        stamped.freeze()
    }

    /// Returns the due time of the record with this value; none if another run wrote it.
    pub fn read(&self, value: &[u8]) -> Option<Instant> {
        let (run, rest) = value.split_first_chunk::<8>()?;
        let due_us = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        (u64::from_le_bytes(*run) == self.run).then(|| self.origin + Duration::from_micros(due_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_those_of_others_are_not() {
        let origin = Instant::now();
        let stamp = Stamp::new(7, origin);
        let due = origin + Duration::from_micros(1_234_567);
        let value = stamp.on(&[9; 100], due);
        assert_eq!(value.len(), 100);
        assert_eq!(stamp.read(&value), Some(due));
        assert_eq!(Stamp::new(8, origin).read(&value), None);
        assert_eq!(stamp.read(b"short"), None);
    }
}
