//! Last heartbeats of members. The log must never hold them: clocks of two nodes are not comparable.
//!
//! A coordinator remembers members of its groups, and those whose join is in flight. It forgets all others
//! with the next round of its reaper. So joins that are refused leave nothing behind.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_machines::consumer_group::Groups;
use ropewalk_proto::v1::GroupMember;
use tokio::time::Instant;

use super::{Coordinator, FIND_WITHIN, GroupHome, HEARTBEATS_PER_SESSION};

/// Table of the sessions that a coordinator knows while it leads one partition.
#[derive(Debug)]
pub(super) struct SessionTable {
    epoch: u64,
    /// Last heartbeats, by group and member id.
    heard: BTreeMap<(String, String), SessionDeadline>,
}

/// Last heartbeat of a member.
#[derive(Debug, Clone, Copy)]
struct SessionDeadline {
    /// End of the session, unless another heartbeat arrives before.
    until: Instant,
    /// Session of the heartbeat.
    session: u64,
    /// True while the join of this session is in flight.
    joins: bool,
}

/// A join in flight. Its member counts as alive until this is dropped.
#[derive(Debug)]
pub(super) struct Entering {
    coordinator: Coordinator,
    home: GroupHome,
    epoch: u64,
    /// Group and member id.
    member: (String, String),
    session: u64,
    /// Earlier session of the member, if the join is not known to have succeeded.
    before: Option<u64>,
}

impl Coordinator {
    /// Records a heartbeat of the member in this session, valid for this long.
    pub(super) fn touch_session(
        &self,
        home: GroupHome,
        epoch: u64,
        member: (&str, &str),
        session: u64,
        within: Duration,
    ) {
        let heard = SessionDeadline::after(within, session);
        let member = (member.0.to_owned(), member.1.to_owned());
        self.record(home, epoch, member, heard);
    }

    /// Records a member that is about to join, as of a heartbeat valid for this long.
    pub(super) fn enter(
        &self,
        home: GroupHome,
        epoch: u64,
        member: (&str, &str),
        session: u64,
        within: Duration,
    ) -> Entering {
        let member = (member.0.to_owned(), member.1.to_owned());
        let heard = SessionDeadline {
            joins: true,
            ..SessionDeadline::after(within, session)
        };
        let before = self.record(home, epoch, member.clone(), heard);
        Entering {
            coordinator: self.clone(),
            home,
            epoch,
            member,
            session,
            before: before.map(|before| before.session),
        }
    }

    fn record(
        &self,
        home: GroupHome,
        epoch: u64,
        member: (String, String),
        heard: SessionDeadline,
    ) -> Option<SessionDeadline> {
        let mut led = self.0.led.lock();
        let led = led
            .entry(home.partition)
            .or_insert_with(|| SessionTable::new(epoch));
        led.renew(epoch);
        led.heard.insert(member, heard)
    }

    /// Shortens the member's session after its stream broke: it has at most this long to come back in another
    /// session.
    pub(super) fn shorten_session(
        &self,
        home: GroupHome,
        epoch: u64,
        member: (&str, &str),
        session: u64,
        within: Duration,
    ) {
        let member = (member.0.to_owned(), member.1.to_owned());
        self.change(home, epoch, &member, session, |heard| {
            heard.until = heard.until.min(Instant::now() + within);
        });
    }

    /// Changes the last heartbeat of a member, if it was in this session.
    fn change(
        &self,
        home: GroupHome,
        epoch: u64,
        member: &(String, String),
        session: u64,
        change: impl FnOnce(&mut SessionDeadline),
    ) {
        let mut led = self.0.led.lock();
        let led = led.get_mut(&home.partition);
        let led = led.filter(|led| led.epoch == epoch);
        let heard = led.and_then(|led| led.heard.get_mut(member));
        if let Some(heard) = heard.filter(|heard| heard.session == session) {
            change(heard);
        }
    }
}

