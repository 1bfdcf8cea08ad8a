//! The first words between client and node, of which each side knows nothing of the other.

use lode_net::client::connection::{Connection, Event};
use lode_net::wire::control::{Hello, HelloReply, MapBody};
use lode_net::wire::reply::{ReplyHead, encode_reply};
use lode_net::wire::request::HelloView;
use lode_net::wire::server::{ConnectionLimits, Context};
use lode_net::wire::{
    Incoming, MapVersion, REQUEST_HEADER_BYTES, RequestId, RequestView, ServerConnection, ShardId, Status,
};

use super::feed::Feed;
use super::{replies, requests};

/// The bytes are choices: which side is spoken to, and what is changed in, cut off or put in place of a sound first word.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    match feed.byte() % 3 {
        0 => to_node(&mut feed),
        1 => to_client(&mut feed),
        _ => any_control(feed.rest()),
    }
}

/// A sound body with a few bytes changed, or any bytes.
fn spoilt(mut sound: Vec<u8>, feed: &mut Feed<'_>) -> Vec<u8> {
    let changes = feed.byte();
    if changes == 0xff {
        return feed.rest().to_vec();
    }
    for _ in 0..changes % 8 {
        let at = feed.number(2) as usize % (sound.len() + 1);
        let new = feed.byte();
        match sound.get_mut(at) {
            Some(byte) => *byte = new,
            None => sound.truncate(usize::from(new)),
        }
    }
    sound.extend_from_slice(feed.rest());
    sound
}

fn to_node(feed: &mut Feed<'_>) {
    let mut frame = Vec::new();
    let hello = Hello { client_name: "somebody".to_owned(), incarnation: u64::from(feed.byte()) };
    let view =
        HelloView { oldest_version: feed.number(2) as u16, newest_version: feed.number(2) as u16, hello };
    let map_version = MapVersion(u32::from(feed.byte()));
    RequestView::Hello(view).encode(RequestId(1), map_version, &mut frame).expect("a short name");
    let (header, body) = frame.split_at(REQUEST_HEADER_BYTES);
    let header = header.try_into().expect("a whole header");
    let frame = requests::frame(header, &spoilt(body.to_vec(), feed));

    let (node, map) = requests::node();
    let is_recovering = feed.byte() == 1;
    let context =
        Context { node: (!is_recovering).then_some(&node), map: &map, crowded: false, gate: None, now_ns: 1 };
    let mut connection = ServerConnection::new(ShardId(0), ConnectionLimits::default(), 0);
    match connection.receive(&mut &frame[..], &context) {
        Incoming::Reply(reply) => {
            let mut client: Connection<()> = Connection::new("f", 0, MapVersion(0));
            let told = client.next_event(&mut &reply[..]);
            assert!(told.is_ok() || is_recovering, "a node's answer to Hello is not understood: {told:?}");
        }
        Incoming::Close { .. } => assert!(!connection.is_open()),
        other => panic!("a Hello is answered or refused, and is neither: {other:?}"),
    }
}

fn to_client(feed: &mut Feed<'_>) {
    let head = ReplyHead::new(RequestId(1), 1, Status::Ok, MapVersion(u32::from(feed.byte())));
    let mut frame = Vec::new();
    encode_reply(&head, &spoilt(replies::hello().to_bytes(), feed), &mut frame);
    let mut client: Connection<()> = Connection::new("f", 0, MapVersion(0));
    if let Ok(Some(Event::Opened(hello))) = client.next_event(&mut &frame[..]) {
        assert!(client.is_open(), "opened and not open");
        let copy = HelloReply::from_bytes(&hello.to_bytes()).expect("it was read before");
        assert_eq!(copy, *hello, "there and back it is something else");
        hello.map.into_iter().for_each(replies::map);
    }
}

/// Archives that came from anybody.
fn any_control(bytes: &[u8]) {
    if let Ok(body) = MapBody::from_bytes(bytes) {
        replies::map(body);
    }
    let _ = HelloReply::from_bytes(bytes);
    let _ = Hello::from_bytes(bytes);
    let _ = lode_net::wire::control::CreateTable::from_bytes(bytes);
    let _ = lode_net::wire::control::DropTable::from_bytes(bytes);
}
