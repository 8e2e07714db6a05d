//! Bodies as they come from the network, piece by piece.

use futures_util::{StreamExt, stream};
use http_body::Body as _;
use prost::Message;
use ropewalk_proto::v1;

use super::*;

const WITHIN: Duration = Duration::from_secs(30);

/// A message as it crosses the network.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// The body of a stream of metadata requests that comes in these pieces, and then pauses for ever.
fn inspected(pieces: Vec<Vec<u8>>, bytes: usize, room: &Arc<Semaphore>) -> Inspected {
    let bounds = Bounds {
        bytes,
        fields: 3,
        shape: Shape::of_request("/ropewalk.v1.Ropewalk/Metadata"),
        within: WITHIN,
        is_unary: false,
    };
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Status>));
    let body = axum::body::Body::from_stream(pieces.chain(stream::pending()));
    Inspected::new(Body::new(body), bounds, room.clone(), Kept::default())
}

async fn next(body: &mut Inspected) -> Result<usize, ErrorCode> {
    let frame = futures_util::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
    match frame.await.expect("it goes on") {
        Ok(frame) => Ok(frame.into_data().map_or(0, |data| data.len())),
        Err(status) => Err(WireError::from(&status).code),
    }
}

fn names(count: usize) -> Vec<u8> {
    let topics = vec!["name".to_owned(); count];
    framed(&v1::MetadataRequest { topics }.encode_to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_message_is_charged_until_the_next_is_asked_for() {
    let room = Arc::new(Semaphore::new(100));
    let (first, second) = (names(1), names(2));
    let mut body = inspected(vec![first.clone(), second[..7].to_vec()], 50, &room);
    assert_eq!(next(&mut body).await, Ok(first.len()));
    assert_eq!(room.available_permits(), 100 - first.len());
    assert_eq!(next(&mut body).await, Ok(7));
    assert_eq!(room.available_permits(), 100 - 7, "the first was taken");
    drop(body);
    assert_eq!(room.available_permits(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_or_has_too_many_fields_is_refused_at_once() {
    let room = Arc::new(Semaphore::new(100));
    let head = framed(&[0; 51])[..5].to_vec();
    let mut long = inspected(vec![head], 50, &room);
    assert_eq!(next(&mut long).await, Err(ErrorCode::TooLarge));
    let many = names(5)[..30].to_vec();
    let mut many = inspected(vec![many], 50, &room);
    assert_eq!(next(&mut many).await, Err(ErrorCode::InvalidRequest));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stays_half_is_given_up_and_a_silent_stream_is_not() {
    let room = Arc::new(Semaphore::new(100));
    let mut half = inspected(vec![names(1)[..7].to_vec()], 50, &room);
    assert_eq!(next(&mut half).await, Ok(7));
    let began = tokio::time::Instant::now();
    assert_eq!(next(&mut half).await, Err(ErrorCode::Overloaded));
    assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());

    let mut silent = inspected(vec![names(1)], 50, &room);
    next(&mut silent).await.expect("a message");
    let longer = tokio::time::timeout(10 * WITHIN, next(&mut silent)).await;
    assert!(longer.is_err(), "it may go on to say nothing");
}

#[tokio::test(start_paused = true)]
async fn while_there_is_no_room_nothing_more_is_read() {
    let room = Arc::new(Semaphore::new(10));
    let taken = room.clone().acquire_many_owned(8).await.expect("open");
    let bytes = names(1).len();
    let mut body = inspected(vec![names(1)], 50, &room);
    let waiting = tokio::time::timeout(WITHIN / 2, next(&mut body)).await;
    assert!(waiting.is_err(), "no room");
    drop(taken);
    room.add_permits(bytes);
    assert_eq!(next(&mut body).await, Ok(bytes));
}

#[test]
fn batches_may_be_as_large_as_any_topic_has_allowed() {
    let guard = Guard::for_clients(&Limits::default());
    let most = |rpc| guard.bounds("", Some(rpc)).bytes;
    let before = most(Rpc::Produce);
    guard.allow_batches_of(32 << 20);
    guard.allow_batches_of(1 << 20);
    assert!(before < 32 << 20 && most(Rpc::Publish) > 32 << 20);
    assert_eq!(most(Rpc::Metadata), Limits::default().request_bytes);
}
