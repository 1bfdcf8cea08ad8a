//! What a start finds out about a segment after it has read its header.

use super::{SegmentState, Space};
use crate::format::frame::Stream;
use crate::ids::{Generation, SegmentId};

impl Space {
    /// Recovery knows of a later life of a segment than what was read as its header tells of: the read was of what had been there
    /// before.
    pub fn found_later_life(&mut self, id: SegmentId, generation: Generation, stream: Stream) {
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!(segment.state, SegmentState::Sealed, "nothing is known of segment {id}");
        if segment.generation < generation {
            self.journal_segments -= u32::from(segment.stream == Stream::Journal);
            segment.state = SegmentState::Free;
            self.found(id, generation, stream);
        }
    }
}
