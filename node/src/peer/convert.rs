//! Conversion of openraft's messages to and from the wire format.
//!
//! Messages from the wire are checked for everything that openraft assumes: it would stop the replica over a
//! message that a correct peer never sends. No I/O here.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use ropewalk_proto::command::Command;
use ropewalk_proto::v1;
use ropewalk_proto::v1::append_result::Outcome;
use ropewalk_proto::v1::entry::Payload;
use ropewalk_raft_store::TypeConfig;
use ropewalk_raft_store::convert::{
    ConvertError, LARGEST_TERM, from_log_id, from_membership, from_stored_membership, from_vote,
    membership as membership_to_wire, stored_membership,
};
use ropewalk_raft_store::types::{Entry, LogId, SnapshotMeta, Vote};

// Types in both the disk format and the wire format are converted in one place.
pub use ropewalk_raft_store::convert::{log_id as log_id_to_wire, vote as vote_to_wire};

/// A message that no correct peer sends, or one of a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Raft message is malformed: {0}")]
pub struct Malformed(pub String);

impl From<ConvertError> for Malformed {
    fn from(error: ConvertError) -> Malformed {
        malformed(error.to_string())
    }
}

fn malformed(what: impl Into<String>) -> Malformed {
    Malformed(what.into())
}

/// The highest term that is accepted from the wire. A replica adopts it and counts on from it in its own
/// elections. Those must never reach the highest term that a disk may hold.
const LARGEST_TERM_BELIEVED: u64 = LARGEST_TERM >> 8;

/// A vote from the wire.
pub fn vote_from_wire(vote: Option<v1::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or_else(|| malformed("it has no vote"))?;
    if vote.term > LARGEST_TERM_BELIEVED {
        return Err(malformed(format!(
            "term {} is above {LARGEST_TERM_BELIEVED}, which no group reaches",
            vote.term
        )));
    }
    Ok(from_vote(vote)?)
}

/// A log id from the wire, if there is one.
pub fn log_id_from_wire(log_id: Option<v1::LogId>) -> Result<Option<LogId>, Malformed> {
    Ok(log_id.map(from_log_id).transpose()?)
}

/// A snapshot's log id and membership, for the wire.
pub fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> (Option<v1::LogId>, v1::StoredMembership) {
    let stored = stored_membership(&meta.last_membership);
    (meta.last_log_id.as_ref().map(log_id_to_wire), stored)
}

/// A snapshot's log id and membership, from the wire. `vote` is that of the leader that sends it, which
/// cannot know of later terms.
pub fn snapshot_meta_from_wire(
    vote: &Vote,
    last_log_id: Option<v1::LogId>,
    stored: Option<v1::StoredMembership>,
) -> Result<SnapshotMeta, Malformed> {
    let last_log_id = log_id_from_wire(last_log_id)?;
    check_not_after_vote(vote, last_log_id.as_ref())?;
    let stored = stored.ok_or_else(|| malformed("a snapshot has no membership"))?;
    let last_membership = from_stored_membership(stored)?;
    if *last_membership.log_id() > last_log_id {
        return Err(malformed("a snapshot is older than its own membership"));
    }
    Ok(SnapshotMeta {
        last_log_id,
        last_membership,
    })
}

/// An entry for the wire. It shares the memory of a batch in it.
pub fn entry_to_wire(entry: &Entry) -> v1::Entry {
    let (payload, command_body) = match &entry.payload {
        EntryPayload::Blank => (None, Bytes::new()),
        EntryPayload::Normal(command) => {
            let (head, body) = command.to_parts();
            (Some(Payload::Command(head)), body)
        }
        EntryPayload::Membership(membership) => (
            Some(Payload::Membership(membership_to_wire(membership))),
            Bytes::new(),
        ),
    };
    v1::Entry {
        term: entry.log_id.committed_leader_id().term,
        index: entry.log_id.index,
        payload,
        command_body,
        traceparent: String::new(),
    }
}

