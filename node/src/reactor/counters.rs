//! What a reactor counts, besides its engine and its ring.

use lode_net::ring::RingCounters;
use lode_net::wire::Violation;

use super::pace::Waited;

/// Why connections were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// The peer closed, or its machine went away.
    pub by_peer: u64,
    /// The peer broke the protocol: garbage, a wrong checksum, an oversize length, no Hello.
    pub protocol: u64,
    /// No Hello, or half a request, for too long.
    pub silent: u64,
    /// The peer did not read its replies.
    pub deaf: u64,
    /// The node had too many connections, or too many bytes of unfinished requests.
    pub overload: u64,
    /// The node stopped.
    pub stop: u64,
}

/// Why one connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// See [`Closed::by_peer`].
    Peer,
    /// See [`Closed::protocol`].
    Protocol,
    /// See [`Closed::silent`].
    Silent,
    /// See [`Closed::deaf`].
    Deaf,
    /// See [`Closed::overload`].
    Overload,
    /// See [`Closed::stop`].
    Stop,
}

impl From<&Violation> for CloseReason {
    fn from(violation: &Violation) -> CloseReason {
        match violation {
            Violation::HelloTimeout | Violation::FrameTimeout => CloseReason::Silent,
            Violation::SendTimeout => CloseReason::Deaf,
            _ => CloseReason::Protocol,
        }
    }
}

impl Closed {
    /// Counts one.
    pub fn count(&mut self, reason: CloseReason) {
        *match reason {
            CloseReason::Peer => &mut self.by_peer,
            CloseReason::Protocol => &mut self.protocol,
            CloseReason::Silent => &mut self.silent,
            CloseReason::Deaf => &mut self.deaf,
            CloseReason::Overload => &mut self.overload,
            CloseReason::Stop => &mut self.stop,
        } += 1;
    }
}

/// What a reactor holds for clients and shards that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Requests that wait for an answer.
    pub pending: u64,
    /// Requests that wait for their partition's turn.
    pub queued: u64,
    /// Bytes of memory that they take.
    pub queued_bytes: u64,
    /// Bytes of unfinished requests.
    pub partial_bytes: u64,
    /// Bytes of replies that wait for their readers, outside the buffers.
    pub reply_bytes: u64,
}

/// Counters of one reactor since start, and a few gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReactorStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Times the reactor spun for work instead of sleeping.
    pub spins: u64,
    /// Requests received.
    pub requests: u64,
    /// Answers sent to connections.
    pub answers: u64,
    /// Sends begun; each carries many answers.
    pub sends: u64,
    /// Bytes of values that went out from the drive's own buffers.
    pub value_bytes_from_drive_buffers: u64,
    /// Values that went out so.
    pub values_from_drive_buffers: u64,
    /// Bytes of values that went out from memory shared with the cache.
    pub value_bytes_shared: u64,
    /// Bytes of values of drive buffers that were copied first, for a slow reader or another shard.
    pub value_bytes_copied: u64,
    /// Answers that were given up as `Busy`, because too many others wait for their readers; and reads of long ones that were
    /// refused for it before they began.
    pub answers_given_up: u64,
    /// Bytes of replies that wait for their readers now, outside the buffers.
    pub reply_bytes: u64,
    /// Requests that had to wait for their partition's turn.
    pub requests_queued: u64,
    /// Reads that waited so when their clients went, and were not done.
    pub requests_given_up: u64,
    /// Those that wait now.
    pub queued: u64,
    /// Bytes of memory that they take.
    pub queued_bytes: u64,
    /// Requests refused because their partition is above its quota.
    pub throttled: u64,
    /// How often a connection was not read from because too much of a partition waited.
    pub connections_held_up: u64,
    /// Requests that took longer than is told of as slow.
    pub slow_requests: u64,
    /// Requests sent on to another shard.
    pub hops_out: u64,
    /// Requests taken from another shard.
    pub hops_in: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused.
    pub refused_connections: u64,
    /// Connections closed, by reason.
    pub closed: Closed,
    /// Connections open now.
    pub connections: u64,
    /// Requests that wait for an answer now.
    pub pending: u64,
    /// Bytes of buffers.
    pub buffer_bytes: u64,
    /// Bytes of buffers that are free now.
    pub buffer_bytes_free: u64,
    /// How often there was no buffer.
    pub buffers_refused: u64,
    /// CPU time of the shard's thread, in microseconds.
    pub cpu_us: u64,
    /// The ring's own counters.
    pub ring: RingCounters,
    /// Time that requests and drive operations have waited.
    pub waited: Waited,
}
