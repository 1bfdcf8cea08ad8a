//! How many completions a sleeping reactor waits for.
//!
//! Each wake costs a switch of threads, and answers that go out together cost one send: a wake for
//! sixteen answers costs each of them a fraction of a wake for two. Where requests queue before the
//! drive anyway, a share of the time that they spend there buys that. Where the drive answers at once,
//! there is nothing to wait for, and the share is next to nothing.

use std::time::Duration;

/// A sleeping reactor waits for one in this many of the drive operations in flight.
const OPERATIONS_PER_WAKE: usize = 2;
/// The most completions it waits for.
const MAX_BATCH: usize = 128;
/// It waits for at most this share of the time that an operation takes at present.
const LATENCY_SHARE: u64 = 4;
/// But never for longer than this, in nanoseconds.
const MAX_PATIENCE_NS: u64 = 1_000_000;
/// Shorter than this is not worth a second timer, in nanoseconds.
const LEAST_PATIENCE_NS: u64 = 20_000;
/// The latency is taken anew after so many operations.
const WINDOW_OPERATIONS: u64 = 64;
/// An older window, in nanoseconds, says nothing about the present.
const WINDOW_NS: u64 = 100_000_000;

/// Learns how long drive operations take, from how many are in flight and how many end: by Little's law
/// (Operations Research 9(3), 1961), with no clock read for each of them.
#[derive(Debug, Default)]
pub struct Pace {
    /// Operations in flight, added up over the nanoseconds since the window began.
    waited_ns: u64,
    ended: u64,
    window_begun_ns: u64,
    last_ns: u64,
    /// Mean time of an operation in the last window.
    latency_ns: u64,
    waited: Waited,
}

/// Time that was spent waiting since the start, added up over all that waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Of requests for their answers, in nanoseconds.
    pub request_ns: u64,
    /// Of drive operations for their ends, in nanoseconds.
    pub drive_ns: u64,
    /// Drive operations that have ended.
    pub drive_operations: u64,
}

/// What a sleeping reactor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// So many completions,
    pub want: usize,
    /// or any after so long.
    pub patience: Duration,
}

impl Pace {
    /// Since the last call, `requests` waited for their answers, and `in_flight` drive operations were in flight, of which
    /// `ended` have ended by now.
    pub fn observe(&mut self, now_ns: u64, requests: usize, in_flight: usize, ended: u64) {
        let since_ns = if self.last_ns == 0 { 0 } else { now_ns.saturating_sub(self.last_ns) };
        self.last_ns = now_ns;
        self.waited.request_ns += since_ns * requests as u64;
        self.waited.drive_ns += since_ns * in_flight as u64;
        self.waited.drive_operations += ended;
        if now_ns.saturating_sub(self.window_begun_ns) > WINDOW_NS {
            // Includes the first call, and the first after a long sleep.
            *self = Pace { window_begun_ns: now_ns, last_ns: now_ns, waited: self.waited, ..Pace::default() };
            return;
        }
        self.waited_ns += since_ns * in_flight as u64;
        self.ended += ended;
        if self.ended >= WINDOW_OPERATIONS {
            self.latency_ns = self.waited_ns / self.ended;
            (self.waited_ns, self.ended, self.window_begun_ns) = (0, 0, now_ns);
        }
    }

    /// What has been waited for since the start.
    pub fn waited(&self) -> Waited {
        self.waited
    }

    /// What to wait for with so many operations in flight.
    pub fn batch(&self, in_flight: usize) -> Batch {
        let patience_ns = (self.latency_ns / LATENCY_SHARE).min(MAX_PATIENCE_NS);
        let want = (in_flight / OPERATIONS_PER_WAKE).clamp(1, MAX_BATCH);
        if want == 1 || patience_ns < LEAST_PATIENCE_NS {
            return Batch { want: 1, patience: Duration::ZERO };
        }
        Batch { want, patience: Duration::from_nanos(patience_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many operations in flight at all times, each of which takes so long.
    fn paced(in_flight: usize, latency_ns: u64) -> Pace {
        let mut pace = Pace::default();
        let mut now_ns = 1_000_000_000;
        for _ in 0..1_000 {
            now_ns += latency_ns / in_flight as u64;
            pace.observe(now_ns, 2, in_flight, 1);
        }
        pace
    }

    #[test]
    fn a_queue_before_the_drive_makes_it_wait_for_a_share_of_the_time_there() {
        let Batch { want, patience } = paced(64, 2_000_000).batch(64);
        assert_eq!(want, 32);
        assert!((450..=550).contains(&patience.as_micros()), "{patience:?}");
        assert_eq!(paced(256, 40_000_000).batch(256).patience, Duration::from_nanos(MAX_PATIENCE_NS));
    }

    #[test]
    fn a_drive_that_answers_at_once_is_not_waited_for() {
        assert_eq!(paced(64, 60_000).batch(64).want, 1);
        assert_eq!(paced(1, 2_000_000).batch(1).want, 1, "nobody will come along");
        assert_eq!(Pace::default().batch(100).want, 1, "nothing is known yet");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut pace = paced(64, 2_000_000);
        pace.observe(1_000_000_000_000, 0, 64, 1);
        assert_eq!(pace.batch(64).want, 1);
    }

    #[test]
    fn time_that_was_waited_adds_up() {
        let waited = paced(4, 2_000_000).waited();
        assert_eq!(waited.drive_operations, 1_000);
        assert_eq!(
            waited.drive_ns / waited.drive_operations,
            1_998_000,
            "999 waits of half a millisecond for four"
        );
        assert_eq!(waited.request_ns, waited.drive_ns / 2);
    }
}
