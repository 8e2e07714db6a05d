//! Two clients that change different settings of the same topic at the same moment.

use std::collections::BTreeMap;

use futures_util::future::join;
use ropewalk_client::{Client, Error};

use super::{Clients, topic_name, topic_number};
use crate::history::{Answer, Call, Setting};

/// The changes, with the values that the settings have afterwards. A topic is tuned once, so that a change
/// with a late answer affects nothing else.
const CHANGES: [(Setting, &str, i64); 2] = [
    (Setting::MinDirtyPercent, "20", 20),
    (Setting::DeleteHorizonMs, "1h", 3_600_000),
];

/// Makes both changes.
pub async fn tune(clients: &Clients, by: [&Client; 2], topic: u32) -> Result<(), Error> {
    let change = |client: &Client, (setting, text, value): (Setting, &'static str, i64)| {
        let (admin, name) = (client.admin(), topic_name(topic));
        let call = Call::SetOne {
            topic,
            setting,
            value,
        };
        async move {
            let asked = admin.alter_topic(&name, [(setting.name(), text)]);
            let done = clients.call(call, asked, |_| Answer::Done).await;
            done.map(|_| ())
        }
    };
    let [first, second] = CHANGES;
    let (one, other) = join(change(by[0], first), change(by[1], second)).await;
    one.and(other)
}

/// Asks for these settings of all topics.
pub async fn look(clients: &Clients, client: &Client) -> Result<(), Error> {
    let admin = client.admin();
    let asked = async {
        let mut values = BTreeMap::new();
        for topic in admin.topics().await? {
            let Some(number) = topic_number(&topic.name) else {
                continue;
            };
            let settings = topic.settings;
            let dirty = i64::from(settings.min_dirty_percent);
            values.insert((number, Setting::MinDirtyPercent), dirty);
            let horizon = settings.delete_horizon_ms;
            values.insert((number, Setting::DeleteHorizonMs), horizon);
        }
        Ok(values)
    };
    let answer = |values: &BTreeMap<_, _>| Answer::Settings(values.clone());
    clients.call(Call::ListSettings, asked, answer).await?;
    Ok(())
}
