//! A topic exists from the acknowledgement of its creation until its deletion is requested, and never after
//! the deletion was acknowledged. The check judges the last list, taken when the cluster has recovered and no
//! call is under way: a node that lags may answer with an older list.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Seen};
use crate::history::{Answer, Call, Event};

/// The check.
#[derive(Debug)]
pub struct TopicsAreKept;

/// The clients' knowledge of a topic.
#[derive(Debug, Default)]
struct Known {
    asked_for: bool,
    created: bool,
    deletion_asked_for: bool,
    deleted: bool,
}

impl Check for TopicsAreKept {
    fn name(&self) -> &'static str {
        "topics-are-kept"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut calls: BTreeMap<u64, &Call> = BTreeMap::new();
        let mut topics: BTreeMap<u32, Known> = BTreeMap::new();
        let mut last_list = None;
        for (at, event) in seen.history {
            match event {
                Event::Called { number, call } => {
                    calls.insert(*number, call);
                    match call {
                        Call::CreateTopic { topic, .. } => {
                            topics.entry(*topic).or_default().asked_for = true;
                        }
                        Call::DeleteTopic { topic } => {
                            topics.entry(*topic).or_default().deletion_asked_for = true;
                        }
                        _ => {}
                    }
                }
                Event::Answered { number, answer } => match (calls.get(number), answer) {
                    (Some(Call::CreateTopic { topic, .. }), Answer::Done) => {
                        topics.entry(*topic).or_default().created = true;
                    }
                    (Some(Call::DeleteTopic { topic }), Answer::Done) => {
                        topics.entry(*topic).or_default().deleted = true;
                    }
                    (Some(Call::ListTopics), Answer::Topics(listed)) => {
                        last_list = Some((*at, listed.iter().copied().collect()));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        let Some((at, listed)): Option<(_, BTreeSet<u32>)> = last_list else {
            return Ok(());
        };
        for (topic, known) in &topics {
            let there = listed.contains(topic);
            if known.created && !known.deletion_asked_for && !there {
                return Err(format!(
                    "topic {topic} was created, and at {at:?} it is not there"
                ));
            }
            if known.deleted && there {
                return Err(format!(
                    "topic {topic} was deleted, and at {at:?} it is there"
                ));
            }
        }
        match listed
            .iter()
            .find(|topic| !topics.get(topic).is_some_and(|known| known.asked_for))
        {
            Some(topic) => Err(format!(
                "topic {topic} is there at {at:?}, and nobody asked for it"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::v1::TopicSettings;

    use super::*;
    use crate::check::fixtures::Story;

    fn judge(calls: &[(Call, Answer)]) -> Result<(), String> {
        let events = (0..).zip(calls).flat_map(|(number, (call, answer))| {
            let (call, answer) = (call.clone(), answer.clone());
            [
                Event::Called { number, call },
                Event::Answered { number, answer },
            ]
        });
        Story::of(events).end(&mut TopicsAreKept)
    }

    fn create(answer: Answer) -> (Call, Answer) {
        let call = Call::CreateTopic {
            topic: 1,
            partitions: 1,
            settings: TopicSettings::default(),
        };
        (call, answer)
    }

    fn delete(answer: Answer) -> (Call, Answer) {
        (Call::DeleteTopic { topic: 1 }, answer)
    }

    fn list(topics: &[u32]) -> (Call, Answer) {
        (Call::ListTopics, Answer::Topics(topics.to_vec()))
    }

    fn unknown() -> Answer {
        Answer::Failed {
            unknown: true,
            error: "no answer".to_owned(),
        }
    }

    #[test]
    fn topics_that_were_made_are_there_and_of_the_others_either_is_right() {
        assert_eq!(judge(&[create(Answer::Done), list(&[1])]), Ok(()));
        for listed in [&[][..], &[1]] {
            assert_eq!(judge(&[create(unknown()), list(listed)]), Ok(()));
            let doubted = [create(Answer::Done), delete(unknown()), list(listed)];
            assert_eq!(judge(&doubted), Ok(()));
        }
    }

    #[test]
    fn a_topic_that_is_lost_comes_back_or_appears_is_found() {
        assert!(judge(&[create(Answer::Done), list(&[])]).is_err());
        let back = [create(Answer::Done), delete(Answer::Done), list(&[1])];
        assert!(judge(&back).is_err());
        assert!(judge(&[list(&[1])]).is_err());
    }
}
