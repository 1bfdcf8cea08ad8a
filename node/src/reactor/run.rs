//! A reactor on a ring: turns until it is told to exit, and in between spins a little, or sleeps.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lode_engine::Now;
use lode_net::ring::Ring;

use super::Reactor;
use super::idle::Idle;
use super::pace::Batch;

/// How often a spinning reactor looks before it lets another thread have the core.
const LOOKS_PER_YIELD: u32 = 64;

impl Reactor<Ring> {
    /// Turns until the control thread says to exit.
    pub fn run(self) {
        let idle = Idle::new(self.config.io.longest_spin);
        let mut running = Running { reactor: self, idle, clock: Clock::new() };
        while !running.reactor.exiting {
            let now = running.clock.now();
            running.reactor.turn(now);
            running.wait();
        }
        running.reactor.close_all();
    }
}

struct Running {
    reactor: Reactor<Ring>,
    idle: Idle,
    clock: Clock,
}

impl Running {
    /// Submits what the turn prepared, and waits for something to do: spins a little, or sleeps.
    fn wait(&mut self) {
        let reactor = &mut self.reactor;
        if reactor.exiting || reactor.has_more() {
            return reactor.ring.submit();
        }
        let begun_ns = self.clock.monotonic_ns();
        reactor.settle_meter(begun_ns);
        let spin = self.idle.spin(reactor.pending.len(), begun_ns);
        if spin.is_zero() || !self.spin(begun_ns, spin) {
            self.sleep();
        }
        let waited_ns = self.clock.monotonic_ns() - begun_ns;
        self.idle.waited(waited_ns);
    }

    /// Looks for work for a while; tells whether some came.
    fn spin(&mut self, begun_ns: u64, spin: Duration) -> bool {
        let reactor = &mut self.reactor;
        reactor.ring.submit();
        reactor.stats.spins += 1;
        let end_ns = begun_ns + spin.as_nanos() as u64;
        loop {
            for _ in 0..LOOKS_PER_YIELD {
                if reactor.ring.is_ready() || !reactor.mailbox().is_empty() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let before_ns = self.clock.monotonic_ns();
            if reactor.is_due(before_ns) {
                return true;
            }
            if before_ns >= end_ns {
                return false;
            }
            std::thread::yield_now();
            let now_ns = self.clock.monotonic_ns();
            if !self.idle.yielded(now_ns - before_ns, now_ns) {
                return false;
            }
        }
    }

    fn sleep(&mut self) {
        let reactor = &mut self.reactor;
        let longest = reactor.longest_sleep(self.clock.monotonic_ns());
        let waker = Arc::clone(reactor.mailbox().waker());
        waker.announce_sleep();
        // Mail that came before the announcement woke nobody.
        if reactor.mailbox().is_empty() && !longest.is_zero() {
            let Batch { want, patience } = reactor.pace.batch(reactor.ring.drive_operations());
            reactor.ring.submit_and_wait_for(want, patience, longest);
        } else {
            reactor.ring.submit();
        }
        waker.awake();
    }
}

/// The two clocks of [`Now`].
struct Clock {
    begun: Instant,
}

impl Clock {
    fn new() -> Clock {
        Clock { begun: Instant::now() }
    }

    fn monotonic_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic_ns: self.monotonic_ns(), wall_ns: wall.as_nanos() as u64 }
    }
}
