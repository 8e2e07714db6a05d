//! The error table: number, name, retry advice, effect of a refused write, and the codes for gRPC and Kafka
//! clients.

use std::fmt;

#[cfg(feature = "grpc")]
use tonic::Code;

mod remedy;

/// Advice for sending the same request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It never succeeds without a change by the caller.
    Never,
    /// It may succeed later, at the same node.
    Later,
    /// It may succeed with fresh metadata: another node or partition is the right one now.
    Reroute,
}

/// Effect of a refused write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The write did not take effect and never will.
    NotDone,
    /// The write may have taken effect, or may yet: only an idempotent retry is safe.
    Unknown,
}

macro_rules! error_table {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $retry:ident, $outcome:ident, $grpc:ident, $kafka:literal;)*) => {
        /// Kind of failure. Numbers are never reused; a number that this build does not know reads as
        /// [`ErrorCode::Internal`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name = $number),* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code of a number from the wire.
            pub fn from_number(number: u32) -> ErrorCode {
                match number { $($number => ErrorCode::$name,)* _ => ErrorCode::Internal }
            }

            /// The name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name)),* }
            }

            /// The failure, in words.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => concat!($($doc),+).trim()),* }
            }

            /// Advice for sending the same request again.
            pub fn retry(self) -> Retry {
                match self { $(ErrorCode::$name => Retry::$retry),* }
            }

            /// Effect of a refused write.
            pub fn outcome(self) -> Outcome {
                match self { $(ErrorCode::$name => Outcome::$outcome),* }
            }

            /// The gRPC status code.
            #[cfg(feature = "grpc")]
            pub fn grpc(self) -> Code {
                match self { $(ErrorCode::$name => Code::$grpc),* }
            }

            /// The Kafka protocol's error code.
            pub fn kafka(self) -> i16 {
                match self { $(ErrorCode::$name => $kafka),* }
            }
        }
    };
}

