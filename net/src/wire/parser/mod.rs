//! Frames out of a stream of bytes, in place where a frame lies whole in what was received.

use std::borrow::Cow;

use thiserror::Error;

use crate::wire::header::{BODY_LEN_AT, checksum_holds, u32_at};
use crate::wire::status::Status;

/// The peer broke the protocol; its connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The header's length is beyond the limit. Nothing was allocated for it.
    #[error("a frame with a body of {len} bytes, where {limit} are the most")]
    FrameTooLarge {
        /// The length in the header.
        len: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The checksum does not hold: not this protocol, or bytes damaged on the way.
    #[error("a frame with a wrong checksum")]
    BadChecksum,
    /// The first request was not a well-formed Hello.
    #[error("the connection did not begin with a hello")]
    HelloFirst,
    /// A request is named 0, which is the name of the node's last word.
    #[error("a request with the id 0; number requests from 1")]
    NoRequestId,
    /// The client shares no protocol version with the node.
    #[error("the client speaks versions {oldest} to {newest}, none of them ours")]
    VersionUnsupported {
        /// Oldest version the client speaks.
        oldest: u16,
        /// Newest version the client speaks.
        newest: u16,
    },
    /// The node wants a token, and the client showed none that it knows.
    #[error("the node wants a token, and this one is missing, unknown or withdrawn")]
    Unauthenticated,
    /// No Hello in time.
    #[error("no hello in time")]
    HelloTimeout,
    /// A frame was begun and not finished in time.
    #[error("half a frame for too long")]
    FrameTimeout,
    /// Replies wait, and the peer takes none of them.
    #[error("the peer stopped reading")]
    SendTimeout,
}

impl Violation {
    /// The status of the best-effort last reply.
    pub fn status(&self) -> Status {
        match self {
            Violation::FrameTooLarge { .. } => Status::FrameTooLarge,
            Violation::BadChecksum => Status::BadChecksum,
            Violation::HelloFirst => Status::HelloFirst,
            Violation::Unauthenticated => Status::Unauthenticated,
            Violation::NoRequestId => Status::Malformed,
            Violation::VersionUnsupported { .. } => Status::VersionUnsupported,
            Violation::HelloTimeout | Violation::FrameTimeout | Violation::SendTimeout => Status::Timeout,
        }
    }
}

/// What the parser made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole frame whose checksum holds: borrowed where it lay whole in the input, else reassembled.
    Frame(Cow<'a, [u8]>),
    /// All input is taken; this many bytes more will bring the next step (the header, or the whole frame).
    NeedMore {
        /// How many.
        bytes: usize,
    },
}

/// Cuts a stream into frames. Holds at most one unfinished frame, and no more memory than bytes came for it
/// (rounded up to a power of two, and never above one frame's limit).
#[derive(Debug)]
pub struct FrameParser {
    header_bytes: usize,
    max_body_bytes: usize,
    partial: Vec<u8>,
}

impl FrameParser {
    /// A parser of frames with this header size and at most this much body.
    pub fn new(header_bytes: usize, max_body_bytes: usize) -> FrameParser {
        assert!(header_bytes >= 8, "a header holds at least length and checksum");
        FrameParser { header_bytes, max_body_bytes, partial: Vec::new() }
    }

    /// The next frame of what was kept and `input`, which is advanced past what was taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Parsed<'a>, Violation> {
        if self.partial.is_empty() { self.next_in_place(input) } else { self.next_reassembled(input) }
    }

    /// From here on frames have at most this much body. An unfinished one that is longer already is a violation.
    pub fn set_max_body_bytes(&mut self, max_body_bytes: usize) {
        self.max_body_bytes = max_body_bytes;
    }

    /// Bytes of the unfinished frame so far.
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    fn next_in_place<'a>(&mut self, input: &mut &'a [u8]) -> Result<Parsed<'a>, Violation> {
        if let Some(frame_len) = self.frame_len(input)?
            && let Some((frame, rest)) = input.split_at_checked(frame_len)
        {
            *input = rest;
            return match checksum_holds(frame) {
                true => Ok(Parsed::Frame(Cow::Borrowed(frame))),
                false => Err(Violation::BadChecksum),
            };
        }
        let bytes = self.frame_len(input)?.unwrap_or(self.header_bytes) - input.len();
        self.keep(input);
        *input = &[];
        Ok(Parsed::NeedMore { bytes })
    }

    fn next_reassembled<'a>(&mut self, input: &mut &'a [u8]) -> Result<Parsed<'a>, Violation> {
        loop {
            let known = self.frame_len(&self.partial)?;
            let goal = known.unwrap_or(self.header_bytes);
            let take = (goal - self.partial.len()).min(input.len());
            let (head, rest) = input.split_at(take);
            self.keep(head);
            *input = rest;
            // A length beyond the limit is refused with its last byte, not with the byte after it.
            let frame_len = self.frame_len(&self.partial)?;
            if self.partial.len() < goal {
                return Ok(Parsed::NeedMore { bytes: goal - self.partial.len() });
            }
            // With the header complete the frame's length is known; go round once more for the body.
            if known.is_some() || frame_len == Some(self.partial.len()) {
                break;
            }
        }
        let frame = std::mem::take(&mut self.partial);
        match checksum_holds(&frame) {
            true => Ok(Parsed::Frame(Cow::Owned(frame))),
            false => Err(Violation::BadChecksum),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let needed = self.partial.len() + bytes.len();
        if needed > self.partial.capacity() {
            let most = self.header_bytes + self.max_body_bytes;
            assert!(needed <= most, "a partial frame of {needed} bytes, where {most} are the most");
            let capacity = needed.next_power_of_two().min(most);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// The whole frame's length, once its header has arrived; the limit is checked as soon as the length has.
    fn frame_len(&self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        if bytes.len() < BODY_LEN_AT + 4 {
            return Ok(None);
        }
        let len = u32_at(bytes, BODY_LEN_AT) as usize;
        if len > self.max_body_bytes {
            return Err(Violation::FrameTooLarge { len, limit: self.max_body_bytes });
        }
        Ok((bytes.len() >= self.header_bytes).then_some(self.header_bytes + len))
    }
}

#[cfg(test)]
mod tests;
