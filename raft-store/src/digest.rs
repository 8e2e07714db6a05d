//! Fingerprints of log entries, for code that compares logs.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use ropewalk_proto::command::Command;

use crate::checksum;

/// Bytes of a batch's header that compaction keeps: offsets, times and producer.
const KEPT: Range<usize> = 23..57;

/// A checksum over the content of an entry, the same on every replica. A compacted batch equals the batch
/// as appended, and every other compacted form of it. Keys decide which records compaction may remove, and
/// the log does not know them.
#[derive(Clone, Copy)]
pub struct Digest {
    whole: u32,
    /// True if compaction has rewritten the batch.
    compacted: bool,
    /// Checksum over the parts that compaction keeps.
    kept: u32,
}

impl Digest {
    pub(crate) fn of(kind: &[u8], payload: &[u8], command: Option<&Command>) -> Digest {
        Digest {
            whole: checksum::crc(kind, &[payload]),
            compacted: matches!(command, Some(Command::Compacted { .. })),
            kept: command.and_then(kept).unwrap_or_default(),
        }
    }
}

/// A checksum over the parts that a batch and its compacted forms have in common.
fn kept(command: &Command) -> Option<u32> {
    let (stamp, batch) = command.as_append()?;
    let came_bytes = command.log_bytes() as u64;
    let head = batch_head(batch);
    Some(checksum::crc(
        &stamp.leader_time_ms.to_be_bytes(),
        &[
            &stamp.ring_version.to_be_bytes(),
            &[u8::from(stamp.own_clock) | u8::from(stamp.long_memory) << 1],
            &came_bytes.to_be_bytes(),
            head,
        ],
    ))
}

fn batch_head(batch: &Bytes) -> &[u8] {
    batch.get(KEPT).unwrap_or(batch)
}

/// For made-up entries, none of which is compacted.
impl From<u32> for Digest {
    fn from(whole: u32) -> Digest {
        Digest {
            whole,
            compacted: false,
            kept: whole,
        }
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        match self.compacted || other.compacted {
            true => self.kept == other.kept,
            false => self.whole == other.whole,
        }
    }
}

impl fmt::LowerHex for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.whole, f)?;
        f.write_str(if self.compacted { " (compacted)" } else { "" })
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:08x}")
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::command::Stamp;

    use super::*;

    const STAMP: Stamp = Stamp {
        leader_time_ms: 5,
        ring_version: 1,
        own_clock: false,
        long_memory: false,
    };

    fn digest(command: &Command) -> Digest {
        Digest::of(&[1, 1], &command.to_bytes(), Some(command))
    }

    fn append(byte: u8, at: usize) -> Command {
        let mut batch = vec![0; 100];
        batch[at] = byte;
        Command::Append {
            stamp: STAMP,
            batch: batch.into(),
        }
    }

    #[test]
    fn what_is_left_of_a_batch_equals_it_and_no_other() {
        let left = Command::Compacted {
            stamp: STAMP,
            came_bytes: 100,
            batch: vec![0; 61].into(),
        };
        assert_eq!(digest(&append(0, 0)), digest(&left));
        // Between two whole batches every byte counts. With a compacted one, only the kept parts count.
        assert_ne!(digest(&append(0, 0)), digest(&append(1, 80)));
        assert_eq!(digest(&append(1, 80)), digest(&left));
        assert_ne!(digest(&append(1, 50)), digest(&left));
        let by_own_clock = Command::Append {
            stamp: Stamp {
                own_clock: true,
                ..STAMP
            },
            batch: vec![0; 100].into(),
        };
        assert_ne!(digest(&by_own_clock), digest(&left));
        assert_ne!(digest(&Command::Roll { leader_time_ms: 5 }), digest(&left));
    }
}
