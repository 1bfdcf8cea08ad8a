//! A stream of bytes at a node: frames are cut out of it, checked and decoded, whatever it is and however it comes.

use lode_net::wire::control::{MapBody, ShardAddress};
use lode_net::wire::header::seal;
use lode_net::wire::server::{ConnectionLimits, Context};
use lode_net::wire::{
    DecodeError, FrameParser, Incoming, MapVersion, NodeInfo, Parsed, PublishedMap, REQUEST_HEADER_BYTES,
    RequestHeader, RequestView, ServerConnection, ShardId, Violation,
};

use super::feed::{Feed, in_pieces};

/// Longest piece of the stream that one choice makes.
const MOST_PIECE: usize = 255;

/// The bytes are choices: a stream of sealed frames and of plain bytes, and where it is cut.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let cuts: Vec<u8> = (0..feed.byte() % 4).map(|_| feed.byte()).collect();
    let mut stream = hello();
    while !feed.is_empty() {
        match feed.byte() % 4 {
            0 => {
                let len = usize::from(feed.byte()).min(MOST_PIECE);
                stream.extend_from_slice(feed.take(len));
            }
            _ => stream.extend(sealed_frame(&mut feed)),
        }
    }
    let whole = told(&stream, &[]);
    assert_eq!(whole, told(&stream, &cuts), "cut by {cuts:?}, the stream means something else");
}

/// A frame whose length and checksum are right, and whose other fields are chosen.
pub fn sealed_frame(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut header = [0u8; REQUEST_HEADER_BYTES];
    let chosen = feed.take(REQUEST_HEADER_BYTES - 8);
    header[8..8 + chosen.len()].copy_from_slice(chosen);
    let len = usize::from(feed.byte());
    let body = feed.take(len);
    frame(header, body)
}

/// A frame of this header, with the length and the checksum that belong to it.
pub fn frame(mut header: [u8; REQUEST_HEADER_BYTES], body: &[u8]) -> Vec<u8> {
    header[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    seal(&mut header, &[body]);
    [&header, body].concat()
}

/// A node that knows of one shard and no tables.
pub fn node() -> (NodeInfo, PublishedMap) {
    let node = NodeInfo {
        name: "fuzzed".to_owned(),
        incarnation: 7,
        shards: vec![ShardAddress { shard: 0, port: 1 }],
        limits: Default::default(),
    };
    let map = PublishedMap::new(MapBody { version: 3, ..MapBody::default() }).expect("an empty map is sound");
    (node, map)
}

fn hello() -> Vec<u8> {
    let mut out = Vec::new();
    let hello = lode_net::wire::control::Hello { client_name: "f".to_owned(), incarnation: 0 };
    let view = lode_net::wire::request::HelloView { oldest_version: 1, newest_version: 1, hello };
    RequestView::Hello(view)
        .encode(lode_net::wire::RequestId(1), MapVersion(0), &mut out)
        .expect("a short name");
    out
}

/// What a connection makes of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Request { header: RequestHeader, body: Vec<u8> },
    Reply(Vec<u8>),
    Closed { reply: Vec<u8>, violation: Violation },
}

fn told(stream: &[u8], cuts: &[u8]) -> Vec<Told> {
    let (node, map) = node();
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 1 };
    let mut connection = ServerConnection::new(ShardId(0), ConnectionLimits::default(), 0);
    let mut told = Vec::new();
    in_pieces(stream, cuts, |piece| {
        let mut input = piece;
        loop {
            match connection.receive(&mut input, &context) {
                Incoming::Request(frame) => {
                    decode(&frame.header, frame.body());
                    connection.request_done();
                    told.push(Told::Request { header: frame.header, body: frame.body().to_vec() });
                }
                Incoming::Reply(reply) => told.push(Told::Reply(whole_reply(reply))),
                Incoming::Close { reply, violation } => {
                    told.push(Told::Closed { reply: whole_reply(reply), violation });
                    assert!(!connection.is_open(), "closed and open");
                    return false;
                }
                Incoming::NeedMore { bytes } => {
                    assert!(bytes > 0 && input.is_empty(), "nothing is needed, or something is left");
                    let most = ConnectionLimits::default().request_body_bytes + REQUEST_HEADER_BYTES;
                    assert!(connection.partial_bytes() <= most, "an unfinished frame is over the limit");
                    return true;
                }
            }
        }
    });
    told
}

/// A reply of the node's is one whole frame whose checksum holds.
fn whole_reply(reply: Vec<u8>) -> Vec<u8> {
    let mut parser = FrameParser::new(lode_net::wire::REPLY_HEADER_BYTES, usize::MAX >> 1);
    let mut rest = &reply[..];
    let parsed = parser.next(&mut rest).map(|parsed| matches!(parsed, Parsed::Frame(_)));
    assert_eq!((parsed, rest.len()), (Ok(true), 0), "the node's own reply is no frame");
    reply
}

/// A request that can be decoded is the same after it has been encoded and decoded again.
fn decode(header: &RequestHeader, body: &[u8]) {
    let view = match RequestView::decode(header, body) {
        Ok(view) => view,
        Err(error) => return told_well(&error),
    };
    let mut again = Vec::new();
    if let Err(error) = view.encode(header.request_id, header.map_version, &mut again) {
        panic!("{view:?} was decoded, and cannot be encoded: {error}");
    }
    let (head, body) = again.split_at(REQUEST_HEADER_BYTES);
    let head = RequestHeader::from_bytes(head.try_into().expect("a whole header"));
    assert_eq!(RequestView::decode(&head, body).as_ref(), Ok(&view), "encoded, it is another request");
}

fn told_well(error: &DecodeError) {
    assert!(!error.to_string().is_empty(), "a refusal without a word");
    assert!(error.status() != lode_net::wire::Status::Ok, "{error} is no success");
}
