//! One client's connection: what it has sent in part, and what waits to be sent to it.

use std::collections::VecDeque;

use bytes::Bytes;
use lode_engine::Payload;
use lode_net::ring::{Outgoing, Slab, SocketId};
use lode_net::wire::{ServerConnection, encode_reply_header};

use super::counters::ReactorStats;
use super::room::Buffers;
use super::slow::{Answered, Noted, Notes};
use crate::access::Meters;
use crate::buffers::slab_buffer;
use crate::dispatch::{Answer, AnswerBody};
use crate::mailbox::NodeMap;

/// Most bytes of one send, but for the last answer in it: what a stalled peer may hold of the buffers.
const MAX_SEND_BYTES: usize = 512 * 1024;
/// Up to this many bytes are cheaper copied than sent as a piece of their own.
const COPY_BYTES: usize = 1024;
/// With so many bytes of requests at other shards a connection is not read from until some are answered: only its own
/// shard can do that, and nobody else bounds what they have to keep of it.
const MAX_AWAY_BYTES: usize = 64 * 1024;
/// While memory is short, a peer that takes nothing for this long loses its connection.
const STALL_NS: u64 = 1_000_000_000;
/// While memory is short, so does one that has not taken all of one send in this long.
const SLOW_NS: u64 = 10_000_000_000;
/// Boxes for sends that are kept for reuse, and the most memory that each may keep.
const MAX_SPARE_BOXES: usize = 256;
const MAX_SPARE_BYTES: usize = 64 * 1024;

/// Names a connection for ever; its socket's id is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Its socket.
    pub socket: SocketId,
    /// Its number, counted from the shard's start.
    pub number: u64,
}

/// The life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Open,
    /// Its last answers go out; what still comes in is thrown away.
    Finishing {
        /// When it is closed at the latest.
        deadline_ns: u64,
    },
    /// The ring is closing it.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub key: ConnectionKey,
    /// The protocol's side of it.
    pub server: ServerConnection,
    /// Its life.
    pub phase: Phase,
    /// Whether the ring receives from it.
    pub receiving: bool,
    /// Whether its peer will send no more.
    pub input_ended: bool,
    /// Whether its end has been announced to the peer.
    pub announced_end: bool,
    /// Whether a send is under way.
    pub sending: bool,
    /// Whether it has asked for a transaction: then its end is told to all shards.
    pub has_begun: bool,
    /// Answers that wait in the queue.
    pub answers: u32,
    /// Whether a partition that it asks for things has too much waiting: then it is not read from.
    pub held_up: bool,
    /// Bytes of its requests that are other shards' and not answered yet.
    pub away_bytes: usize,
    held: bool,
    /// When its peer last took bytes of the send under way, or it began.
    pub progress_ns: u64,
    /// What its address and its token may take, where that is limited.
    pub meters: Meters,
    /// Whether it is in the list of those to look at before the turn ends.
    pub touched: bool,
    begun_ns: u64,
    sending_own_bytes: usize,
    /// Of answers on their way, should they take long.
    pub noted: Noted,
    queue: VecDeque<Queued>,
}

/// A send that waits for the one before it.
#[derive(Debug, Default)]
struct Queued {
    outgoing: Outgoing,
    /// Bytes of it that lie in no buffer of the slab.
    own_bytes: usize,
    /// How many answers are in it.
    answers: u32,
    notes: Option<Box<Notes>>,
}

impl Connection {
    /// A connection just accepted.
    pub fn new(key: ConnectionKey, server: ServerConnection) -> Connection {
        Connection {
            key,
            server,
            phase: Phase::Open,
            receiving: false,
            input_ended: false,
            announced_end: false,
            sending: false,
            progress_ns: 0,
            has_begun: false,
            answers: 0,
            held_up: false,
            away_bytes: 0,
            held: false,
            meters: Meters::default(),
            touched: false,
            begun_ns: 0,
            sending_own_bytes: 0,
            noted: Noted::default(),
            queue: VecDeque::new(),
        }
    }

    /// Whether everything for the peer has been handed to the kernel and taken by the peer.
    pub fn is_flushed(&self) -> bool {
        !self.sending && self.queue.is_empty()
    }

