//! What a step hands to its parts: where operations and replies go, the buffers, the time.

use std::borrow::Cow;

use crate::ids::{BufferId, RequestId, Token};
use crate::reply::{Delay, Reply, ReplyBody};
use crate::seam::{Buffers, DeviceError, Now, Op, Outbox};

/// The surroundings of one step.
pub struct Io<'a> {
    /// The time.
    pub now: Now,
    /// Where operations and replies go.
    pub outbox: &'a mut Outbox,
    /// The pool.
    pub buffers: &'a mut dyn Buffers,
    /// What those who are answered now have waited for.
    pub delay: Delay,
}

impl Io<'_> {
    /// Starts an operation.
    pub fn start(&mut self, op: Op) {
        self.outbox.ops.push(op);
    }

    /// Answers a request.
    pub fn reply(&mut self, id: RequestId, body: ReplyBody) {
        self.outbox.replies.push(Reply { id, body, delay: self.delay });
    }
}

/// Whose operation it is; the token's top byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A read for a request; the rest is the slot.
    Read,
    /// A user frame; the rest is its number.
    UserFrame,
    /// A segment's header; the rest is the segment.
    SegmentHeader,
    /// A read of the cleaner.
    CleaningRead,
    /// A cleaning frame; the rest is its number.
    CleaningFrame,
    /// An image frame; the rest is its number.
    ImageFrame,
    /// A superblock, or the flush before it.
    Superblock,
    /// A read of recovery.
    RecoveryRead,
    /// A discard; the rest is the segment.
    Discard,
    /// A read of the scrub.
    ScrubRead,
    /// A read of a partition's index for a request that waits for it.
    DemandRead,
    /// A read of indexes in the background.
    LoadRead,
    /// A journal frame; the rest is its number.
    JournalFrame,
}

const PURPOSES: [Purpose; 13] = [
    Purpose::Read,
    Purpose::UserFrame,
    Purpose::SegmentHeader,
    Purpose::CleaningRead,
    Purpose::CleaningFrame,
    Purpose::ImageFrame,
    Purpose::Superblock,
    Purpose::RecoveryRead,
    Purpose::Discard,
    Purpose::ScrubRead,
    Purpose::DemandRead,
    Purpose::LoadRead,
    Purpose::JournalFrame,
];
const PURPOSE_SHIFT: u32 = 56;

impl Purpose {
    /// The token of this purpose's operation `index`.
    pub fn token(self, index: u64) -> Token {
        assert!(index < 1 << PURPOSE_SHIFT, "operation index {index}");
        Token((self as u64) << PURPOSE_SHIFT | index)
    }

    /// The reverse.
    pub fn of(token: Token) -> (Purpose, u64) {
        let purpose = PURPOSES[(token.0 >> PURPOSE_SHIFT) as usize];
        (purpose, token.0 & ((1 << PURPOSE_SHIFT) - 1))
    }
}

/// A read that has ended, with its buffer still held.
#[derive(Debug, Clone, Copy)]
pub struct ReadDone {
    /// Holds the bytes.
    pub buffer: BufferId,
    /// Where on the drive they came from, in the shard's area.
    pub at: u64,
    /// How many.
    pub len: u32,
    /// Whether the drive gave them.
    pub result: Result<(), DeviceError>,
}

impl ReadDone {
    /// The bytes; zeros, which check out as nothing of ours, where the drive refused them: unreadable is as good as
    /// damaged.
    pub fn bytes<'a>(&self, io: &'a Io<'_>) -> Cow<'a, [u8]> {
        match self.result {
            Ok(()) => Cow::Borrowed(&io.buffers.bytes(self.buffer)[..self.len as usize]),
            Err(_) => Cow::Owned(vec![0; self.len as usize]),
        }
    }
}
