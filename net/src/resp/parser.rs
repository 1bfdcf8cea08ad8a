//! Requests out of bytes, however they are cut.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::inline;
use super::limits::{ARGUMENT_OVERHEAD_BYTES, MAX_ARGUMENTS, MAX_BULK_BYTES, MAX_LINE_BYTES};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The command's name and its arguments; at least the name.
    Command(Vec<Bytes>),
    /// It held more than the parser's owner wants, and was forgotten; the next one is found.
    TooLarge,
}

/// Why no more requests can be found in what this peer sends. In Redis's own words, which clients know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A line without an end, as a command.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A line without an end, as a number of arguments.
    #[error("Protocol error: too big mbulk count string")]
    CountTooLong,
    /// A line without an end, as a length.
    #[error("Protocol error: too big bulk count string")]
    LengthTooLong,
    /// No number of arguments that may be.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// No length that may be.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// Something else where an argument should begin.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NoArgument(u8),
    /// A quote that is not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// The beginning of a handshake of TLS, which would be waited for as a line.
    #[error("Protocol error: this port does not speak TLS")]
    Tls,
}

/// The first byte of every connection that is to be TLS; of no command.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where in a request the parser is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before one.
    Between,
    /// Before an argument's length.
    Length,
    /// In an argument that is kept: bytes still to come, without its line end.
    Kept(usize),
    /// In one that is not: bytes still to come, its line end among them.
    Forgotten(usize),
}

/// Finds requests in a stream.
#[derive(Debug)]
pub struct Parser {
    place: Place,
    /// Arguments still to come, the present one among them.
    left: usize,
    arguments: Vec<Bytes>,
    /// What the request costs so far.
    held_bytes: usize,
    max_held_bytes: usize,
    is_too_large: bool,
    /// Bytes of the input that were searched for a line's end.
    searched: usize,
}

impl Parser {
    /// A parser that keeps requests of up to so many bytes, each argument counted with its overhead.
    pub fn new(max_held_bytes: usize) -> Parser {
        Parser {
            place: Place::Between,
            left: 0,
            arguments: Vec::new(),
            held_bytes: 0,
            max_held_bytes,
            is_too_large: false,
            searched: 0,
        }
    }

    /// From here on it keeps requests of up to so many bytes.
    pub fn set_max_held_bytes(&mut self, max_held_bytes: usize) {
        self.max_held_bytes = max_held_bytes;
    }

    /// Whether a request has begun that is not whole; what is left of the input counts, too.
    pub fn is_amid(&self, input: &BytesMut) -> bool {
        self.place != Place::Between || !input.is_empty()
    }

    /// What the present request holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Forgets the present request, which is told as too large when its end is found.
    pub fn forget(&mut self) {
        if self.place == Place::Between {
            return;
        }
        self.is_too_large = true;
        self.arguments = Vec::new();
        self.held_bytes = 0;
    }

