//! Requests in every cut, at, below and above each limit; replies in both versions.

use bytes::{Bytes, BytesMut};

use super::limits::{ARGUMENT_OVERHEAD_BYTES, MAX_ARGUMENTS, MAX_BULK_BYTES, MAX_LINE_BYTES};
use super::{Parser, Protocol, ProtocolError, Reply, Request};

const HELD_BYTES: usize = 1 << 20;

/// Everything that is found in the bytes, given so many at a time.
fn parse(bytes: &[u8], at_a_time: usize) -> Result<Vec<Request>, ProtocolError> {
    let mut parser = Parser::new(HELD_BYTES);
    let (mut input, mut found) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(at_a_time.max(1)) {
        input.extend_from_slice(piece);
        while let Some(request) = parser.next(&mut input)? {
            found.push(request);
        }
    }
    assert!(input.len() <= MAX_LINE_BYTES + HELD_BYTES);
    Ok(found)
}

fn command(words: &[&[u8]]) -> Request {
    Request::Command(words.iter().map(|word| Bytes::copy_from_slice(word)).collect())
}

#[test]
fn requests_are_found_however_they_are_cut() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\nPING\r\n\r\n*0\r\n*-1\r\n  get  \"a b\" \n*1\r\n$0\r\n\r\n";
    let wanted = vec![
        command(&[b"SET", b"k", b"a\r\nb"]),
        command(&[b"PING"]),
        command(&[b"get", b"a b"]),
        command(&[b""]),
    ];
    for at_a_time in 1..=bytes.len() {
        assert_eq!(parse(bytes, at_a_time), Ok(wanted.clone()), "{at_a_time} bytes at a time");
    }
}

