//! How much of a segment's live bytes a walk through it has found whole, while records of it die.

use crate::ids::SegmentId;
use crate::location::Location;

/// A walk, as the segments know it.
#[derive(Debug, Default)]
pub struct Watch {
    segment: Option<SegmentId>,
    /// Byte of the area up to which the walk has come.
    upto: u64,
    verified_bytes: u64,
}

impl Watch {
    /// A walk through a segment begins.
    pub fn begin(&mut self, segment: SegmentId) {
        *self = Watch { segment: Some(segment), upto: 0, verified_bytes: 0 };
    }

    /// The walk has come so far, and found so many bytes more of live records whole.
    pub fn verified(&mut self, upto: u64, live_bytes: u64) {
        assert!(upto >= self.upto, "a walk goes forward");
        self.upto = upto;
        self.verified_bytes += live_bytes;
    }

    /// A record died. One that was not found whole is taken off, too: then the walk is in doubt, and looks closer.
    pub fn died(&mut self, segment: SegmentId, location: Location) {
        if self.segment == Some(segment) && location.offset() < self.upto {
            self.verified_bytes = self.verified_bytes.saturating_sub(u64::from(location.room()));
        }
    }

    /// The walk has ended. Gives the bytes of records that it found whole and that are still live.
    pub fn end(&mut self) -> u64 {
        std::mem::take(self).verified_bytes
    }
}
