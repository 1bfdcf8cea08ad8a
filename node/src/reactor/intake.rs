//! Bytes that arrived become requests: parsed in place, routed, and put before the shard.

use lode_engine::{OwnerId, Request, RequestId, ShardId};
use lode_net::ring::SocketId;
use lode_net::wire::server::{Context, Gate, Incoming, NodeInfo};
use lode_net::wire::{self, Frame, Opcode, Status};

use super::connection::{Connection, ConnectionKey, Connections, Phase, Spares};
use super::counters::{CloseReason, ReactorStats};
use super::fair::quota::{Demand, Throttle};
use super::fair::{Admission, Ask, Crowd};
use super::meter::Meter;
use super::pending::{Origin, Pending, PendingTable};
use super::room::{Buffers, Way};
use super::slow::Timing;
use super::sockets::FINISH_NS;
use super::transactions::owner_of;
use super::{ReactorConfig, Waiting, Waits};
use crate::access::{MeterError, Rights, need_of};
use crate::control::ControlSender;
use crate::dispatch::{Answer, Asked, Question, failed, question, stale_answer};
use crate::mailbox::{Mail, NodeMap};

/// While buffers are short, a connection may have so many requests in flight and still ask to read: those
/// of others wait in the same queue.
const FEW_IN_FLIGHT: u32 = 8;

/// The parts of a reactor that received bytes touch.
pub struct Intake<'r, 'b> {
    pub config: &'r ReactorConfig,
    pub connections: &'r mut Connections,
    pub pending: &'r mut PendingTable,
    pub fair: &'r mut Waiting,
    pub throttle: &'r mut Throttle,
    pub spares: &'r mut Spares,
    pub stats: &'r mut ReactorStats,
    pub meter: &'r mut Option<Box<Meter>>,
    pub answers: &'r mut Vec<(RequestId, Answer)>,
    pub map: &'r NodeMap,
    pub node: Option<&'r NodeInfo>,
    pub partial_bytes: &'r mut usize,
    pub refusing: bool,
    /// How much of the slab is free.
    pub buffers: Buffers,
    pub now_ns: u64,
    /// Requests for this shard, in order of arrival.
    pub frames: Vec<(RequestId, OwnerId, Frame<'b>)>,
}

impl<'b> Intake<'_, 'b> {
    /// Takes bytes that arrived on a socket.
    pub fn chunk(&mut self, socket: SocketId, bytes: &'b [u8]) {
        let Some(connection) = self.connections.get(socket) else { return };
        // What comes after the last answer was decided on is thrown away.
        if connection.phase != Phase::Open {
            return;
        }
        let key = connection.key;
        let partial_before = connection.server.partial_bytes();
        let mut input = bytes;
        loop {
            let Some(connection) = self.connections.get(socket) else { return };
            let crowded = self.spares.is_crowded(connection.server.queued_bytes());
            let (node, map) = (self.node, &self.map.published);
            let gate = self.map.access().map(|access| access as &dyn Gate);
            let context = Context { node, map, crowded, gate, now_ns: self.now_ns };
            match connection.server.receive(&mut input, &context) {
                Incoming::Request(frame) => {
                    self.stats.requests += 1;
                    let asked = Asked::of(&frame.header, owner_of(self.config.shard, key));
                    connection.has_begun |= asked.opcode == Opcode::Begin as u8;
                    let pending = Pending { origin: Origin::Connection(key), asked };
                    let id = self.pending.insert_at(pending, Timing::of(&frame, self.now_ns));
                    if let Err(refused) = may(self.map, connection, asked, &frame) {
                        self.answers.push((id, refused));
                        continue;
                    }
                    let greedy = self.buffers.is_short() && connection.server.in_flight() > FEW_IN_FLIGHT;
                    if (crowded || greedy) && has_long_answer(&frame) {
                        self.stats.answers_given_up += 1;
                        self.answers.push((id, asked.plain(Status::Busy)));
                    } else {
                        self.route(id, asked, key, frame);
                    }
                }
                Incoming::Reply(reply) => {
                    connection.push_reply(&reply, self.spares, self.now_ns);
                    if !self.is_counted(socket) {
                        break;
                    }
                }
                Incoming::Close { reply, violation } => {
                    connection.push_reply(&reply, self.spares, self.now_ns);
                    connection.phase = Phase::Finishing { deadline_ns: self.now_ns + FINISH_NS };
                    self.stats.closed.count(CloseReason::from(&violation));
                    break;
                }
                Incoming::NeedMore { .. } => break,
            }
        }
        self.account(socket, partial_before);
        self.connections.touch(socket);
    }

