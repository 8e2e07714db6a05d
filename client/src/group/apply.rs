//! Applies the coordinator's assignments and answers to the partitions of a member.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_proto::v1;
use tokio::time::Instant;

use super::assigned_partition::{AssignedPartition, Phase, Position, Which};
use super::assignment::{Change, Standing, TopicPartitionId, changes, place};
use super::progress::Progress;
use super::rebalance::{Rebalance, TopicPartition};
use super::shared::Shared;
use super::state::State;
use crate::error::{Error, Result};

/// Partitions by their change in an assignment.
#[derive(Debug, Default)]
struct Moved {
    assigned: Vec<TopicPartition>,
    revoked: Vec<TopicPartition>,
    lost: Vec<TopicPartition>,
    /// Topics that do not exist, if the list has changed.
    missing: Vec<String>,
}

impl Moved {
    /// Reports losses first, so that a partition that was lost and gained again counts as gained.
    fn told(self) -> Vec<Rebalance> {
        let lists = [
            (self.lost, Rebalance::Lost as fn(_) -> _),
            (self.revoked, Rebalance::Revoked),
            (self.assigned, Rebalance::Assigned),
        ];
        let lists = lists.into_iter().filter(|(list, _)| !list.is_empty());
        let missing = Some(self.missing).filter(|missing| !missing.is_empty());
        let missing = missing.map(Rebalance::TopicsMissing);
        lists
            .map(|(list, told)| told(list))
            .chain(missing)
            .collect()
    }
}

impl Shared {
    /// Applies an assignment. New partitions are read only after [`State::begin`], so that the listener hears
    /// of them first. A revoked partition is released after `within` at the latest.
    pub fn apply(&self, told: v1::Assignment, within: Duration) -> Vec<Rebalance> {
        let moved = self.change(|state| {
            state.generation = told.generation;
            state.heartbeat = Duration::from_millis(told.heartbeat_ms.into());
            if told.session_ms > 0 {
                state.limits.session = Duration::from_millis(told.session_ms.into());
            }
            let had = state.parts.iter();
            let had: BTreeMap<TopicPartitionId, (u64, Standing)> = had
                .map(|(place, part)| (*place, (part.epoch, part.standing())))
                .collect();
            let mut moved = Moved::default();
            for change in changes(&had, told.partitions) {
                state.carry_out(change, Instant::now() + within, &mut moved);
            }
            if state.missing != told.missing_topics {
                state.missing = told.missing_topics.clone();
                moved.missing = told.missing_topics;
            }
            moved
        });
        if !moved.lost.is_empty() || !moved.revoked.is_empty() {
            self.taken.send_modify(|times| *times += 1);
        }
        moved.told()
    }

    /// Drops all partitions at the end of the session.
    pub fn lose_all(&self, member_id: String) -> Vec<Rebalance> {
        let lost = self.change(|state| {
            state.member_id = member_id;
            let parts = std::mem::take(&mut state.parts);
            let kept = parts.into_values();
            let kept = kept.filter(|part| part.standing() != Standing::Released);
            kept.map(|part| part.name).collect()
        });
        self.taken.send_modify(|times| *times += 1);
        let moved = Moved {
            lost,
            ..Moved::default()
        };
        moved.told()
    }

    /// Records that the coordinator answered a request sent at `at`.
    pub fn heard(&self, at: Instant) {
        let stale = {
            let mut state = self.state.lock();
            let over = state.heard_at + state.limits.session;
            state.heard_at = state.heard_at.max(at);
            Instant::now() >= over
        };
        if stale {
            self.change(|_| {});
        }
    }
}

impl State {
    fn carry_out(&mut self, change: Change, until: Instant, moved: &mut Moved) {
        match change {
            Change::Gain(told) => {
                let place = place(&told);
                let part = AssignedPartition::new(told, self.next_life());
                moved.assigned.push(part.name.clone());
                self.parts.insert(place, part);
            }
            Change::Return(told) => {
                let place = place(&told);
                let mut part = AssignedPartition::new(told, self.next_life());
                part.phase = Phase::Revoked { until };
                self.parts.insert(place, part);
            }
            Change::Revoke(place) => {
                if let Some(part) = self.parts.get_mut(&place) {
                    part.phase = Phase::Revoked { until };
                    moved.revoked.push(part.name.clone());
                }
            }
            Change::Keep(place) => self.keep(place, moved),
            Change::Lose(place) => moved
                .lost
                .extend(self.parts.remove(&place).map(|it| it.name)),
            Change::Forget(place) => drop(self.parts.remove(&place)),
        }
    }

