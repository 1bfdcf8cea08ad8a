//! When to spin and when to sleep.
//!
//! Waking from a blocking wait costs about 100 us on a virtual machine, so a reactor that will soon
//! have work does better to look for it. But only where few requests are in flight: many hide the cost
//! of waking behind each other, and spinning would take the core from whoever else could use it.

use std::time::Duration;

/// A reactor spins only while at most this many requests and operations are in flight.
const MAX_SPIN_WORK: usize = 4;
/// The longest spin, in nanoseconds.
const MAX_SPIN_NS: u64 = 150_000;
/// Gaps are averaged with a weight of 1 in `2^GAP_SHIFT`.
const GAP_SHIFT: u32 = 3;
/// A gap counts for at most this many nanoseconds, so that one long pause is soon forgotten.
const MAX_GAP_NS: u64 = 4 * MAX_SPIN_NS;

/// Learns how long work stays away.
#[derive(Debug)]
pub struct Idle {
    /// Average time without work, in nanoseconds.
    typical_gap_ns: u64,
    idle_since_ns: Option<u64>,
}

impl Idle {
    /// One that has seen nothing yet, and so sleeps.
    pub fn new() -> Idle {
        Idle { typical_gap_ns: MAX_GAP_NS, idle_since_ns: None }
    }

    /// Nothing to do.
    pub fn begin(&mut self, now_ns: u64) {
        self.idle_since_ns.get_or_insert(now_ns);
    }

    /// Something to do.
    pub fn end(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.idle_since_ns.take() {
            let gap_ns = now_ns.saturating_sub(since_ns).min(MAX_GAP_NS);
            self.typical_gap_ns += gap_ns >> GAP_SHIFT;
            self.typical_gap_ns -= self.typical_gap_ns.min((self.typical_gap_ns + 7) >> GAP_SHIFT);
        }
    }

    /// How long to spin now, with so much work in flight; zero means to sleep at once.
    pub fn spin(&self, work_in_flight: usize) -> Duration {
        if work_in_flight > MAX_SPIN_WORK || self.typical_gap_ns > MAX_SPIN_NS {
            return Duration::ZERO;
        }
        Duration::from_nanos((2 * self.typical_gap_ns + 5_000).min(MAX_SPIN_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_gaps_make_it_spin_and_long_ones_make_it_sleep() {
        let mut idle = Idle::new();
        assert_eq!(idle.spin(0), Duration::ZERO);
        let mut now_ns = 0;
        let mut gaps = |idle: &mut Idle, gap_ns, count| {
            for _ in 0..count {
                idle.begin(now_ns);
                now_ns += gap_ns;
                idle.end(now_ns);
            }
        };
        gaps(&mut idle, 20_000, 50);
        assert!(idle.spin(1) > Duration::from_micros(20));
        assert_eq!(idle.spin(100), Duration::ZERO);
        gaps(&mut idle, 5_000_000, 50);
        assert_eq!(idle.spin(0), Duration::ZERO);
    }
}
