//! Transfer of checkpoints between nodes, in parts. The receiver collects a checkpoint in memory, within a
//! bound over all checkpoints that it collects, and installs it once it is complete. A broken transfer leaves
//! nothing behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::network::RPCTypes;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::raft_client::RaftClient;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::convert::Malformed;
use super::network::{Network, RpcError, unreachable_error};
use super::{CHECKPOINT_BYTES, MESSAGE_BYTES, PART_BYTES};

/// Number of parts that a receiver must be able to install within the time of one call.
const INSTALLED_A_CALL: usize = 16;

/// A checkpoint that has arrived completely.
pub(super) struct Gathered {
    /// The call, with the checkpoint.
    pub call: v1::SnapshotCall,
    /// The memory reserved for it until it is installed.
    pub _room: OwnedSemaphorePermit,
}

/// Memory for the checkpoints that a node collects.
#[derive(Debug, Clone)]
pub(super) struct Gathering {
    room: Arc<Semaphore>,
    bytes: usize,
    /// Maximum time until each part arrives.
    within: Duration,
}

impl Gathering {
    /// Memory for this number of bytes in total.
    pub fn new(bytes: usize, within: Duration) -> Gathering {
        // A checkpoint's reservation is a `u32`.
        let bytes = bytes.min(u32::MAX as usize >> 1);
        Gathering {
            room: Arc::new(Semaphore::new(bytes)),
            bytes,
            within,
        }
    }

    /// Receives all parts. `check` validates the call before memory is reserved for the rest.
    ///
    /// # Errors
    /// `TooLarge` or `Overloaded` if there is no memory for it; `InvalidRequest` if the parts do not form a
    /// checkpoint; `Timeout`; and any error of `check`.
    pub async fn gather(
        &self,
        parts: &mut Streaming<v1::SnapshotPart>,
        check: impl FnOnce(&v1::SnapshotCall) -> Result<(), WireError>,
    ) -> Result<Gathered, Status> {
        let first = self.next(parts).await?;
        let first = first.ok_or_else(|| no_whole("it has no parts"))?;
        let call = first
            .call
            .ok_or_else(|| no_whole("its first part has no replica"))?;
        check(&call)?;
        let whole = usize::try_from(first.checkpoint_bytes).unwrap_or(usize::MAX);
        let room = self.room_for(whole)?;
        let mut checkpoint: Vec<u8> = Vec::new();
        // The length is the sender's claim: an allocation that fails must not end the process.
        checkpoint
            .try_reserve_exact(whole)
            .map_err(|_| no_memory(whole))?;
        let mut bytes = first.bytes;
        loop {
            let left = whole - checkpoint.len();
            // Smaller parts would hold the memory for longer than the checkpoint needs.
            if bytes.len() != left.min(PART_BYTES) {
                return Err(no_whole("one of its parts has the wrong length").into());
            }
            checkpoint.extend_from_slice(&bytes);
            if checkpoint.len() == whole {
                break;
            }
            let next = self.next(parts).await?;
            bytes = next.ok_or_else(|| no_whole("parts are missing"))?.bytes;
        }
        Ok(Gathered {
            call: v1::SnapshotCall {
                checkpoint: checkpoint.into(),
                ..call
            },
            _room: room,
        })
    }

    async fn next(
        &self,
        parts: &mut Streaming<v1::SnapshotPart>,
    ) -> Result<Option<v1::SnapshotPart>, Status> {
        match timeout(self.within, parts.message()).await {
            Ok(part) => part,
            Err(_) => {
                let why = format!(
                    "checkpoint part did not arrive within {:?}; try again",
                    self.within
                );
                Err(WireError::new(ErrorCode::Timeout, why).into())
            }
        }
    }

    /// Reserves memory for a whole checkpoint. It never waits: if several transfers waited halfway, none
    /// could finish.
    fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WireError> {
        if bytes > self.bytes {
            return Err(too_large(bytes, self.bytes));
        }
        let room = self.room.clone().try_acquire_many_owned(bytes as u32);
        room.map_err(|_| no_memory(bytes))
    }
}