impl Entering {
    /// Records that the member has joined.
    pub fn joined(mut self) {
        self.before = None;
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let (home, epoch) = (self.home, self.epoch);
        self.coordinator
            .change(home, epoch, &self.member, self.session, |heard| {
                heard.ends_join(self.before);
            });
    }
}

impl SessionDeadline {
    /// Deadline of a member whose heartbeat arrives now.
    fn after(within: Duration, session: u64) -> SessionDeadline {
        SessionDeadline {
            until: Instant::now() + within,
            session,
            joins: false,
        }
    }

    /// Records the end of a join. After a failed one, the member is in its earlier session, if it had one.
    fn ends_join(&mut self, before: Option<u64>) {
        self.joins = false;
        self.session = before.unwrap_or(self.session);
    }
}

/// Time that a new coordinator waits for a member before it ends the session.
fn first_wait(member: &GroupMember) -> Duration {
    let session = Duration::from_millis(member.session_ms.into());
    match member.instance_id.is_empty() {
        true => session.min(session / HEARTBEATS_PER_SESSION + FIND_WITHIN),
        false => session,
    }
}

impl SessionTable {
    pub fn new(epoch: u64) -> SessionTable {
        SessionTable {
            epoch,
            heard: BTreeMap::new(),
        }
    }

    /// Clears sessions of an earlier epoch, since another node has coordinated meanwhile.
    pub fn renew(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = SessionTable::new(epoch);
        }
    }

    /// Returns true if the session of a group's member is over. A member that was not heard yet gets the time
    /// to find this coordinator.
    pub fn is_over(&mut self, group: &str, member: &GroupMember, id: &str, now: Instant) -> bool {
        let fresh = SessionDeadline {
            until: now + first_wait(member),
            session: u64::MAX,
            joins: false,
        };
        let key = (group.to_owned(), id.to_owned());
        self.heard.entry(key).or_insert(fresh).until <= now
    }

    /// Forgets all but members and those about to join.
    pub fn tidy(&mut self, groups: &Groups) {
        self.heard.retain(|(group, id), heard| {
            let group = groups.get(group);
            heard.joins || group.is_some_and(|group| group.members.contains_key(id))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_live_has_an_interval_and_the_time_to_find_the_next_coordinator() {
        let wait = |session_ms, instance_id: &str| {
            let member = GroupMember {
                session_ms,
                instance_id: instance_id.to_owned(),
                ..GroupMember::default()
            };
            first_wait(&member).as_millis()
        };
        assert_eq!(wait(30_000, ""), 14_000);
        assert_eq!(wait(3_000, ""), 3_000, "no longer than its session");
        assert_eq!(wait(30_000, "till-1"), 30_000, "it may be starting again");
    }

    fn heard(session: u64, joins: bool) -> SessionDeadline {
        SessionDeadline {
            until: Instant::now() + Duration::from_secs(1_800),
            session,
            joins,
        }
    }

    #[test]
    fn what_was_heard_in_an_earlier_epoch_is_forgotten() {
        let mut led = SessionTable::new(3);
        let member = ("g".to_owned(), "a".to_owned());
        led.heard.insert(member, heard(1, false));
        led.renew(3);
        assert_eq!(led.heard.len(), 1);
        led.renew(5);
        assert_eq!((led.epoch, led.heard.len()), (5, 0));
    }

    #[test]
    fn a_join_that_ended_without_a_member_is_forgotten_long_before_its_session_is_over() {
        let mut led = SessionTable::new(3);
        for id in 0..100 {
            let member = ("g".to_owned(), id.to_string());
            led.heard.insert(member, heard(id, true));
        }
        led.tidy(&Groups::default());
        assert_eq!(led.heard.len(), 100, "they are about to join");
        for heard in led.heard.values_mut() {
            heard.ends_join(None);
        }
        led.tidy(&Groups::default());
        assert_eq!(led.heard.len(), 0);
    }

    #[test]
    fn a_member_whose_next_join_failed_is_in_its_earlier_session() {
        let mut heard = heard(7, true);
        heard.ends_join(Some(4));
        assert_eq!((heard.session, heard.joins), (4, false));
    }
}
