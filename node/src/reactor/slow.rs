//! What is kept of a request until its answer is sent, so that one that took long can be told of.

use lode_engine::{Delay, OwnerId, Reply, RequestId};
use lode_net::ring::SocketId;
use lode_net::wire::{Frame, PartitionId, ReadView, RequestView, Status};

use super::connection::Connection;
use super::meter::Kind;
use super::pending::PendingTable;
use super::{Reactor, ReactorIo};
use crate::slow::{KeyMark, SlowRequest, Stages};

/// What is known of a request that waits for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// When it came.
    pub since_ns: u64,
    /// When it was handed to the engine, if it was.
    pub begun_ns: Option<u64>,
    /// What it waited for there.
    pub delay: Delay,
    /// Where its time went at the shard that has answered it, where that was another.
    pub far: Option<Stages>,
    /// The key that it is about.
    pub key: KeyMark,
    /// Its partition.
    pub partition: PartitionId,
    /// Bytes of its body.
    pub request_bytes: u32,
    /// Whether it was answered in the step that it was handed to the engine in.
    pub is_answered: bool,
}

impl Timing {
    /// Of a request that comes now.
    pub fn of(frame: &Frame<'_>, now_ns: u64) -> Timing {
        let (partition, request_bytes) = (frame.header.partition, frame.body().len() as u32);
        Timing { since_ns: now_ns, partition, request_bytes, ..Timing::default() }
    }

    /// Where its time has gone, of one that is answered.
    pub fn stages(&self, answered_ns: u64) -> Stages {
        match self.far {
            Some(far) => far.with_hop(answered_ns.saturating_sub(self.since_ns)),
            None => Stages::at_shard(self.since_ns, self.begun_ns, answered_ns, self.delay),
        }
    }
}

/// An answer that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub timing: Timing,
    pub answered_ns: u64,
    pub opcode: u8,
    pub status: Status,
    pub answer_bytes: u64,
}

impl Answered {
    fn is_slow(&self, now_ns: u64, threshold_ns: u64) -> bool {
        now_ns.saturating_sub(self.timing.since_ns) >= threshold_ns
    }
}

/// The answers of one send that may have to be told of: those that were slow already, and the first of one that waits for
/// another send to end.
pub type Notes = Vec<Answered>;

/// What a connection knows of its answers. As a rule there is nothing to note: they are not slow, and go out at once.
#[derive(Debug, Default)]
pub struct Noted {
    /// The first answer of the send under way, or of the one that goes out next.
    first: Option<Answered>,
    /// What else is to be told of the send under way.
    sending: Option<Box<Notes>>,
}

impl Noted {
    /// One more answer is in a send, with these notes: the first of it or not, and behind another send or not.
    pub fn add(
        &mut self,
        notes: &mut Option<Box<Notes>>,
        answered: &Answered,
        (is_first, is_behind): (bool, bool),
        threshold_ns: u64,
    ) {
        if is_first && !is_behind {
            self.first = Some(*answered);
        } else if (is_first && is_behind) || answered.is_slow(answered.answered_ns, threshold_ns) {
            notes.get_or_insert_default().push(*answered);
        }
    }

    /// A send begins, with these notes.
    pub fn begin(&mut self, notes: Option<Box<Notes>>) {
        self.sending = notes;
    }

    /// The send under way has ended: what of it was slow.
    fn end(&mut self, now_ns: u64, threshold_ns: u64) -> Option<Notes> {
        let first = self.first.take_if(|first| first.is_slow(now_ns, threshold_ns));
        self.first = None;
        if first.is_none() && self.sending.is_none() {
            return None;
        }
        let more = self.sending.take().map_or_else(Notes::new, |notes| *notes);
        Some(first.into_iter().chain(more).collect())
    }
}

/// The key that a request is about, if it is one.
fn key_of<'f>(frame: &'f Frame<'_>) -> Option<&'f [u8]> {
    use RequestView::{Delete, Expire, Get, Increment, Put, TimeToLive, Within};
    match frame.view().ok()? {
        Get { key, .. }
        | Put { key, .. }
        | Delete { key, .. }
        | Increment { key, .. }
        | Expire { key, .. }
        | TimeToLive { key, .. }
        | Within { read: ReadView::Get { key }, .. } => Some(key),
        _ => None,
    }
}

/// The keys of requests that were not answered at once are kept, by their marks: they may come to be slow.
pub fn mark_keys(
    pending: &mut PendingTable,
    answered: &[Reply],
    frames: &[(RequestId, OwnerId, Frame<'_>)],
    now_ns: u64,
    threshold_ns: u64,
) {
    if threshold_ns == u64::MAX {
        return;
    }
    answered.iter().for_each(|reply| pending.timing(reply.id).is_answered = true);
    for (id, _, frame) in frames {
        let timing = pending.timing(*id);
        if !timing.is_answered || now_ns.saturating_sub(timing.since_ns) >= threshold_ns {
            timing.key = key_of(frame).map(KeyMark::of).unwrap_or_default();
        }
    }
}

impl<I: ReactorIo> Reactor<I> {
    /// A send has ended: what was slow in it is told.
    pub(super) fn note_sent(&mut self, socket: SocketId) {
        let (now_ns, threshold_ns) = (self.now.monotonic_ns, self.config.slow.threshold_ns());
        let Some(connection) = self.connections.get(socket) else { return };
        if let Some(notes) = connection.noted.end(now_ns, threshold_ns) {
            self.note_slow(socket, notes);
        }
    }

    /// A connection ends: so does the wait of all that was to be sent to it.
    pub(super) fn note_unsent(&mut self, socket: SocketId) {
        self.note_sent(socket);
        let queued = self.connections.get(socket).map_or_else(Notes::new, Connection::take_queued_notes);
        self.note_slow(socket, queued);
    }

    fn note_slow(&mut self, socket: SocketId, notes: Notes) {
        let now_ns = self.now.monotonic_ns;
        let threshold_ns = self.config.slow.threshold_ns();
        for answered in notes.into_iter().filter(|answered| answered.is_slow(now_ns, threshold_ns)) {
            let Answered { timing, answered_ns, opcode, status, answer_bytes } = answered;
            // What is about no record is done by the whole node, and takes as long as that takes.
            if Kind::of(opcode).is_none() {
                continue;
            }
            self.stats.slow_requests += 1;
            let request = SlowRequest {
                at_ns: self.now.wall_ns,
                opcode,
                status,
                partition: timing.partition,
                map: self.map.clone(),
                request_bytes: timing.request_bytes,
                answer_bytes,
                key: timing.key,
                client: self.ring.peer(socket),
                stages: timing.stages(answered_ns).with_send(now_ns.saturating_sub(answered_ns)),
            };
            self.config.slow.note(self.config.shard, request);
        }
    }
}
