//! Bugs that the simulator plants, one at a time, to test that its checks find them.
//!
//! Each is a bug that somebody has made, here or elsewhere. The code that would contain it calls [`is_planted`],
//! which is the constant `false` unless the feature `mistakes` is on. Only the simulator turns the feature
//! on, and the product refuses to compile with it.

macro_rules! mistakes {
    ($($name:ident $text:literal $what:literal)*) => {
        /// A bug to plant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug {
            $(#[doc = $what] $name,)*
        }

        impl PlantedBug {
            /// All of them.
            pub const ALL: &[PlantedBug] = &[$(PlantedBug::$name,)*];

            /// Name of the bug.
            pub const fn name(self) -> &'static str {
                match self { $(PlantedBug::$name => $text,)* }
            }

            /// Description of the bug.
            pub const fn what(self) -> &'static str {
                match self { $(PlantedBug::$name => $what,)* }
            }
        }
    };
}

mistakes! {
    SkipTheSync "skip-the-sync" "nothing is ever synced"
    FlushedEarly "flushed-early" "an append counts as flushed once it is written"
    FailedWriteIsFine "failed-write-is-fine" "a failed write counts as done"
    ForgetTheVote "forget-the-vote" "a vote is kept in memory only"
    GrantEveryVote "grant-every-vote" "a vote is granted without a look at the candidate's log"
    ReuseReplicaIds "reuse-replica-ids" "a node without its data takes over the replica ids of the one it replaces"
    SnapshotOfTheNewest "snapshot-of-the-newest" "the newest checkpoint is the snapshot, even if earlier entries are still needed"
    PurgeOneTooMany "purge-one-too-many" "a purge takes one entry beyond the checkpoint"
    StateBeforeLog "state-before-log" "the effects of an entry overtake it on the way to the disk"
    PositionBeforeState "position-before-state" "the applied position is written apart from the applied state, and before it"
    TruncateInMemory "truncate-in-memory" "entries that another leader replaced stay on the disk"
    LoseProducers "lose-producers" "a restart forgets the last batches of producers"
    CheckpointWithoutProducers "checkpoint-without-producers" "a checkpoint omits the producers"
    ForgetRefusals "forget-refusals" "a restart forgets which appends were refused"
    NoDeduplication "no-deduplication" "a repeated batch is written again"
    AcceptGaps "accept-gaps" "a batch that leaves a gap in its producer's sequence is written"
    TrustTheClocks "trust-the-clocks" "leaders use their own wall clocks, and producers expire by those"
    NoFencing "no-fencing" "a batch of an older epoch is written"
    ServeUncommitted "serve-uncommitted" "readers get uncommitted records"
    ReadAnywhere "read-anywhere" "a replica serves readers without confirming that it leads"
    StaleEnd "stale-end" "the end of the log is served without asking the other replicas"
    SkipSingles "skip-singles" "a reader that asks for the last record of a batch gets the next batch"
    OffsetGap "offset-gap" "a new leader skips an offset"
    NewOffsetForDuplicates "new-offset-for-duplicates" "a repeated batch is answered with the end of the log"
    AcknowledgeBeforeCommit "acknowledge-before-commit" "a batch is acknowledged when it is proposed"
    LossIsSuccess "loss-is-success" "a batch whose leader was replaced is acknowledged"
    DropTrims "drop-trims" "a trim in the log has no effect"
    TrimTooFar "trim-too-far" "retention removes one segment more than the settings allow"
    DamagedGoesOn "damaged-goes-on" "a replica in quarantine runs again after a restart"
    PointInTime "point-in-time" "a damaged write-ahead log is read up to the damage, and the watermark is not checked"
    UnknownIsFailure "unknown-is-failure" "the client treats a batch as refused when nobody answered"
    RetryAsNew "retry-as-new" "the client gives a batch a new sequence when it sends it again"
    MappingOfItsOwn "mapping-of-its-own" "each producer maps keys to partitions in its own way"
    ReaderSkips "reader-skips" "a reader skips a record after an error"
    CommitWithoutOwnerCheck "commit-without-owner-check" "a position is accepted from any member"
    NewPartitionAtOnce "new-partition-at-once" "a partition that a topic gained is assigned before the old ones are read"
    FenceIgnored "fence-ignored" "a batch routed by an older ring is written behind a fence"
    CompactTheLast "compact-the-last" "compaction removes the last record of a key, too"
    FilterSkips "filter-skips" "a filter makes its reader skip a record"
    EpochGivenTwice "epoch-given-twice" "a producer's epoch is derived from the caller's claim, and stored nowhere"
    MergeOutsideApply "merge-outside-apply" "a change of one setting writes all of them from the proposer's copy"
    AddressTakenOver "address-taken-over" "a new node takes the place of any node at its address, dead or alive"
    PositionAhead "position-ahead" "a member commits past unfinished records"
    OldTopicId "old-topic-id" "a request with the id of a deleted topic is accepted"
    GrowthBeginsAtTheEnd "growth-begins-at-the-end" "a group that begins at the end also does so in partitions that its topic gains later"
    FailedDiskSetAside "failed-disk-set-aside" "a database is set aside because its disk failed"
}

/// True if bugs can be planted in this build.
pub const POSSIBLE: bool = cfg!(feature = "mistakes");

#[cfg(feature = "mistakes")]
static PLANTED: std::sync::OnceLock<PlantedBug> = std::sync::OnceLock::new();

/// Plants a bug from now on, in the whole process. Only the first call takes effect.
#[cfg(feature = "mistakes")]
pub fn plant(mistake: PlantedBug) {
    let _ = PLANTED.set(mistake);
}

/// Returns true if this bug is planted.
#[cfg(feature = "mistakes")]
pub fn is_planted(mistake: PlantedBug) -> bool {
    PLANTED.get() == Some(&mistake)
}

/// Returns false: no bug can be planted in this build.
#[cfg(not(feature = "mistakes"))]
#[inline(always)]
pub const fn is_planted(_: PlantedBug) -> bool {
    false
}
