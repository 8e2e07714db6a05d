//! One member's session: it joins, receives its assignment, commits offsets, gives up partitions, leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ropewalk_machines::consumer_group::{Group, Groups, TopicPartitionId, unknown_member};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::is_internal;
use ropewalk_proto::v1::{
    Assignment, Commit, Committed, GroupMember, GroupPosition, GroupTopic, Join, MemberJoins,
    MembersLeave, PartitionsReleased, PositionError, PositionsCommitted, Release, group_command,
};
use tokio::sync::watch;

use super::{
    Coordinator, GroupHome, HEARTBEATS_PER_SESSION, MAX_NAME_BYTES, check_name, invalid, resolve,
};
use crate::config::{MAX_REBALANCE_MS, SESSION_MS};
use crate::partition::Partition;

/// Maximum topics that one member names.
const MAX_TOPICS: usize = 1_000;
/// Maximum offsets in one commit.
const MAX_POSITIONS: usize = 10_000;
/// Maximum length of the note beside a committed offset.
const MAX_NOTE_BYTES: usize = 4_096;
/// Maximum partitions whose end is asked for at a time.
const ENDS_AT_ONCE: usize = 64;

/// Offsets to commit, and refused ones.
type Sorted = (Vec<GroupPosition>, Vec<(TopicPartitionId, WireError)>);

/// One member's session with its coordinator.
#[derive(Debug)]
pub struct Session {
    coordinator: Coordinator,
    home: GroupHome,
    partition: Arc<Partition>,
    group: String,
    member: GroupMember,
    /// Signals changes of the group.
    changes: watch::Receiver<u64>,
    /// Epoch in which this node leads the group's partition.
    leads: watch::Receiver<Option<u64>>,
    /// Number of this session on this node.
    number: u64,
    /// Number of this session in the group's log.
    written: u64,
    /// Last assignment returned to the member.
    told: Option<Assignment>,
    /// Last known ends of partitions, the highest offsets that a commit may name.
    ends: BTreeMap<TopicPartitionId, u64>,
    has_left: bool,
}

impl Coordinator {
    /// Adds a member to its group, or readmits it.
    ///
    /// # Errors
    /// `InvalidRequest`, `UnknownTopic` of an internal one, `Overloaded`; `UnknownMember` and `NotOwner` for
    /// a member that returns; `NotLeader` and `NoLeader`.
    pub async fn join(&self, join: Join) -> Result<Session, WireError> {
        let home = self.home(&join.group).await?;
        let partition = self.led(home)?;
        let member = self.check_join(&join)?;
        let topics = self.topics(&partition, &join.group, &member).await;
        if join.again {
            partition.groups_caught_up().await?;
            partition.with_groups(|groups| check_member(groups, &join.group, &member).map(drop))?;
        }
        self.check_room(&partition, &join.group, &member.member_id)?;
        // Recorded before the join, or the reaper would treat the member as one of an earlier epoch.
        let number = self.0.sessions.fetch_add(1, Ordering::Relaxed);
        let (epoch, session) = (
            partition.coordinates()?,
            Duration::from_millis(member.session_ms.into()),
        );
        let named = (join.group.as_str(), member.member_id.as_str());
        let entering = self.enter(home, epoch, named, number, session);
        let (changes, leads) = (self.watch(&join.group), partition.leads());
        let kind = group_command::Kind::Joins(MemberJoins {
            member: Some(member.clone()),
            rebalance_ms: match join.rebalance_ms {
                0 => self.0.limits.group_rebalance_ms,
                asked => asked.min(MAX_REBALANCE_MS),
            },
            topics,
            session: written(epoch, number),
        });
        self.write(&partition, &join.group, kind).await?;
        entering.joined();
        Ok(Session {
            coordinator: self.clone(),
            home,
            partition,
            group: join.group,
            member,
            changes,
            leads,
            number,
            written: written(epoch, number),
            told: None,
            ends: BTreeMap::new(),
            has_left: false,
        })
    }