    /// Keeps a partition that was about to be released. Reading resumes from the position to commit, because
    /// its outstanding deliveries may have been dropped meanwhile.
    fn keep(&mut self, place: TopicPartitionId, moved: &mut Moved) {
        let life = self.next_life();
        let Some(part) = self.parts.get_mut(&place) else {
            return;
        };
        part.life = life;
        part.phase = match &part.progress {
            Some(progress) => {
                part.progress = Some(Progress::new(progress.position()));
                Phase::Stopped
            }
            None => Phase::Starting {
                asked: false,
                at: part.committed,
            },
        };
        moved.assigned.push(part.name.clone());
    }

    /// The positions to commit now.
    pub fn to_commit(&self, which: Which) -> Vec<Position> {
        let now = Instant::now();
        let moved = self.parts.iter().filter_map(|(place, part)| {
            let offset = part.to_commit(which, now)?;
            Some(Position {
                place: *place,
                epoch: part.epoch,
                offset,
            })
        });
        moved.collect()
    }

    /// Records that the coordinator accepted or refused a position.
    pub fn committed(&mut self, position: &Position, refused: bool) {
        let part = self.parts.get_mut(&position.place);
        let Some(part) = part.filter(|part| part.epoch == position.epoch) else {
            return;
        };
        if refused {
            part.refused = true;
        } else {
            part.committed = Some(position.offset);
        }
    }

    /// Starts to release the revoked partitions that have nothing to commit, and no outstanding delivery or
    /// no time left. Deliveries that finish later no longer count.
    pub fn give_up(&mut self, last_commit: bool) -> Vec<v1::GroupPlace> {
        let now = Instant::now();
        let mut released = Vec::new();
        for (place, part) in &mut self.parts {
            let commits = last_commit && part.to_commit(Which::Due, now).is_some();
            if part.is_settled(now) && !commits {
                part.phase = Phase::Releasing;
                part.progress = None;
                released.push(v1::GroupPlace {
                    topic_id: place.topic_id,
                    partition: place.partition,
                    epoch: part.epoch,
                });
            }
        }
        released
    }

    /// Removes partitions after the coordinator has acknowledged their release.
    pub fn released(&mut self, places: &[v1::GroupPlace]) {
        for released in places {
            let place = TopicPartitionId {
                topic_id: released.topic_id,
                partition: released.partition,
            };
            let part = self.parts.get(&place);
            if part.is_some_and(|part| {
                part.epoch == released.epoch && part.standing() == Standing::Released
            }) {
                self.parts.remove(&place);
            }
        }
    }

    /// Prepares all requests of a broken session for repetition.
    pub fn say_again(&mut self) {
        let now = Instant::now();
        for part in self.parts.values_mut() {
            part.refused = false;
            if let Phase::Releasing = part.phase {
                part.phase = Phase::Revoked { until: now };
            }
        }
    }

    /// Allows refused commits to be tried again.
    pub fn try_again(&mut self) {
        for part in self.parts.values_mut() {
            part.refused = false;
        }
    }

    /// Earliest pending deadline of a revoked partition; deadlines in the past do not count.
    pub fn revoked_until(&self) -> Option<Instant> {
        let now = Instant::now();
        let parts = self.parts.values();
        let until = parts.filter_map(|part| match part.phase {
            Phase::Revoked { until } if until > now => Some(until),
            _ => None,
        });
        until.min()
    }
}

impl State {
    /// Returns true if this member has a partition of that name.
    pub fn has(&self, topic: &str, partition: u32) -> bool {
        let mut parts = self.parts.values();
        parts.any(|part| &*part.name.topic == topic && part.name.partition == partition)
    }

    /// A partition of this member that is not being released.
    pub fn named(&mut self, topic: &str, partition: u32) -> Result<&mut AssignedPartition> {
        self.find(topic, partition).map(|(_, part)| part)
    }

    /// The ids of such a partition.
    pub fn place_of(&mut self, topic: &str, partition: u32) -> Result<TopicPartitionId> {
        self.find(topic, partition).map(|(place, _)| place)
    }

    fn find(
        &mut self,
        topic: &str,
        partition: u32,
    ) -> Result<(TopicPartitionId, &mut AssignedPartition)> {
        let mut parts = self.parts.iter_mut();
        let named = parts.find(|(_, part)| {
            &*part.name.topic == topic
                && part.name.partition == partition
                && part.standing() == Standing::Working
        });
        let named = named.map(|(place, part)| (*place, part));
        named.ok_or_else(|| {
            Error::invalid(format!(
                "{topic}/{partition} is not assigned to this member; see assignment()"
            ))
        })
    }

    /// Continues reading a partition at another offset. Its outstanding deliveries no longer count.
    pub fn seek(&mut self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let life = self.next_life();
        let part = self.named(topic, partition)?;
        part.life = life;
        part.progress = Some(Progress::new(offset));
        part.phase = Phase::Stopped;
        self.begin();
        Ok(())
    }
}
