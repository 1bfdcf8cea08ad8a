//! A stream of bytes at a client: whatever a node, or something that is none, answers.

use lode_net::client::connection::{Connection, Event};
use lode_net::wire::control::{HelloReply, MapBody};
use lode_net::wire::header::seal;
use lode_net::wire::map::PartitionMap;
use lode_net::wire::{Epoch, MapVersion, PartitionId, REPLY_HEADER_BYTES, ReplyView, reply, request};

use super::feed::{Feed, in_pieces};

/// Requests that the client has in flight.
const ASKED: u8 = 4;

/// The bytes are choices: a stream of sealed replies and of plain bytes, and where it is cut.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let cuts: Vec<u8> = (0..feed.byte() % 4).map(|_| feed.byte()).collect();
    let mut stream = Vec::new();
    if feed.byte().is_multiple_of(2) {
        let head =
            reply::ReplyHead::new(lode_net::wire::RequestId(1), 1, lode_net::wire::Status::Ok, MapVersion(1));
        reply::encode_reply(&head, &hello().to_bytes(), &mut stream);
    }
    while !feed.is_empty() {
        match feed.byte() % 4 {
            0 => {
                let len = usize::from(feed.byte());
                stream.extend_from_slice(feed.take(len));
            }
            _ => stream.extend(sealed_reply(&mut feed)),
        }
    }
    let whole = told(&stream, &[]);
    assert_eq!(whole, told(&stream, &cuts), "cut by {cuts:?}, the stream means something else");
}

/// What a sound node says to Hello.
pub fn hello() -> HelloReply {
    let (node, _) = super::requests::node();
    HelloReply {
        node_name: node.name,
        incarnation: node.incarnation,
        shard: 0,
        shards: node.shards,
        limits: node.limits,
        map: Some(MapBody { version: 3, ..MapBody::default() }),
    }
}

/// A reply whose length and checksum are right, and whose other fields are chosen. Its request is one of few, or anything.
fn sealed_reply(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut header = [0u8; REPLY_HEADER_BYTES];
    let chosen = feed.take(REPLY_HEADER_BYTES - 8);
    header[8..8 + chosen.len()].copy_from_slice(chosen);
    let len = usize::from(feed.byte());
    let body = feed.take(len);
    header[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    seal(&mut header, &[body]);
    [&header, body].concat()
}

/// What a client makes of a stream, in words.
fn told(stream: &[u8], cuts: &[u8]) -> Vec<String> {
    let mut connection: Connection<u8> = Connection::new("f", 0, MapVersion(0));
    let target = request::Target { partition: PartitionId(1), epoch: Epoch(1) };
    for tag in 0..ASKED {
        connection.submit_get(target, &[tag], tag).expect("a short key");
    }
    let mut told = Vec::new();
    in_pieces(stream, cuts, |piece| {
        let mut input = piece;
        loop {
            match connection.next_event(&mut input) {
                Ok(Some(Event::Opened(hello))) => told.push(format!("opened {hello:?}")),
                Ok(Some(Event::Reply { id, tag, reply })) => {
                    assert!(tag < ASKED, "an answer to what was never asked");
                    read(reply.view());
                    told.push(format!("{id} {tag} {:?}", reply.view()));
                }
                Ok(None) => {
                    assert!(input.is_empty(), "something is left");
                    return true;
                }
                Err(error) => {
                    told.push(format!("{error}"));
                    return false;
                }
            }
        }
    });
    let unanswered = connection.drain(0);
    told.push(format!("{} unanswered", unanswered.len()));
    told
}

/// Everything that a client may ask of a reply.
fn read(view: ReplyView<'_>) {
    let (_, _, _) = (view.status(), view.has_more(), view.message().len());
    let bytes: usize =
        view.records().map_while(Result::ok).map(|record| record.key.len() + record.value.len()).sum();
    assert!(bytes <= view.body.len(), "a page holds more than it has bytes");
    if let Some(Ok(body)) = view.map_body().map(MapBody::from_bytes) {
        map(body);
    }
}

/// A map that is taken has a place for every key that its ranges cover, and survives the way there and back.
pub fn map(body: MapBody) {
    let Ok(map) = PartitionMap::new(body) else { return };
    for table in map.tables() {
        for partition in table.partitions() {
            assert!(map.partition(partition.id).is_some(), "{} is in no table", partition.id);
        }
        for key in [&b""[..], b"k", &[0xff; 8]] {
            let covering = table.partition_of(key).map(|partition| partition.id);
            assert_eq!(covering, table.route(key).map(|route| route.target.partition));
        }
    }
    let again = PartitionMap::new(map.to_body()).expect("it was taken before");
    assert_eq!(again.partition_count(), map.partition_count());
}
