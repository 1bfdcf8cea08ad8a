//! When to spin and when to sleep.
//!
//! Waking from a blocking wait costs about 100 us on a virtual machine, so a reactor that will soon
//! have work does better to look for it. But only where few requests are in flight: many hide the cost
//! of waking behind each other, and spinning would take the core from whoever else could use it.

use std::time::Duration;

/// A reactor spins only while at most this many requests are in flight.
const MAX_SPIN_REQUESTS: usize = 4;
/// Waits are averaged with a weight of 1 in `2^SHIFT`.
const SHIFT: u32 = 3;
/// A wait counts for at most so many times the longest spin, so that one long pause is soon forgotten.
const LONGEST_SPINS: u64 = 4;
/// A yield that takes longer than this gave the core to a thread that wanted it.
const LONG_YIELD_NS: u64 = 30_000;
/// How long there is no spinning after another thread wanted the core.
const CONTENTION_NS: u64 = 5_000_000;

/// Learns how long work stays away.
#[derive(Debug)]
pub struct Idle {
    /// The longest spin, in nanoseconds.
    longest_ns: u64,
    /// Average wait for work, in nanoseconds.
    typical_ns: u64,
    contended_until_ns: u64,
}

impl Idle {
    /// One that has seen nothing yet, and so sleeps; and that never spins for longer than this.
    pub fn new(longest_spin: Duration) -> Idle {
        let longest_ns = longest_spin.as_nanos() as u64;
        Idle { longest_ns, typical_ns: LONGEST_SPINS * longest_ns, contended_until_ns: 0 }
    }

    /// A wait for work, spun or slept, took so long.
    pub fn waited(&mut self, wait_ns: u64) {
        self.typical_ns -= self.typical_ns.div_ceil(1 << SHIFT);
        self.typical_ns += wait_ns.min(LONGEST_SPINS * self.longest_ns) >> SHIFT;
    }

    /// A yield while spinning took so long; tells whether to go on spinning.
    pub fn yielded(&mut self, yield_ns: u64, now_ns: u64) -> bool {
        let contended = yield_ns > LONG_YIELD_NS;
        if contended {
            self.contended_until_ns = now_ns + CONTENTION_NS;
        }
        !contended
    }

    /// How long to spin now, with so many requests in flight; zero means to sleep at once.
    pub fn spin(&self, requests_in_flight: usize, now_ns: u64) -> Duration {
        let few = requests_in_flight <= MAX_SPIN_REQUESTS;
        if !few || self.typical_ns > self.longest_ns || now_ns < self.contended_until_ns {
            return Duration::ZERO;
        }
        Duration::from_nanos((2 * self.typical_ns + 5_000).min(self.longest_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(150);

    #[test]
    fn short_waits_make_it_spin_and_long_ones_make_it_sleep() {
        let mut idle = Idle::new(LONGEST);
        assert_eq!(idle.spin(0, 0), Duration::ZERO);
        (0..50).for_each(|_| idle.waited(20_000));
        assert!(idle.spin(1, 0) > Duration::from_micros(20));
        assert_eq!(idle.spin(100, 0), Duration::ZERO, "many requests hide the cost of waking");
        (0..3).for_each(|_| idle.waited(5_000_000));
        assert_eq!(idle.spin(0, 0), Duration::ZERO);
    }

    #[test]
    fn what_stays_away_for_longer_than_the_longest_spin_is_slept_for() {
        let spin = |longest_us, wait_ns| {
            let mut idle = Idle::new(Duration::from_micros(longest_us));
            (0..50).for_each(|_| idle.waited(wait_ns));
            idle.spin(1, 0)
        };
        assert_eq!(spin(50, 80_000), Duration::ZERO);
        assert!((160..170).contains(&spin(200, 80_000).as_micros()), "{:?}", spin(200, 80_000));
        assert_eq!(spin(150, 80_000), LONGEST);
    }

    #[test]
    fn who_wants_the_core_gets_it() {
        let mut idle = Idle::new(LONGEST);
        (0..50).for_each(|_| idle.waited(20_000));
        assert!(idle.yielded(1_000, 7));
        assert!(!idle.yielded(1_000_000, 7));
        assert_eq!(idle.spin(1, 8), Duration::ZERO);
        assert!(idle.spin(1, 7 + CONTENTION_NS) > Duration::ZERO);
    }
}
