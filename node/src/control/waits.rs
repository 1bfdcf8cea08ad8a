//! How the control thread waits: for what it hears, and for time to pass. In production for its channel and its clock, in
//! the simulator for what is simulated.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::ControlEvent;

/// What the control thread waits for.
pub trait Waits: Send {
    /// The next thing that it hears; `None` when there is no one left to say anything, or the deadline is over.
    fn event(&mut self, deadline: Option<Instant>) -> Option<ControlEvent>;

    /// Lets time pass. Says whether there is still anybody to go on for.
    fn pause(&mut self, time: Duration) -> bool;
}

impl Waits for Receiver<ControlEvent> {
    fn event(&mut self, deadline: Option<Instant>) -> Option<ControlEvent> {
        match deadline {
            None => self.recv().ok(),
            Some(at) => self.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }

    fn pause(&mut self, time: Duration) -> bool {
        std::thread::sleep(time);
        true
    }
}
