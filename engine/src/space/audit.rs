//! What is kept of the segments, against a count of all records anew.

use crate::geometry::Geometry;
use crate::ids::SegmentId;
use crate::length_classes::{LENGTHS, length_class};
use crate::location::Location;
use crate::space::{SegmentState, Space};

/// Live records, counted one by one.
#[derive(Debug)]
pub struct Recount {
    geometry: Geometry,
    /// Bytes of live records by segment; what is in use otherwise counts as one.
    by_segment: Vec<u64>,
    bytes: u64,
    lengths: Box<[u64; LENGTHS]>,
}

impl Recount {
    /// Of nothing yet.
    pub fn new(geometry: Geometry) -> Recount {
        let by_segment = vec![0; geometry.segments_per_shard as usize];
        Recount { geometry, by_segment, bytes: 0, lengths: Box::new([0; LENGTHS]) }
    }

    /// There is a live record here.
    pub fn add(&mut self, location: Location) {
        let len = u64::from(location.room());
        self.by_segment[self.geometry.segment_of(location.offset()).0 as usize] += len;
        self.bytes += len;
        self.lengths[length_class(len)] += 1;
    }

    /// An image or the journal uses this segment.
    pub fn add_use(&mut self, segment: SegmentId) {
        self.by_segment[segment.0 as usize] += 1;
    }
}

impl Space {
    /// What is wrong with the segments' states, in words: each is in one, and in the list that belongs to it; `appended_to`
    /// are those that something is appended to, each named once.
    pub fn audit_states(&self, appended_to: &[SegmentId]) -> Vec<String> {
        let mut wrong = Vec::new();
        let times = |list: &[SegmentId], id: SegmentId| list.iter().filter(|entry| **entry == id).count();
        for id in self.ids() {
            let (segment, free) = (self.get(id), times(&self.free, id));
            let (open, emptied) = (times(appended_to, id), times(&self.emptied, id));
            let is_open = matches!(segment.state, SegmentState::Opening | SegmentState::Open);
            let is_free = segment.state == SegmentState::Free;
            if (free, open) != (usize::from(is_free), usize::from(is_open)) {
                let state = segment.state;
                wrong.push(format!("segment {id} is {state:?}, {free} times free, appended to by {open}"));
            }
            // What waits to be freed is listed; of what is listed some may have come to life again.
            if emptied != usize::from(segment.is_listed) || (self.is_empty_and_sealed(id) && emptied != 1) {
                wrong.push(format!("segment {id} is {emptied} times among the emptied ones"));
            }
        }
        wrong
    }

    /// What is wrong with the bytes that count as live, in words.
    pub fn audit_live(&self, recount: &Recount) -> Vec<String> {
        let mut wrong = Vec::new();
        for id in self.ids() {
            let (segment, counted) = (self.get(id), recount.by_segment[id.0 as usize]);
            if segment.live_bytes != counted {
                let (state, stream, kept) = (segment.state, segment.stream, segment.live_bytes);
                wrong.push(format!(
                    "segment {id} ({state:?}, {stream:?}) has {counted} live bytes, not {kept}"
                ));
            }
        }
        if self.live_bytes != recount.bytes {
            wrong.push(format!("{} bytes are live, and {} are counted", recount.bytes, self.live_bytes));
        }
        if self.lengths != recount.lengths {
            wrong.push("the lengths of the live records are not those that are counted".into());
        }
        wrong
    }
}
