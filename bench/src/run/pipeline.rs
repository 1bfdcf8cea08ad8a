//! One connection of a protocol that knows no handshake, and whose answers come in the order of what was asked.

use std::collections::VecDeque;

use thiserror::Error;

use super::ask::{Answer, Ask, Step};
use super::{memcached, resp};

/// Longest answer that is taken, in bytes: a value, or what is said about the server.
pub const MOST_ANSWER_BYTES: usize = 64 << 20;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// That of Redis.
    Resp,
    /// The meta commands of memcached.
    Memcached,
}

/// Why such a connection failed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PipelineError {
    /// What came is none of the answers that were asked for.
    #[error("the server does not speak {}, or answered with what was not asked for: {}", .0.name(), .1)]
    Violation(Dialect, &'static str),
    /// What there is no command for.
    #[error("{step:?} cannot be asked in {}, which knows neither order nor transactions", .dialect.name())]
    NoCommand {
        /// What is spoken.
        dialect: Dialect,
        /// What was asked for.
        step: Step,
    },
}

impl Dialect {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Resp => "RESP",
            Dialect::Memcached => "memcached's protocol",
        }
    }

    fn encode(self, step: Step, key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), PipelineError> {
        match (self, step) {
            (Dialect::Resp, Step::Read) => resp::command(out, &[b"GET", key]),
            (Dialect::Resp, Step::Write) => resp::command(out, &[b"SET", key, value]),
            (Dialect::Memcached, Step::Read) => memcached::get(out, key),
            (Dialect::Memcached, Step::Write) => memcached::set(out, key, value),
            (dialect, step) => return Err(PipelineError::NoCommand { dialect, step }),
        }
        Ok(())
    }

    /// The first answer in `bytes`, and how long it is; `None` where it is not whole.
    fn parse(self, bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, PipelineError> {
        match self {
            Dialect::Resp => resp::answer(bytes),
            Dialect::Memcached => memcached::answer(bytes),
        }
    }
}

/// The client's side of one such connection.
#[derive(Debug)]
pub struct Pipeline {
    dialect: Dialect,
    output: Vec<u8>,
    /// How much of `output` has been taken.
    output_at: usize,
    /// Bytes of an answer that is not whole yet.
    input: Vec<u8>,
    pending: VecDeque<Ask>,
}

impl Pipeline {
    /// Nothing was asked yet.
    pub fn new(dialect: Dialect) -> Pipeline {
        Pipeline { dialect, output: Vec::new(), output_at: 0, input: Vec::new(), pending: VecDeque::new() }
    }

