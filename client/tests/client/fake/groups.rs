//! The coordinator of one group: it assigns partitions as the test says, and records the members' requests.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1;
use ropewalk_proto::v1::group_request::Kind as Ask;
use ropewalk_proto::v1::group_response::Kind as Answer;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::service::Service;
use super::world::World;
use super::{Fake, SOON, TOPIC};

pub const GROUP: &str = "watchers";

/// Reaction to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum React {
    Obey,
    Refuse(ErrorCode),
    /// Refuse every position of a commit individually.
    RefuseEach(ErrorCode),
    /// Send no answer.
    Ignore,
    /// Apply the request, but break the stream before the answer.
    ObeyAndBreak,
    /// Break the stream before the request is read.
    Break,
}

type Answers = mpsc::UnboundedSender<Result<v1::GroupResponse, Status>>;

pub struct Groups {
    /// The node that coordinates; 0 for none.
    pub coordinator: u64,
    pub heartbeat_ms: u32,
    /// Session timeout sent to members; 0 sends none, like an older node.
    pub session_ms: u32,
    pub generation: u64,
    /// Partitions of the members, the same for all.
    pub owned: Vec<v1::Assigned>,
    /// Topics that members name and that do not exist.
    pub missing: Vec<String>,
    pub committed: BTreeMap<u32, u64>,
    /// All requests except heartbeats, in order, with the member.
    pub said: Vec<(String, Ask)>,
    pub script: Box<dyn FnMut(&Ask) -> React + Send>,
    /// Number of heartbeats.
    pub heartbeats: usize,
    members: BTreeMap<String, Answers>,
}

/// A partition to assign.
pub fn offer(partition: u32, epoch: u64, revoked: bool) -> v1::Assigned {
    v1::Assigned {
        topic: TOPIC.into(),
        topic_id: 1,
        partition,
        epoch,
        revoked,
        committed: None,
    }
}

impl Groups {
    pub fn new() -> Groups {
        Groups {
            coordinator: 1,
            heartbeat_ms: 20,
            session_ms: 0,
            generation: 1,
            owned: Vec::new(),
            missing: Vec::new(),
            committed: BTreeMap::new(),
            said: Vec::new(),
            script: Box::new(|_| React::Obey),
            heartbeats: 0,
            members: BTreeMap::new(),
        }
    }

    /// All positions committed in a partition, in order, as epoch and offset.
    pub fn commits(&self, partition: u32) -> Vec<(u64, u64)> {
        let commits = self.said.iter().filter_map(|(_, ask)| match ask {
            Ask::Commit(commit) => Some(&commit.positions),
            _ => None,
        });
        let positions = commits.flatten().filter(|at| at.partition == partition);
        positions.map(|at| (at.epoch, at.offset)).collect()
    }

    /// The member ids of all joins, in order.
    pub fn joins(&self) -> Vec<String> {
        let joins = self.said.iter().filter_map(|(_, ask)| match ask {
            Ask::Join(join) => Some(join.member_id.clone()),
            _ => None,
        });
        joins.collect()
    }

    /// The released partitions, in order, with their epochs.
    pub fn released(&self) -> Vec<(u32, u64)> {
        let releases = self.said.iter().filter_map(|(_, ask)| match ask {
            Ask::Release(release) => Some(&release.partitions),
            _ => None,
        });
        releases
            .flatten()
            .map(|at| (at.partition, at.epoch))
            .collect()
    }

    pub fn has_left(&self) -> bool {
        self.said
            .iter()
            .any(|(_, ask)| matches!(ask, Ask::Leave(_)))
    }

    fn assignment(&self) -> Answer {
        let partitions = self.owned.iter().cloned().map(|mut assigned| {
            assigned.committed = self.committed.get(&assigned.partition).copied();
            assigned
        });
        Answer::Assignment(v1::Assignment {
            generation: self.generation,
            heartbeat_ms: self.heartbeat_ms,
            session_ms: self.session_ms,
            partitions: partitions.collect(),
            missing_topics: self.missing.clone(),
        })
    }

    fn obey(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Join(_) => return self.assignment(),
            Ask::Commit(commit) => {
                for at in &commit.positions {
                    self.committed.insert(at.partition, at.offset);
                }
                return Answer::Committed(v1::Committed::default());
            }
            Ask::Release(release) => self.owned.retain(|owned| {
                let mut released = release.partitions.iter();
                !released.any(|at| (at.partition, at.epoch) == (owned.partition, owned.epoch))
            }),
            Ask::Heartbeat(_) | Ask::Leave(_) => {}
        }
        Answer::Done(v1::GroupDone {})
    }

    fn refuse_each(ask: &Ask, code: ErrorCode) -> Answer {
        let Ask::Commit(commit) = ask else {
            panic!("only commits are refused in part");
        };
        let refused = commit.positions.iter().map(|at| v1::PositionError {
            topic_id: at.topic_id,
            partition: at.partition,
            error: Some(WireError::new(code, "the script says so").into()),
        });
        Answer::Committed(v1::Committed {
            refused: refused.collect(),
        })
    }
}

