//! How long records live, in bytes that users write: what cleaning places survivors by.
//!
//! A clock of bytes, not of time: a quiet night makes no record older. Versions carry the wall time of
//! their write, and a few samples of both clocks turn one into the other.

use std::collections::VecDeque;

/// Most samples that are kept; beyond, every second one goes.
const MAX_SAMPLES: usize = 2048;
/// Survivors that are expected to live for more bytes than two fifths of what is live leave the first lane.
const FIRST_SHARE: (u64, u64) = (2, 5);
/// Each further lane takes lives so many times longer.
const LANE_FACTOR: u64 = 5;

/// Bytes that users have written, against wall time.
#[derive(Debug)]
pub struct WriteClock {
    now: u64,
    /// Wall time in nanoseconds and the clock at that time, both rising.
    samples: VecDeque<(u64, u64)>,
    spacing_bytes: u64,
}

impl WriteClock {
    /// What was written before the start counts as an age of several times the shard's area.
    pub fn new(area_bytes: u64) -> WriteClock {
        WriteClock { now: 16 * area_bytes, samples: VecDeque::new(), spacing_bytes: area_bytes >> 12 }
    }

    /// Bytes.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Users have written so many bytes more, by this time.
    pub fn advance(&mut self, bytes: u64, wall_ns: u64) {
        let is_new = |&(wall, at): &(u64, u64)| wall < wall_ns && at + self.spacing_bytes <= self.now;
        if self.samples.back().is_none_or(is_new) {
            self.samples.push_back((wall_ns, self.now));
        }
        self.now += bytes;
        if self.samples.len() > MAX_SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.spacing_bytes *= 2;
        }
    }

    /// What the clock showed at a wall time; 0 before the start.
    pub fn at(&self, wall_ns: u64) -> u64 {
        let after = self.samples.partition_point(|(wall, _)| *wall <= wall_ns);
        after.checked_sub(1).map_or(0, |last| self.samples[last].1)
    }
}

/// The lane of a survivor that is expected to live for so many bytes, where so many are live.
pub fn lane_of(lifetime_bytes: u64, live_bytes: u64, lanes: usize) -> usize {
    let mut limit = live_bytes * FIRST_SHARE.0 / FIRST_SHARE.1;
    let mut lane = 0;
    while lane + 1 < lanes && lifetime_bytes >= limit {
        lane += 1;
        limit = limit.saturating_mul(LANE_FACTOR);
    }
    lane
}

/// A lifetime in one byte: its power of two, 0 where it is not known.
pub fn to_hint(lifetime_bytes: u64) -> u8 {
    lifetime_bytes.checked_ilog2().map_or(0, |power| power as u8)
}

/// The reverse, about the middle of what the byte stands for.
pub fn from_hint(hint: u8) -> u64 {
    if hint == 0 { 0 } else { 3 << (hint - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_turns_into_bytes_and_samples_stay_few() {
        let mut clock = WriteClock::new(1 << 20);
        let start = clock.now();
        assert_eq!(clock.at(5), 0, "before the start");
        for i in 0..100_000u64 {
            clock.advance(1000, 10 + i * 7);
            assert!(clock.samples.len() <= MAX_SAMPLES);
        }
        assert_eq!(clock.now(), start + 100_000_000);
        for i in [0u64, 10, 5_000, 99_999] {
            let (is, was) = (clock.at(10 + i * 7), start + i * 1000);
            assert!(is <= was && is + 2 * clock.spacing_bytes + 1000 >= was, "{is} for {was}");
        }
        let late = clock.at(u64::MAX);
        clock.advance(1 << 20, 3);
        assert_eq!(clock.at(u64::MAX), late, "a clock that is set back gives no sample");
    }

    #[test]
    fn lanes_follow_lifetimes() {
        let lanes: Vec<_> =
            [0, 399, 400, 1999, 2000, 10_000, 1 << 40].map(|life| lane_of(life, 1000, 4)).into();
        assert_eq!(lanes, [0, 0, 1, 1, 2, 3, 3]);
        assert_eq!(lane_of(1 << 40, 1000, 1), 0);
        for life in [1u64, 2, 3, 1000, 1 << 40] {
            let known = from_hint(to_hint(life));
            assert!(known / 3 <= life && life <= known.max(1) * 2, "{life} became {known}");
        }
        assert_eq!(from_hint(to_hint(0)), 0);
    }
}
