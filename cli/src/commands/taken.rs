//! Records in the pipe of stdout. A pipe accepts more than its reader reads, as in `consume | head`. A record
//! counts as read once its last byte has left the pipe and the reader is still there afterwards.

use std::collections::VecDeque;
use std::mem;

/// Records that are printed, and not yet known to be read.
#[derive(Debug)]
pub struct Taken<T> {
    /// Each record with the number of bytes printed up to its end.
    printed: VecDeque<(u64, T)>,
    /// Records printed since the last flush.
    since_flush: usize,
    /// Bytes written to stdout.
    written: u64,
}

impl<T> Taken<T> {
    pub fn new() -> Taken<T> {
        Taken {
            printed: VecDeque::new(),
            since_flush: 0,
            written: 0,
        }
    }

    /// Adds a printed record whose end is at this number of bytes. Returns the number of records since the
    /// last flush.
    pub fn print(&mut self, record: T, end: u64) -> usize {
        self.printed.push_back((end, record));
        self.since_flush += 1;
        self.since_flush
    }

    /// Records that stdout took all `written` bytes, of which `unread` are in the pipe. This proves that its
    /// reader was there after the earlier writes. Returns the earlier records that have left the pipe.
    pub fn flushed(&mut self, written: u64, unread: u64) -> Vec<T> {
        self.since_flush = 0;
        if written == self.written {
            return Vec::new();
        }
        let earlier = mem::replace(&mut self.written, written);
        self.up_to(earlier.min(written.saturating_sub(unread)))
    }

    /// Returns true if written records are not yet known to be read.
    pub fn waits(&self) -> bool {
        let first = self.printed.front();
        first.is_some_and(|(end, _)| *end <= self.written)
    }

    /// Returns the records that have left the pipe, for a reader that was there some time after the last
    /// flush.
    pub fn still_read(&mut self, unread: u64) -> Vec<T> {
        self.up_to(self.written.saturating_sub(unread))
    }

    fn up_to(&mut self, bytes: u64) -> Vec<T> {
        let count = self.printed.partition_point(|(end, _)| *end <= bytes);
        self.printed
            .drain(..count)
            .map(|(_, record)| record)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_counts_when_more_is_written_after_it_or_its_reader_stays() {
        let mut taken = Taken::new();
        assert_eq!((taken.print(1, 10), taken.print(2, 20)), (1, 2));
        assert!(taken.flushed(20, 0).is_empty());
        assert!(taken.waits());
        assert!(taken.flushed(20, 0).is_empty(), "nothing was written since");
        taken.print(3, 30);
        assert_eq!(taken.flushed(30, 0), [1, 2]);
        assert_eq!(taken.still_read(0), [3]);
        assert!(!taken.waits());
    }

    #[test]
    fn what_is_in_the_pipe_does_not_count() {
        let mut taken = Taken::new();
        taken.print(1, 10);
        taken.print(2, 20);
        assert!(taken.flushed(20, 20).is_empty());
        taken.print(3, 30);
        assert_eq!(taken.flushed(30, 15), [1]);
        assert!(taken.still_read(15).is_empty());
        assert!(taken.waits());
        assert_eq!(taken.still_read(10), [2]);
        assert_eq!(taken.still_read(0), [3]);
    }
}
