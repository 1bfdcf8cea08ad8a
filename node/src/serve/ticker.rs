//! A thread that has the control thread look at the node's counters, and tells of slow requests, once a second.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::control::ControlSender;
use crate::slow::SlowLog;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Ticks until it is dropped.
#[derive(Debug)]
pub struct Ticker {
    /// Never sent by: its end is what the thread waits for.
    _until: Sender<()>,
}

impl Ticker {
    /// Begins to tick. Without the thread nothing is logged of what goes on, which keeps no node from serving.
    pub fn begin(control: ControlSender, slow: Arc<SlowLog>) -> Ticker {
        let (until, ended) = channel::<()>();
        let tick = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                control.look();
                slow.tell();
            }
        };
        let _ = std::thread::Builder::new().name("lode-ticker".into()).spawn(tick);
        Ticker { _until: until }
    }
}
