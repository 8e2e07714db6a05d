//! Records on their way through stdout. A pipe takes more than its reader looks at, as in `consume | head`:
//! so what was written counts as read only if the reader is still there afterwards.

use std::mem;

/// Records that are printed, and not known to be read yet.
#[derive(Debug)]
pub struct Taken<T> {
    /// Printed, but perhaps not written yet.
    printed: Vec<T>,
    /// Written to stdout.
    written: Vec<T>,
}

impl<T> Taken<T> {
    pub fn new() -> Taken<T> {
        Taken {
            printed: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Adds a printed record; returns the number printed since the last flush.
    pub fn print(&mut self, record: T) -> usize {
        self.printed.push(record);
        self.printed.len()
    }

    /// Takes note that stdout took all that is printed. So its reader was there after the earlier writes;
    /// returns those.
    pub fn flushed(&mut self) -> Vec<T> {
        if self.printed.is_empty() {
            return Vec::new();
        }
        mem::replace(&mut self.written, mem::take(&mut self.printed))
    }

    /// True if anything is written whose reader is not known to be still there.
    pub fn waits(&self) -> bool {
        !self.written.is_empty()
    }

    /// The reader was there some time after the last flush: returns what it has read.
    pub fn still_read(&mut self) -> Vec<T> {
        mem::take(&mut self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_counts_when_more_is_written_after_it_or_its_reader_stays() {
        let mut taken = Taken::new();
        assert_eq!((taken.print(1), taken.print(2)), (1, 2));
        assert!(taken.flushed().is_empty());
        assert!(taken.waits());
        assert!(taken.flushed().is_empty(), "nothing was written since");
        taken.print(3);
        assert_eq!(taken.flushed(), [1, 2]);
        assert_eq!(taken.still_read(), [3]);
        assert!(!taken.waits());
    }
}
