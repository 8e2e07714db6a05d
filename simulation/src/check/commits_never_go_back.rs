//! Committed offsets of a group never go back, never exceed the end of the log, and never pass a record that
//! no member has processed. A member that resumes from one therefore skips nothing. It also receives no
//! record for the first time after a later one of the same partition was processed and committed.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Accepted, Replay};
use super::{Check, Now, Seen, Starts};
use crate::history::{Call, Event, Place};
use crate::load::{MAIN, Prefix, group_name};
use crate::observe::disk_reader;

/// The check.
#[derive(Debug, Default)]
pub struct CommitsNeverGoBack {
    replay: Replay,
    /// Committed offsets by group, topic id and partition.
    positions: BTreeMap<(String, u64, u32), u64>,
    /// Topics that a client asked to delete. A coordinator that knows of the deletion forgets their committed
    /// offsets; one that does not yet accepts offsets from members again. No member will read them.
    deleted: BTreeSet<u32>,
    /// Commits in such topics that went back. The topics must be gone in the end.
    back: Vec<Accepted>,
    /// Processed offsets of each group.
    processed: BTreeMap<(String, Place), Prefix>,
    /// Commits that passed an unprocessed offset. That offset must have been trimmed.
    passed: Vec<(Accepted, u64)>,
    /// The last accepted commits in the topic.
    last: BTreeMap<Place, Accepted>,
}

impl Check for CommitsNeverGoBack {
    fn name(&self) -> &'static str {
        "commits-never-go-back"
    }

    fn look(&mut self, now: &Now<'_>) -> Result<(), String> {
        for (_, event) in now.news {
            match event {
                Event::Processed { who, place, offset } => {
                    let key = (group_name(who.group), *place);
                    self.processed.entry(key).or_default().add(*offset);
                }
                Event::Called {
                    call: Call::DeleteTopic { topic },
                    ..
                } => {
                    self.deleted.insert(*topic);
                }
                _ => {}
            }
        }
        for one in now.fresh {
            for commit in self.replay.take(one) {
                let (topic_id, partition) = commit.at;
                let key = (commit.group.clone(), topic_id, partition);
                let before = self.positions.insert(key, commit.offset);
                if before.is_some_and(|before| before > commit.offset) {
                    // A topic without a number is deleted and created again all the time.
                    let topic = commit.place.map(|place| place.topic);
                    if topic.is_some_and(|topic| !self.deleted.contains(&topic)) {
                        return Err(format!(
                            "group {}, log index {}: {commit:?} was accepted, and {before:?} was committed before",
                            one.group, one.entry.place.index
                        ));
                    }
                    self.back.push(commit.clone());
                }
                self.judge_passed(commit, now.starts);
            }
        }
        Ok(())
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let kept = disk_reader::places(seen.look);
        self.judge_back(&kept.into_values().map(|place| place.topic).collect())?;
        for (commit, missing) in &self.passed {
            let place = commit.place.unwrap_or(Place {
                topic: MAIN,
                partition: 0,
            });
            let group = seen.truth.at(place).map(|(_, group)| group);
            if group.is_some_and(|group| !group.has_gaps && group.log_start <= *missing) {
                return Err(format!(
                    "{commit:?} was accepted, and nobody in the group had finished with offset {missing}"
                ));
            }
        }
        for (place, commit) in &self.last {
            let log = seen.logs.get(place);
            if let Some(end) = log.map(|log| log.end()).filter(|end| *end < commit.offset) {
                return Err(format!(
                    "{commit:?} is past the end of {place}, which is {end}"
                ));
            }
        }
        Ok(())
    }
}

impl CommitsNeverGoBack {
    fn judge_back(&self, kept: &BTreeSet<u32>) -> Result<(), String> {
        let is_kept = |commit: &&Accepted| commit.place.is_some_and(|at| kept.contains(&at.topic));
        match self.back.iter().find(is_kept) {
            Some(commit) => Err(format!(
                "{commit:?} was accepted, though more was committed before, and its topic is still there"
            )),
            None => Ok(()),
        }
    }

    fn judge_passed(&mut self, commit: Accepted, starts: &Starts) {
        let Some(place) = commit.place.filter(|place| place.topic == MAIN) else {
            return;
        };
        let begins = starts.of_named(&commit.group, place);
        let key = (commit.group.clone(), place);
        let processed = self.processed.entry(key).or_default();
        processed.skip_to(begins.unwrap_or_default());
        let last = (processed.end()..commit.offset).rev();
        if let Some(missing) = { last }.find(|offset| !processed.has(*offset)) {
            self.passed.push((commit.clone(), missing));
            // Reported once.
            processed.skip_to(commit.offset);
        }
        let highest = self.last.entry(place).or_insert_with(|| commit.clone());
        if highest.offset < commit.offset {
            *highest = commit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::groups::{commit, join, processed};
    use crate::check::fixtures::{GROUP, Story, log, truth_of};
    use crate::observe::committed_model::Committed;

    fn judge(events: Vec<Event>, fresh: Vec<Committed>, start: u64) -> Result<(), String> {
        let mut story = Story::of(events);
        story.fresh = fresh;
        story.logs = log(start, (start..3).map(|number| (1, number)));
        story.truth = truth_of(&[(1, 0), (1, 1), (1, 2)]);
        story.truth.group_mut(GROUP).expect("a group").log_start = start;
        let mut check = CommitsNeverGoBack::default();
        story.look(&mut check)?;
        story.end(&mut check)
    }

    #[test]
    fn positions_behind_what_is_finished_with_or_trimmed_pass() {
        let done = vec![processed(0), processed(1)];
        let told = vec![join(1, "a"), commit(2, "a", 1, 1), commit(3, "a", 1, 2)];
        assert_eq!(judge(done, told, 0), Ok(()));
        let told = vec![join(1, "a"), commit(2, "a", 1, 2)];
        assert_eq!(judge(vec![processed(0)], told, 2), Ok(()));
    }

    #[test]
    fn a_position_that_goes_back_is_found() {
        let done = vec![processed(0), processed(1)];
        let told = vec![join(1, "a"), commit(2, "a", 1, 2), commit(3, "a", 1, 1)];
        assert!(judge(done.clone(), told.clone(), 0).is_err());
        // Seed 105, three minutes: a commit in a topic that was deleted.
        let deletion = Event::Called {
            number: 1,
            call: Call::DeleteTopic { topic: MAIN },
        };
        let mut story = Story::of(done.into_iter().chain([deletion]));
        story.fresh = told;
        let mut check = CommitsNeverGoBack::default();
        assert_eq!(story.look(&mut check), Ok(()));
        assert_eq!(check.judge_back(&BTreeSet::new()), Ok(()));
        assert!(check.judge_back(&BTreeSet::from([MAIN])).is_err());
    }

    #[test]
    fn a_position_past_what_nobody_has_finished_with_or_past_the_end_is_found() {
        let told = vec![join(1, "a"), commit(2, "a", 1, 2)];
        assert!(judge(vec![processed(1)], told.clone(), 0).is_err());
        assert!(judge(vec![processed(0)], told, 1).is_err());
        let all = (0..9).map(processed).collect();
        let told = vec![join(1, "a"), commit(2, "a", 1, 9)];
        assert!(judge(all, told, 0).is_err());
    }
}
