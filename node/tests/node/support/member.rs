//! A member of a consumer group, by its raw requests and answers.

use std::time::Duration;

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Asked;
use ropewalk_proto::v1::group_response::Kind as Told;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Node, PATIENCE, batch};

pub const GROUP: &str = "billing";
pub const PARTITIONS: u32 = 4;
pub const READ: &str = "orders";
pub const SESSION_MS: u32 = 600;

/// A node with a topic to read.
pub async fn cluster() -> Node {
    let mut node = Node::start_with(|config| {
        config.limits.group_partitions = 2;
        config.limits.group_return_ms = 200;
        config.limits.groups_per_coordinator = 40;
        config.limits.group_members = 3;
    })
    .await;
    node.create_topic(READ, PARTITIONS).await.expect("a topic");
    node
}

pub struct Member {
    requests: mpsc::Sender<v1::GroupRequest>,
    answers: Streaming<v1::GroupResponse>,
    pub assignment: v1::Assignment,
    last_id: u64,
}

pub fn join_as(member_id: &str) -> v1::Join {
    v1::Join {
        group: GROUP.to_owned(),
        member_id: member_id.to_owned(),
        topics: vec![READ.to_owned()],
        session_ms: SESSION_MS,
        ..v1::Join::default()
    }
}

pub fn request(request_id: u64, kind: Asked) -> v1::GroupRequest {
    v1::GroupRequest {
        request_id,
        kind: Some(kind),
    }
}

impl Member {
    pub async fn try_join(node: &Node, join: v1::Join) -> Result<Member, WireError> {
        let (requests, to_send) = mpsc::channel(16);
        requests
            .send(request(1, Asked::Join(join)))
            .await
            .expect("room");
        let mut client = node.client.clone();
        let opened = client.join_group(ReceiverStream::new(to_send)).await;
        let mut answers = opened
            .map_err(|status| WireError::from(&status))?
            .into_inner();
        let first = timeout(PATIENCE, answers.message()).await.expect("in time");
        match first.expect("the stream lives").expect("an answer").kind {
            Some(Told::Assignment(assignment)) => Ok(Member {
                requests,
                answers,
                assignment,
                last_id: 1,
            }),
            Some(Told::Error(error)) => Err(error.into()),
            other => panic!("a join was answered by {other:?}"),
        }
    }

    /// Joins. The coordinator may have to be elected first.
    pub async fn join(node: &Node, join: v1::Join) -> Member {
        let joined = async {
            loop {
                match Member::try_join(node, join.clone()).await {
                    Err(error)
                        if error.code == ErrorCode::NoLeader
                            || error.code == ErrorCode::NotLeader =>
                    {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    joined => return joined.expect("it joins"),
                }
            }
        };
        timeout(PATIENCE, joined)
            .await
            .expect("a coordinator in time")
    }

    pub async fn next(&mut self) -> v1::GroupResponse {
        let next = timeout(PATIENCE, self.answers.message()).await;
        next.expect("in time")
            .expect("the stream lives")
            .expect("no end")
    }

    /// Sends a request, and applies the messages that arrive before its answer.
    pub async fn ask(&mut self, kind: Asked) -> Told {
        self.last_id += 1;
        self.requests
            .send(request(self.last_id, kind))
            .await
            .expect("room");
        loop {
            let told = self.next().await;
            match told.kind.expect("a kind") {
                answer if told.request_id == self.last_id => return answer,
                Told::Assignment(assignment) => self.assignment = assignment,
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    pub async fn commit(&mut self, of: &v1::Assigned, offset: u64) -> Result<(), ErrorCode> {
        let commit = v1::Commit {
            positions: vec![v1::GroupPosition {
                topic_id: of.topic_id,
                partition: of.partition,
                epoch: of.epoch,
                offset,
                note: String::new(),
            }],
        };
        let refused = match self.ask(Asked::Commit(commit)).await {
            Told::Committed(committed) => committed.refused.into_iter().next(),
            Told::Error(error) => return Err(ErrorCode::from_number(error.code)),
            other => panic!("a commit was answered by {other:?}"),
        };
        match refused.and_then(|refused| refused.error) {
            Some(error) => Err(ErrorCode::from_number(error.code)),
            None => Ok(()),
        }
    }

    pub async fn release_revoked(&mut self) {
        let revoked = self.assignment.partitions.iter().filter(|one| one.revoked);
        let partitions = revoked.map(|one| v1::GroupPlace {
            topic_id: one.topic_id,
            partition: one.partition,
            epoch: one.epoch,
        });
        let release = v1::Release {
            partitions: partitions.collect(),
        };
        let answer = self.ask(Asked::Release(release)).await;
        assert_eq!(answer, Told::Done(v1::GroupDone {}));
    }

    /// Waits until it owns this number of partitions, and none of them is being revoked.
    pub async fn owns(&mut self, count: usize) {
        let settled = |assignment: &v1::Assignment| {
            assignment.partitions.len() == count
                && assignment.partitions.iter().all(|one| !one.revoked)
        };
        while !settled(&self.assignment) {
            let told = self.next().await;
            match told.kind {
                Some(Told::Assignment(assignment)) => self.assignment = assignment,
                other => panic!("not an assignment: {other:?}"),
            }
        }
    }

    /// Waits for the end of its session, and returns the error.
    pub async fn ends(&mut self) -> ErrorCode {
        loop {
            match self.next().await.kind {
                Some(Told::Error(error)) => return ErrorCode::from_number(error.code),
                Some(Told::Assignment(_)) => {}
                other => panic!("not an end: {other:?}"),
            }
        }
    }
}

pub async fn write(node: &mut Node, partition: u32) {
    let one = || batch((-1, -1, -1), &[b"value"]);
    let written = async {
        while node.produce_to(READ, partition, one()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("a leader in time");
}
