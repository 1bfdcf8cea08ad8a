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

    /// A segment that recovery found was free when the image was written, and not opened since.
    pub fn found_free(&mut self, id: SegmentId) {
        self.transition(id, SegmentState::Sealed, SegmentState::Free);
        self.journal_segments -= u32::from(self.get(id).stream == Stream::Journal);
    }

    /// The journal says that a segment was freed.
    pub fn replay_freed(&mut self, id: SegmentId, generation: Generation) {
        let segment = self.get(id);
        let is_that = segment.state == SegmentState::Sealed && segment.generation == generation;
        if is_that && segment.live_bytes == 0 {
            self.found_free(id);
        }
    }

    /// Recovery has read a segment of the tail to its end: nothing was ever written behind its header. It is free at once, for
    /// a drive on which many processes end early would soon consist of such.
    pub fn found_untouched(&mut self, id: SegmentId) {
        assert!(!matches!(self.get(id).stream, Stream::Image), "no tail has segment {id}");
        self.found_free(id);
    }
}