impl World {
    /// The answer to a request; true if the stream breaks instead.
    fn coordinate(&mut self, node_id: u64, ask: &Ask) -> (Option<Answer>, bool) {
        let coordinator = self.groups.coordinator;
        if node_id != coordinator {
            let code = match coordinator {
                0 => ErrorCode::NoLeader,
                _ => ErrorCode::NotLeader,
            };
            let mut error = v1::Error::from(WireError::new(code, "not here"));
            error.leader = (coordinator != 0).then(|| self.node(coordinator));
            return (Some(Answer::Error(error)), false);
        }
        match (self.groups.script)(ask) {
            React::Obey => (Some(self.groups.obey(ask)), false),
            React::ObeyAndBreak => {
                self.groups.obey(ask);
                (None, true)
            }
            React::Break => (None, true),
            React::Ignore => (None, false),
            React::Refuse(code) => {
                let error = WireError::new(code, "the script says so");
                (Some(Answer::Error(error.into())), false)
            }
            React::RefuseEach(code) => (Some(Groups::refuse_each(ask, code)), false),
        }
    }

    pub fn lags(&self) -> Vec<v1::PartitionLag> {
        let lags = (0..).zip(&self.logs).map(|(partition, log)| {
            let committed = self.groups.committed.get(&partition).copied();
            v1::PartitionLag {
                topic: TOPIC.into(),
                partition,
                committed,
                high_watermark: log.end,
                lag_records: log.end - committed.unwrap_or(log.start),
                ..Default::default()
            }
        });
        lags.collect()
    }
}

impl Service {
    /// Serves one member's stream.
    pub async fn coordinate(
        self,
        mut requests: Streaming<v1::GroupRequest>,
        answers: mpsc::UnboundedSender<Result<v1::GroupResponse, Status>>,
    ) {
        let mut member = String::new();
        while let Some(Ok(request)) = requests.next().await {
            let ask = request.kind.unwrap();
            let mut world = self.world.lock();
            if let Ask::Join(join) = &ask {
                member = join.member_id.clone();
            }
            let (kind, breaks) = world.coordinate(self.node_id, &ask);
            let joined = matches!(kind, Some(Answer::Assignment(_)));
            if matches!(ask, Ask::Heartbeat(_)) {
                world.groups.heartbeats += 1;
            } else {
                world.groups.said.push((member.clone(), ask));
            }
            if breaks {
                let _ = answers.send(Err(Status::unavailable("the connection broke")));
            }
            if kind.is_some() {
                let request_id = request.request_id;
                let _ = answers.send(Ok(v1::GroupResponse { request_id, kind }));
            }
            // Added after the answer, so that nothing is pushed before it.
            if joined {
                world.groups.members.insert(member.clone(), answers.clone());
            }
            drop(world);
            self.changed.send_modify(|changes| *changes += 1);
            if breaks {
                return;
            }
        }
    }
}

impl Fake {
    /// Assigns these partitions to every member.
    pub fn assign(&self, owned: Vec<v1::Assigned>) {
        let mut world = self.world();
        world.groups.owned = owned;
        world.groups.generation += 1;
        let assignment = world.groups.assignment();
        world.groups.push(assignment);
    }

    /// Ends the session of every member.
    pub fn expel(&self, code: ErrorCode) {
        let error = WireError::new(code, "the script says so");
        let mut world = self.world();
        world.groups.push(Answer::Error(error.into()));
        world.groups.members.clear();
    }

    /// Breaks every stream to the coordinator.
    pub fn break_sessions(&self) {
        let members = std::mem::take(&mut self.world().groups.members);
        for answers in members.into_values() {
            // The member may be gone already.
            let _ = answers.send(Err(Status::unavailable("the connection broke")));
        }
    }

    /// Waits for `more` further heartbeats.
    pub async fn heartbeats(&self, more: usize) {
        let before = self.world().groups.heartbeats;
        let all = |groups: &Groups| groups.heartbeats >= before + more;
        self.until("heartbeats", all).await;
    }

    /// Waits until the group is in a state.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Groups) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !is_so(&self.world().groups) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(SOON, wait).await;
        waited.unwrap_or_else(|_| panic!("this never comes: {what}"));
    }
}

impl Groups {
    fn push(&mut self, answer: Answer) {
        for answers in self.members.values() {
            // The member may be gone already.
            let _ = answers.send(Ok(v1::GroupResponse {
                request_id: 0,
                kind: Some(answer.clone()),
            }));
        }
    }
}
