//! A client that does not know yet that a topic is deleted. It uses the wire protocol directly and asks for
//! the topic by its old id.

use rand::Rng;
use rand::rngs::SmallRng;
use ropewalk_client::Compression;
use ropewalk_proto::batch::{BatchBuilder, BatchView};
use ropewalk_proto::error::{ErrorCode, Outcome};
use ropewalk_proto::v1;

use super::producer::sent;
use super::reader::{Found, got};
use super::recreator::{NAME, failed, place};
use super::{Clients, record};
use crate::ask::{Ask, Node, first};
use crate::history::Event;

/// First number of late readers; each visit is another reader.
const READERS: u32 = 6_100_000;
/// Number of the late producer.
const PRODUCER: u32 = 9_900_000;
const BYTES: u32 = 1 << 20;
const VALUE_BYTES: usize = 30;

/// Asks one node to read from, and to write to, the topic that had this id.
pub async fn visit(clients: &Clients, topic_id: u64, random: &mut SmallRng, life: u32) {
    let nodes: Vec<&str> = clients.nodes.iter().map(String::as_str).collect();
    let ask = Ask::new(&nodes, NAME);
    let number = random.random_range(0..nodes.len());
    let fetched = ask.once(number, |node| fetch(node, topic_id)).await;
    if let Some(fetched) = fetched {
        note(clients, topic_id, READERS + life, fetched);
    }
    let name = (PRODUCER, u64::from(life));
    let value = record::bytes_of(name, VALUE_BYTES);
    let mut builder = BatchBuilder::new(Compression::None, BYTES as usize);
    let pushed = builder.push(None, Some(&value), &[record::named(name)], super::now_ms());
    debug_assert_eq!(pushed, Ok(true), "a small record fits");
    let topic = place(topic_id, 0).topic;
    sent(
        clients,
        name,
        topic,
        None,
        record::content(None, Some(&value)),
    );
    let batch = builder.build();
    match ask
        .once(number, |node| produce(node, topic_id, batch))
        .await
    {
        Some(None) => {}
        Some(Some(error)) => {
            let unknown = ErrorCode::from_number(error.code).outcome() == Outcome::Unknown;
            failed(clients, name, unknown, &error.message);
        }
        None => failed(clients, name, true, &"no answer"),
    }
}

/// Records the result of a fetch as that of a separate reader.
fn note(clients: &Clients, topic_id: u64, reader: u32, fetched: v1::FetchResponse) {
    let place = place(topic_id, 0);
    let mut begun = false;
    for one in fetched.batches {
        let records = BatchView::trusted(one.batch).and_then(|batch| batch.records(BYTES as usize));
        for read in records.unwrap_or_default() {
            let offset = one.base_offset + u64::from(read.offset_delta.unsigned_abs());
            if !std::mem::replace(&mut begun, true) {
                clients.history.add(Event::Began {
                    reader,
                    place,
                    offset,
                });
            }
            let found = Found {
                offset,
                name: record::name(&read.headers),
                key: record::key(read.key.as_deref()),
                content: record::content(read.key.as_deref(), read.value.as_deref()),
            };
            got(clients, reader, place, found);
        }
    }
}

async fn fetch(mut node: Node, topic_id: u64) -> Result<v1::FetchResponse, tonic::Status> {
    let request = v1::FetchRequest {
        request_id: 1,
        topic: NAME.to_owned(),
        topic_id,
        max_bytes: BYTES,
        ..Default::default()
    };
    let answers = node.fetch(futures_util::stream::iter([request])).await?;
    first(answers).await
}

/// Reason of the refusal; none if the batch was accepted.
async fn produce(
    mut node: Node,
    topic_id: u64,
    batch: bytes::Bytes,
) -> Result<Option<v1::Error>, tonic::Status> {
    let request = v1::ProduceRequest {
        request_id: 1,
        topic: NAME.to_owned(),
        topic_id,
        batch,
        ..Default::default()
    };
    let answers = node.produce(futures_util::stream::iter([request])).await?;
    Ok(first(answers).await?.error)
}
