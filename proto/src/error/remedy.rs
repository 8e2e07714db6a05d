//! The next step after each error. The message of an error has the details; this is what holds for all errors
//! of a code.

use super::ErrorCode;

impl ErrorCode {
    /// The next step for a caller or an operator.
    pub fn remedy(self) -> &'static str {
        match self {
            ErrorCode::Internal => {
                "Retry with an idempotent producer. If it stays, upgrade the older side, or report the node's log."
            }
            ErrorCode::InvalidRequest => "Correct the part that the message names.",
            ErrorCode::CorruptBatch => {
                "Build the batch as the message says. If a client library built it, suspect memory or the network."
            }
            ErrorCode::TooLarge => {
                "Send smaller records or batches, or raise the topic's `max_batch_bytes`."
            }
            ErrorCode::UnknownTopic => "Create the topic, or correct its name.",
            ErrorCode::UnknownPartition => {
                "Ask for the topic's metadata, and name one of its partitions."
            }
            ErrorCode::TopicExists => "Use the existing topic, or choose another name.",
            ErrorCode::InvalidTopicName => "Choose a valid name.",
            ErrorCode::NotLeader => "Clients ask for fresh metadata, and go to the leader.",
            ErrorCode::NoLeader => {
                "Clients retry. If it stays, start the nodes that hold the partition's replicas."
            }
            ErrorCode::LeadershipLost => {
                "Idempotent producers retry at the new leader, and write nothing twice."
            }
            ErrorCode::Timeout => {
                "Idempotent producers retry. If it stays, look for slow disks or a lost majority."
            }
            ErrorCode::ProducerFenced => {
                "End this producer: another process continues with its id and epoch."
            }
            ErrorCode::OutOfOrderSequence => {
                "Clients fail the batch, and begin a new epoch. A program that speaks the protocol itself has left out a batch."
            }
            ErrorCode::UnknownProducer => "Clients begin a new epoch of the producer id.",
            ErrorCode::DuplicateSequence => "Do nothing: an earlier try has written the batch.",
            ErrorCode::OffsetOutOfRange => {
                "Begin at an offset in the range that the message names. Lengthen the retention if readers fall behind it."
            }
            ErrorCode::StaleEpoch => "Readers ask for fresh metadata, and continue at the leader.",
            ErrorCode::StaleRing => {
                "Producers ask for fresh metadata, and route the key again: the topic has grown."
            }
            ErrorCode::DiskFull => "Free or add disk space on the node, or shorten the retention.",
            ErrorCode::DiskFailed => {
                "Check the node's disk. The node reopens its database once the disk takes writes again."
            }
            ErrorCode::Overloaded => {
                "Wait and retry. If it stays, raise the limit that the message names, or send less."
            }
            ErrorCode::NotServing => "Clients retry at another node.",
            ErrorCode::UnknownNode => "Name a node that `ropewalk cluster status` lists.",
            ErrorCode::Unsafe => "Remove the danger that the message names, then ask again.",
            ErrorCode::NotEnoughNodes => "Add nodes, or ask for fewer replicas.",
            ErrorCode::UnsupportedVersion => "Upgrade the nodes or clients that the message names.",
            ErrorCode::DamagedData => {
                "Wait until the replica is rebuilt. Where too few intact replicas are left, recover the partition."
            }
            ErrorCode::UnknownMember => "Members join again; the client library does so by itself.",
            ErrorCode::NotOwner => "Stop work on the partition: another member reads it now.",
            ErrorCode::UnknownGroup => {
                "Correct the group's name, or create it with `group seek --create`."
            }
            ErrorCode::GroupInUse => "Stop the group's members, then ask again.",
            ErrorCode::InvalidFilter => {
                "Correct the expression at the line and column in the message."
            }
            ErrorCode::FilterTooCostly => {
                "Simplify the filter, or begin after the record that the message names."
            }
            ErrorCode::TopicRecreated => {
                "Begin again in the new topic: offsets of the old one mean nothing there."
            }
            ErrorCode::NodeRemoved => {
                "Stop the node. To use the machine again, empty its data directory and start it as a new node."
            }
            ErrorCode::AddressInUse => {
                "Correct the node's `--advertise`, or the DNS name or firewall in front of it."
            }
            ErrorCode::StartedTwice => {
                "Empty the data directory of the process that ended, and start it as a new node."
            }
            ErrorCode::InvalidTimestamp => {
                "Correct the clock or the unit of the record's time, or raise `max_timestamp_ahead`."
            }
        }
    }
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