    /// Counts the connection as its token's, once it has shown one. False: there are too many.
    fn is_counted(&mut self, socket: SocketId) -> bool {
        let map = self.map;
        let (Some(access), Some(connection)) = (map.access(), self.connections.get(socket)) else {
            return true;
        };
        let Some(principal) = connection.server.principal() else { return true };
        if connection.meters.authenticate(access, principal) {
            return true;
        }
        let reply = wire::server::unsolicited(
            Status::TooManyConnections,
            "the token has as many connections as it may",
        );
        // What it held is counted off with what else it has brought.
        connection.server.abandon();
        connection.push_reply(&reply, self.spares, self.now_ns);
        connection.phase = Phase::Finishing { deadline_ns: self.now_ns + FINISH_NS };
        self.stats.closed.count(CloseReason::Overload);
        false
    }

    /// Keeps the sum of unfinished requests within twice its limit: those that hold most lose their connections.
    fn account(&mut self, socket: SocketId, partial_before: usize) {
        let Some(connection) = self.connections.get(socket) else { return };
        *self.partial_bytes = *self.partial_bytes - partial_before + connection.server.partial_bytes();
        // Above the limit unfinished requests come in one at a time (see `may_finish`), but for what is on its way
        // already. Where that is as much again, whoever holds most makes way.
        while *self.partial_bytes > 2 * self.config.max_partial_bytes {
            let Some(connection) = self.connections.holding_most() else { return };
            *self.partial_bytes -= connection.server.abandon();
            let reply = wire::server::unsolicited(Status::Busy, "too many bytes of unfinished requests");
            connection.push_reply(&reply, self.spares, self.now_ns);
            connection.phase = Phase::Finishing { deadline_ns: self.now_ns + FINISH_NS };
            self.stats.closed.count(CloseReason::Overload);
            let socket = connection.key.socket;
            self.connections.touch(socket);
        }
    }

    fn route(&mut self, id: RequestId, asked: Asked, from: ConnectionKey, frame: Frame<'b>) {
        if self.refusing {
            return self.answers.push((id, asked.plain(Status::ShuttingDown)));
        }
        let for_partition = Opcode::from_u8(frame.header.opcode).is_some_and(Opcode::is_for_partition);
        if !for_partition {
            return self.frames.push((id, asked.owner, frame));
        }
        match self.map.shard_of(frame.header.partition) {
            Some(shard) if shard == self.config.shard => self.admit(id, asked, Some(from), frame),
            Some(shard) => self.hop(id, asked, shard, from, frame),
            None => self.answers.push((id, stale_answer(asked, lode_engine::Epoch(0)))),
        }
    }

    /// A request for a partition of this shard: it runs, or waits for its partition's turn, unless that is above its
    /// quota. `from`: the connection of this shard that it came by.
    pub fn admit(&mut self, id: RequestId, asked: Asked, from: Option<ConnectionKey>, frame: Frame<'b>) {
        let partition = frame.header.partition;
        let quota = self.map.quota_of(partition);
        if let Err(throttled) = self.throttle.take(partition, quota, Demand::of(&frame), self.now_ns) {
            self.stats.throttled += 1;
            self.limited(partition);
            let aux = throttled.retry_after.as_micros() as u64;
            return self.answers.push((id, failed(asked, Status::Throttled, aux, &throttled)));
        }
        let (spares, buffers) = (&*self.spares, self.buffers);
        let way = Way { config: self.config, spares, buffers };
        let has_room = way.has_room(self.pending.origin(id), frame.header.opcode);
        let ask = Ask::of(&frame, quota.weight, has_room);
        match self.fair.admit(
            ask,
            frame,
            |frame| (id, asked.owner, frame.into_owned()),
            self.now_ns,
            self.room(),
        ) {
            Admission::Now(frame, share) => {
                self.pending.run(id, share, self.now_ns);
                self.frames.push((id, asked.owner, frame));
            }
            Admission::Queued { crowded } => {
                self.stats.requests_queued += 1;
                if let Some(crowd) = crowded {
                    self.hold_up(crowd, from);
                }
            }
            Admission::Full => {
                self.limited(partition);
                self.answers.push((id, asked.plain(Status::Busy)));
            }
            Admission::NoRoom => {
                self.stats.answers_given_up += 1;
                self.limited(partition);
                self.answers.push((id, asked.plain(Status::Busy)));
            }
        }
    }

    fn limited(&mut self, partition: wire::PartitionId) {
        if let Some(meter) = self.meter {
            meter.limited(partition);
        }
    }

    /// What waits for its turn and what has not come in whole share their memory.
    fn room(&self) -> usize {
        self.config.max_partial_bytes.saturating_sub(*self.partial_bytes)
    }

    /// Whoever brings more than can be done waits, before he is parsed.
    fn hold_up(&mut self, crowd: Crowd, from: Option<ConnectionKey>) {
        let Some(connection) = from.and_then(|key| self.connections.find(key)) else { return };
        if !std::mem::replace(&mut connection.held_up, true) {
            self.stats.connections_held_up += 1;
            self.fair.hold_up(crowd, connection.key);
        }
    }

