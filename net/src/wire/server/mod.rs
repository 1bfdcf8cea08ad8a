//! The node's side of one connection, without a socket or a clock: bytes and times go in, requests
//! and ready replies come out. The reactor only moves bytes.

mod hello;

use std::borrow::Cow;

use crate::wire::control::{NodeLimits, ShardAddress};
use crate::wire::header::{REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, RequestHeader, array_at};
use crate::wire::ids::{Epoch, MapVersion, RequestId, ShardId};
use crate::wire::limits;
use crate::wire::map::PublishedMap;
use crate::wire::opcode::{Opcode, reply_flags};
use crate::wire::parser::{FrameParser, Parsed, Violation};
use crate::wire::reply::{ReplyHead, encode_reply};
use crate::wire::request::{DecodeError, RequestView, Secret, hello_versions};
use crate::wire::status::Status;
use crate::wire::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
pub use hello::{EncodedHello, HelloCell};

/// What a node says of itself to every client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// This run of the node: another number after every start, never 0.
    pub incarnation: u64,
    /// All shards and their ports, by number.
    pub shards: Vec<ShardAddress>,
    /// What the node takes.
    pub limits: NodeLimits,
}

impl Default for NodeLimits {
    /// The limits of the protocol itself.
    fn default() -> NodeLimits {
        NodeLimits {
            key_bytes: limits::MAX_KEY_BYTES as u32,
            value_bytes: limits::MAX_VALUE_BYTES as u32,
            request_body_bytes: limits::MAX_REQUEST_BODY_BYTES as u32,
            batch_writes: limits::MAX_BATCH_WRITES as u32,
            batch_bytes: limits::MAX_BATCH_BYTES as u32,
            scan_records: limits::MAX_SCAN_RECORDS,
            scan_bytes: limits::MAX_SCAN_BYTES,
            in_flight: limits::MAX_IN_FLIGHT,
        }
    }
}

/// What one connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Longest body of a request, in bytes.
    pub request_body_bytes: usize,
    /// Most requests handed out and not done; one more is answered `Busy` here.
    pub in_flight: u32,
    /// Most bytes of replies queued before the connection should no longer be read.
    pub queued_reply_bytes: usize,
    /// From the opening to an answered Hello, in nanoseconds.
    pub hello_timeout_ns: u64,
    /// From a request's first byte to its last, in nanoseconds.
    pub frame_timeout_ns: u64,
    /// Without a byte of queued replies taken, in nanoseconds.
    pub send_timeout_ns: u64,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            request_body_bytes: limits::MAX_REQUEST_BODY_BYTES,
            in_flight: limits::MAX_IN_FLIGHT,
            queued_reply_bytes: limits::MAX_QUEUED_REPLY_BYTES,
            hello_timeout_ns: limits::HELLO_TIMEOUT_MS * 1_000_000,
            frame_timeout_ns: limits::FRAME_TIMEOUT_MS * 1_000_000,
            send_timeout_ns: limits::SEND_TIMEOUT_MS * 1_000_000,
        }
    }
}

/// Who a connection acts for, as the node that knows its token calls him.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub u32);

/// What knows tokens.
pub trait Gate: std::fmt::Debug {
    /// Whose secret this is.
    fn admit(&self, secret: Secret<'_>) -> Option<Admitted>;
}

/// Someone who has shown a secret that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who.
    pub principal: Principal,
    /// The longest body of a request that is taken from him, where that is less than the node takes.
    pub request_body_bytes: Option<usize>,
}

/// What a connection needs to know of its node while it receives.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The node; `None` while it recovers, and then a Hello is answered `NotReady`.
    pub node: Option<&'a NodeInfo>,
    /// The map as of now.
    pub map: &'a PublishedMap,
    /// Whether there is no memory for replies now: a Hello is answered `NotReady`, a Map or Ping `Busy`.
    pub crowded: bool,
    /// Who knows tokens, where the node wants them.
    pub gate: Option<&'a dyn Gate>,
    /// A clock that never goes back, in nanoseconds.
    pub now_ns: u64,
}

