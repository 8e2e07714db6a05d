//! An acknowledged setting is present in the end, even if other settings were changed at the same time.

use std::collections::BTreeMap;

use super::{Check, Seen};
use crate::history::{Answer, Call, Event, Setting};

/// The check.
#[derive(Debug)]
pub struct SettingsAreKept;

impl Check for SettingsAreKept {
    fn name(&self) -> &'static str {
        "settings-are-kept"
    }

    fn end(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut calls: BTreeMap<u64, &Call> = BTreeMap::new();
        let mut created: BTreeMap<u32, usize> = BTreeMap::new();
        let mut set: BTreeMap<(u32, Setting), i64> = BTreeMap::new();
        let mut last = None;
        for (at, event) in seen.history {
            match event {
                Event::Called { number, call } => {
                    calls.insert(*number, call);
                    if let Call::CreateTopic { topic, .. } = call {
                        *created.entry(*topic).or_default() += 1;
                    }
                }
                Event::Answered { number, answer } => match (calls.get(number), answer) {
                    (
                        Some(Call::SetOne {
                            topic,
                            setting,
                            value,
                        }),
                        Answer::Done,
                    ) => {
                        set.insert((*topic, *setting), *value);
                    }
                    (Some(Call::ListSettings), Answer::Settings(values)) => {
                        last = Some((*at, values));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        let Some((at, values)) = last else {
            return Ok(());
        };
        // A topic that was created again under its name has the settings of a new one.
        set.retain(|(topic, _), _| created.get(topic) == Some(&1));
        for ((topic, setting), value) in set {
            match values.get(&(topic, setting)) {
                Some(now) if *now != value => {
                    let name = setting.name();
                    return Err(format!(
                        "{name} of topic {topic} was set to {value}, and at {at:?} it is {now}"
                    ));
                }
                // The topic is gone.
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::v1::TopicSettings;

    use super::*;
    use crate::check::fixtures::Story;

    fn judge(answer: Answer, now: i64, creations: usize) -> Result<(), String> {
        let create = Call::CreateTopic {
            topic: 1,
            partitions: 1,
            settings: TopicSettings::default(),
        };
        let set = Call::SetOne {
            topic: 1,
            setting: Setting::MinDirtyPercent,
            value: 20,
        };
        let values = BTreeMap::from([((1, Setting::MinDirtyPercent), now)]);
        let calls = std::iter::repeat_n((create, Answer::Done), creations).chain([
            (set, answer),
            (Call::ListSettings, Answer::Settings(values)),
        ]);
        let events = (0..).zip(calls).flat_map(|(number, (call, answer))| {
            [
                Event::Called { number, call },
                Event::Answered { number, answer },
            ]
        });
        Story::of(events).end(&mut SettingsAreKept)
    }

    #[test]
    fn a_setting_that_another_change_undid_is_found() {
        assert!(judge(Answer::Done, 0, 1).is_err());
        assert_eq!(judge(Answer::Done, 20, 1), Ok(()));
        assert_eq!(judge(Answer::Done, 0, 2), Ok(()));
        let unknown = Answer::Failed {
            unknown: true,
            error: "no answer".to_owned(),
        };
        assert_eq!(judge(unknown, 0, 1), Ok(()));
    }
}
