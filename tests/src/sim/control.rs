//! The node's control thread, in step with the simulation: it runs while the world waits, until it waits itself. So what it
//! does follows from what it is told alone, and from nothing that a real thread could be early or late with.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lode_net::wire::server::NodeInfo;
use lode_node::control::{
    Control, ControlConfig, ControlEvent, ControlSender, NodeFacts, RecoverError, Recovered, Waits,
};
use lode_node::mailbox::Mailbox;

/// What the control thread is told.
enum Go {
    /// This has happened.
    Event(ControlEvent),
    /// The time that it wanted to pass is over.
    TimePassed,
}

/// For what it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// For something to happen.
    Listens,
    /// For so much time to pass.
    Pauses(Duration),
}

/// The control thread's side.
struct InStep {
    go: Receiver<Go>,
    said: Sender<Said>,
}

impl Waits for InStep {
    fn event(&mut self, _: Option<Instant>) -> Option<ControlEvent> {
        self.said.send(Said::Listens).ok()?;
        match self.go.recv().ok()? {
            Go::Event(event) => Some(event),
            Go::TimePassed => unreachable!("it listens"),
        }
    }

    fn pause(&mut self, time: Duration) -> bool {
        let goes_on = self.said.send(Said::Pauses(time)).is_ok() && self.go.recv().is_ok();
        // The world tells of nothing else while it pauses.
        goes_on
    }
}

/// The world's side.
pub struct SimControl {
    go: Option<Sender<Go>>,
    said: Receiver<Said>,
    started: Receiver<Recovered>,
    thread: Option<JoinHandle<()>>,
    /// What has happened and was not told yet.
    events: VecDeque<ControlEvent>,
    /// When the time has passed that it wanted to pass.
    paused_until_ns: Option<u64>,
}

impl SimControl {
    /// It begins, and waits for what it hears.
    pub fn start(
        mailboxes: Arc<[Mailbox]>,
        sender: ControlSender,
        node: NodeInfo,
        listeners: Vec<Vec<OwnedFd>>,
    ) -> SimControl {
        let (go, go_out) = channel();
        let (said_in, said) = channel();
        let (started_in, started) = channel();
        let facts = NodeFacts {
            begun: Instant::now(),
            drive: serde_json::Value::Null,
            memory: serde_json::Value::Null,
            recovery_ms: 0.0,
            ring: serde_json::Value::Null,
            pinned: false,
            table_defaults: serde_json::Value::Null,
            io: serde_json::Value::Null,
        };
        let waits = Box::new(InStep { go: go_out, said: said_in });
        let config =
            ControlConfig { mailboxes, waits, sender, node: Arc::new(node), listeners, facts, access: None };
        let body = move || Control::run(config, &started_in);
        let thread = std::thread::Builder::new().name("control".into()).spawn(body);
        let mut control = SimControl {
            go: Some(go),
            said,
            started,
            thread: Some(thread.expect("a thread for the simulated control")),
            events: VecDeque::new(),
            paused_until_ns: None,
        };
        control.listen(0);
        control
    }

    /// This has happened.
    pub fn tell(&mut self, event: ControlEvent) {
        self.events.push_back(event);
    }

    /// How the node came up, when it has.
    pub fn started(&self) -> Option<Result<(), RecoverError>> {
        self.started.try_recv().ok().map(|recovered| recovered.map(drop))
    }

    /// When it goes on though nothing happens.
    pub fn wake_ns(&self) -> Option<u64> {
        self.paused_until_ns
    }

    /// It does what it can.
    pub fn run(&mut self, now_ns: u64) {
        loop {
            let go = match self.paused_until_ns {
                Some(until_ns) if until_ns > now_ns => return,
                Some(_) => Go::TimePassed,
                None => match self.events.pop_front() {
                    Some(event) => Go::Event(event),
                    None => return,
                },
            };
            let is_there = self.go.as_ref().is_some_and(|to| to.send(go).is_ok());
            if !is_there || !self.listen(now_ns) {
                return;
            }
        }
    }

    /// Until it waits. Says whether it does, and has not ended.
    fn listen(&mut self, now_ns: u64) -> bool {
        let said = self.said.recv();
        self.paused_until_ns = match said {
            Ok(Said::Pauses(time)) => Some(now_ns + time.as_nanos() as u64),
            Ok(Said::Listens) | Err(_) => None,
        };
        said.is_ok()
    }
}

impl Drop for SimControl {
    /// The process ends.
    fn drop(&mut self) {
        self.go = None;
        // Whatever it still says, nobody is there.
        drop(std::mem::replace(&mut self.said, channel().1));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the control thread panicked");
        }
    }
}
