//! The next step after each error. The message of an error has the details; this is what holds for all errors
//! of a code.

use super::ErrorCode;

macro_rules! remedies {
    ($($name:ident $text:literal)*) => {
        impl ErrorCode {
            /// The next step for a caller or an operator.
            pub fn remedy(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

remedies! {
    Internal "Retry with an idempotent producer. If it persists, upgrade the older side, or report the node's log."
    InvalidRequest "Correct the part that the message names."
    CorruptBatch "Build the batch as the message says. If a client library built it, suspect memory or the network."
    TooLarge "Send smaller records or batches, or raise the topic's `max_batch_bytes`."
    UnknownTopic "Create the topic, or correct its name."
    UnknownPartition "Fetch the topic's metadata, and name one of its partitions."
    TopicExists "Use the existing topic, or choose another name."
    InvalidTopicName "Choose a valid name."
    NotLeader "Clients ask for fresh metadata, and go to the leader."
    NoLeader "Clients retry. If it persists, start the nodes that hold the partition's replicas."
    LeadershipLost "Idempotent producers retry at the new leader, and write nothing twice."
    Timeout "Idempotent producers retry. If it persists, look for slow disks or a lost majority."
    ProducerFenced "End this producer: another process continues with its id and epoch."
    OutOfOrderSequence "Clients fail the batch, and begin a new epoch. A program that speaks the protocol itself has left out a batch."
    UnknownProducer "Clients begin a new epoch of the producer id."
    DuplicateSequence "Do nothing: an earlier try has written the batch."
    OffsetOutOfRange "Begin at an offset in the range that the message names. Lengthen the retention if readers fall behind it."
    StaleEpoch "Readers ask for fresh metadata, and continue at the leader."
    StaleRing "Producers ask for fresh metadata, and route the key again: the topic has grown."
    DiskFull "Free or add disk space on the node, or shorten the retention."
    DiskFailed "Check the node's disk. The node reopens its database once the disk takes writes again."
    Overloaded "Wait and retry. If it persists, raise the limit that the message names, or send less."
    NotServing "Clients retry at another node."
    UnknownNode "Name a node that `ropewalk cluster status` lists."
    Unsafe "Remove the danger that the message names, then ask again."
    NotEnoughNodes "Add nodes, or ask for fewer replicas."
    UnsupportedVersion "Upgrade the nodes or clients that the message names."
    DamagedData "Wait until the replica is rebuilt. Where too few intact replicas are left, recover the partition."
    UnknownMember "Members join again; the client library does so by itself."
    NotOwner "Stop work on the partition: another member reads it now."
    UnknownGroup "Correct the group's name, or create it with `group seek --create`."
    GroupInUse "Stop the group's members, then ask again."
    InvalidFilter "Correct the expression at the line and column in the message."
    FilterTooCostly "Simplify the filter, or begin after the record that the message names."
    TopicRecreated "Begin again in the new topic: offsets of the old one mean nothing there."
    NodeRemoved "Stop the node. To use the machine again, empty its data directory and start it as a new node."
    AddressInUse "Correct the node's `--advertise`, or the DNS name or firewall in front of it."
    StartedTwice "Empty the data directory of the process that ended, and start it as a new node."
    InvalidTimestamp "Correct the clock or the unit of the record's time, or raise `max_timestamp_ahead`."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_meaning_and_a_next_step_in_sentences() {
        for &code in ErrorCode::ALL {
            for text in [code.meaning(), code.remedy()] {
                let is_sentence = text.ends_with('.') && !text.contains("  ");
                assert!(is_sentence && !text.contains('|'), "{code}: {text}");
            }
        }
    }
}
