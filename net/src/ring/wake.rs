//! How other threads wake a ring that sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};

use super::sleep::SleepFlag;

/// The sleep flag and the eventfd of one ring. A ring that is awake costs its wakers no call.
#[derive(Debug)]
pub struct Waker {
    flag: SleepFlag,
    event: OwnedFd,
}

impl Waker {
    /// Makes the eventfd.
    pub fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Waker { flag: SleepFlag::new(), event })
    }

    /// After work was left for the ring: wakes it if it announced that it sleeps.
    pub fn wake(&self) {
        if self.flag.must_be_woken() {
            // An eventfd's counter is full only after 2^64 - 2 wakes that nobody read.
            let _ = rustix::io::write(self.event.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Before sleeping: announces it. The caller must look for work once more before it sleeps.
    pub fn announce_sleep(&self) {
        self.flag.announce_sleep();
    }

    /// After sleeping, or when the last look found work.
    pub fn awake(&self) {
        self.flag.awake();
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
