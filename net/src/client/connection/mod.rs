//! The client's side of one connection, without a socket or a clock.
//!
//! Requests are encoded straight into the output buffer, each with the caller's own tag; bytes that came
//! in turn into events that hand the tag back. Whoever moves the bytes (tokio, std, a load generator's
//! poll loop) is thin. `T` is whatever the caller wants to know when the reply comes: a waiter, a time.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use crate::client::Token;
use crate::client::slots::Slots;
use crate::wire::control::{Hello, HelloReply};
use crate::wire::limits::MAX_REPLY_BODY_BYTES;
use crate::wire::request::{EncodeError, HelloView};
use crate::wire::{
    Condition, FrameParser, MapVersion, OLDEST_PROTOCOL_VERSION, Opcode, PROTOCOL_VERSION, Parsed,
    REPLY_HEADER_BYTES, ReplyHeader, ReplyView, RequestId, RequestView, Status, Target, Ttl, Violation,
};

const HELLO_ID: RequestId = RequestId(1);

/// The connection cannot go on: close it, and give up what `drain` returns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// The node refused the handshake, or spoke its last word.
    #[error("the node refused the connection: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        status: Status,
        /// What else it said; may be empty.
        message: String,
        /// The status' number; see PROTOCOL.md.
        aux: u64,
    },
    /// What came is not this protocol, or was damaged on the way.
    #[error("the peer does not speak lode's protocol: {0}")]
    Violation(#[from] Violation),
    /// A reply that no request waits for.
    #[error("the node answered request {0}, which was never asked or is answered already")]
    UnknownReply(RequestId),
    /// The answer to the handshake cannot be read.
    #[error("the node's answer to the handshake cannot be read")]
    BadHello,
    /// A status this build does not know.
    #[error("the node answered with status {0}, which this client does not know; update the client")]
    UnknownStatus(u16),
}

/// A reply, where possible still in the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    frame: Cow<'a, [u8]>,
}

impl Reply<'_> {
    /// Header and body, read in place.
    pub fn view(&self) -> ReplyView<'_> {
        ReplyView::of_frame(&self.frame)
    }

    /// How it ended; `next_event` lets only known statuses through.
    pub fn status(&self) -> Status {
        self.view().status().expect("next_event lets only known statuses through")
    }

    /// The same, owning its bytes; copies only what lay in a shared receive buffer.
    pub fn into_owned(self) -> OwnedReply {
        let header = self.view().header;
        let body = match self.frame {
            Cow::Owned(frame) => Bytes::from(frame).slice(REPLY_HEADER_BYTES..),
            Cow::Borrowed(frame) => Bytes::copy_from_slice(&frame[REPLY_HEADER_BYTES..]),
        };
        OwnedReply { header, body }
    }
}

/// A reply that owns its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedReply {
    /// Its header.
    pub header: ReplyHeader,
    /// Its body.
    pub body: Bytes,
}

impl OwnedReply {
    /// The reply, to be read.
    pub fn view(&self) -> ReplyView<'_> {
        ReplyView { header: self.header, body: &self.body }
    }

    /// How it ended.
    pub fn status(&self) -> Status {
        self.view().status().expect("next_event lets only known statuses through")
    }
}

/// What came in.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// The handshake is done; requests may go out.
    Opened(Box<HelloReply>),
    /// A request was answered.
    Reply {
        /// The request.
        id: RequestId,
        /// The tag it was submitted with.
        tag: T,
        /// The answer.
        reply: Reply<'a>,
    },
}

/// A request that was not answered when its connection ended.
#[derive(Debug)]
pub struct Unanswered<T> {
    /// The tag it was submitted with.
    pub tag: T,
    /// Whether any byte of it may have left this process.
    pub maybe_sent: bool,
}

struct Pending<T> {
    tag: T,
    /// Where its frame begins, counted from the connection's first byte.
    begins_at: u64,
}

/// The client's side of one connection.
pub struct Connection<T> {
    parser: FrameParser,
    output: Vec<u8>,
    /// How much of `output` has been taken.
    output_at: usize,
    /// Bytes taken before `output`'s first.
    taken_before: u64,
    pending: Slots<Pending<T>>,
    map_version: MapVersion,
    open: bool,
}

impl<T> Connection<T> {
    /// As [`new`](Connection::new), for whoever has this token: its secret goes out before the Hello.
    pub fn with_token(
        token: Option<&Token>,
        client_name: &str,
        incarnation: u64,
        map_version: MapVersion,
    ) -> Connection<T> {
        let mut connection = Connection::new(client_name, incarnation, map_version);
        if let Some(token) = token {
            let mut output = Vec::new();
            RequestView::Authenticate(token.secret())
                .encode(HELLO_ID, MapVersion(0), &mut output)
                .expect("a secret is limited to far less than a frame");
            output.append(&mut connection.output);
            connection.output = output;
        }
        connection
    }

