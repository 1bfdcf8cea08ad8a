//! Which segment is cleaned next: how fast its records die, and what cleaning it gains.

use crate::ids::{FrameNumber, SegmentId};
use crate::space::{Settled, Space};

/// What is taken for granted of a segment's death rate weighs as much as so small a part of it dead.
const PRIOR_SHARE: f64 = 50.0;
/// A look at a segment is worth noting when so small a part of it has died since the last.
const LOOK_SHARE: u64 = 25;

impl Space {
    /// The segment whose cleaning gains most for what it costs, among those whose frames are all applied.
    ///
    /// Where records die at rate `h` and a segment is cleaned again and again when a part `u` of it is live, the
    /// division of space among segments is best when `((1 - u) / u + ln u) / h` is the same everywhere
    /// (from Desnoyers' model of a log cleaned in turn, SYSTOR 2012, by Lagrange): so the victim is the segment
    /// where it is largest. It is cost-benefit (LFS, 1992) with the measured rate in place of the age.
    pub fn victim(&mut self, applied_user: FrameNumber, settled: Settled) -> Option<SegmentId> {
        let mut best = None;
        for id in self.ids() {
            let is_candidate = self.gain_bytes(id).is_some() && self.get(id).live_bytes > 0;
            if !is_candidate || !self.is_complete(id, applied_user, settled) {
                continue;
            }
            self.look(id);
            let score = self.worth(id);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, id));
            }
        }
        best.map(|(_, id)| id)
    }

    fn worth(&self, id: SegmentId) -> f64 {
        let segment = self.get(id);
        let (live, payload) = (segment.live_bytes as f64, self.geometry.segment_payload_bytes() as f64);
        let u = (live / payload).clamp(1e-6, 1.0);
        ((1.0 - u) / u + u.ln()) / self.death_rate(id)
    }

    /// Bytes that die per live byte and per byte that users write: as measured since the look before the last,
    /// and, as far as too few have died to tell, as records of this age do under a skewed load, where rates
    /// are spread evenly over all powers of two.
    fn death_rate(&self, id: SegmentId) -> f64 {
        let segment = self.get(id);
        let (since, live_then) = segment.fade.before;
        let died = live_then.saturating_sub(segment.live_bytes) as f64;
        let exposed = (self.clock.now() - since) as f64 * segment.live_bytes as f64;
        let age = (self.clock.now() - self.written_at(id).min(self.clock.now())) as f64 + 1.0;
        let lifetime = age * (2.0 * self.live_bytes as f64 / age).ln_1p();
        let weight = self.geometry.segment_payload_bytes() as f64 / PRIOR_SHARE;
        (died + weight) / (exposed + weight * lifetime)
    }

    /// Notes a segment's live bytes, if enough have died and enough was written since the last look.
    fn look(&mut self, id: SegmentId) {
        let least = self.geometry.segment_payload_bytes() / LOOK_SHARE;
        let now = self.clock.now();
        let segment = &mut self.segments[id.0 as usize];
        let (live, fade) = (segment.live_bytes, &mut segment.fade);
        let is_later = now - fade.last.0 > (now - fade.sealed_at) / 3;
        if is_later && fade.last.1.saturating_sub(live) >= least {
            fade.before = fade.last;
            fade.last = (now, live);
        }
    }
}
