//! Compaction: of each key only the last record stays.
//!
//! The leader decides up to where (`decide`), and the log says so. Each replica then rewrites what it
//! holds (`pass`), in its own time and in steps as small as its memory wants (`worker`). What comes of
//! it does not depend on the steps: below the offset C of the command, a record stays if no later
//! record below C has its key, or if it has no key; and of those that stay, one without a value (a
//! tombstone) goes if it lies below the offset X of the command. Both offsets only ever rise, so that a
//! replica that has missed some commands and carries out the last comes to the same as one that has
//! carried out each.
//!
//! **A tombstone goes only when no replica holds an older record of its key any more.** Otherwise one
//! that was away, and gets the log without the tombstone, would keep that record for ever. So X is an
//! offset up to which every replica of the group has said that it is compacted.
//!
//! Nothing here may move an entry, change a header, or look at a setting while it rewrites.

mod check;
mod decide;
#[cfg(test)]
mod group_tests;
mod keys;
mod pass;
mod progress;
#[cfg(test)]
mod tests;
mod worker;

pub(super) use check::check;
pub(super) use decide::roll_is_due;
pub(super) use progress::Progress;
pub(super) use worker::run;

/// The most bytes the records of one batch may unpack to in a topic that is compacted. Never to be
/// changed: a batch over it is refused, and one that came before the topic was compacted stays whole,
/// which it must do on every replica.
pub(super) const UNPACKED_BYTES: usize = 32 << 20;
