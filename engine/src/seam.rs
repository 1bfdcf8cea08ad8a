//! The seam between a shard and the world: plain data in, plain data out.
//!
//! `Shard::step(now, &mut inbox, &mut outbox, buffers)` is all there is. The node runs it under an
//! io_uring reactor, the tests under a simulated drive and clock.

use crate::ids::{BufferId, DriveOffset, RequestId, Token};
use crate::reply::Reply;
use crate::request::Request;

/// The time, as the caller knows it; the engine has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back. For windows and pacing.
    pub monotonic_ns: u64,
    /// UNIX nanoseconds. For [`Seq`](crate::Seq) and for when records expire; may jump.
    pub wall_ns: u64,
}

/// What goes into a step. The step takes everything out of it.
#[derive(Debug, Default)]
pub struct Inbox<'a> {
    /// New requests, in order of arrival.
    pub requests: Vec<Request<'a>>,
    /// Operations that ended, in any order.
    pub completions: Vec<Completion>,
    /// Requests given before, or with this step, whose answer nobody wants any more. Reads of theirs that have not begun
    /// are given up and answered `Busy`; everything else goes on. Those that are answered already are passed over.
    pub unwanted: Vec<RequestId>,
}

/// What comes out of a step. The step only adds; the caller takes everything before the next step.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Operations to start, in order.
    pub ops: Vec<Op>,
    /// Answers, each for a request given before.
    pub replies: Vec<Reply>,
}

/// An operation on the drive, as plain data. Offsets and lengths are multiples of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Fill `buffer[0..len]` from the drive.
    Read {
        /// Comes back in the completion.
        token: Token,
        /// Owned by the operation until its completion is given to the shard.
        buffer: BufferId,
        /// Where on the drive.
        at: DriveOffset,
        /// How many bytes.
        len: u32,
    },
    /// Write `buffer[0..len]` to the drive.
    Write {
        /// Comes back in the completion.
        token: Token,
        /// Owned by the operation until its completion is given to the shard.
        buffer: BufferId,
        /// Where on the drive.
        at: DriveOffset,
        /// How many bytes.
        len: u32,
        /// Complete only when the bytes would survive power loss.
        durable: bool,
    },
    /// Make every write that has completed survive power loss.
    Flush {
        /// Comes back in the completion.
        token: Token,
    },
    /// Tell the drive that these bytes are not needed. May do nothing.
    Discard {
        /// Comes back in the completion.
        token: Token,
        /// Where on the drive.
        at: DriveOffset,
        /// How many bytes.
        len: u64,
    },
}

/// The end of an operation. Short transfers are the caller's to finish: a completion means all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The operation's token.
    pub token: Token,
    /// Whether it worked.
    pub result: Result<(), DeviceError>,
}

/// The drive said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("device error (os error {os_error})")]
pub struct DeviceError {
    /// The operating system's error number.
    pub os_error: i32,
}

/// Of Linux: an input or output error, no data, an illegal byte sequence. Block devices answer them for sectors that
/// cannot be read and for those whose protection does not match.
const MEDIUM_ERRORS: [i32; 3] = [5, 61, 84];

impl DeviceError {
    /// Whether the sectors are lost, rather than the way to them.
    pub fn is_of_the_medium(self) -> bool {
        MEDIUM_ERRORS.contains(&self.os_error)
    }
}

/// The memory that operations read into and write from: block-aligned, bounded, owned by the caller.
///
/// A buffer is owned by exactly one party at a time: the engine from `acquire` on, the operation from
/// the `Op` to its completion, the receiver of a [`Payload::Buffer`](crate::Payload) from the reply on.
pub trait Buffers {
    /// A buffer of at least `len` bytes, or `None` when the pool has none left. Contents are undefined.
    fn acquire(&mut self, len: usize) -> Option<BufferId>;
    /// Give a buffer back. It must be owned, and idle.
    fn release(&mut self, buffer: BufferId);
    /// The buffer's bytes, all of them.
    fn bytes(&self, buffer: BufferId) -> &[u8];
    /// The buffer's bytes, all of them, to be written.
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8];
}
