//! What each segment is there for: where the space goes that holds no live records.

use crate::format::frame::Stream;
use crate::space::{SegmentState, Space};

/// Segments by what they are there for. All of a shard's are counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Sealed, with records of which some are live.
    pub records: u32,
    /// Sealed and empty, with reads under way or entries of the journal that are not durable yet.
    pub emptied: u32,
    /// Free.
    pub free: u32,
    /// Free as soon as the drive has discarded them.
    pub discarding: u32,
    /// Being appended to by users' writes, or opened for them.
    pub user_open: u32,
    /// The same for cleaning.
    pub cleaning_open: u32,
    /// The journal's, the open ones counted.
    pub journal: u32,
    /// Of images, old, present and under way.
    pub image: u32,
    /// Of all these, bytes of live records.
    pub live_bytes: u64,
    /// Bytes at the ends of sealed segments of records to which nothing was appended.
    pub unfilled_bytes: u64,
}

impl Space {
    /// Counts the segments; work in proportion to them.
    pub fn census(&self) -> Census {
        let mut census = Census { live_bytes: self.live_bytes(), ..Census::default() };
        let payload = self.geometry.segment_payload_bytes();
        for segment in &self.segments {
            let is_sealed = segment.state == SegmentState::Sealed;
            let count = match (segment.state, segment.stream) {
                (SegmentState::Free, _) => &mut census.free,
                (SegmentState::Discarding, _) => &mut census.discarding,
                (_, Stream::Journal) if !is_sealed || segment.live_bytes > 0 => &mut census.journal,
                (_, Stream::Image) if !is_sealed || segment.live_bytes > 0 => &mut census.image,
                (SegmentState::Sealed, _) if segment.live_bytes == 0 => &mut census.emptied,
                (SegmentState::Sealed, _) => {
                    census.unfilled_bytes += payload - segment.consumed_bytes;
                    &mut census.records
                }
                (_, Stream::User) => &mut census.user_open,
                (_, _) => &mut census.cleaning_open,
            };
            *count += 1;
        }
        census
    }
}
