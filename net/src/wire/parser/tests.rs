use super::*;
use crate::testing::Lcg;
use crate::wire::header::{REQUEST_HEADER_BYTES, RequestHeader};
use crate::wire::request::RequestView;
use crate::wire::{MapVersion, RequestId};

const LIMIT: usize = 4096;

fn parser() -> FrameParser {
    FrameParser::new(REQUEST_HEADER_BYTES, LIMIT)
}

fn ping(id: u64, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| (i as u8) ^ (id as u8)).collect();
    let mut out = Vec::new();
    RequestView::Ping { payload: &payload }
        .encode(RequestId(id), MapVersion(0), &mut out)
        .expect("small enough");
    out
}

fn feed(parser: &mut FrameParser, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Violation> {
    let mut input = bytes;
    let mut frames = Vec::new();
    loop {
        match parser.next(&mut input)? {
            Parsed::Frame(frame) => frames.push(frame.into_owned()),
            Parsed::NeedMore { bytes } => {
                assert!(bytes > 0 && input.is_empty());
                return Ok(frames);
            }
        }
    }
}

#[test]
fn frames_that_lie_whole_are_not_copied() {
    let bytes = [ping(1, 10), ping(2, 0), ping(3, LIMIT)].concat();
    let mut input = &bytes[..];
    let mut parser = parser();
    for _ in 0..3 {
        assert!(matches!(parser.next(&mut input), Ok(Parsed::Frame(Cow::Borrowed(_)))));
    }
    assert_eq!(parser.next(&mut input), Ok(Parsed::NeedMore { bytes: REQUEST_HEADER_BYTES }));
    assert_eq!(parser.partial_bytes(), 0);
}

#[test]
fn every_cut_of_a_stream_gives_the_same_frames() {
    let frames = [ping(1, 0), ping(2, 37), ping(3, 5)];
    let bytes = frames.concat();
    for cut in 0..=bytes.len() {
        let mut parser = parser();
        let mut got = feed(&mut parser, &bytes[..cut]).expect("whole frames");
        got.extend(feed(&mut parser, &bytes[cut..]).expect("whole frames"));
        assert_eq!(got, frames, "cut at {cut}");
    }
    let mut random = Lcg::new(7);
    for _ in 0..200 {
        let mut parser = parser();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(1 + random.below(rest.len().min(40)));
            got.extend(feed(&mut parser, head).expect("whole frames"));
            rest = tail;
        }
        assert_eq!(got, frames);
    }
}

#[test]
fn need_more_is_exact() {
    let frame = ping(1, 100);
    let mut parser = parser();
    let mut sent = 0;
    let mut need = REQUEST_HEADER_BYTES;
    let mut steps = 0;
    loop {
        let mut input = &frame[sent..sent + need];
        sent += need;
        steps += 1;
        match parser.next(&mut input) {
            Ok(Parsed::NeedMore { bytes }) => need = bytes,
            other => break assert_eq!(other, Ok(Parsed::Frame(Cow::Owned(frame.clone())))),
        }
    }
    assert_eq!((sent, steps), (frame.len(), 2));
}

#[test]
fn an_oversize_length_is_refused_before_anything_is_kept() {
    let header = RequestHeader { body_len: LIMIT as u32 + 1, ..RequestHeader::default() }.to_bytes();
    let refused = Err(Violation::FrameTooLarge { len: LIMIT + 1, limit: LIMIT });
    let mut whole = parser();
    assert_eq!(whole.next(&mut &header[..]), refused);
    assert_eq!(whole.partial_bytes(), 0);
    let mut dripped = parser();
    let mut outcome = Ok(Parsed::NeedMore { bytes: 0 });
    for byte in header.chunks(1) {
        outcome = dripped.next(&mut &byte[..]);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome, refused);
}

/// Found by the fuzzer: the length's last byte came, and the frame was refused only when another byte did.
#[test]
fn an_oversize_length_is_refused_with_its_last_byte_wherever_it_is_cut() {
    let header = RequestHeader { body_len: LIMIT as u32 + 1, ..RequestHeader::default() }.to_bytes();
    for cut in 1..4 {
        let mut parser = parser();
        let asked = parser.next(&mut &header[..cut]);
        assert_eq!(asked, Ok(Parsed::NeedMore { bytes: header.len() - cut }));
        let refused = Err(Violation::FrameTooLarge { len: LIMIT + 1, limit: LIMIT });
        assert_eq!(parser.next(&mut &header[cut..4]), refused, "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_is_a_violation_or_waits_for_more() {
    let frame = ping(1, 20);
    for bit in 0..frame.len() * 8 {
        let mut bad = frame.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match feed(&mut parser(), &bad) {
            // A length made smaller leaves a tail, a length made larger waits; neither gives the frame.
            Ok(frames) => assert!(frames.is_empty(), "bit {bit}"),
            Err(violation) => assert_ne!(violation.status(), Status::Ok),
        }
    }
}

#[test]
fn garbage_never_panics_and_never_holds_more_than_a_frame() {
    for seed in 0..500 {
        let mut random = Lcg::new(seed);
        let mut parser = parser();
        for _ in 0..20 {
            let mut bytes: Vec<u8> = (0..random.below(600)).map(|_| random.next() as u8).collect();
            if bytes.len() > 4 && random.below(2) == 0 {
                bytes[2..4].fill(0); // a plausible length, so that the checksum is reached too
            }
            if feed(&mut parser, &bytes).is_err() {
                break;
            }
            assert!(parser.partial_bytes() <= REQUEST_HEADER_BYTES + LIMIT);
        }
    }
}

#[test]
fn memory_grows_with_the_bytes_that_came() {
    let mut big = FrameParser::new(REQUEST_HEADER_BYTES, 1 << 20);
    let header = RequestHeader { body_len: 1 << 20, ..RequestHeader::default() }.to_bytes();
    assert!(matches!(big.next(&mut &header[..]), Ok(Parsed::NeedMore { bytes }) if bytes == 1 << 20));
    assert!(big.partial.capacity() <= 64);
}
