use super::*;
use crate::wire::control::NodeLimits;
use crate::wire::header::{REQUEST_HEADER_BYTES, RequestHeader, array_at};
use crate::wire::reply::{ReplyHead, encode_reply};
use crate::wire::{Epoch, PartitionId, Violation};

const TARGET: Target = Target { partition: PartitionId(1), epoch: Epoch(1) };

fn reply_to(id: RequestId, status: Status, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_reply(&ReplyHead::new(id, 2, status, MapVersion(1)), body, &mut out);
    out
}

fn hello_body() -> Vec<u8> {
    let limits = NodeLimits::default();
    let (node_name, shards) = ("n".to_owned(), Vec::new());
    HelloReply { node_name, incarnation: 1, shard: 0, shards, limits, map: None }.to_bytes()
}

fn opened() -> Connection<char> {
    let mut connection = Connection::new("test", 0, MapVersion(0));
    let header = RequestHeader::from_bytes(&array_at(connection.output(), 0));
    assert_eq!(header.body_len as usize + REQUEST_HEADER_BYTES, connection.output().len());
    connection.consume_output(connection.output().len());
    let bytes = reply_to(header.request_id, Status::Ok, &hello_body());
    assert!(matches!(connection.next_event(&mut &bytes[..]), Ok(Some(Event::Opened(_)))));
    assert!(connection.is_open());
    connection
}

fn left_of(connection: &mut Connection<char>, taken_unsent: usize) -> Vec<(char, bool)> {
    let left = connection.drain(taken_unsent).into_iter();
    let mut left: Vec<_> = left.map(|u| (u.tag, u.maybe_sent)).collect();
    left.sort_unstable();
    left
}

fn events(connection: &mut Connection<char>, bytes: &[u8]) -> Result<Vec<(char, Vec<u8>)>, ConnectionError> {
    let mut input = bytes;
    let mut got = Vec::new();
    while let Some(event) = connection.next_event(&mut input)? {
        if let Event::Reply { tag, reply, .. } = event {
            got.push((tag, reply.view().body.to_vec()));
        }
    }
    Ok(got)
}

#[test]
fn replies_find_their_requests_in_any_order_and_any_pieces() {
    let mut connection = opened();
    let ids: Vec<_> =
        "abc".chars().map(|tag| connection.submit_get(TARGET, b"k", tag).expect("fits")).collect();
    assert_eq!(connection.in_flight(), 3);
    let bytes: Vec<u8> =
        [2, 0, 1].iter().flat_map(|i| reply_to(ids[*i], Status::Ok, &[*i as u8; 9])).collect();
    let mut got = Vec::new();
    for piece in bytes.chunks(7) {
        got.extend(events(&mut connection, piece).expect("good replies"));
    }
    assert_eq!(got, [('c', vec![2; 9]), ('a', vec![0; 9]), ('b', vec![1; 9])]);
    assert_eq!(connection.in_flight(), 0);
}

#[test]
fn a_reply_in_one_piece_is_not_copied_and_a_large_one_is_moved() {
    let mut connection = opened();
    let id = connection.submit_get(TARGET, b"k", 'a').expect("fits");
    let bytes = reply_to(id, Status::Ok, b"value");
    let mut input = &bytes[..];
    let Ok(Some(Event::Reply { reply, .. })) = connection.next_event(&mut input) else { panic!("a reply") };
    let within = bytes.as_ptr_range();
    assert!(within.contains(&reply.view().body.as_ptr()));
    assert_eq!(&reply.into_owned().body[..], b"value");
}

#[test]
fn what_cannot_be_matched_ends_the_connection() {
    let mut connection = opened();
    let id = connection.submit_get(TARGET, b"k", 'a').expect("fits");
    let once = reply_to(id, Status::Ok, b"");
    assert!(events(&mut connection, &once).is_ok());
    assert_eq!(events(&mut connection, &once), Err(ConnectionError::UnknownReply(id)));
    let last_word = reply_to(RequestId(0), Status::ShuttingDown, b"bye");
    assert!(matches!(
        events(&mut opened(), &last_word),
        Err(ConnectionError::Refused { status: Status::ShuttingDown, message, .. }) if message == "bye"
    ));
    let mut bad = reply_to(id, Status::Ok, b"body");
    bad[50] ^= 1;
    assert_eq!(events(&mut opened(), &bad), Err(ConnectionError::Violation(Violation::BadChecksum)));
    let mut connection = Connection::<char>::new("test", 0, MapVersion(0));
    let garbage = reply_to(HELLO_ID, Status::Ok, b"no hello");
    assert!(matches!(connection.next_event(&mut &garbage[..]), Err(ConnectionError::BadHello)));
}

#[test]
fn the_end_tells_what_was_surely_not_sent() {
    let mut connection = opened();
    for tag in "abc".chars() {
        connection.submit_get(TARGET, b"key", tag).expect("fits");
    }
    let frame = connection.output().len() / 3;
    connection.consume_output(frame + 1);
    let left = left_of(&mut connection, 0);
    assert_eq!(left, [('a', true), ('b', true), ('c', false)]);

    let mut connection = opened();
    connection.submit_get(TARGET, b"key", 'a').expect("fits");
    let mut taken = Vec::new();
    connection.take_output(&mut taken);
    connection.submit_get(TARGET, b"key", 'b').expect("fits");
    assert_eq!(taken.len(), connection.output().len());
    let left = left_of(&mut connection, 0);
    assert_eq!(left, [('a', true), ('b', false)]);

    let mut connection = opened();
    connection.submit_get(TARGET, b"key", 'a').expect("fits");
    connection.submit_get(TARGET, b"key", 'b').expect("fits");
    let mut taken = Vec::new();
    connection.take_output(&mut taken);
    assert_eq!(left_of(&mut connection, taken.len() / 2), [('a', true), ('b', false)]);
}
