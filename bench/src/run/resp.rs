//! The protocol of Redis as a load needs it: GET and SET in a pipeline, whose answers come in order.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use std::collections::VecDeque;

use thiserror::Error;

use super::ask::{Answer, Ask, Outcome, Step};

/// Longest answer that is taken, in bytes: a value, or what is said about the server.
const MOST_ANSWER_BYTES: usize = 64 << 20;

/// Why a RESP connection failed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RespError {
    /// What came is none of the answers that were asked for.
    #[error("the server does not speak RESP, or answered with what was not asked for: {0}")]
    Violation(&'static str),
    /// What RESP servers have no command for.
    #[error("{0:?} cannot be asked of a RESP server: strings have neither order nor transactions there")]
    NoCommand(Step),
}

/// One answer as it travels.
#[derive(Debug, PartialEq, Eq)]
enum Item<'a> {
    /// `+OK`, or a number, as text.
    Line(&'a [u8]),
    /// `-ERR ...`.
    Error(&'a [u8]),
    /// A string, or none.
    Bulk(Option<&'a [u8]>),
}

/// The client's side of one RESP connection.
#[derive(Debug, Default)]
pub struct RespConnection {
    output: Vec<u8>,
    /// How much of `output` has been taken.
    output_at: usize,
    /// Bytes of an answer that is not whole yet.
    input: Vec<u8>,
    pending: VecDeque<Ask>,
}

impl RespConnection {
    /// Requests that were not answered yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Encodes a request behind those before it.
    pub fn submit(&mut self, ask: Ask, key: &[u8], value: &[u8]) -> Result<(), RespError> {
        match ask.step {
            Step::Read => command(&mut self.output, &[b"GET", key]),
            Step::Write => command(&mut self.output, &[b"SET", key, value]),
            other => return Err(RespError::NoCommand(other)),
        }
        self.pending.push_back(ask);
        Ok(())
    }

    /// Bytes to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_at..]
    }

    /// The first `bytes` of the output are sent.
    pub fn consume_output(&mut self, bytes: usize) {
        self.output_at += bytes;
        if self.output_at == self.output.len() {
            self.output.clear();
            self.output_at = 0;
        }
    }

    /// Takes what came, and gives each whole answer to `each`.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Ask, &Answer<'_>),
    ) -> Result<(), RespError> {
        // What was cut is put together; what comes whole is read where it lies.
        if !self.input.is_empty() {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let taken = self.take(&input, each)?;
            input.drain(..taken);
            self.input = input;
        } else {
            let taken = self.take(bytes, each)?;
            bytes = &bytes[taken..];
            self.input.extend_from_slice(bytes);
        }
        if self.input.len() > MOST_ANSWER_BYTES {
            return Err(RespError::Violation("an answer longer than 64 MiB"));
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(Ask, &Answer<'_>)) -> Result<usize, RespError> {
        let mut at = 0;
        while let Some((item, length)) = parse(&bytes[at..])? {
            at += length;
            let ask = self.pending.pop_front().ok_or(RespError::Violation("an answer to nothing"))?;
            each(ask, &item.answer());
        }
        Ok(at)
    }
}

impl<'a> Item<'a> {
    fn answer(&self) -> Answer<'a> {
        let plain = Answer { outcome: Outcome::Done, body: &[], number: 0, has_more: false, message: "" };
        match *self {
            Item::Line(_) => plain,
            Item::Bulk(Some(body)) => Answer { body, ..plain },
            Item::Bulk(None) => Answer { outcome: Outcome::NotFound, ..plain },
            Item::Error(text) => {
                let message = std::str::from_utf8(text).unwrap_or("an error that is no text");
                // What Redis and its kin say while they load, fail over, or have no memory left for now.
                let busy = ["BUSY", "LOADING", "TRYAGAIN"].iter().any(|word| message.starts_with(word));
                let outcome = if busy { Outcome::Busy } else { Outcome::Refused };
                Answer { outcome, message, ..plain }
            }
        }
    }
}

/// Appends one command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first answer in `bytes` as text, and how long it is; `None` where it is not whole.
pub fn text(bytes: &[u8]) -> Result<Option<(String, usize)>, RespError> {
    Ok(parse(bytes)?.map(|(item, length)| {
        let body = match item {
            Item::Line(body) | Item::Error(body) => body,
            Item::Bulk(body) => body.unwrap_or_default(),
        };
        (String::from_utf8_lossy(body).into_owned(), length)
    }))
}

/// The first answer in `bytes`, and how long it is; `None` where it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>, RespError> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (line, after) = (&rest[..end], end + 3);
    match kind {
        b'+' | b':' => Ok(Some((Item::Line(line), after))),
        b'-' => Ok(Some((Item::Error(line), after))),
        b'_' => Ok(Some((Item::Bulk(None), after))),
        b'$' => {
            let number = std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
            let length = match number {
                Some(-1) => return Ok(Some((Item::Bulk(None), after))),
                Some(length) if (0..=MOST_ANSWER_BYTES as i64).contains(&length) => length as usize,
                _ => return Err(RespError::Violation("a length that is none")),
            };
            match bytes.get(after..after + length + 2) {
                None => Ok(None),
                Some(whole) if whole.ends_with(b"\r\n") => {
                    Ok(Some((Item::Bulk(Some(&whole[..length])), after + length + 2)))
                }
                Some(_) => Err(RespError::Violation("a string without its end")),
            }
        }
        _ => Err(RespError::Violation("an answer of a kind that was not asked for")),
    }
}