#[test]
fn inline_commands_know_quotes() {
    for (line, words) in [
        (&b"a\tb"[..], &[&b"a"[..], b"b"][..]),
        (br#"set "a\"b" 'c\'d\n'"#, &[b"set", b"a\"b", b"c'd\\n"]),
        (br#""\x41\n\r\t\a\b\q\xg1" """#, &[b"A\n\r\t\x07\x08qxg1", b""]),
        (br#"a"b c"d"#, &[]),
        (br#"pre"fix ed" x"#, &[b"prefix ed", b"x"]),
    ] {
        let parsed = parse(&[line, b"\r\n"].concat(), 1);
        match words.is_empty() {
            true => assert_eq!(parsed, Err(ProtocolError::Quotes), "{}", line.escape_ascii()),
            false => assert_eq!(parsed, Ok(vec![command(words)]), "{}", line.escape_ascii()),
        }
    }
    for line in [&b"get \"a\n"[..], b"get 'a\n", b"get \"a\"b\n", b"get 'a'b\n", b"get \"a\\\"\n"] {
        assert_eq!(parse(line, 1), Err(ProtocolError::Quotes), "{}", line.escape_ascii());
    }
}

#[test]
fn what_is_no_protocol_is_told_in_known_words() {
    for (bytes, told) in [
        (&b"*1\r\n:1\r\n"[..], "Protocol error: expected '$', got ':'"),
        (b"*1\r\n\xff", "Protocol error: expected '$', got '\\xff'"),
        (b"*x\r\n", "Protocol error: invalid multibulk length"),
        (b"*\r\n", "Protocol error: invalid multibulk length"),
        (b"*01\r\n", "Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$+1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$ 1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$-0\r\n", "Protocol error: invalid bulk length"),
    ] {
        let error = parse(bytes, 1).expect_err("no protocol");
        assert_eq!(error.to_string(), told);
    }
}

#[test]
fn arguments_are_counted_at_the_limit_and_above() {
    let announce = |count: usize| parse(format!("*{count}\r\n").as_bytes(), 64);
    assert_eq!(announce(MAX_ARGUMENTS), Ok(vec![]));
    assert_eq!(announce(MAX_ARGUMENTS + 1), Err(ProtocolError::Count));
    let announce = |bytes: usize| parse(format!("*1\r\n${bytes}\r\n").as_bytes(), 64);
    assert_eq!(announce(MAX_BULK_BYTES), Ok(vec![]));
    assert_eq!(announce(MAX_BULK_BYTES + 1), Err(ProtocolError::Length));
}

#[test]
fn a_line_has_an_end_within_its_limit() {
    let at = vec![b'a'; MAX_LINE_BYTES];
    let above = vec![b'a'; MAX_LINE_BYTES + 1];
    for at_a_time in [1000, MAX_LINE_BYTES * 2] {
        let found = parse(&[&at[..], b"\n"].concat(), at_a_time).expect("a line");
        assert_eq!(found, vec![command(&[&at])]);
        assert_eq!(parse(&[&above[..], b"\n"].concat(), at_a_time), Err(ProtocolError::InlineTooLong));
        assert_eq!(parse(&at, at_a_time), Ok(vec![]));
        assert_eq!(parse(&above, at_a_time), Err(ProtocolError::InlineTooLong));
        assert_eq!(parse(&[b"*", &above[..]].concat(), at_a_time), Err(ProtocolError::CountTooLong));
        assert_eq!(parse(&[b"*1\r\n$", &above[..]].concat(), at_a_time), Err(ProtocolError::LengthTooLong));
    }
}

#[test]
fn what_is_too_large_is_forgotten_and_the_next_request_found() {
    let value = vec![b'v'; HELD_BYTES - 4 * ARGUMENT_OVERHEAD_BYTES];
    let request = |bytes: usize| {
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${bytes}\r\n");
        [head.as_bytes(), &vec![b'v'; bytes], b"\r\nPING\r\n"].concat()
    };
    let most = HELD_BYTES - 3 * ARGUMENT_OVERHEAD_BYTES - 4;
    for at_a_time in [4096, 10 << 20] {
        let found = parse(&request(value.len()), at_a_time).expect("requests");
        assert_eq!(found, vec![command(&[b"SET", b"k", &value]), command(&[b"PING"])]);
        let found = parse(&request(most), at_a_time).expect("requests");
        assert!(matches!(&found[0], Request::Command(words) if words[2].len() == most));
        for bytes in [most + 1, 5 << 20] {
            let found = parse(&request(bytes), at_a_time);
            assert_eq!(found, Ok(vec![Request::TooLarge, command(&[b"PING"])]), "{bytes}");
        }
    }
    // Many small ones count as well.
    let many = HELD_BYTES / ARGUMENT_OVERHEAD_BYTES;
    let request = |count: usize| [format!("*{count}\r\n").as_bytes(), &b"$0\r\n\r\n".repeat(count)].concat();
    assert!(
        matches!(&parse(&request(many), 9999).expect("one")[..], [Request::Command(words)] if words.len() == many)
    );
    assert_eq!(parse(&request(many + 1), 9999), Ok(vec![Request::TooLarge]));
    // So do those of a line: found by the fuzzer, they once did not.
    let most = 10 * (ARGUMENT_OVERHEAD_BYTES + 1);
    for (words, is_kept) in [(9, true), (10, true), (11, false)] {
        let mut parser = Parser::new(most);
        let mut input = BytesMut::from(format!("{}\r\nPING\r\n", "a ".repeat(words)).as_bytes());
        let kept = Request::Command(vec![Bytes::from_static(b"a"); words]);
        let expected = if is_kept { kept } else { Request::TooLarge };
        assert_eq!(parser.next(&mut input), Ok(Some(expected)), "{words}");
        assert_eq!(parser.next(&mut input), Ok(Some(command(&[b"PING"]))));
    }
}

#[test]
fn a_request_is_forgotten_at_any_moment() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$5\r\nabcde\r\n*1\r\n$4\r\nPING\r\n";
    for cut in 0..28 {
        let mut parser = Parser::new(HELD_BYTES);
        let mut input = BytesMut::from(&bytes[..cut]);
        let first = parser.next(&mut input).expect("good so far");
        let was_amid = first.is_none() && parser.is_amid(&input);
        assert_eq!(was_amid, cut != 0 && first.is_none(), "{cut}");
        let has_begun = cut >= 4 && first.is_none();
        parser.forget();
        assert_eq!(parser.held_bytes(), 0);
        input.extend_from_slice(&bytes[cut..]);
        let second = first.or_else(|| parser.next(&mut input).expect("good"));
        match has_begun {
            true => assert_eq!(second, Some(Request::TooLarge), "{cut}"),
            false => assert_eq!(second, Some(command(&[b"GET", b"abcde"])), "{cut}"),
        }
        assert_eq!(parser.next(&mut input), Ok(Some(command(&[b"PING"]))));
    }
}

#[test]
fn replies_differ_by_version() {
    let encoded = |reply: &Reply, protocol| {
        let mut out = Vec::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out).expect("plain text")
    };
    let map = Reply::Map(vec![(Reply::text("a"), Reply::Integer(i64::MIN))]);
    for (reply, two, three) in [
        (Reply::OK, "+OK\r\n", "+OK\r\n"),
        (Reply::error("a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
        (Reply::Integer(0), ":0\r\n", ":0\r\n"),
        (Reply::Integer(-120), ":-120\r\n", ":-120\r\n"),
        (Reply::text(""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (Reply::Null, "$-1\r\n", "_\r\n"),
        (Reply::NullArray, "*-1\r\n", "_\r\n"),
        (Reply::Array(vec![Reply::Null, Reply::Array(vec![])]), "*2\r\n$-1\r\n*0\r\n", "*2\r\n_\r\n*0\r\n"),
        (map, "*2\r\n$1\r\na\r\n:-9223372036854775808\r\n", "%1\r\n$1\r\na\r\n:-9223372036854775808\r\n"),
        (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
        (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
        (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
        (Reply::Boolean(false), ":0\r\n", "#f\r\n"),
        (Reply::Text("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
    ] {
        assert_eq!(encoded(&reply, Protocol::Resp2), two);
        assert_eq!(encoded(&reply, Protocol::Resp3), three);
        assert!(reply.size_bytes() + 16 >= two.len());
    }
}

#[test]
fn tls_is_refused_at_its_first_byte() {
    assert_eq!(parse(&[0x16], 1), Err(ProtocolError::Tls));
    assert_eq!(parse(&[0x16, 3, 1, 2, 0, 1], 6), Err(ProtocolError::Tls));
}
