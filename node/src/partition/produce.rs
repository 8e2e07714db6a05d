//! The write path. The leader checks a batch, adds a stamp (leader time, ring version), lets the `gate` judge
//! the producer's sequence, and proposes the batch. It answers once the batch is applied, which is after a
//! majority has it on disk.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use ropewalk_machines::log::BatchIdentity;
use ropewalk_proto::batch::BatchView;
use ropewalk_proto::command::{
    Command, OWN_CLOCK_SINCE_VERSION, PRODUCERS_SINCE_VERSION, Reply, Stamp,
};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::trace::TraceContext;
use ropewalk_raft_store::{DiskStatus, Followed, Traces, TypeConfig};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tracing::Span;

use super::Partition;
use super::gate::{Admission, Pass};
use crate::raft::Unanswered;

/// Maximum time that a batch waits for room: bytes of the node's limit on produce requests in flight.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time for a proposed batch to commit. After that, its outcome counts as unknown.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(15);

/// Result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: u64,
    /// Epoch of the leader that answered.
    pub epoch: u64,
    /// True if the batch was in the log already.
    pub duplicate: bool,
    /// First offset that can be read.
    pub log_start_offset: u64,
    /// Time at which this node learned the outcome.
    pub known: Instant,
}

/// Future of the answer to a batch in flight. Dropping it does not cancel the batch.
pub struct PendingAppend(BoxFuture<'static, Result<Appended, WireError>>);

impl fmt::Debug for PendingAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Future for PendingAppend {
    type Output = Result<Appended, WireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context)
    }
}

impl Partition {
    /// Proposes one batch and returns without waiting for it to commit. The order of calls is the order in
    /// the log. `ring_version` is the version of the ring by which its keys were routed; 0 if by none.
    ///
    /// # Errors
    /// An error of this call means that the call appended nothing: an invalid batch, `ProducerFenced`,
    /// `DuplicateSequence`, `StaleRing`, `NotLeader`, `NoLeader`, `NotServing`, `DiskFull`, `DiskFailed`,
    /// `Overloaded`. For errors of the ticket, the code shows whether the outcome is known.
    pub async fn propose(
        self: &Arc<Self>,
        ring_version: u32,
        batch: Bytes,
    ) -> Result<PendingAppend, WireError> {
        let arrived = Instant::now();
        let limits = self.batch_limits();
        let checked =
            BatchView::check(batch, &limits).map_err(|error| self.error(error.code(), error))?;
        let epoch = self.leading_epoch()?;
        if let Some(base_offset) = self.replica.view.machine().committed_duplicate(&checked) {
            let known = self.known(base_offset, epoch);
            return Ok(PendingAppend(std::future::ready(Ok(known)).boxed()));
        }
        self.check_records(&checked, &limits).await?;
        // The check may have taken long, and leadership may have moved.
        let epoch = self.leading_epoch()?;
        self.check_disk()?;
        let room = self.room(checked.bytes().len()).await?;
        let stamp = self.stamp(ring_version, epoch)?;
        let claim = BatchIdentity::of(&checked);
        let pass = match self
            .admit(claim.as_ref(), stamp.ring_version, epoch)
            .await?
        {
            Admission::Next => claim.as_ref().map(|claim| self.gate.pass(claim)),
            Admission::Known(base_offset) => {
                let known = self.known(base_offset, epoch);
                return Ok(PendingAppend(std::future::ready(Ok(known)).boxed()));
            }
            Admission::Later(_) | Admission::Refused(_) => {
                let decided = self.clone().decided(claim, stamp.ring_version);
                return Ok(PendingAppend(decided.boxed()));
            }
        };
        let entry = Entry {
            stamp,
            epoch,
            pass,
            room,
        };
        self.submit(checked, entry, arrived).await
    }