#[cfg(test)]
mod tests {
    use lode_net::wire::Target;

    use super::*;
    use crate::workload::Operation;

    fn ask(index: u64, step: Step) -> Ask {
        let (target, from) = (Target::default(), Vec::new());
        Ask { at_ns: 0, index, table: 0, operation: Operation::Get, step, target, place: 0, left: 0, from }
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut connection = RespConnection::default();
        connection.submit(ask(1, Step::Read), b"k", b"").unwrap();
        connection.submit(ask(2, Step::Write), b"k", b"a\r\nb").unwrap();
        assert_eq!(
            connection.output(),
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"
        );
        connection.consume_output(5);
        assert!(connection.output().starts_with(b"3\r\nGET"));
        assert_eq!(connection.submit(ask(3, Step::Scan), b"k", b""), Err(RespError::NoCommand(Step::Scan)));
        assert_eq!(connection.in_flight(), 2);
    }

    #[test]
    fn answers_mean_the_same_however_they_are_cut() {
        let stream = b"$3\r\nabc\r\n$-1\r\n+OK\r\n-BUSY wait\r\n-ERR no\r\n_\r\n$0\r\n\r\n:5\r\n";
        let wanted = vec![
            (0, Outcome::Done, b"abc".to_vec()),
            (1, Outcome::NotFound, vec![]),
            (2, Outcome::Done, vec![]),
            (3, Outcome::Busy, vec![]),
            (4, Outcome::Refused, vec![]),
            (5, Outcome::NotFound, vec![]),
            (6, Outcome::Done, vec![]),
            (7, Outcome::Done, vec![]),
        ];
        for piece in 1..=stream.len() {
            let mut connection = RespConnection::default();
            (0..8).for_each(|index| connection.submit(ask(index, Step::Read), b"k", b"").unwrap());
            let mut got = Vec::new();
            for part in stream.chunks(piece) {
                let mut each = |ask: Ask, answer: &Answer<'_>| {
                    got.push((ask.index, answer.outcome, answer.body.to_vec()))
                };
                connection.receive(part, &mut each).unwrap();
            }
            assert_eq!(got, wanted, "in pieces of {piece}");
            assert_eq!(connection.in_flight(), 0);
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        for wrong in
            [&b"hello\r\n"[..], b"$x\r\n", b"$-2\r\n", b"$1\r\nabc", b"*1\r\n+OK\r\n", b"$99999999999\r\n"]
        {
            let mut connection = RespConnection::default();
            connection.submit(ask(0, Step::Read), b"k", b"").unwrap();
            assert!(connection.receive(wrong, &mut |_, _| {}).is_err(), "{wrong:?}");
        }
        let mut connection = RespConnection::default();
        assert!(connection.receive(b"+OK\r\n", &mut |_, _| {}).is_err(), "nothing was asked");
    }
}