    /// The next request; takes its bytes from the input. `None`: more bytes are needed.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            let found = match self.place {
                Place::Between => self.begin(input)?,
                Place::Length => self.length(input)?,
                Place::Kept(bytes) => self.keep(input, bytes),
                Place::Forgotten(bytes) => self.skip(input, bytes),
            };
            match found {
                Step::Done(request) => return Ok(Some(request)),
                Step::On => {}
                Step::Hungry => return Ok(None),
            }
        }
    }

    fn begin(&mut self, input: &mut BytesMut) -> Result<Step, ProtocolError> {
        let Some(first) = input.first().copied() else { return Ok(Step::Hungry) };
        if first == TLS_HANDSHAKE {
            return Err(ProtocolError::Tls);
        }
        if first != b'*' {
            let Some(line) = self.line(input, ProtocolError::InlineTooLong)? else { return Ok(Step::Hungry) };
            let words = inline::split(&line).ok_or(ProtocolError::Quotes)?;
            let held: usize = words.iter().map(|word| word.len() + ARGUMENT_OVERHEAD_BYTES).sum();
            return Ok(match held {
                // An empty line asks for nothing.
                0 => Step::On,
                held if held > self.max_held_bytes => Step::Done(Request::TooLarge),
                _ => Step::Done(Request::Command(words)),
            });
        }
        let Some(line) = self.line(input, ProtocolError::CountTooLong)? else { return Ok(Step::Hungry) };
        let count = number(&line[1..]).filter(|count| *count <= MAX_ARGUMENTS as i64);
        let count = count.ok_or(ProtocolError::Count)?;
        // Neither does a request of no arguments.
        if count > 0 {
            self.left = count as usize;
            self.place = Place::Length;
        }
        Ok(Step::On)
    }

    fn length(&mut self, input: &mut BytesMut) -> Result<Step, ProtocolError> {
        let Some(first) = input.first().copied() else { return Ok(Step::Hungry) };
        if first != b'$' {
            return Err(ProtocolError::NoArgument(first));
        }
        let Some(line) = self.line(input, ProtocolError::LengthTooLong)? else { return Ok(Step::Hungry) };
        let length = number(&line[1..]).filter(|length| (0..=MAX_BULK_BYTES as i64).contains(length));
        let length = length.ok_or(ProtocolError::Length)? as usize;
        let cost = length + ARGUMENT_OVERHEAD_BYTES;
        if self.held_bytes + cost > self.max_held_bytes {
            self.forget();
        }
        if self.is_too_large {
            self.place = Place::Forgotten(length + 2);
        } else {
            self.held_bytes += cost;
            self.place = Place::Kept(length);
        }
        Ok(Step::On)
    }

    fn keep(&mut self, input: &mut BytesMut, bytes: usize) -> Step {
        if self.is_too_large {
            // Forgotten in its midst.
            self.place = Place::Forgotten(bytes + 2);
            return Step::On;
        }
        if input.len() < bytes + 2 {
            input.reserve(bytes + 2 - input.len());
            return Step::Hungry;
        }
        self.arguments.push(input.split_to(bytes).freeze());
        // Redis does not look at these two either.
        input.advance(2);
        self.argument_ends()
    }

    fn skip(&mut self, input: &mut BytesMut, bytes: usize) -> Step {
        let here = bytes.min(input.len());
        input.advance(here);
        self.place = Place::Forgotten(bytes - here);
        if here < bytes { Step::Hungry } else { self.argument_ends() }
    }

    fn argument_ends(&mut self) -> Step {
        self.left -= 1;
        if self.left > 0 {
            self.place = Place::Length;
            return Step::On;
        }
        self.place = Place::Between;
        self.held_bytes = 0;
        let arguments = std::mem::take(&mut self.arguments);
        match std::mem::take(&mut self.is_too_large) {
            true => Step::Done(Request::TooLarge),
            false => Step::Done(Request::Command(arguments)),
        }
    }

    /// A line without its end; `too_long` where it has none within its limit.
    fn line(
        &mut self,
        input: &mut BytesMut,
        too_long: ProtocolError,
    ) -> Result<Option<Bytes>, ProtocolError> {
        let end = input[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
        let Some(end) = end.filter(|end| *end <= MAX_LINE_BYTES) else {
            self.searched = input.len();
            return if input.len() > MAX_LINE_BYTES { Err(too_long) } else { Ok(None) };
        };
        self.searched = 0;
        let mut line = input.split_to(end + 1).freeze();
        line.truncate(end - usize::from(line[..end].ends_with(b"\r")));
        Ok(Some(line))
    }
}

/// What a look at the input gave.
enum Step {
    Done(Request),
    On,
    Hungry,
}

/// A decimal number, as strict as Redis is: no spaces, no plus, no leading zeros.
fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = digits == b"0" && digits.len() == text.len()
        || digits.first().is_some_and(|first| (b'1'..=b'9').contains(first))
            && digits.iter().all(u8::is_ascii_digit);
    if !is_plain {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