    /// A connection whose output begins with a Hello. `incarnation` and `map_version` tell which map the
    /// client has (0 and 0: none), so that the node need not send it again.
    pub fn new(client_name: &str, incarnation: u64, map_version: MapVersion) -> Connection<T> {
        let mut output = Vec::new();
        let hello = Hello { client_name: client_name.to_owned(), incarnation };
        RequestView::Hello(HelloView {
            oldest_version: OLDEST_PROTOCOL_VERSION,
            newest_version: PROTOCOL_VERSION,
            hello,
        })
        .encode(HELLO_ID, map_version, &mut output)
        .expect("a client's name is limited to far less than a frame");
        Connection {
            parser: FrameParser::new(REPLY_HEADER_BYTES, MAX_REPLY_BODY_BYTES),
            output,
            output_at: 0,
            taken_before: 0,
            pending: Slots::new(),
            map_version,
            open: false,
        }
    }

    /// Whether the handshake is done.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Requests not yet answered.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The map's version that further requests carry.
    pub fn set_map_version(&mut self, version: MapVersion) {
        self.map_version = version;
    }

    /// Encodes a request at the end of the output.
    pub fn submit(&mut self, request: &RequestView<'_>, tag: T) -> Result<RequestId, EncodeError> {
        let begins_at = self.taken_before + self.output.len() as u64;
        let id = self.pending.insert(Pending { tag, begins_at });
        match request.encode(id, self.map_version, &mut self.output) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.pending.remove(id);
                Err(error)
            }
        }
    }

    /// Encodes a Get.
    pub fn submit_get(&mut self, target: Target, key: &[u8], tag: T) -> Result<RequestId, EncodeError> {
        self.submit(&RequestView::Get { target, key }, tag)
    }

    /// Encodes an unconditional Put.
    pub fn submit_put(
        &mut self,
        target: Target,
        key: &[u8],
        value: &[u8],
        tag: T,
    ) -> Result<RequestId, EncodeError> {
        self.submit(
            &RequestView::Put { target, key, value, condition: Condition::Always, ttl: Ttl::Table },
            tag,
        )
    }

    /// Bytes to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_at..]
    }

    /// The first `bytes` of `output` were handed to the socket.
    pub fn consume_output(&mut self, bytes: usize) {
        assert!(bytes <= self.output.len() - self.output_at, "consumed more than there was");
        self.output_at += bytes;
        if self.output_at == self.output.len() {
            self.taken_before += self.output.len() as u64;
            self.output_at = 0;
            self.output.clear();
        }
    }

    /// Moves all of the output into `into`, which must be empty; its memory is used for what follows.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        assert!(into.is_empty() && self.output_at == 0, "output is taken whole, or consumed in pieces");
        self.taken_before += self.output.len() as u64;
        std::mem::swap(&mut self.output, into);
    }

    /// The next event of what came in; `input` is advanced past what was taken. `None`: all is taken.
    pub fn next_event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a, T>>, ConnectionError> {
        let frame = match self.parser.next(input)? {
            Parsed::NeedMore { .. } => return Ok(None),
            Parsed::Frame(frame) => frame,
        };
        let view = ReplyView::of_frame(&frame);
        let status = view.status().ok_or(ConnectionError::UnknownStatus(view.header.status))?;
        let id = view.header.request_id;
        if id == HELLO_ID
            && !self.open
            && status == Status::Ok
            && view.header.opcode == Opcode::Authenticate as u8
        {
            return self.next_event(input);
        }
        if id == HELLO_ID && !self.open && status == Status::Ok {
            let hello = HelloReply::from_bytes(view.body).map_err(|_| ConnectionError::BadHello)?;
            self.open = true;
            return Ok(Some(Event::Opened(Box::new(hello))));
        }
        if id == RequestId(0) || id == HELLO_ID {
            let message = view.message().to_owned();
            return Err(ConnectionError::Refused { status, message, aux: view.header.aux });
        }
        let pending = self.pending.remove(id).ok_or(ConnectionError::UnknownReply(id))?;
        Ok(Some(Event::Reply { id, tag: pending.tag, reply: Reply { frame } }))
    }

    /// Ends the connection: what was not answered, and whether it may have been sent. `taken_unsent`: bytes at
    /// the end of what `take_output` gave that were never handed to the socket.
    pub fn drain(&mut self, taken_unsent: usize) -> Vec<Unanswered<T>> {
        let sent_to = self.taken_before - taken_unsent as u64 + self.output_at as u64;
        self.output.clear();
        self.output_at = 0;
        let pending = self.pending.drain();
        pending.map(|p| Unanswered { tag: p.tag, maybe_sent: p.begins_at < sent_to }).collect()
    }
}

#[cfg(test)]
mod tests;
