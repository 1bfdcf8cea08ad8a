//! How other threads wake a ring that sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// The sleep flag and the eventfd of one ring.
///
/// A sleeper announces itself, then looks once more for work, and only then sleeps; a waker leaves its
/// work, then looks whether the sleeper announced itself. Full fences between the two steps of each
/// make it impossible that both miss the other. A ring that is awake costs its wakers no call.
#[derive(Debug)]
pub struct Waker {
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Waker {
    /// Makes the eventfd.
    pub fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Waker { asleep: AtomicBool::new(false), event })
    }

    /// After work was left for the ring: wakes it if it announced that it sleeps.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            // An eventfd's counter is full only after 2^64 - 2 wakes that nobody read.
            let _ = rustix::io::write(self.event.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Before sleeping: announces it. The caller must look for work once more before it sleeps.
    pub fn announce_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// After sleeping, or when the last look found work.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