impl Network {
    /// Sends a checkpoint in parts. One message carries a checkpoint of one part, and any within its limit to
    /// a node that does not support parts. Each part, or the one message, may take as long as `bound`.
    pub(super) async fn send_snapshot(
        &self,
        call: v1::SnapshotCall,
        bound: Duration,
    ) -> Result<v1::SnapshotAnswer, RpcError> {
        let (bytes, most) = (call.checkpoint.len(), self.peers.checkpoint_bytes());
        if bytes > PART_BYTES && bytes > most {
            return Err(self.not_sent(too_large(bytes, most)));
        }
        if bytes > PART_BYTES {
            match self.send_parts(call.clone(), bound).await {
                Err(Sending::Failed(error)) => return Err(error),
                Err(Sending::NoParts) if bytes > CHECKPOINT_BYTES => {
                    let why = format!(
                        "checkpoint of {bytes} bytes is too large for that node's version, which \
                         accepts at most {CHECKPOINT_BYTES}; upgrade it"
                    );
                    return Err(self.not_sent(WireError::new(ErrorCode::UnsupportedVersion, why)));
                }
                Err(Sending::NoParts) => {}
                Ok(answer) => return Ok(answer),
            }
        }
        self.unary(RPCTypes::InstallSnapshot, bound, async |mut client| {
            client.install_snapshot(call).await
        })
        .await
    }

    async fn send_parts(
        &self,
        call: v1::SnapshotCall,
        bound: Duration,
    ) -> Result<v1::SnapshotAnswer, Sending> {
        let (to_send, queue) = mpsc::channel(1);
        let mut client = RaftClient::new(self.peer().channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let parts = parts_of(call);
        let calls = u32::try_from(1 + parts.len() / INSTALLED_A_CALL).unwrap_or(u32::MAX);
        let install = bound.saturating_mul(calls);
        let late = async move {
            for part in parts {
                if timeout(bound, to_send.send(part)).await.is_err() {
                    return bound;
                }
            }
            // No further parts follow.
            drop(to_send);
            tokio::time::sleep(install).await;
            install
        };
        let answer = tokio::select! {
            biased;
            answer = client.install_snapshot_parts(ReceiverStream::new(queue)) => answer,
            bound = late => {
                return Err(Sending::Failed(self.timeout(RPCTypes::InstallSnapshot, bound)));
            }
        };
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == Code::Unimplemented => Err(Sending::NoParts),
            Err(status) => Err(Sending::Failed(self.status_error(&status))),
        }
    }

    /// The error for a replica that cannot catch up. It is also logged, since nothing else shows it.
    fn not_sent(&self, error: WireError) -> RpcError {
        let (group, target) = (self.group, self.to);
        if let Some(left_out) = self.peers.traffic().checkpoint_not_sent.pass() {
            tracing::warn!(
                %group,
                %target,
                %error,
                left_out,
                "replica cannot catch up: its checkpoint was not sent"
            );
        }
        unreachable_error(&error)
    }
}

/// A reason why the parts were not accepted.
enum Sending {
    /// The other node does not support parts.
    NoParts,
    Failed(RpcError),
}

/// The parts of a checkpoint, in order; they share its memory.
fn parts_of(mut call: v1::SnapshotCall) -> Vec<v1::SnapshotPart> {
    let mut checkpoint = std::mem::take(&mut call.checkpoint);
    let mut parts = vec![v1::SnapshotPart {
        call: Some(call),
        checkpoint_bytes: checkpoint.len() as u64,
        bytes: part_of(&mut checkpoint),
    }];
    while !checkpoint.is_empty() {
        parts.push(v1::SnapshotPart {
            bytes: part_of(&mut checkpoint),
            ..v1::SnapshotPart::default()
        });
    }
    parts
}

fn part_of(checkpoint: &mut Bytes) -> Bytes {
    checkpoint.split_to(checkpoint.len().min(PART_BYTES))
}

fn too_large(bytes: usize, most: usize) -> WireError {
    WireError::new(
        ErrorCode::TooLarge,
        format!(
            "checkpoint of {bytes} bytes is larger than checkpoint_bytes = {most}; raise the limit on all nodes, or delete unused consumer groups"
        ),
    )
}

fn no_memory(bytes: usize) -> WireError {
    WireError::new(
        ErrorCode::Overloaded,
        format!(
            "checkpoint of {bytes} bytes does not fit in memory beside the other checkpoints that \
             this node receives; try again later"
        ),
    )
}

fn no_whole(why: &str) -> WireError {
    Malformed(format!("the parts of a checkpoint: {why}")).into()
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
