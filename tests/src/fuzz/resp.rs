//! A stream of bytes at the door for Redis clients: requests are cut out of it, whatever it is and however it comes, and what
//! is told in reply is told as it is.

use bytes::{Bytes, BytesMut};
use lode_net::resp::limits::{ARGUMENT_OVERHEAD_BYTES, MAX_ARGUMENTS};
use lode_net::resp::{Parser, Protocol, ProtocolError, Reply, Request};

use super::feed::{Feed, in_pieces};

/// What a request may hold: little, so that some are too large.
const MOST_HELD_BYTES: usize = 4096;
/// Longest argument that one choice makes.
const MOST_ARGUMENT_BYTES: u64 = 6000;

/// The bytes are choices: a stream of commands and of plain bytes, and where it is cut.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let cuts: Vec<u8> = (0..feed.byte() % 4).map(|_| feed.byte()).collect();
    let mut stream = Vec::new();
    while !feed.is_empty() {
        match feed.byte() % 4 {
            0 => {
                let len = usize::from(feed.byte());
                stream.extend_from_slice(feed.take(len));
            }
            1 => inline(&mut feed, &mut stream),
            _ => command(&mut feed, &mut stream),
        }
    }
    let whole = told(&stream, &[]);
    assert_eq!(whole, told(&stream, &cuts), "cut by {cuts:?}, the stream means something else");
    for request in whole.0 {
        let Request::Command(arguments) = request else { continue };
        assert!((1..=MAX_ARGUMENTS).contains(&arguments.len()), "{} arguments", arguments.len());
        let held: usize = arguments.iter().map(|argument| argument.len() + ARGUMENT_OVERHEAD_BYTES).sum();
        assert!(held <= MOST_HELD_BYTES, "{held} bytes were kept");
        again(arguments);
    }
}

fn inline(feed: &mut Feed<'_>, stream: &mut Vec<u8>) {
    let len = usize::from(feed.byte() % 64);
    stream.extend_from_slice(feed.take(len));
    stream.extend_from_slice(b"\r\n");
}

/// A command whose numbers are right, most often.
fn command(feed: &mut Feed<'_>, stream: &mut Vec<u8>) {
    let count = feed.byte() % 8;
    stream.extend_from_slice(format!("*{count}\r\n").as_bytes());
    for _ in 0..count {
        let choice = feed.byte();
        let len = match choice % 16 {
            0 => feed.number(2) % MOST_ARGUMENT_BYTES,
            _ => u64::from(choice / 16),
        };
        let text = feed.take(len as usize);
        // Where the choices are used up, an argument is shorter than it says: the rest is waited for.
        stream.extend_from_slice(format!("${len}\r\n").as_bytes());
        stream.extend_from_slice(text);
        stream.extend_from_slice(b"\r\n");
    }
}

/// What a connection makes of a stream: its requests, and why there are no more.
fn told(stream: &[u8], cuts: &[u8]) -> (Vec<Request>, Option<ProtocolError>) {
    let (mut parser, mut input) = (Parser::new(MOST_HELD_BYTES), BytesMut::new());
    let (mut requests, mut ended) = (Vec::new(), None);
    in_pieces(stream, cuts, |piece| {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => {
                    assert!(parser.held_bytes() <= MOST_HELD_BYTES, "{} bytes are held", parser.held_bytes());
                    return true;
                }
                Err(error) => {
                    assert!(error.to_string().starts_with("Protocol error: "), "{error}");
                    ended = Some(error);
                    return false;
                }
            }
        }
    });
    (requests, ended)
}

/// A command that is written as a list of bytes is the same command.
fn again(arguments: Vec<Bytes>) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut encoded = Vec::new();
        Reply::Array(arguments.iter().cloned().map(Reply::Bulk).collect()).encode(protocol, &mut encoded);
        let (requests, ended) = told(&encoded, &[]);
        assert_eq!((requests.as_slice(), ended), (&[Request::Command(arguments.clone())][..], None));
    }
}