    /// The next send, if none is under way.
    pub fn next_send(&mut self, now_ns: u64) -> Option<Outgoing> {
        if self.sending || self.phase == Phase::Closing {
            return None;
        }
        let Queued { outgoing, own_bytes, notes, .. } = self.queue.pop_front()?;
        self.sending = true;
        self.sending_own_bytes = own_bytes;
        self.noted.begin(notes);
        self.begun_ns = now_ns;
        self.progress_ns = now_ns;
        self.answers = 0;
        Some(outgoing)
    }

    /// The send under way is over, and its memory free.
    pub fn end_send(&mut self, spares: &mut Spares) {
        self.sending = false;
        spares.waiting_bytes -= std::mem::take(&mut self.sending_own_bytes);
    }

    /// Whether its answers are better held back until the next turn, to go out with those that come then:
    /// a send costs several times what an answer does. Never twice in a row.
    pub fn hold(&mut self) -> bool {
        let few = self.queue.len() == 1 && self.answers < self.server.in_flight();
        let hold = few && !self.held && !self.sending && self.phase == Phase::Open;
        self.held = hold;
        hold
    }

    /// Whether what it asks for next had better wait, unread: where a partition has too much waiting already, or other
    /// shards have much of it.
    pub fn is_held_up(&self) -> bool {
        self.held_up || self.away_bytes >= MAX_AWAY_BYTES
    }

    /// Whether its peer takes the send under way too slowly for a node that is short of memory.
    pub fn is_stalled(&self, now_ns: u64) -> bool {
        let nothing = now_ns.saturating_sub(self.progress_ns) > STALL_NS;
        self.sending && (nothing || now_ns.saturating_sub(self.begun_ns) > SLOW_NS)
    }

    /// Whether an answer would take memory that others need more: what waits for their readers has all
    /// of it, or half and with this answer much waits for this peer. Only of answers that may be asked for again.
    pub fn is_too_much(&self, answer: &Answer, slab: &Slab, spares: &Spares) -> bool {
        let in_slab = matches!(answer.body, AnswerBody::Value(Payload::Buffer { .. }));
        let takes_memory = answer.may_be_given_up() && (!in_slab || self.must_copy(Buffers::of(slab)));
        takes_memory && spares.is_crowded(self.server.queued_bytes() + answer.value_bytes())
    }

    /// A peer that is slow to read must not keep the buffers that others read with; and the last quarter of
    /// them no peer may keep, for nobody knows yet how fast it will read.
    fn must_copy(&self, buffers: Buffers) -> bool {
        buffers.is_short() || (self.sending && buffers == Buffers::Half)
    }

    /// Queues bytes that are a whole reply.
    pub fn push_reply(&mut self, reply: &[u8], spares: &mut Spares, now_ns: u64) {
        self.server.reply_queued(reply.len(), now_ns);
        self.push_copy(reply, spares);
    }

    /// Queues an answer, its value where it lies.
    pub fn push_answer(&mut self, answer: Answer, surroundings: &mut Surroundings<'_>) {
        let Surroundings { slab, map, spares, stats, now_ns } = surroundings;
        let Answer { mut head, body } = answer;
        head.map_version = map.published.map.version();
        stats.answers += 1;
        self.answers += 1;
        match body {
            AnswerBody::Empty => self.push_parts(&head, Part::None, spares, *now_ns),
            AnswerBody::Bytes(bytes) => self.push_parts(&head, Part::Owned(bytes), spares, *now_ns),
            AnswerBody::Map { current_epoch } => {
                let (id, opcode) = (head.request_id, head.opcode);
                let reply = self.server.stale_map_reply(id, opcode, current_epoch, &map.published);
                self.push_reply(&reply, spares, *now_ns);
            }
            AnswerBody::Value(Payload::Shared(bytes)) => {
                stats.value_bytes_shared += bytes.len() as u64;
                self.push_parts(&head, Part::Shared(bytes), spares, *now_ns);
            }
            AnswerBody::Value(Payload::Buffer { buffer, start, len }) => {
                let buffer = slab_buffer(buffer);
                let value = &slab.bytes(buffer)[start as usize..][..len as usize];
                if self.must_copy(Buffers::of(slab)) {
                    stats.value_bytes_copied += u64::from(len);
                    let copy = Bytes::copy_from_slice(value);
                    slab.release(buffer);
                    return self.push_parts(&head, Part::Shared(copy), spares, *now_ns);
                }
                stats.values_from_drive_buffers += 1;
                stats.value_bytes_from_drive_buffers += u64::from(len);
                let header = encode_reply_header(&head, &[value]);
                self.server.reply_queued(header.len() + len as usize, *now_ns);
                self.push_copy(&header, spares);
                self.tail(spares).outgoing.push_buffer(buffer, start, len);
            }
        }
    }

