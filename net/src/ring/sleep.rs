//! The promise between one who is about to sleep and those who leave work for it: none of them is missed.
//!
//! A sleeper announces itself, then looks once more for work, and only then sleeps; a waker leaves its
//! work, then looks whether the sleeper announced itself. Full fences between the two steps of each
//! make it impossible that both miss the other. `tests/tests/sleep_under_loom.rs` tries every order of them.

use super::atomic::{AtomicBool, Ordering, fence};

/// Whether one sleeps, or is about to.
#[derive(Debug)]
pub struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// Of one who is awake.
    pub fn new() -> SleepFlag {
        SleepFlag(AtomicBool::new(false))
    }

    /// After work was left: whether the sleeper must be woken, which only one of those who ask is told.
    pub fn must_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    /// Before sleeping. The caller must look for work once more before it sleeps.
    pub fn announce_sleep(&self) {
        // Not a store: a swap comes after what a waker swapped last, so that the next one cannot take that for newer.
        self.0.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// After sleeping, or when the last look found work.
    pub fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
