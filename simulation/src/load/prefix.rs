//! Progress of work that is done in pieces, in any order.

use std::collections::BTreeSet;

/// Set of finished offsets, with the end of the part from the beginning that has no gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix {
    end: u64,
    beyond: BTreeSet<u64>,
}

impl Prefix {
    /// Marks an offset as finished.
    pub fn add(&mut self, offset: u64) {
        if offset >= self.end {
            self.beyond.insert(offset);
        }
        self.advance();
    }

    /// Marks all offsets before this one as finished.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.end {
            self.end = offset;
            self.beyond = self.beyond.split_off(&offset);
        }
        self.advance();
    }

    /// The first offset that is not finished.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// True if this offset is finished.
    pub fn has(&self, offset: u64) -> bool {
        offset < self.end || self.beyond.contains(&offset)
    }

    fn advance(&mut self) {
        while self.beyond.remove(&self.end) {
            self.end += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_before_the_first_gap() {
        let mut prefix = Prefix::default();
        for offset in [0, 1, 3, 3, 6] {
            prefix.add(offset);
        }
        assert_eq!(
            (prefix.end(), prefix.has(3), prefix.has(4)),
            (2, true, false)
        );
        prefix.add(2);
        assert_eq!(prefix.end(), 4);
        prefix.skip_to(6);
        assert_eq!(prefix.end(), 7);
        prefix.skip_to(5);
        assert_eq!(prefix.end(), 7, "it never goes back");
    }
}
