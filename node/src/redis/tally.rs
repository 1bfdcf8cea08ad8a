//! What the door counts, for INFO and for whoever observes the node from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It is this now.
    pub fn set(&self, now: usize) {
        self.0.store(now as u64, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts since the door was opened, and how it is now.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections now.
    pub connections: Count,
    /// Connections that were taken in.
    pub accepted: Count,
    /// Connections that there was no room for.
    pub refused: Count,
    /// Commands that came.
    pub commands: Count,
    /// Commands that were answered with an error.
    pub errors: Count,
    /// Secrets that are no token's.
    pub secrets_refused: Count,
    /// Bytes of requests and replies, as they were counted last.
    pub held_bytes: Count,
}