/// A whole request whose checksum holds. Borrows the receive buffer where it lay whole in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: RequestHeader,
    bytes: Cow<'a, [u8]>,
}

impl Frame<'_> {
    /// Its content, read in place.
    pub fn view(&self) -> Result<RequestView<'_>, DecodeError> {
        RequestView::decode(&self.header, self.body())
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[REQUEST_HEADER_BYTES..]
    }

    /// The same, owning its bytes, so that it may outlive the receive buffer.
    pub fn into_owned(self) -> Frame<'static> {
        Frame { header: self.header, bytes: Cow::Owned(self.bytes.into_owned()) }
    }
}

/// What came of received bytes. Call `receive` again until it says `NeedMore` or `Close`.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A request for the node. It counts as in flight until `request_done`.
    Request(Frame<'a>),
    /// The connection answered by itself: send these bytes.
    Reply(Vec<u8>),
    /// Send these bytes if that is possible at once, and close.
    Close {
        /// A best-effort last reply.
        reply: Vec<u8>,
        /// What the peer did.
        violation: Violation,
    },
    /// All input is taken.
    NeedMore {
        /// How many bytes bring the next step.
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingHello,
    Open,
    Closed,
}

/// The node's side of one connection.
#[derive(Debug)]
pub struct ServerConnection {
    shard: ShardId,
    limits: ConnectionLimits,
    state: State,
    parser: FrameParser,
    in_flight: u32,
    queued_bytes: usize,
    opened_ns: u64,
    frame_since_ns: Option<u64>,
    /// Since when the node does not receive from it.
    paused_since_ns: Option<u64>,
    send_since_ns: Option<u64>,
    /// The newest map this client was given on this connection.
    map_given: MapVersion,
    /// For whom it acts, where that is known.
    principal: Option<Principal>,
}

impl ServerConnection {
    /// A connection just accepted by this shard.
    pub fn new(shard: ShardId, limits: ConnectionLimits, now_ns: u64) -> ServerConnection {
        ServerConnection {
            shard,
            limits,
            state: State::AwaitingHello,
            parser: FrameParser::new(REQUEST_HEADER_BYTES, limits.request_body_bytes),
            in_flight: 0,
            queued_bytes: 0,
            opened_ns: now_ns,
            frame_since_ns: None,
            paused_since_ns: None,
            send_since_ns: None,
            map_given: MapVersion(0),
            principal: None,
        }
    }

    /// For whom it acts; nobody where the node wants no tokens, and before one was shown.
    pub fn principal(&self) -> Option<Principal> {
        self.principal
    }

    /// Until it is known for whom it acts, where the node wants to know, it may take little memory.
    fn limit_body(&mut self, context: &Context<'_>) {
        if context.gate.is_some() && self.principal.is_none() {
            let limit = self.limits.request_body_bytes.min(limits::MAX_UNKNOWN_BODY_BYTES);
            self.parser.set_max_body_bytes(limit);
        }
    }

    /// Takes the next step from received bytes; `input` is advanced past what was taken.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8], context: &Context<'_>) -> Incoming<'a> {
        if self.state == State::Closed {
            *input = &[];
            return Incoming::NeedMore { bytes: REQUEST_HEADER_BYTES };
        }
        self.limit_body(context);
        match self.parser.next(input) {
            Err(violation) => self.close(violation, RequestId(0), 0, context),
            Ok(Parsed::NeedMore { bytes }) => {
                if self.parser.partial_bytes() > 0 {
                    self.frame_since_ns.get_or_insert(context.now_ns);
                }
                Incoming::NeedMore { bytes }
            }
            Ok(Parsed::Frame(bytes)) => {
                self.frame_since_ns = None;
                let header = RequestHeader::from_bytes(&array_at(&bytes, 0));
                self.frame(Frame { header, bytes }, context)
            }
        }
    }

    fn frame<'a>(&mut self, frame: Frame<'a>, context: &Context<'_>) -> Incoming<'a> {
        if frame.header.request_id == RequestId(0) {
            return self.close(Violation::NoRequestId, RequestId(0), frame.header.opcode, context);
        }
        match Opcode::from_u8(frame.header.opcode) {
            Some(Opcode::Authenticate) => self.authenticate(&frame, context),
            Some(Opcode::Hello) if context.gate.is_some() && self.principal.is_none() => {
                self.close(Violation::Unauthenticated, frame.header.request_id, frame.header.opcode, context)
            }
            Some(Opcode::Hello) => self.hello(&frame, context),
            _ if self.state == State::AwaitingHello => {
                let header = frame.header;
                self.close(Violation::HelloFirst, header.request_id, header.opcode, context)
            }
            Some(Opcode::Ping | Opcode::Map) => Incoming::Reply(self.own_answer(&frame, context)),
            _ if self.in_flight >= self.limits.in_flight => {
                Incoming::Reply(self.simple(&frame.header, Status::Busy, b"too many in flight", context))
            }
            _ => {
                self.in_flight += 1;
                Incoming::Request(frame)
            }
        }
    }

    /// From here on it acts for whoever has this secret. Where the node wants none, any will do: a client may have its
    /// token before the node does.
    fn authenticate<'a>(&mut self, frame: &Frame<'_>, context: &Context<'_>) -> Incoming<'a> {
        let header = frame.header;
        let secret = match frame.view() {
            Ok(RequestView::Authenticate(secret)) => secret,
            Ok(_) => unreachable!("its opcode says what it is"),
            Err(error) => {
                return Incoming::Reply(decode_error_reply(&header, &error, context.map.map.version()));
            }
        };
        if let Some(gate) = context.gate {
            let Some(admitted) = gate.admit(secret) else {
                return self.close(Violation::Unauthenticated, header.request_id, header.opcode, context);
            };
            self.principal = Some(admitted.principal);
            let most = self.limits.request_body_bytes;
            self.parser.set_max_body_bytes(admitted.request_body_bytes.map_or(most, |limit| limit.min(most)));
        }
        Incoming::Reply(self.simple(&header, Status::Ok, &[], context))
    }

    /// The answer to what the connection answers by itself.
    fn own_answer(&mut self, frame: &Frame<'_>, context: &Context<'_>) -> Vec<u8> {
        match frame.view() {
            Err(error) => decode_error_reply(&frame.header, &error, context.map.map.version()),
            Ok(_) if context.crowded => self.simple(&frame.header, Status::Busy, &[], context),
            Ok(RequestView::Ping { payload }) => self.simple(&frame.header, Status::Ok, payload, context),
            Ok(_) => self.map_reply(&frame.header, context),
        }
    }

    fn hello<'a>(&mut self, frame: &Frame<'_>, context: &Context<'_>) -> Incoming<'a> {
        let id = frame.header.request_id;
        let opcode = frame.header.opcode;
        let Some((oldest, newest)) = hello_versions(frame.body()) else {
            return self.close(Violation::HelloFirst, id, opcode, context);
        };
        if newest < OLDEST_PROTOCOL_VERSION || oldest > PROTOCOL_VERSION || oldest > newest {
            return self.close(Violation::VersionUnsupported { oldest, newest }, id, opcode, context);
        }
        let Ok(RequestView::Hello(view)) = frame.view() else {
            return self.close(Violation::HelloFirst, id, opcode, context);
        };
        let Some(node) = context.node.filter(|_| !context.crowded) else {
            return Incoming::Reply(self.simple(&frame.header, Status::NotReady, &[], context));
        };
        let map_version = context.map.map.version();
        let has_map = view.hello.incarnation == node.incarnation && frame.header.map_version == map_version;
        let body = match has_map {
            true => hello::reply(node, self.shard, None).to_bytes(),
            false => context.map.hello(node).for_shard(self.shard),
        };
        self.state = State::Open;
        self.map_given = map_version;
        let mut head = ReplyHead::new(id, opcode, Status::Ok, map_version);
        head.aux = u64::from(newest.min(PROTOCOL_VERSION));
        let mut out = Vec::new();
        encode_reply(&head, &body, &mut out);
        Incoming::Reply(out)
    }

    fn map_reply(&mut self, header: &RequestHeader, context: &Context<'_>) -> Vec<u8> {
        let map_version = context.map.map.version();
        let mut head = ReplyHead::new(header.request_id, header.opcode, Status::Ok, map_version);
        let mut out = Vec::new();
        if header.map_version == map_version {
            encode_reply(&head, &[], &mut out);
        } else {
            self.map_given = map_version;
            head.flags = reply_flags::MAP;
            encode_reply(&head, &context.map.body, &mut out);
        }
        out
    }

    fn simple(&self, header: &RequestHeader, status: Status, body: &[u8], context: &Context<'_>) -> Vec<u8> {
        let head = ReplyHead::new(header.request_id, header.opcode, status, context.map.map.version());
        let mut out = Vec::with_capacity(REPLY_HEADER_BYTES + body.len());
        encode_reply(&head, body, &mut out);
        out
    }

    fn close<'a>(
        &mut self,
        violation: Violation,
        request_id: RequestId,
        opcode: u8,
        context: &Context<'_>,
    ) -> Incoming<'a> {
        self.state = State::Closed;
        let mut head = ReplyHead::new(request_id, opcode, violation.status(), context.map.map.version());
        head.aux = match violation {
            Violation::FrameTooLarge { len, .. } => len as u64,
            Violation::VersionUnsupported { .. } => {
                u64::from(OLDEST_PROTOCOL_VERSION) | u64::from(PROTOCOL_VERSION) << 16
            }
            _ => 0,
        };
        let mut reply = Vec::new();
        encode_reply(&head, violation.to_string().as_bytes(), &mut reply);
        Incoming::Close { reply, violation }
    }

    /// The answer to a request whose partition is not here, or not as the client knows it. Carries the map,
    /// unless this connection was given this version before. `current_epoch` is 0 where there is no such partition.
    pub fn stale_map_reply(
        &mut self,
        request_id: RequestId,
        opcode: u8,
        current_epoch: Epoch,
        map: &PublishedMap,
    ) -> Vec<u8> {
        let map_version = map.map.version();
        let mut head = ReplyHead::new(request_id, opcode, Status::StaleMap, map_version);
        head.aux = u64::from(current_epoch.0);
        let mut out = Vec::new();
        if self.map_given == map_version {
            encode_reply(&head, &[], &mut out);
        } else {
            self.map_given = map_version;
            head.flags = reply_flags::MAP;
            encode_reply(&head, &map.body, &mut out);
        }
        out
    }

    /// A request that `receive` handed out was answered (or given up).
    pub fn request_done(&mut self) {
        assert!(self.in_flight > 0, "more requests done than were handed out");
        self.in_flight -= 1;
    }

    /// Replies of this many bytes wait to be sent.
    pub fn reply_queued(&mut self, bytes: usize, now_ns: u64) {
        self.queued_bytes += bytes;
        self.send_since_ns.get_or_insert(now_ns);
    }

    /// The peer took this many bytes of replies.
    pub fn reply_sent(&mut self, bytes: usize, now_ns: u64) {
        assert!(bytes <= self.queued_bytes, "more bytes sent than were queued");
        self.queued_bytes -= bytes;
        self.send_since_ns = (self.queued_bytes > 0).then_some(now_ns);
    }

    /// The node does not receive from it now: until it does again, no time runs against an unfinished request.
    pub fn paused(&mut self, now_ns: u64) {
        self.paused_since_ns.get_or_insert(now_ns);
    }

    /// The node receives from it again.
    pub fn resumed(&mut self, now_ns: u64) {
        if let Some(paused_ns) = self.paused_since_ns.take()
            && let Some(since_ns) = &mut self.frame_since_ns
        {
            *since_ns += now_ns - paused_ns.max(*since_ns);
        }
    }

    /// How long its unfinished request has been coming in, times when the node did not receive from it left
    /// out; nothing where there is none.
    fn frame_age_ns(&self, now_ns: u64) -> Option<u64> {
        let until_ns = self.paused_since_ns.unwrap_or(now_ns);
        self.frame_since_ns.map(|since_ns| until_ns.saturating_sub(since_ns))
    }

    /// Since when its unfinished request has been coming in, if it has one.
    pub fn unfinished_since_ns(&self) -> Option<u64> {
        self.frame_since_ns
    }

    /// Forgets its unfinished request, and takes no more of its bytes. Gives how many were held.
    pub fn abandon(&mut self) -> usize {
        let held = self.parser.partial_bytes();
        self.state = State::Closed;
        self.parser = FrameParser::new(REQUEST_HEADER_BYTES, self.limits.request_body_bytes);
        held
    }

    /// Whether to go on receiving from it: neither too many requests in flight nor too many reply bytes queued.
    pub fn wants_input(&self) -> bool {
        self.state != State::Closed
            && self.in_flight < self.limits.in_flight
            && self.queued_bytes < self.limits.queued_reply_bytes
    }

    /// Requests handed out and not done.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes of replies queued and not sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes held of an unfinished request.
    pub fn partial_bytes(&self) -> usize {
        self.parser.partial_bytes()
    }

    /// Whether the handshake is done.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// When the connection is to be closed if nothing happens, in nanoseconds of the caller's clock.
    pub fn deadline_ns(&self) -> Option<u64> {
        let hello = (self.state == State::AwaitingHello)
            .then(|| self.opened_ns.saturating_add(self.limits.hello_timeout_ns));
        let receiving = self.frame_since_ns.filter(|_| self.paused_since_ns.is_none());
        let frame = receiving.map(|since| since.saturating_add(self.limits.frame_timeout_ns));
        let send = self.send_since_ns.map(|since| since.saturating_add(self.limits.send_timeout_ns));
        [hello, frame, send].into_iter().flatten().min()
    }

    /// Where a deadline has passed: the last reply and the reason to close.
    pub fn check_deadlines(&mut self, context: &Context<'_>) -> Option<Incoming<'static>> {
        let passed = |since: Option<u64>, timeout: u64| {
            since.is_some_and(|since| context.now_ns >= since.saturating_add(timeout))
        };
        let unanswered = (self.state == State::AwaitingHello).then_some(self.opened_ns);
        let violation = if self.state == State::Closed {
            return None;
        } else if passed(self.send_since_ns, self.limits.send_timeout_ns) {
            Violation::SendTimeout
        } else if passed(unanswered, self.limits.hello_timeout_ns) {
            Violation::HelloTimeout
        } else if self
            .frame_age_ns(context.now_ns)
            .is_some_and(|age_ns| age_ns >= self.limits.frame_timeout_ns)
        {
            Violation::FrameTimeout
        } else {
            return None;
        };
        Some(self.close(violation, RequestId(0), 0, context))
    }
}

/// A reply that no request asked for, sent just before closing: too many connections, or the node stops.
pub fn unsolicited(status: Status, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_reply(&ReplyHead::new(RequestId(0), 0, status, MapVersion(0)), message.as_bytes(), &mut out);
    out
}

/// The reply to a request whose content makes no sense.
pub fn decode_error_reply(header: &RequestHeader, error: &DecodeError, map_version: MapVersion) -> Vec<u8> {
    let mut head = ReplyHead::new(header.request_id, header.opcode, error.status(), map_version);
    if let DecodeError::UnknownOpcode(opcode) = error {
        head.aux = u64::from(*opcode);
    }
    let mut out = Vec::new();
    encode_reply(&head, error.to_string().as_bytes(), &mut out);
    out
}

#[cfg(test)]
mod tests;
