//! Selection of seeds and disks, and parallel runs of them.

use std::str::FromStr;

use futures_util::{Stream, StreamExt, stream};

use super::Job;
use super::faults::Faults;
use crate::disk::DiskKind;

/// A range of seeds. Its end is excluded unless it is written `..=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(std::ops::Range<u64>);

impl Seeds {
    /// A single seed.
    pub fn one(seed: u64) -> Seeds {
        Seeds(seed..seed.saturating_add(1))
    }
}

/// Selection of the nodes' disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// One kind for all seeds.
    One(DiskKind),
    /// RocksDB, which is slower, for every fourth seed, and memory for the others.
    Mixed,
}

/// With mixed disks, one seed in this many has RocksDB.
const ROCKS_EVERY: u64 = 4;

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let wrong = || format!("{text}: seeds are written FIRST..END or FIRST..=LAST");
        let (first, end) = text.split_once("..").ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let first = number(first)?;
        let end = match end.strip_prefix('=') {
            Some(last) => number(last)?.checked_add(1).ok_or_else(wrong)?,
            None => number(end)?,
        };
        match first < end {
            true => Ok(Seeds(first..end)),
            false => Err(format!("{text}: there is no such seed")),
        }
    }
}

impl FromStr for Disks {
    type Err = String;

    fn from_str(text: &str) -> Result<Disks, String> {
        match text {
            "mixed" => Ok(Disks::Mixed),
            other => Ok(Disks::One(other.parse()?)),
        }
    }
}

impl Disks {
    /// Kind of disk of a seed.
    pub fn of(self, seed: u64) -> DiskKind {
        match self {
            Disks::One(kind) => kind,
            Disks::Mixed if seed % ROCKS_EVERY == ROCKS_EVERY - 1 => DiskKind::Rocks,
            Disks::Mixed => DiskKind::Memory,
        }
    }
}

impl Seeds {
    /// Number of seeds.
    pub fn count(&self) -> u64 {
        self.0.end - self.0.start
    }

    /// One job for each seed.
    pub fn jobs(
        &self,
        seconds: u64,
        disks: Disks,
        faults: &Faults,
    ) -> impl Iterator<Item = Job> + use<> {
        let faults = faults.clone();
        self.0.clone().map(move |seed| Job {
            seed,
            seconds,
            disk: disks.of(seed),
            faults: faults.clone(),
        })
    }
}

/// Runs a task for each job, with up to this many at once. The results come in the order in which the tasks
/// end.
pub fn side_by_side<T, F: Future<Output = T>>(
    jobs: impl Iterator<Item = Job>,
    at_once: usize,
    run: impl FnMut(Job) -> F,
) -> impl Stream<Item = T> {
    stream::iter(jobs.map(run)).buffer_unordered(at_once.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_ranges_are_written() {
        let parse = |text: &str| text.parse::<Seeds>();
        assert_eq!(parse("1..4").map(|seeds| seeds.count()), Ok(3));
        assert_eq!(parse("1..=4").map(|seeds| seeds.count()), Ok(4));
        for wrong in ["", "7", "4..4", "5..2", "a..b", "1..=18446744073709551615"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn with_mixed_disks_one_seed_in_four_has_rocksdb() {
        let seeds: Seeds = "1..201".parse().expect("seeds");
        let jobs = seeds.jobs(60, Disks::Mixed, &Faults::All);
        let rocks = jobs.filter(|job| job.disk == DiskKind::Rocks).count();
        assert_eq!(rocks, 50);
    }
}