error_table! {
    /// A bug, or a code of a newer version.
    Internal = 1, Later, Unknown, Internal, -1;
    /// An invalid request; the message names the part.
    InvalidRequest = 2, Never, NotDone, InvalidArgument, 42;
    /// A record batch with a wrong length, CRC or field.
    CorruptBatch = 3, Never, NotDone, InvalidArgument, 2;
    /// A record or batch over the topic's limit.
    TooLarge = 4, Never, NotDone, InvalidArgument, 10;
    /// No such topic.
    UnknownTopic = 5, Reroute, NotDone, NotFound, 3;
    /// The topic has no such partition.
    UnknownPartition = 6, Reroute, NotDone, NotFound, 3;
    /// A topic of that name exists.
    TopicExists = 7, Never, NotDone, AlreadyExists, 36;
    /// A topic name outside `[a-zA-Z0-9._-]{1,249}`.
    InvalidTopicName = 8, Never, NotDone, InvalidArgument, 17;
    /// Another node leads this partition.
    NotLeader = 9, Reroute, NotDone, FailedPrecondition, 6;
    /// Too few nodes are up for a leader, or an election is under way.
    NoLeader = 10, Reroute, NotDone, Unavailable, 5;
    /// Leadership was lost during the write.
    LeadershipLost = 11, Reroute, Unknown, Unavailable, 7;
    /// The request timed out.
    Timeout = 12, Later, Unknown, DeadlineExceeded, 7;
    /// A newer epoch of this producer is active.
    ProducerFenced = 13, Never, NotDone, FailedPrecondition, 90;
    /// A sequence number after a gap: an earlier batch is missing.
    OutOfOrderSequence = 14, Never, NotDone, FailedPrecondition, 45;
    /// This partition does not remember the producer, which must begin a new epoch.
    UnknownProducer = 15, Never, NotDone, FailedPrecondition, 59;
    /// A batch older than the duplicates that this partition remembers.
    DuplicateSequence = 16, Never, NotDone, AlreadyExists, 46;
    /// An offset before the log's start or past its end.
    OffsetOutOfRange = 17, Never, NotDone, OutOfRange, 1;
    /// The reader's epoch is not the leader's.
    StaleEpoch = 18, Reroute, NotDone, FailedPrecondition, 74;
    /// The key was routed by an outdated mapping of keys to partitions.
    StaleRing = 19, Reroute, NotDone, FailedPrecondition, 3;
    /// The node's disk is full; reads continue.
    DiskFull = 20, Reroute, NotDone, ResourceExhausted, 56;
    /// The node's disk failed; reads continue where they can.
    DiskFailed = 21, Reroute, Unknown, Unavailable, 56;
    /// A limit was reached; the caller must slow down.
    Overloaded = 22, Later, NotDone, ResourceExhausted, 89;
    /// The node is stopping or starting.
    NotServing = 23, Reroute, NotDone, Unavailable, 8;
    /// No such node.
    UnknownNode = 24, Never, NotDone, NotFound, 42;
    /// The request would endanger data or a quorum.
    Unsafe = 25, Never, NotDone, FailedPrecondition, 44;
    /// More replicas than nodes that can hold them.
    NotEnoughNodes = 26, Never, NotDone, FailedPrecondition, 38;
    /// The request or its data requires a newer version.
    UnsupportedVersion = 27, Never, NotDone, Unimplemented, 35;
    /// Data on the disk is damaged: the replica is being rebuilt, or too few intact replicas are left for
    /// that.
    DamagedData = 28, Reroute, NotDone, DataLoss, 2;
    /// The group has no such member: its session ended, and it must join again under a new id.
    UnknownMember = 29, Never, NotDone, FailedPrecondition, 25;
    /// The member does not own the partition, or was assigned it in another epoch.
    NotOwner = 30, Never, NotDone, FailedPrecondition, 22;
    /// No such group.
    UnknownGroup = 31, Never, NotDone, NotFound, 69;
    /// The group has members, and the request requires a group without members.
    GroupInUse = 32, Never, NotDone, FailedPrecondition, 68;
    /// A filter that is not a valid expression; the message names line and column.
    InvalidFilter = 33, Never, NotDone, InvalidArgument, 42;
    /// A record on which a filter exceeds its cost limit; the message names the offset.
    FilterTooCostly = 34, Never, NotDone, FailedPrecondition, 42;
    /// The intended topic was deleted, and another one has its name.
    TopicRecreated = 35, Reroute, NotDone, FailedPrecondition, 103;
    /// The calling node was removed from the cluster.
    NodeRemoved = 36, Never, NotDone, FailedPrecondition, 42;
    /// Another node has the address, or the address does not lead to the node that would join with it.
    AddressInUse = 37, Later, NotDone, AlreadyExists, 42;
    /// Another process runs on a copy of the caller's data directory.
    StartedTwice = 38, Never, NotDone, FailedPrecondition, 42;
    /// A record further in the future than its topic allows; the message names the record and the limit.
    InvalidTimestamp = 39, Never, NotDone, InvalidArgument, 32;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error for a caller: the code and its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WireError {
    /// Row of the error table.
    pub code: ErrorCode,
    /// Description of the failure, and the next step.
    pub message: String,
    /// For [`ErrorCode::TopicRecreated`]: the topic that now has the name. Otherwise 0.
    pub topic_id: u64,
    /// For a batch that is refused because of one record: the position of that record in the batch, from 0.
    /// The other records can be sent without it. Only errors in streams carry it.
    pub record: Option<u32>,
}

impl WireError {
    /// An error with its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> WireError {
        WireError {
            code,
            message: message.into(),
            topic_id: 0,
            record: None,
        }
    }

    /// Refusal of a request for the topic `asked`, whose name now belongs to the topic `topic_id`.
    pub fn topic_recreated(name: &str, asked: u64, topic_id: u64) -> WireError {
        WireError {
            topic_id,
            ..WireError::new(
                ErrorCode::TopicRecreated,
                format!(
                    "topic {name} with id {asked} was deleted, and created again with id \
                     {topic_id}; fetch its metadata, and start again in the new topic"
                ),
            )
        }
    }

    /// The same error, for the record at this position in its batch.
    #[must_use]
    pub fn at_record(mut self, record: usize) -> WireError {
        self.record = u32::try_from(record).ok();
        self
    }
}

impl From<WireError> for crate::v1::Error {
    fn from(error: WireError) -> crate::v1::Error {
        crate::v1::Error {
            code: error.code as u32,
            message: error.message,
            leader: None,
            topic_id: error.topic_id,
            record: error.record,
        }
    }
}

impl From<crate::v1::Error> for WireError {
    fn from(error: crate::v1::Error) -> WireError {
        WireError {
            topic_id: error.topic_id,
            record: error.record,
            ..WireError::new(ErrorCode::from_number(error.code), error.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_of_a_newer_version_reads_as_internal() {
        assert_eq!(ErrorCode::from_number(9_999), ErrorCode::Internal);
    }

    #[test]
    fn numbers_and_names_are_each_used_once() {
        let numbers: BTreeSet<u32> = ErrorCode::ALL.iter().map(|code| *code as u32).collect();
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(!numbers.contains(&0), "0 is what an absent code reads as");
    }
}
