//! Request bodies that arrive from the network piece by piece.

use futures_util::{StreamExt, stream};
use http_body::Body as _;
use prost::Message;
use ropewalk_proto::v1;

use super::charge::Charge;
use super::charges::Charges;
use super::*;

const WITHIN: Duration = Duration::from_secs(30);

/// Frames a message as it crosses the network.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Rooms for every size in one, without shares.
fn only(room: &Requests) -> Rooms {
    Rooms {
        large: room.clone(),
        small: None,
        is_shared: false,
    }
}

/// Returns the body of a stream of metadata requests that arrives in these pieces, and then pauses forever.
fn inspected(pieces: Vec<Vec<u8>>, bytes: usize, room: &Requests) -> Inspected {
    sent(pieces, bytes, only(room).charges(None))
}

/// The same from this address, in rooms of which each address has a share.
fn inspected_from(host: &str, pieces: Vec<Vec<u8>>, rooms: &Rooms) -> Inspected {
    let remote = Remote::of(&format!("{host}:1"));
    sent(pieces, 1 << 20, rooms.charges(Some(&remote)))
}

fn sent(pieces: Vec<Vec<u8>>, bytes: usize, charges: Charges) -> Inspected {
    let bounds = Bounds {
        bytes,
        fields: 3,
        shape: Shape::of_request("/ropewalk.v1.Ropewalk/Metadata"),
        within: WITHIN,
        is_unary: false,
    };
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Status>));
    let body = axum::body::Body::from_stream(pieces.chain(stream::pending()));
    Inspected::new(Body::new(body), bounds, charges, Kept::default())
}

/// Polls once for what has arrived. False if it must wait.
async fn goes_on(body: &mut Inspected) -> bool {
    let next = tokio::time::timeout(Duration::from_millis(1), next(body));
    next.await.is_ok_and(|found| found.is_ok())
}

/// Takes room that belongs to no address.
fn taken(room: &Requests, bytes: usize) -> Charge {
    let mut charge = room.charge(Arc::from(""), None);
    assert!(charge.try_take(bytes, false), "no room");
    charge
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
    let room = Requests::new(100, WITHIN);
    let (first, second) = (names(1), names(2));
    let mut body = inspected(vec![first.clone(), second[..7].to_vec()], 50, &room);
    assert_eq!(next(&mut body).await, Ok(first.len()));
    assert_eq!(room.left(), 100 - first.len());
    assert_eq!(next(&mut body).await, Ok(7));
    assert_eq!(room.left(), 100 - 7, "the first was taken");
    drop(body);
    assert_eq!(room.left(), 100);
}

/// Returns the body of a unary call that ends behind these pieces.
fn unary(pieces: Vec<Vec<u8>>, room: &Requests, kept: &Kept) -> Inspected {
    let bounds = Bounds {
        bytes: 50,
        fields: 3,
        shape: Shape::of_request("/ropewalk.v1.Ropewalk/Metadata"),
        within: WITHIN,
        is_unary: true,
    };
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Status>));
    let body = axum::body::Body::from_stream(pieces);
    let charges = only(room).charges(None);
    Inspected::new(Body::new(body), bounds, charges, kept.clone())
}