    /// Returns the topics that a member of a group subscribes to now.
    async fn topics(
        &self,
        partition: &Partition,
        group: &str,
        member: &GroupMember,
    ) -> Vec<GroupTopic> {
        let view = self.view();
        let matching = resolve::matching([member.pattern.clone()].into(), &view).await;
        // A name without a topic waits for one. Members that joined before their topic was deleted must be
        // able to rejoin, and go on with their other topics.
        let mut topics = resolve::topics_of(member, &view, &matching).unwrap_or_default();
        partition.with_groups(|groups| {
            let group = groups.get(group).into_iter();
            topics.extend(group.flat_map(|group| resolve::newer(group, member, &view)));
        });
        topics
    }

    fn check_join(&self, join: &Join) -> Result<GroupMember, WireError> {
        check_name("member", &join.member_id)?;
        if !join.instance_id.is_empty() {
            check_name("static member", &join.instance_id)?;
        }
        if join.client.len() > MAX_NAME_BYTES {
            return Err(invalid(format!(
                "client name is longer than {MAX_NAME_BYTES} bytes; shorten it"
            )));
        }
        if join.topics.is_empty() && join.pattern.is_empty() {
            return Err(invalid(
                "join request names no topics; subscribe to a topic or a pattern of topics",
            ));
        }
        if join.topics.len() > MAX_TOPICS || join.pattern.len() > MAX_NOTE_BYTES {
            return Err(invalid(format!(
                "join request has over {MAX_TOPICS} topics or a pattern over {MAX_NOTE_BYTES} bytes"
            )));
        }
        if let Some(name) = join.topics.iter().find(|name| is_internal(name)) {
            return Err(WireError::new(
                ErrorCode::UnknownTopic,
                format!("topic {name:?} is internal; subscribe to another topic"),
            ));
        }
        for name in &join.topics {
            check_name("topic", name)?;
        }
        resolve::pattern(&join.pattern)?;
        let session_ms = match join.session_ms {
            0 => self.0.limits.group_session_ms,
            asked if SESSION_MS.contains(&asked) => asked,
            asked => {
                return Err(invalid(format!(
                    "session timeout of {asked} ms is out of range; choose {} to {} ms",
                    SESSION_MS.start(),
                    SESSION_MS.end()
                )));
            }
        };
        Ok(GroupMember {
            member_id: join.member_id.clone(),
            instance_id: join.instance_id.clone(),
            client: join.client.clone(),
            topics: join.topics.clone(),
            pattern: join.pattern.clone(),
            session_ms,
        })
    }

    /// Checks that there is room for a group, and for a member in it.
    pub(super) fn check_room(
        &self,
        partition: &Partition,
        group: &str,
        member_id: &str,
    ) -> Result<(), WireError> {
        let limits = &self.0.limits;
        let members = partition.with_groups(|groups| {
            let found = groups.get(group);
            found.map(|found| {
                let known = usize::from(found.members.contains_key(member_id));
                found.members.len() - known
            })
        });
        match members {
            Some(members) if members >= limits.group_members => Err(WireError::new(
                ErrorCode::Overloaded,
                format!("group {group} is full: it has {members} members (limit group_members)"),
            )),
            _ => self.check_room_for_group(partition, group),
        }
    }

    /// Refuses a new group beyond the limit, whether a member or an operator creates it.
    pub(super) fn check_room_for_group(
        &self,
        partition: &Partition,
        group: &str,
    ) -> Result<(), WireError> {
        let (groups, is_known) =
            partition.with_groups(|groups| (groups.count(), groups.get(group).is_some()));
        if is_known || groups < self.0.limits.groups_per_coordinator {
            return Ok(());
        }
        Err(WireError::new(
            ErrorCode::Overloaded,
            format!(
                "group {group}: its coordinator is full ({groups} groups); delete unused groups"
            ),
        ))
    }
}

impl Session {
    /// Returns the partition of the internal topic that coordinates the group.
    pub fn home(&self) -> GroupHome {
        self.home
    }

    /// Returns the member's current assignment.
    ///
    /// # Errors
    /// `UnknownMember` if its session has ended; `NotOwner` if another member has replaced this static
    /// member; `NotLeader` and `NoLeader`.
    pub fn assignment(&mut self) -> Result<Assignment, WireError> {
        self.partition.coordinates()?;
        let assignment = self.partition.with_groups(|groups| {
            let group = check_member(groups, &self.group, &self.member)?;
            let member = group.members.get(&self.member.member_id);
            let missing = member.into_iter().flat_map(|member| group.missing(member));
            Ok::<_, WireError>(Assignment {
                missing_topics: missing.map(str::to_owned).collect(),
                generation: group.generation,
                heartbeat_ms: self.member.session_ms / HEARTBEATS_PER_SESSION,
                session_ms: self.member.session_ms,
                partitions: group.assigned(&self.member.member_id),
            })
        })?;
        self.told = Some(assignment.clone());
        Ok(assignment)
    }

