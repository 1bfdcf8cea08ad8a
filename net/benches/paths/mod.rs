//! The wire's hot paths, each ready to be walked again and again: timed by criterion (`cargo bench -p lode-net`), and
//! counted in instructions (`just counts`).

use std::hint::black_box;

use lode_net::wire::limits::MAX_REQUEST_BODY_BYTES;
use lode_net::wire::{
    Condition, Epoch, FrameParser, MapVersion, Opcode, Parsed, PartitionId, REPLY_HEADER_BYTES,
    REQUEST_HEADER_BYTES, ReplyHead, RequestHeader, RequestId, RequestView, Status, Target, Ttl,
    encode_reply_header,
};

/// One operation with all that it needs.
pub type Path = Box<dyn FnMut()>;
/// What makes a path ready.
pub type Ready = fn() -> Path;

/// Requests that come in one read of a socket.
const TOGETHER: u64 = 16;
/// Bytes of a value.
const VALUE_BYTES: usize = 1024;
const KEY: &[u8] = b"0123456789abcdef";

/// Each path's name, and what makes it ready.
pub const PATHS: &[(&str, Ready)] = &[
    ("parse_16_gets", parse_gets),
    ("parse_put_1k", parse_put),
    ("parse_put_1k_cut_in_two", parse_cut_put),
    ("encode_get", encode_get),
    ("reply_header_1k", reply_header),
];

fn target() -> Target {
    Target { partition: PartitionId(7), epoch: Epoch(1) }
}

fn get() -> RequestView<'static> {
    RequestView::Get { target: target(), key: KEY }
}

fn put(value: &[u8]) -> RequestView<'_> {
    let (condition, ttl) = (Condition::Always, Ttl::Table);
    RequestView::Put { target: target(), key: KEY, value, condition, ttl }
}

fn encoded(request: &RequestView<'_>, number: u64, out: &mut Vec<u8>) {
    request.encode(RequestId(number), MapVersion(3), out).expect("it fits");
}

/// Takes every request out of `input`, as a connection does; tells how many they were.
fn parse(parser: &mut FrameParser, mut input: &[u8]) -> u64 {
    let mut count = 0;
    loop {
        match parser.next(&mut input).expect("the frames are sound") {
            Parsed::NeedMore { .. } => return count,
            Parsed::Frame(frame) => {
                let (header, body) = frame.split_first_chunk::<REQUEST_HEADER_BYTES>().expect("it is whole");
                let header = RequestHeader::from_bytes(header);
                black_box(RequestView::decode(&header, body).expect("it is sound"));
                count += 1;
            }
        }
    }
}

fn parser() -> FrameParser {
    FrameParser::new(REQUEST_HEADER_BYTES, MAX_REQUEST_BODY_BYTES)
}

fn parse_gets() -> Path {
    let (mut parser, mut input) = (parser(), Vec::new());
    (1..=TOGETHER).for_each(|number| encoded(&get(), number, &mut input));
    Box::new(move || assert_eq!(parse(&mut parser, black_box(&input)), TOGETHER))
}

fn parse_put() -> Path {
    let (mut parser, mut input) = (parser(), Vec::new());
    encoded(&put(&[5; VALUE_BYTES]), 1, &mut input);
    Box::new(move || assert_eq!(parse(&mut parser, black_box(&input)), 1))
}

fn parse_cut_put() -> Path {
    let (mut parser, mut input) = (parser(), Vec::new());
    encoded(&put(&[5; VALUE_BYTES]), 1, &mut input);
    Box::new(move || {
        let (one, two) = input.split_at(VALUE_BYTES / 2);
        assert_eq!(parse(&mut parser, black_box(one)) + parse(&mut parser, black_box(two)), 1);
    })
}

fn encode_get() -> Path {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        encoded(black_box(&get()), 1, &mut out);
    })
}

fn reply_header() -> Path {
    let value = vec![5; VALUE_BYTES];
    let head = ReplyHead::new(RequestId(1), Opcode::Get as u8, Status::Ok, MapVersion(3));
    Box::new(move || {
        let header: [u8; REPLY_HEADER_BYTES] = encode_reply_header(black_box(&head), &[black_box(&value)]);
        black_box(header);
    })
}