#[tokio::test(start_paused = true)]
async fn the_message_of_a_unary_call_is_charged_until_the_call_is_answered() {
    let (room, kept) = (Requests::new(100, WITHIN), Kept::default());
    let message = names(1);
    let mut body = unary(vec![message.clone()], &room, &kept);
    assert_eq!(next(&mut body).await, Ok(message.len()));
    // The server looks for the end before it calls the handler.
    let end = futures_util::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx));
    assert!(end.await.is_none());
    drop(body);
    let free = || room.left();
    assert_eq!(free(), 100 - message.len());
    drop(kept);
    assert_eq!(free(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_has_one_message() {
    let (room, kept) = (Requests::new(100, WITHIN), Kept::default());
    let mut body = unary(vec![framed(&[]), names(1)], &room, &kept);
    assert_eq!(next(&mut body).await, Ok(framed(&[]).len()));
    assert_eq!(next(&mut body).await, Err(ErrorCode::InvalidRequest));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_found_room_gives_its_place_for_the_turn_back() {
    let message = names(3);
    let half = message.len() / 2;
    let rest = message.len() - half;
    let room = Requests::new(2 * half + rest, WITHIN);
    let other = taken(&room, rest);
    let pieces = || vec![message[..half].to_vec(), message[half..].to_vec()];
    let [mut first, mut second] = [(); 2].map(|()| inspected(pieces(), 50, &room));
    for body in [&mut first, &mut second] {
        assert_eq!(next(body).await, Ok(half));
    }
    assert_eq!(next(&mut first).await, Ok(rest), "it has the turn");
    let waiting = tokio::time::timeout(Duration::from_millis(1), next(&mut second)).await;
    assert!(waiting.is_err(), "no room, and no turn");
    drop(other);
    assert_eq!(next(&mut second).await, Ok(rest));
    drop(first);
    drop(second);
    assert!(room.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_or_has_too_many_fields_is_refused_at_once() {
    let room = Requests::new(100, WITHIN);
    let head = framed(&[0; 51])[..5].to_vec();
    let mut long = inspected(vec![head], 50, &room);
    assert_eq!(next(&mut long).await, Err(ErrorCode::TooLarge));
    let many = names(5)[..30].to_vec();
    let mut many = inspected(vec![many], 50, &room);
    assert_eq!(next(&mut many).await, Err(ErrorCode::InvalidRequest));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stays_half_is_given_up_and_a_silent_stream_is_not() {
    let room = Requests::new(100, WITHIN);
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
    let room = Requests::new(20, WITHIN);
    let other = taken(&room, 12);
    let bytes = names(1).len();
    let mut body = inspected(vec![names(1)], 50, &room);
    let waiting = tokio::time::timeout(WITHIN / 2, next(&mut body)).await;
    assert!(waiting.is_err(), "no room");
    drop(other);
    assert_eq!(next(&mut body).await, Ok(bytes));
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_all_half_do_not_wait_for_each_other() {
    let message = names(3);
    let half = message.len() / 2;
    // Incomplete messages take all of the room.
    let room = Requests::new(2 * half, WITHIN);
    let pieces = || vec![message[..half].to_vec(), message[half..].to_vec()];
    let mut bodies = [(); 2].map(|()| inspected(pieces(), 50, &room));
    for body in &mut bodies {
        assert_eq!(next(body).await, Ok(half));
    }
    let began = tokio::time::Instant::now();
    let [mut first, mut second] = bodies;
    let (one, other) = tokio::join!(
        async {
            let found = next(&mut first).await;
            drop(first);
            found
        },
        next(&mut second)
    );
    let rest = message.len() - half;
    assert_eq!((one, other), (Ok(rest), Ok(rest)));
    assert!(began.elapsed() < WITHIN, "nobody had to give up");
    drop(second);
    assert_eq!(room.left(), 2 * half);
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_room_for_too_long_makes_room_for_others() {
    let message = names(3);
    let room = Requests::new(message.len(), WITHIN);
    let stalled = Remote::of("10.0.0.1:1");
    let mut charge = room.charge(Arc::from(""), Some(stalled.clone()));
    assert!(charge.try_take(message.len(), false));
    tokio::time::advance(WITHIN).await;
    assert!(!stalled.is_cut(), "nobody needs the room");
    let mut body = inspected(vec![message.clone()], 50, &room);
    let waiting = tokio::time::timeout(WITHIN / 2, next(&mut body)).await;
    assert!(waiting.is_err() && stalled.is_cut());
    drop(charge);
    assert_eq!(next(&mut body).await, Ok(message.len()));
}

fn shared(large: usize, small: usize) -> Rooms {
    Rooms {
        large: Requests::new(large, WITHIN),
        small: Some(Requests::new(small, WITHIN)),
        is_shared: true,
    }
}

/// A message of 64 KiB in two pieces, of which the first has 60 KiB.
fn large() -> Vec<Vec<u8>> {
    let topics = vec!["x".repeat(64 << 10)];
    let message = framed(&v1::MetadataRequest { topics }.encode_to_vec());
    let (first, rest) = message.split_at(60 << 10);
    vec![first.to_vec(), rest.to_vec()]
}

fn is_idle(rooms: &Rooms) -> bool {
    rooms.large.is_idle() && rooms.small.as_ref().is_none_or(Requests::is_idle)
}

#[tokio::test(start_paused = true)]
async fn one_address_that_stalls_leaves_room_for_the_requests_of_others() {
    let rooms = shared(1 << 20, 1_000);
    let mut stalled = Vec::new();
    let mut held = 0;
    for _ in 0..40 {
        let mut body = inspected_from("10.0.0.1", vec![large().swap_remove(0)], &rooms);
        held += usize::from(goes_on(&mut body).await);
        stalled.push(body);
    }
    assert_eq!(held, 9, "half of the room, and the others wait");
    let mut small = inspected_from("10.0.0.2", vec![names(1)], &rooms);
    assert!(goes_on(&mut small).await);
    let mut honest = inspected_from("10.0.0.2", large(), &rooms);
    assert!(goes_on(&mut honest).await && goes_on(&mut honest).await);
    drop((small, honest));
    drop(stalled.remove(0));
    let mut last = stalled.pop().expect("it waits");
    let first = stalled.get_mut(8).expect("it waits");
    assert!(!goes_on(&mut last).await, "others came before");
    assert!(goes_on(first).await, "room that was given back");
    drop((stalled, last));
    assert!(is_idle(&rooms));
}

#[tokio::test(start_paused = true)]
async fn small_messages_pass_when_large_ones_of_many_addresses_fill_their_room() {
    let rooms = shared(1 << 20, 100);
    let mut stalled = Vec::new();
    for host in 0..20 {
        let mut body = inspected_from(&format!("10.0.0.{host}"), large(), &rooms);
        goes_on(&mut body).await;
        goes_on(&mut body).await;
        stalled.push(body);
    }
    let rest = taken(&rooms.large, rooms.large.left());
    let mut small = inspected_from("10.0.1.1", vec![names(1)], &rooms);
    assert!(goes_on(&mut small).await);
    let mut big = inspected_from("10.0.1.2", large(), &rooms);
    assert!(!goes_on(&mut big).await, "no room for large ones");
    drop((stalled, rest, small, big));
    assert!(is_idle(&rooms));
}

#[tokio::test(start_paused = true)]
async fn one_address_leaves_room_for_the_small_messages_of_others() {
    let rooms = shared(100, 100);
    let full = taken(&rooms.large, 100);
    let half = || vec![names(3).get(..11).expect("enough").to_vec()];
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut body = inspected_from("10.0.0.1", half(), &rooms);
        goes_on(&mut body).await;
        stalled.push(body);
    }
    let mut honest = inspected_from("10.0.0.2", vec![names(1)], &rooms);
    assert!(goes_on(&mut honest).await);
    drop((full, honest, stalled));
    assert!(is_idle(&rooms));
}

#[tokio::test(start_paused = true)]
async fn addresses_take_turns_to_go_on_without_room() {
    let room = Requests::new(60, WITHIN);
    let rooms = Rooms {
        is_shared: true,
        ..only(&room)
    };
    let (half, rest) = (11, names(3).len() - 11);
    let halves = || vec![names(3)[..half].to_vec(), names(3)[half..].to_vec()];
    let mut bodies = Vec::new();
    for host in ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"] {
        let mut body = inspected_from(host, halves(), &rooms);
        assert_eq!(next(&mut body).await, Ok(half));
        bodies.push(body);
    }
    let full = taken(&room, room.left());
    let mut honest = bodies.pop().expect("four");
    assert!(goes_on(&mut bodies[0]).await, "it has the turn");
    for body in &mut bodies[1..] {
        assert!(!goes_on(body).await);
    }
    // A head that was read is no longer charged.
    let heads = taken(&room, room.left());
    assert!(!goes_on(&mut honest).await);
    drop(bodies.remove(0));
    assert_eq!(next(&mut honest).await, Ok(rest), "its turn is next");
    drop((bodies, honest, full, heads));
    assert!(room.is_idle());
}

#[test]
fn heartbeats_and_votes_do_not_wait_behind_entries_and_snapshots() {
    let guard = Guard::for_peers(&Limits::default());
    let is_urgent = |call: &str| guard.rooms(call).large.is(&guard.0.urgent);
    let raft = ["Heartbeat", "Vote", "TransferLeadership"];
    assert!(
        raft.iter()
            .all(|call| is_urgent(&format!("/ropewalk.v1.Raft/{call}")))
    );
    let bulk = ["Append", "InstallSnapshot", "InstallSnapshotParts"];
    assert!(
        !bulk
            .iter()
            .any(|call| is_urgent(&format!("/ropewalk.v1.Raft/{call}")))
    );
}

#[test]
fn batches_may_be_as_large_as_any_topic_has_allowed() {
    let largest = 8 << 20;
    let guard = Guard::for_clients(&Limits::default(), largest);
    let most = |rpc| guard.bounds("", Some(rpc)).bytes;
    let before = most(Rpc::Produce);
    guard.allow_batches_of(largest);
    guard.allow_batches_of(1 << 20);
    assert!(before < largest && most(Rpc::Publish) > largest);
    assert_eq!(most(Rpc::Metadata), Limits::default().request_bytes);
}