    /// Waits until the member's partitions or missing topics differ from the last assignment returned.
    ///
    /// # Errors
    /// As for [`Session::assignment`]: the session has ended.
    pub async fn changed(&mut self) -> Result<Assignment, WireError> {
        loop {
            // Never an error: this session keeps both senders alive.
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.leads.changed() => {}
            }
            let before = self.told.take();
            let now = self.assignment()?;
            let same = before.is_some_and(|before| {
                before.partitions == now.partitions && before.missing_topics == now.missing_topics
            });
            if !same {
                return Ok(now);
            }
        }
    }

    /// Records a heartbeat of the member.
    ///
    /// # Errors
    /// As for [`Session::assignment`].
    pub fn heartbeat(&self) -> Result<(), WireError> {
        let epoch = self.partition.coordinates()?;
        self.partition
            .with_groups(|groups| check_member(groups, &self.group, &self.member).map(drop))?;
        let session = Duration::from_millis(self.member.session_ms.into());
        let member = (self.group.as_str(), self.member.member_id.as_str());
        self.coordinator
            .touch_session(self.home, epoch, member, self.number, session);
        Ok(())
    }

    /// Commits offsets; each succeeds or fails by itself.
    ///
    /// # Errors
    /// Nothing was committed, or the outcome is unknown, depending on the code.
    pub async fn commit(&mut self, commit: Commit) -> Result<Committed, WireError> {
        if commit.positions.len() > MAX_POSITIONS {
            return Err(invalid(format!(
                "commit request has too many positions: the maximum is {MAX_POSITIONS}; split it"
            )));
        }
        let mut refused = Vec::new();
        let mut refuse = |place: TopicPartitionId, error: WireError| {
            refused.push(PositionError {
                topic_id: place.topic_id,
                partition: place.partition,
                error: Some(error.into()),
            });
        };
        // Owners are checked first, so that a member causes no lookups in partitions of others.
        let (owned, not_owned) = self.owned(commit.positions)?;
        not_owned
            .into_iter()
            .for_each(|(place, error)| refuse(place, error));
        let ends = self.log_ends(&owned).await;
        let mut positions = Vec::with_capacity(owned.len());
        for position in owned {
            let place = TopicPartitionId::from(&position);
            // An offset is not checked if its topic or leader is not known here.
            match ends.get(&place) {
                Some(end) if position.offset > *end => {
                    refuse(place, past_the_end(&position, *end));
                }
                _ => positions.push(position),
            }
        }
        let fitting = self.coordinator.fitting(
            &self.partition,
            &self.group,
            PositionsCommitted {
                member_id: self.member.member_id.clone(),
                positions,
                session: self.written,
                ..PositionsCommitted::default()
            },
        );
        for (place, error) in fitting.refused {
            refuse(place, error);
        }
        if !fitting.committed.positions.is_empty() {
            let kind = group_command::Kind::Committed(fitting.committed);
            let (coordinator, room) = (&self.coordinator, fitting.room);
            let written = coordinator.write_reserved(&self.partition, &self.group, kind, room);
            refused.extend(written.await?.refused);
        }
        Ok(Committed { refused })
    }

    /// Separates refused offsets, with their errors. The log decides again: owners may change until then.
    fn owned(&self, positions: Vec<GroupPosition>) -> Result<Sorted, WireError> {
        self.partition.with_groups(|groups| {
            let group = check_member(groups, &self.group, &self.member)?;
            let mut sorted = Sorted::default();
            for position in positions {
                let checked = match position.note.len() > MAX_NOTE_BYTES {
                    true => Err(invalid(format!(
                        "note is longer than {MAX_NOTE_BYTES} bytes; shorten it"
                    ))),
                    false => group.check_owner(&self.member.member_id, &position),
                };
                match checked {
                    Ok(()) => sorted.0.push(position),
                    Err(error) => sorted.1.push((TopicPartitionId::from(&position), error)),
                }
            }
            Ok(sorted)
        })
    }

    /// Returns the ends of partitions. An offset beyond the end of its partition would skip later records.
    async fn log_ends(&mut self, positions: &[GroupPosition]) -> BTreeMap<TopicPartitionId, u64> {
        let mut asked = BTreeMap::new();
        for position in positions {
            let furthest = asked.entry(TopicPartitionId::from(position)).or_default();
            *furthest = position.offset.max(*furthest);
        }
        let unknown = asked.iter().filter(|(place, offset)| {
            let known = self.ends.get(place);
            known.is_none_or(|end| *offset > end)
        });
        let questions: Vec<_> = unknown
            .map(|(place, offset)| {
                let (coordinator, place, offset) = (self.coordinator.clone(), *place, *offset);
                async move { Some((place, coordinator.end_of(place, offset).await?)) }
            })
            .collect();
        let answers = stream::iter(questions).buffer_unordered(ENDS_AT_ONCE);
        let looked_up: Vec<Option<(TopicPartitionId, u64)>> = answers.collect().await;
        self.ends.extend(looked_up.into_iter().flatten());
        let ends = asked
            .keys()
            .filter_map(|place| Some((*place, *self.ends.get(place)?)));
        ends.collect()
    }

    /// Gives up partitions.
    ///
    /// # Errors
    /// As for [`Session::commit`].
    pub async fn release(&self, release: Release) -> Result<(), WireError> {
        let kind = group_command::Kind::Released(PartitionsReleased {
            member_id: self.member.member_id.clone(),
            partitions: release.partitions,
        });
        self.write(kind).await.map(drop)
    }

    /// Removes the member from its group.
    ///
    /// # Errors
    /// As for [`Session::commit`].
    pub async fn leave(&mut self) -> Result<(), WireError> {
        let kind = group_command::Kind::Leave(MembersLeave {
            member_ids: vec![self.member.member_id.clone()],
        });
        self.write(kind).await?;
        self.has_left = true;
        Ok(())
    }

    async fn write(
        &self,
        kind: group_command::Kind,
    ) -> Result<ropewalk_proto::v1::GroupReply, WireError> {
        self.coordinator
            .write(&self.partition, &self.group, kind)
            .await
    }
}