    /// Requests that waited and whose turn has come.
    pub fn release(&mut self) {
        let room = self.room();
        loop {
            let (spares, buffers) = (&*self.spares, self.buffers);
            let way = Way { config: self.config, spares, buffers };
            let has_room =
                |(id, _, frame): &Waits| way.has_room(self.pending.origin(*id), frame.header.opcode);
            let Some((share, (id, owner, frame))) = self.fair.release(room, has_room) else { break };
            match share {
                Some(share) => {
                    self.pending.run(id, share, self.now_ns);
                    self.frames.push((id, owner, frame));
                }
                None => {
                    self.stats.answers_given_up += 1;
                    self.limited(frame.header.partition);
                    self.answers.push((id, Asked::of(&frame.header, owner).plain(Status::Busy)));
                }
            }
        }
        for key in self.fair.take_resumed() {
            if let Some(connection) = self.connections.find(key) {
                connection.held_up = false;
                self.connections.touch(key.socket);
            }
        }
    }

    fn hop(&mut self, id: RequestId, asked: Asked, shard: ShardId, from: ConnectionKey, frame: Frame<'b>) {
        let mailbox = &self.config.mailboxes[usize::from(shard.0)];
        // What waits there, and what the other shard takes out of it in one turn, is within its memory.
        if !mailbox.has_room_for(&frame, self.config.max_partial_bytes / 2) {
            return self.answers.push((id, asked.plain(Status::Busy)));
        }
        let (origin, owner, bytes) = (self.config.shard, asked.owner, frame.body().len());
        let mail = Mail::Request { origin, ticket: id, owner, frame: frame.into_owned() };
        match mailbox.post(mail) {
            Ok(()) => {
                self.stats.hops_out += 1;
                self.pending.send_away(id, bytes as u32);
                if let Some(connection) = self.connections.find(from) {
                    connection.away_bytes += bytes;
                }
            }
            Err(_) => self.answers.push((id, asked.plain(Status::Busy))),
        }
    }
}

/// Whether the client may ask this, and now.
fn may(map: &NodeMap, connection: &Connection, asked: Asked, frame: &Frame<'_>) -> Result<(), Answer> {
    connection.meters.request().map_err(|refused| {
        let MeterError::Rate { wait, .. } = refused;
        failed(asked, Status::Throttled, wait.as_micros() as u64, &refused)
    })?;
    let Some(access) = map.access() else { return Ok(()) };
    let forbidden = || Err(asked.plain(Status::Forbidden));
    let withdrawn = || Err(asked.plain(Status::Unauthenticated));
    let Some(principal) = connection.server.principal() else { return withdrawn() };
    // What makes no sense is told so by whoever makes sense of it.
    let Some(opcode) = Opcode::from_u8(frame.header.opcode) else { return Ok(()) };
    if opcode.is_for_partition() {
        return match map.rights(frame.header.partition, principal) {
            Some(Rights::NONE) => withdrawn(),
            Some(rights) if !need_of(opcode).is_met_by(rights) => forbidden(),
            // Whoever asks for a partition that is not there is told the map, which tells no records.
            Some(_) | None => Ok(()),
        };
    }
    match (access.entry(principal), frame.view()) {
        (None, _) => withdrawn(),
        (_, Ok(view)) if !access.may_ask(principal, &view) => forbidden(),
        _ => Ok(()),
    }
}

/// Whether the answer may be longer than what the request itself took.
fn has_long_answer(frame: &Frame<'_>) -> bool {
    use Opcode::{Get, ListTables, Max, Min, Scan, Stats, TransactionGet, TransactionScan};
    let opcode = Opcode::from_u8(frame.header.opcode);
    opcode.is_some_and(|opcode| {
        matches!(opcode, Get | Scan | Min | Max | ListTables | Stats | TransactionGet | TransactionScan)
    })
}

/// Turns frames into requests of the shard or questions of the control thread.
pub fn ask<'f>(
    frames: &'f [(RequestId, OwnerId, Frame<'_>)],
    control: &ControlSender,
    shard: ShardId,
    requests: &mut Vec<Request<'f>>,
    answers: &mut Vec<(RequestId, Answer)>,
) {
    for (id, owner, frame) in frames {
        let asked = Asked::of(&frame.header, *owner);
        match frame.view().map(|view| question(view, *owner)) {
            Ok(Question::Shard(body)) => requests.push(Request { id: *id, body }),
            Ok(Question::Control(question)) => {
                if !control.ask(shard, *id, asked, question) {
                    answers.push((*id, asked.plain(Status::Busy)));
                }
            }
            Ok(Question::Connection) => unreachable!("the connection answers these itself"),
            Err(error) => {
                let aux = match error {
                    wire::DecodeError::UnknownOpcode(opcode) => u64::from(opcode),
                    wire::DecodeError::Malformed(_) => 0,
                };
                answers.push((*id, failed(asked, error.status(), aux, &error)));
            }
        }
    }
}
