//! Compaction: only the last record of each key stays.
//!
//! The leader decides up to which offset (`policy`), and writes that into the log. Each replica then rewrites
//! its log (`rewrite`), at its own pace and in steps that fit its memory (`task`). The result does not depend
//! on the steps. Below the offset C of the command, a record stays if it has no key, or if no later record
//! below C has its key. Of these, a record without a value (a tombstone) goes if it is below the offset X of
//! the command. Both offsets only ever rise. So a replica that misses some commands and carries out the last
//! one has the same result as a replica that carries out each.
//!
//! **A tombstone goes only when no replica holds an older record of its key.** Otherwise a replica that was
//! away, and receives the log without the tombstone, would keep that record forever. So X is an offset up to
//! which every replica of the group has reported to be compacted.
//!
//! Code in here must never move an entry, change a header, or read a setting during a rewrite.

mod check;
#[cfg(test)]
mod group_tests;
mod keys;
mod policy;
mod progress;
mod rewrite;
mod task;
#[cfg(test)]
mod tests;

pub(super) use check::check;
pub(super) use policy::roll_is_due;
pub(super) use progress::Progress;
pub(super) use task::run;

/// Maximum unpacked bytes of one batch in a compacted topic. A larger batch is refused; one that was appended
/// before the topic became compacted is never rewritten. **Never change it**: all replicas must agree.
pub(super) const UNPACKED_BYTES: usize = 32 << 20;