fn past_the_end(position: &GroupPosition, end: u64) -> WireError {
    let (offset, partition) = (position.offset, position.partition);
    WireError::new(
        ErrorCode::OffsetOutOfRange,
        format!(
            "offset {offset} is past the end of partition {partition} ({end}); commit what was read"
        ),
    )
}

/// Number of a session in a group's log. It increases with each session of a member, on whichever node.
fn written(epoch: u64, number: u64) -> u64 {
    (epoch << 32) | (number & u64::from(u32::MAX))
}

/// Returns the group of a member, if the member is in it.
fn check_member<'a>(
    groups: &'a Groups,
    name: &str,
    member: &GroupMember,
) -> Result<&'a Group, WireError> {
    let (id, instance) = (&member.member_id, &member.instance_id);
    let group = groups.get(name).ok_or_else(|| unknown_member(name, id))?;
    if group.members.contains_key(id) {
        return Ok(group);
    }
    let mut others = group.members.values();
    match others.find(|other| !instance.is_empty() && other.told.instance_id == *instance) {
        Some(other) => Err(WireError::new(
            ErrorCode::NotOwner,
            format!(
                "member {} replaced static member {instance} of group {name}; use unique names",
                other.told.member_id
            ),
        )),
        None => Err(unknown_member(name, id)),
    }
}

impl Drop for Session {
    /// Shortens the session: after a broken stream, a member has less time to return than a silent one.
    fn drop(&mut self) {
        let Ok(epoch) = self.partition.coordinates() else {
            return;
        };
        if self.has_left || !self.member.instance_id.is_empty() {
            return;
        }
        let within = self.coordinator.0.limits.group_return_ms;
        let within = within.min(self.member.session_ms.into());
        let member = (self.group.as_str(), self.member.member_id.as_str());
        let within = Duration::from_millis(within);
        self.coordinator
            .shorten_session(self.home, epoch, member, self.number, within);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_a_later_coordinator_are_later_ones() {
        assert!(written(3, 8) > written(3, 7));
        assert!(written(4, 0) > written(3, u64::from(u32::MAX)));
    }
}