    /// What is to be known of the answer that was queued last, should it take long.
    pub fn note(&mut self, answered: &Answered, threshold_ns: u64) {
        let is_behind = self.sending || self.queue.len() > 1;
        if let Some(tail) = self.queue.back_mut() {
            tail.answers += 1;
            let place = (tail.answers == 1, is_behind);
            self.noted.add(&mut tail.notes, answered, place, threshold_ns);
        }
    }

    /// Of everything that waits to be sent, and will not be.
    pub fn take_queued_notes(&mut self) -> Notes {
        let notes = self.queue.iter_mut().filter_map(|queued| queued.notes.take());
        notes.flat_map(|notes| *notes).collect()
    }

    /// Gives up everything that waits to be sent.
    pub fn clear_queue(&mut self, slab: &mut Slab, spares: &mut Spares) {
        for Queued { mut outgoing, own_bytes, .. } in self.queue.drain(..) {
            spares.waiting_bytes -= own_bytes;
            outgoing.clear(slab);
            spares.put(outgoing);
        }
    }

    fn push_parts(&mut self, head: &lode_net::wire::ReplyHead, part: Part, spares: &mut Spares, now_ns: u64) {
        let body = match &part {
            Part::None => &[][..],
            Part::Owned(bytes) => bytes,
            Part::Shared(bytes) => bytes,
        };
        let header = encode_reply_header(head, &[body]);
        self.server.reply_queued(header.len() + body.len(), now_ns);
        self.push_copy(&header, spares);
        if body.len() <= COPY_BYTES {
            return self.push_copy(body, spares);
        }
        let bytes = match part {
            Part::None => return,
            Part::Owned(bytes) => bytes.into(),
            Part::Shared(bytes) => bytes,
        };
        spares.waiting_bytes += bytes.len();
        let tail = self.tail(spares);
        tail.own_bytes += bytes.len();
        tail.outgoing.push_shared(bytes);
    }

    fn push_copy(&mut self, bytes: &[u8], spares: &mut Spares) {
        spares.waiting_bytes += bytes.len();
        let tail = self.tail(spares);
        tail.own_bytes += bytes.len();
        tail.outgoing.push_copy(bytes);
    }

    /// The box that the next reply goes into.
    fn tail(&mut self, spares: &mut Spares) -> &mut Queued {
        let fits = |tail: &Queued| tail.outgoing.has_room() && tail.outgoing.len() < MAX_SEND_BYTES;
        if !self.queue.back().is_some_and(fits) {
            self.queue.push_back(Queued { outgoing: spares.take(), ..Queued::default() });
        }
        self.queue.back_mut().expect("a box was just put there")
    }
}

enum Part {
    None,
    Owned(Vec<u8>),
    Shared(Bytes),
}

/// What an answer needs on its way to a connection.
pub struct Surroundings<'a> {
    /// The buffers.
    pub slab: &'a mut Slab,
    /// The map as of now.
    pub map: &'a NodeMap,
    /// Boxes for sends.
    pub spares: &'a mut Spares,
    /// The counters.
    pub stats: &'a mut ReactorStats,
    /// Now.
    pub now_ns: u64,
}

/// What a connection may have lying while others have left half of all that may lie: some dozens of answers of usual length.
pub const LITTLE_BYTES: usize = 64 << 10;

/// Emptied boxes, kept for the next sends; and what the full ones, of all connections, hold.
#[derive(Debug)]
pub struct Spares {
    boxes: Vec<Outgoing>,
    /// Bytes of replies that wait for their readers outside the slab.
    waiting_bytes: usize,
    max_waiting_bytes: usize,
}

impl Spares {
    /// None yet, for a shard that holds so many bytes of replies outside its slab.
    pub fn new(max_waiting_bytes: usize) -> Spares {
        Spares { boxes: Vec::new(), waiting_bytes: 0, max_waiting_bytes }
    }

    /// Bytes of replies that wait for their readers outside the slab.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether readers have left so much lying that those who take nothing must go.
    pub fn is_short(&self) -> bool {
        self.waiting_bytes >= self.max_waiting_bytes / 2
    }