/// An entry from the wire. A batch in it shares the message's memory.
pub fn entry_from_wire(entry: v1::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(Payload::Command(head)) => {
            let command = Command::from_parts(head, entry.command_body);
            EntryPayload::Normal(command.map_err(|error| malformed(error.to_string()))?)
        }
        Some(Payload::Membership(membership)) => {
            if membership.voters.is_empty() {
                return Err(malformed("a membership has no voters"));
            }
            EntryPayload::Membership(from_membership(membership)?)
        }
    };
    let log_id = v1::LogId {
        term: entry.term,
        index: entry.index,
    };
    Ok(Entry {
        log_id: from_log_id(log_id)?,
        payload,
    })
}

/// AppendEntries for the wire.
pub fn append_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> v1::AppendEntries {
    v1::AppendEntries {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
    }
}

/// AppendEntries from the wire. A leader must have sent it. Its entries have no gap, and their terms never
/// fall and never exceed the leader's.
pub fn append_from_wire(
    request: v1::AppendEntries,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = vote_from_wire(request.vote)?;
    if !vote.committed {
        return Err(malformed("entries from a replica that is not the leader"));
    }
    let prev_log_id = log_id_from_wire(request.prev_log_id)?;
    let leader_commit = log_id_from_wire(request.leader_commit)?;
    check_not_after_vote(&vote, leader_commit.as_ref())?;
    check_not_after_vote(&vote, prev_log_id.as_ref())?;
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut last = prev_log_id;
    for entry in request.entries {
        let entry = entry_from_wire(entry)?;
        check_follows(last.as_ref(), &entry.log_id)?;
        last = Some(entry.log_id);
        entries.push(entry);
    }
    check_not_after_vote(&vote, last.as_ref())?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn check_follows(last: Option<&LogId>, next: &LogId) -> Result<(), Malformed> {
    let expected = last.map_or(Some(0), |last| last.index.checked_add(1));
    let term_falls = last.is_some_and(|l| l.committed_leader_id() > next.committed_leader_id());
    if expected != Some(next.index) || term_falls {
        let last = last.map_or("the log's start".to_owned(), LogId::to_string);
        return Err(malformed(format!("entry {next} follows {last}")));
    }
    Ok(())
}

fn check_not_after_vote(vote: &Vote, id: Option<&LogId>) -> Result<(), Malformed> {
    match id {
        Some(id) if id.committed_leader_id().term > vote.leader_id.term => Err(malformed(format!(
            "log id {id} has a later term than vote {vote}"
        ))),
        _ => Ok(()),
    }
}

/// The answer to AppendEntries for the wire. `prev` is the request's: a conflict is about that entry.
pub fn appended_to_wire(
    response: AppendEntriesResponse<TypeConfig>,
    prev: Option<&LogId>,
) -> v1::AppendResult {
    let mut result = v1::AppendResult::default();
    match response {
        AppendEntriesResponse::Success => result.set_outcome(Outcome::Success),
        AppendEntriesResponse::PartialSuccess(matching) => {
            result.set_outcome(Outcome::PartialSuccess);
            result.matching = matching.as_ref().map(log_id_to_wire);
        }
        AppendEntriesResponse::Conflict => {
            result.set_outcome(Outcome::Conflict);
            result.conflict = prev.map(log_id_to_wire);
        }
        AppendEntriesResponse::HigherVote(vote) => {
            result.set_outcome(Outcome::HigherVote);
            result.higher_vote = Some(vote_to_wire(&vote));
        }
    }
    result
}

/// The answer to AppendEntries from the wire. `prev` is the request's: an answer cannot report a conflict
/// with the start of the log.
pub fn appended_from_wire(
    result: &v1::AppendResult,
    prev: Option<&LogId>,
) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    match result.outcome() {
        Outcome::Unspecified => Err(malformed("the answer has an unknown kind")),
        Outcome::Success => Ok(AppendEntriesResponse::Success),
        Outcome::PartialSuccess => {
            let matching = log_id_from_wire(result.matching)?;
            if matching.as_ref() < prev {
                return Err(malformed(
                    "a partial success ends before the request's start",
                ));
            }
            Ok(AppendEntriesResponse::PartialSuccess(matching))
        }
        Outcome::Conflict if prev.is_none() => {
            Err(malformed("the start of the log is reported as a conflict"))
        }
        Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
        Outcome::HigherVote => {
            let vote = vote_from_wire(result.higher_vote)?;
            Ok(AppendEntriesResponse::HigherVote(vote))
        }
    }
}