    /// Proposes a batch that has passed every check.
    async fn submit(
        self: &Arc<Self>,
        checked: BatchView,
        entry: Entry,
        arrived: Instant,
    ) -> Result<PendingAppend, WireError> {
        let Entry {
            stamp,
            epoch,
            mut pass,
            room,
        } = entry;
        let (records, bytes) = (checked.offset_count(), checked.bytes().len());
        let followed = follow(self.host.store.traces(), checked.bytes());
        let batch = checked.into_bytes();
        let command = Command::Append { stamp, batch };
        let stages = &self.host.metrics.stages;
        let checked_at = Instant::now();
        stages.receive.took(checked_at - arrived);
        let (responder, answer) = ProgressResponder::complete_only();
        let proposed = self
            .replica
            .raft
            .client_write_ff(command, Some(responder))
            .await;
        // The batch did not enter the queue of the Raft core.
        proposed.map_err(|fatal| {
            self.error(
                ErrorCode::NotServing,
                format!("its replica on this node has stopped: {fatal}; ask another node"),
            )
        })?;
        let proposed_at = Instant::now();
        stages.propose.took(proposed_at - checked_at);
        if is_planted(PlantedBug::AcknowledgeBeforeCommit) {
            return Ok(PendingAppend(
                std::future::ready(Ok(self.guess(epoch))).boxed(),
            ));
        }
        // A separate task, because the room must be released even if no caller polls the ticket. A caller
        // that waits for room may itself hold the tickets. The task ends when the batch is applied, the
        // replica stops, or the time is up.
        let partition = self.clone();
        let outcome = tokio::spawn(async move {
            let answered = tokio::time::timeout(COMMIT_WITHIN, answer).await;
            drop(followed);
            drop::<OwnedSemaphorePermit>(room);
            let appended = partition.outcome(answered);
            if let Some(pass) = &mut pass {
                pass.written = appended.is_ok();
            }
            drop(pass);
            if let Ok(appended) = &appended {
                partition.count(appended, proposed_at, (records, bytes));
            }
            appended
        });
        // Only after the task owns the room: a producer that disconnects during this call must not take the
        // batch's room with it.
        self.roll_if_full().await;
        let partition = self.clone();
        let ticket = async move { outcome.await.unwrap_or_else(|_| Err(partition.stopped())) };
        Ok(PendingAppend(ticket.boxed()))
    }

    /// Converts the answer of the Raft core, or a timeout, into the outcome of a batch.
    fn outcome<E>(
        &self,
        answered: Result<Result<ClientWriteResult<TypeConfig>, E>, Elapsed>,
    ) -> Result<Appended, WireError> {
        match answered {
            Ok(Ok(result)) => self.appended(result),
            // The core ended while it had the batch.
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(self.late()),
        }
    }

    /// Counts an acknowledged batch, and its time since the proposal.
    fn count(&self, appended: &Appended, proposed: Instant, (records, bytes): (u32, usize)) {
        let took = appended.known.saturating_duration_since(proposed);
        self.host.metrics.stages.commit.took(took);
        if !appended.duplicate {
            self.traffic.produced_records.add(records.into());
            self.traffic.produced_bytes.add(bytes as u64);
        }
    }

    fn stopped(&self) -> WireError {
        self.error(
            ErrorCode::LeadershipLost,
            "its replica on this node stopped before the batch was confirmed, and the batch may \
             have been written; send it again with the same sequence",
        )
    }

    pub(super) fn late(&self) -> WireError {
        self.error(
            ErrorCode::Timeout,
            "no majority confirmed the batch in time, and it may still be written; send it again \
             with the same sequence",
        )
    }

    /// Builds the answer to a duplicate of a committed batch.
    pub(super) fn known(&self, base_offset: u64, epoch: u64) -> Appended {
        let machine = self.replica.view.machine();
        let base_offset = match is_planted(PlantedBug::NewOffsetForDuplicates) {
            false => base_offset,
            true => machine.next_offset(),
        };
        Appended {
            base_offset,
            epoch,
            duplicate: true,
            log_start_offset: machine.log_start(),
            known: Instant::now(),
        }
    }

    pub(super) fn check_disk(&self) -> Result<(), WireError> {
        match &*self.host.store.disk_status().borrow() {
            DiskStatus::Healthy => Ok(()),
            DiskStatus::Full => Err(self.error(
                ErrorCode::DiskFull,
                "its leader's disk is full; free space there, or send again when another \
                node leads",
            )),
            DiskStatus::Failed(why) => Err(self.error(
                ErrorCode::DiskFailed,
                format!(
                    "its leader's disk failed ({why}); repair the disk, and the node opens its database again"
                ),
            )),
        }
    }

    fn stamp(&self, ring_version: u32, epoch: u64) -> Result<Stamp, WireError> {
        let understood = self.host.view.borrow().understood;
        Ok(Stamp {
            leader_time_ms: self.host.clock.now_ms(),
            ring_version: self.written_ring(ring_version, epoch)?,
            own_clock: understood >= OWN_CLOCK_SINCE_VERSION,
            long_memory: understood >= PRODUCERS_SINCE_VERSION,
        })
    }