    /// Whether there is no room for another reply to a peer that has so many bytes lying. Half is for those that have little:
    /// those who ask for much and take nothing leave the others' answers room.
    pub fn is_crowded(&self, lying_bytes: usize) -> bool {
        Spares::has_no_room(self.waiting_bytes, self.max_waiting_bytes, lying_bytes)
    }

    /// The same, where of so many bytes that may wait so many do.
    pub fn has_no_room(waiting_bytes: usize, max_waiting_bytes: usize, lying_bytes: usize) -> bool {
        let is_little = lying_bytes <= LITTLE_BYTES;
        waiting_bytes >= if is_little { max_waiting_bytes } else { max_waiting_bytes / 2 }
    }

    fn take(&mut self) -> Outgoing {
        self.boxes.pop().unwrap_or_default()
    }

    /// Keeps an emptied box, unless there are enough or it is large.
    pub fn put(&mut self, outgoing: Outgoing) {
        debug_assert!(outgoing.is_empty(), "a spare box is empty");
        if self.boxes.len() < MAX_SPARE_BOXES && outgoing.capacity() <= MAX_SPARE_BYTES {
            self.boxes.push(outgoing);
        }
    }
}

/// The connections of one shard.
#[derive(Debug, Default)]
pub struct Connections {
    table: Vec<Option<Connection>>,
    touched: Vec<SocketId>,
    next_number: u64,
    open: usize,
}

impl Connections {
    /// Adds a connection and names it.
    pub fn insert(&mut self, socket: SocketId, server: ServerConnection) -> &mut Connection {
        let index = socket.0 as usize;
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || None);
        }
        let key = ConnectionKey { socket, number: self.next_number };
        self.next_number += 1;
        self.open += 1;
        let slot = &mut self.table[index];
        assert!(slot.is_none(), "socket {} has a connection already", socket.0);
        slot.insert(Connection::new(key, server))
    }

    /// The connection of a socket.
    pub fn get(&mut self, socket: SocketId) -> Option<&mut Connection> {
        self.table.get_mut(socket.0 as usize)?.as_mut()
    }

    /// The one that holds most bytes of an unfinished request, of those that serve.
    pub fn holding_most(&mut self) -> Option<&mut Connection> {
        let held = |connection: &&mut Connection| connection.server.partial_bytes();
        let open = self.table.iter_mut().flatten().filter(|connection| connection.phase == Phase::Open);
        open.max_by_key(held).filter(|connection| connection.server.partial_bytes() > 0)
    }

    /// The connection of a key, if it still lives.
    pub fn find(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.get(key.socket).filter(|connection| connection.key == key)
    }

    /// Forgets a connection.
    pub fn remove(&mut self, socket: SocketId) -> Option<Connection> {
        let connection = self.table.get_mut(socket.0 as usize)?.take();
        self.open -= usize::from(connection.is_some());
        connection
    }

    /// The connection is to be looked at before the turn ends.
    pub fn touch(&mut self, socket: SocketId) {
        if let Some(connection) = self.get(socket)
            && !std::mem::replace(&mut connection.touched, true)
        {
            self.touched.push(socket);
        }
    }

    /// One of those to be looked at.
    pub fn next_touched(&mut self) -> Option<SocketId> {
        let socket = self.touched.pop()?;
        if let Some(connection) = self.get(socket) {
            connection.touched = false;
        }
        Some(socket)
    }

    /// The sockets of all connections.
    pub fn sockets(&self) -> Vec<SocketId> {
        self.table.iter().flatten().map(|connection| connection.key.socket).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_room_for_replies_is_for_those_that_leave_little_lying() {
        let mut spares = Spares::new(16 << 20);
        for (waiting_bytes, little, much) in [
            (0, false, false),
            ((8 << 20) - 1, false, false),
            (8 << 20, false, true),
            ((16 << 20) - 1, false, true),
            (16 << 20, true, true),
        ] {
            spares.waiting_bytes = waiting_bytes;
            let crowded = [0, LITTLE_BYTES, LITTLE_BYTES + 1, 1 << 20].map(|lying| spares.is_crowded(lying));
            assert_eq!(crowded, [little, little, much, much], "{waiting_bytes} wait");
        }
    }
}