    /// Requests that were not answered yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Encodes a request behind those before it.
    pub fn submit(&mut self, ask: Ask, key: &[u8], value: &[u8]) -> Result<(), PipelineError> {
        self.dialect.encode(ask.step, key, value, &mut self.output)?;
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
    ) -> Result<(), PipelineError> {
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
            return Err(PipelineError::Violation(self.dialect, "an answer longer than 64 MiB"));
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(Ask, &Answer<'_>)) -> Result<usize, PipelineError> {
        let mut at = 0;
        while let Some((answer, length)) = self.dialect.parse(&bytes[at..])? {
            at += length;
            let nothing = PipelineError::Violation(self.dialect, "an answer to nothing");
            each(self.pending.pop_front().ok_or(nothing)?, &answer);
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use lode_net::wire::Target;

    use super::*;
    use crate::run::ask::Outcome;
    use crate::workload::Operation;

    fn ask(index: u64, step: Step) -> Ask {
        let (target, from) = (Target::default(), Vec::new());
        Ask { at_ns: 0, index, table: 0, operation: Operation::Get, step, target, place: 0, left: 0, from }
    }

    /// What is answered to reads, fed in pieces of every length.
    fn assert_answers(dialect: Dialect, stream: &[u8], wanted: &[(Outcome, &[u8])]) {
        for piece in 1..=stream.len() {
            let mut connection = Pipeline::new(dialect);
            let count = wanted.len() as u64;
            (0..count).for_each(|index| connection.submit(ask(index, Step::Read), b"k", b"").unwrap());
            let mut got = Vec::new();
            for part in stream.chunks(piece) {
                let mut each = |ask: Ask, answer: &Answer<'_>| {
                    got.push((ask.index, answer.outcome, answer.body.to_vec()))
                };
                connection.receive(part, &mut each).unwrap();
            }
            let wanted: Vec<_> =
                wanted.iter().zip(0..).map(|((outcome, body), i)| (i, *outcome, body.to_vec())).collect();
            assert_eq!(got, wanted, "in pieces of {piece}");
            assert_eq!(connection.in_flight(), 0);
        }
    }

    fn assert_no_answer(dialect: Dialect, wrong: &[u8]) {
        let mut connection = Pipeline::new(dialect);
        connection.submit(ask(0, Step::Read), b"k", b"").unwrap();
        assert!(connection.receive(wrong, &mut |_, _| {}).is_err(), "{wrong:?}");
    }

    #[test]
    fn commands_are_encoded_one_behind_the_other() {
        for (dialect, encoded) in [
            (
                Dialect::Resp,
                &b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"[..],
            ),
            (Dialect::Memcached, b"mg k v\r\nms k 4\r\na\r\nb\r\n"),
        ] {
            let mut connection = Pipeline::new(dialect);
            connection.submit(ask(1, Step::Read), b"k", b"").unwrap();
            connection.submit(ask(2, Step::Write), b"k", b"a\r\nb").unwrap();
            assert_eq!(connection.output(), encoded);
            connection.consume_output(5);
            assert_eq!(connection.output(), &encoded[5..]);
            let refused = Err(PipelineError::NoCommand { dialect, step: Step::Scan });
            assert_eq!(connection.submit(ask(3, Step::Scan), b"k", b""), refused);
            assert_eq!(connection.in_flight(), 2);
        }
    }

    #[test]
    fn answers_mean_the_same_however_they_are_cut() {
        let stream = b"$3\r\nabc\r\n$-1\r\n+OK\r\n-BUSY wait\r\n-ERR no\r\n_\r\n$0\r\n\r\n:5\r\n";
        let wanted: [(Outcome, &[u8]); 8] = [
            (Outcome::Done, b"abc"),
            (Outcome::NotFound, b""),
            (Outcome::Done, b""),
            (Outcome::Busy, b""),
            (Outcome::Refused, b""),
            (Outcome::NotFound, b""),
            (Outcome::Done, b""),
            (Outcome::Done, b""),
        ];
        assert_answers(Dialect::Resp, stream, &wanted);
        let stream = b"VA 4\r\na\r\nb\r\nEN\r\nHD\r\nNS\r\nVA 0 t0\r\n\r\nSERVER_ERROR out of memory storing object\r\n";
        let wanted: [(Outcome, &[u8]); 6] = [
            (Outcome::Done, b"a\r\nb"),
            (Outcome::NotFound, b""),
            (Outcome::Done, b""),
            (Outcome::Refused, b""),
            (Outcome::Done, b""),
            (Outcome::Refused, b""),
        ];
        assert_answers(Dialect::Memcached, stream, &wanted);
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        for wrong in
            [&b"hello\r\n"[..], b"$x\r\n", b"$-2\r\n", b"$1\r\nabc", b"*1\r\n+OK\r\n", b"$99999999999\r\n"]
        {
            assert_no_answer(Dialect::Resp, wrong);
        }
        for wrong in [&b"hello\r\n"[..], b"VA x\r\n", b"VA -2\r\n", b"VA 1\r\nabc", b"VA 99999999999\r\n"] {
            assert_no_answer(Dialect::Memcached, wrong);
        }
        let mut connection = Pipeline::new(Dialect::Resp);
        assert!(connection.receive(b"+OK\r\n", &mut |_, _| {}).is_err(), "nothing was asked");
    }
}