    /// Waits for room for `bytes` among the node's produce requests.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WireError> {
        let permits = bytes.min(self.host.limits.produce_inflight_bytes);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = self.host.produce_room.clone().acquire_many_owned(permits);
        match tokio::time::timeout(ROOM_WITHIN, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => {
                Err(self.error(ErrorCode::NotServing, "node is stopping; ask another node"))
            }
            Err(_) => Err(self.error(
                ErrorCode::Overloaded,
                "its leader has too many bytes waiting to be written (produce_inflight_bytes); \
                 send more slowly",
            )),
        }
    }

    /// Ends the active segment once it is full. The leader decides and the log records it, so that every
    /// replica cuts at the same index.
    pub(super) async fn roll_if_full(&self) {
        let segment_bytes = self.settings.read().segment_bytes;
        let asked = {
            let machine = self.replica.view.machine();
            if machine.active_bytes() < segment_bytes {
                return;
            }
            machine.last_boundary().end_index + 1
        };
        if self.roll_asked.swap(asked, Ordering::Relaxed) != asked {
            let roll = Command::Roll {
                leader_time_ms: self.host.clock.now_ms(),
            };
            // If this proposal is lost, the next round of retention repeats it.
            let _ = self.replica.raft.client_write_ff(roll, None).await;
        }
    }

    fn appended(&self, result: ClientWriteResult<TypeConfig>) -> Result<Appended, WireError> {
        let written = match result {
            Err(ClientWriteError::LogEntryDiscarded(_))
                if is_planted(PlantedBug::LossIsSuccess) =>
            {
                return Ok(self.guess(0));
            }
            result => result.map_err(|error| self.unanswered(error.into()))?,
        };
        match written.data {
            Reply::Appended {
                base_offset,
                duplicate,
            } => Ok(Appended {
                base_offset,
                epoch: **written.log_id.committed_leader_id(),
                duplicate,
                log_start_offset: self.replica.view.machine().log_start(),
                known: Instant::now(),
            }),
            Reply::Refused(error) => Err(self.error(error.code, error.message)),
            Reply::Done | Reply::Meta(_) | Reply::Group(_) => Err(self.error(
                ErrorCode::Internal,
                "internal error: unexpected reply type to an append",
            )),
        }
    }

    /// For planted bugs only: an answer without a commit.
    fn guess(&self, epoch: u64) -> Appended {
        let machine = self.replica.view.machine();
        Appended {
            base_offset: machine.next_offset(),
            epoch,
            duplicate: false,
            log_start_offset: machine.log_start(),
            known: Instant::now(),
        }
    }

    /// Error for a write to which Raft returned no reply.
    pub(super) fn unanswered(&self, fate: Unanswered) -> WireError {
        let forward = match fate {
            Unanswered::NotProposed(forward) => forward,
            Unanswered::Late => return self.late(),
            Unanswered::InDoubt(why) => {
                return self.error(
                    ErrorCode::LeadershipLost,
                    format!(
                        "{why}; the write may have been made: repeat it, a batch with the same \
                         sequence"
                    ),
                );
            }
        };
        match (forward.reason, forward.leader_node) {
            (ForwardReason::LeaseExpired, _) => self.error(
                ErrorCode::NoLeader,
                "its leader does not hear from a majority of its replicas, so it can commit \
                 nothing; try again shortly",
            ),
            (ForwardReason::NotLeader | ForwardReason::LeadershipTransfer, Some(node)) => self
                .error(
                    ErrorCode::NotLeader,
                    format!("{node} is the leader; ask that node"),
                ),
            (ForwardReason::NotLeader | ForwardReason::LeadershipTransfer, None) => self.error(
                ErrorCode::NoLeader,
                "a leader election is in progress; try again shortly",
            ),
        }
    }
}

/// State that accompanies a batch until it is applied.
struct Entry {
    stamp: Stamp,
    epoch: u64,
    pass: Option<Pass>,
    room: OwnedSemaphorePermit,
}

/// Tracks a batch whose trace is sampled. The caller must be in the batch's span.
fn follow(traces: &Traces, batch: &Bytes) -> Option<Followed> {
    if Span::current().is_none() {
        return None;
    }
    let context = TraceContext::current().filter(TraceContext::is_sampled)?;
    traces.follow(batch, context)
}
