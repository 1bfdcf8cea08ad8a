//! The control thread: what concerns all shards at once. Tables, the partition map, statistics,
//! checkpoints, start and stop. It is on no request's path.
//!
//! Durable is what the shards hold. A table is made on the others first and on shard 0 last, which
//! commits it; it is dropped from shard 0 first. What shard 0 does not know is dropped at the next start.

mod catalog;
mod drops;
mod jobs;
pub mod quotas;
pub mod stats;
mod waits;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use lode_engine::{
    CatalogError, CheckpointError, OpenError, PartitionInfo, RequestBody, RequestId, ShardId, ShardStats,
    TableId, TableSpec,
};
use lode_net::ring::Features;
use lode_net::wire::PublishedMap;
use lode_net::wire::server::NodeInfo;

use crate::access::AccessBook;
use crate::dispatch::{Asked, ControlQuestion};
use crate::mailbox::{JobId, Mail, Mailbox, NodeMap};
use crate::reactor::ReactorStats;
use crate::serve::listen;
use catalog::NodeCatalog;
pub use stats::NodeFacts;
pub use waits::Waits;

/// Most questions that wait for the control thread; one more is answered `Busy`.
const MAX_QUESTIONS: usize = 1024;
/// How long a shard may take to accept mail before the control thread tries again.
const POST_PAUSE: Duration = Duration::from_millis(1);
/// How long requests in flight have to end when the node stops.
const STOP_GRACE: Duration = Duration::from_millis(200);
/// How long the last checkpoint may take when the node stops.
const STOP_CHECKPOINT: Duration = Duration::from_secs(60);

/// What a shard answers the control thread.
#[derive(Debug)]
pub enum ShardReply {
    /// To a change of the catalog.
    Catalog(Result<(), CatalogError>),
    /// To `ListTables`.
    Tables(Vec<(TableSpec, Vec<PartitionInfo>)>),
    /// To `Stats`.
    Stats {
        /// The engine's.
        engine: Box<ShardStats>,
        /// The reactor's.
        reactor: Box<ReactorStats>,
    },
    /// To `Checkpoint`.
    Checkpoint(Result<(), CheckpointError>),
    /// To `Scrub`: it begins.
    Scrub,
}

/// What the control thread hears.
#[derive(Debug)]
pub enum ControlEvent {
    /// A client asks, through a shard.
    Question {
        /// The shard.
        shard: ShardId,
        /// The shard's name for it.
        ticket: RequestId,
        /// What the answer needs to know.
        asked: Asked,
        /// The question.
        question: ControlQuestion,
    },
    /// A shard answers.
    Reply {
        /// What.
        job: JobId,
        /// Who.
        shard: ShardId,
        /// The answer.
        reply: ShardReply,
    },
    /// A shard has recovered, or failed to.
    Recovered {
        /// Which.
        shard: ShardId,
        /// The outcome.
        outcome: Result<(), OpenError>,
        /// What its ring found.
        features: Box<Features>,
    },
    /// Look at the counters, and log what is new.
    Look,
    /// The tokens have changed.
    Access,
    /// The node is to stop.
    Stop,
}

/// The way to the control thread.
#[derive(Clone, Debug)]
pub struct ControlSender {
    events: Sender<ControlEvent>,
    questions: Arc<AtomicUsize>,
}

impl ControlSender {
    /// A way into `events`.
    pub fn new(events: Sender<ControlEvent>) -> ControlSender {
        ControlSender { events, questions: Arc::new(AtomicUsize::new(0)) }
    }

    /// Asks; false where too many questions wait.
    pub fn ask(&self, shard: ShardId, ticket: RequestId, asked: Asked, question: ControlQuestion) -> bool {
        if self.questions.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS {
            self.questions.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.send(ControlEvent::Question { shard, ticket, asked, question });
        true
    }

    /// Answers the control thread.
    pub fn reply(&self, job: JobId, shard: ShardId, reply: ShardReply) {
        self.send(ControlEvent::Reply { job, shard, reply });
    }

    /// Tells how the recovery of a shard ended.
    pub fn recovered(&self, shard: ShardId, outcome: Result<(), OpenError>, features: Features) {
        self.send(ControlEvent::Recovered { shard, outcome, features: Box::new(features) });
    }

    /// Has it look at the counters, and log what is new.
    pub fn look(&self) {
        self.send(ControlEvent::Look);
    }

    /// Has it give the shards the tokens as they are now.
    pub fn access_changed(&self) {
        self.send(ControlEvent::Access);
    }

    /// Tells the node to stop.
    pub fn stop(&self) {
        self.send(ControlEvent::Stop);
    }

    /// A control thread that is gone has told the shards to exit: nobody waits for this any more.
    fn send(&self, event: ControlEvent) {
        let _ = self.events.send(event);
    }
}

/// Why a node did not come up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A shard could not be opened.
    #[error("shard {shard} could not be opened: {error}")]
    Shard {
        /// Which.
        shard: ShardId,
        /// Why.
        error: OpenError,
    },
    /// A bound socket could not begin to listen.
    #[error("the node cannot listen ({0}); give another address to --listen")]
    Listen(String),
    /// It was told to stop before it was up.
    #[error("the node was told to stop before it was ready")]
    Stopped,
}

impl RecoverError {
    fn listen(error: rustix::io::Errno) -> RecoverError {
        RecoverError::Listen(error.to_string())
    }
}

/// What a control thread is told when it is made.
pub struct ControlConfig {
    /// All mailboxes, by shard.
    pub mailboxes: Arc<[Mailbox]>,
    /// How it waits for what it hears.
    pub waits: Box<dyn Waits>,
    /// The way to it, to count questions.
    pub sender: ControlSender,
    /// What clients are told of the node.
    pub node: Arc<NodeInfo>,
    /// Listening sockets, by shard.
    pub listeners: Vec<Vec<OwnedFd>>,
    /// What statistics tell of the node.
    pub facts: NodeFacts,
    /// The tokens, where the node wants them.
    pub access: Option<Arc<AccessBook>>,
}

/// How the node came up: what each ring found.
pub type Recovered = Result<Vec<Features>, RecoverError>;

/// The control thread.
pub struct Control {
    mailboxes: Arc<[Mailbox]>,
    waits: Box<dyn Waits>,
    sender: ControlSender,
    node: Arc<NodeInfo>,
    facts: NodeFacts,
    catalog: NodeCatalog,
    map: Arc<NodeMap>,
    next_job: u64,
    checkpoints: Vec<jobs::CheckpointJob>,
    /// Dropped tables, and shards that still hold something of them.
    undropped: BTreeSet<(TableId, ShardId)>,
    /// Events that came while an answer was awaited.
    deferred: VecDeque<ControlEvent>,
    watch: watch::Watch,
    access: Option<Arc<AccessBook>>,
    stopping: bool,
}

impl Control {
    /// Brings the node up, tells `started` how that went, serves until `Stop`, brings the node down.
    pub fn run(config: ControlConfig, started: &Sender<Recovered>) {
        let ControlConfig { mailboxes, waits, sender, node, listeners, facts, access } = config;
        let mut control = Control::new(mailboxes, waits, sender, node, facts);
        control.access = access;
        let recovered = control.recover().and_then(|features| {
            listeners.iter().flatten().try_for_each(listen).map_err(RecoverError::listen)?;
            Ok(features)
        });
        let is_up = recovered.is_ok();
        if is_up {
            control.publish();
            for (shard, listeners) in listeners.into_iter().enumerate() {
                let node = Arc::clone(&control.node);
                control.post(ShardId(shard as u16), Mail::Serve { node, listeners });
            }
        }
        // Nobody who waits for the start is left only where the whole process is ending.
        let _ = started.send(recovered);
        if is_up {
            control.serve();
            control.bring_down();
        }
        control.post_all(|| Mail::Exit);
    }

    /// With an empty catalog.
    fn new(
        mailboxes: Arc<[Mailbox]>,
        waits: Box<dyn Waits>,
        sender: ControlSender,
        node: Arc<NodeInfo>,
        facts: NodeFacts,
    ) -> Control {
        let catalog = NodeCatalog::new(mailboxes.len() as u16);
        Control {
            mailboxes,
            waits,
            sender,
            node,
            facts,
            catalog,
            map: Arc::new(NodeMap::empty()),
            next_job: 1,
            checkpoints: Vec::new(),
            undropped: BTreeSet::new(),
            deferred: VecDeque::new(),
            watch: watch::Watch::default(),
            access: None,
            stopping: false,
        }
    }

    /// Waits for every shard, then makes their catalogs agree.
    fn recover(&mut self) -> Recovered {
        let mut features: Vec<Option<Features>> = vec![None; self.mailboxes.len()];
        while features.iter().any(Option::is_none) {
            match self.waits.event(None) {
                Some(ControlEvent::Recovered { shard, outcome, features: found }) => {
                    outcome.map_err(|error| RecoverError::Shard { shard, error })?;
                    features[usize::from(shard.0)] = Some(*found);
                }
                Some(ControlEvent::Stop) | None => return Err(RecoverError::Stopped),
                Some(other) => unreachable!("nothing is asked before the node is up: {other:?}"),
            }
        }
        self.reconcile();
        self.facts.recovered(features.iter().flatten());
        Ok(features.into_iter().flatten().collect())
    }

    fn serve(&mut self) {
        while !self.stopping {
            let event = match self.deferred.pop_front() {
                Some(event) => event,
                None => match self.waits.event(None) {
                    Some(event) => event,
                    None => return,
                },
            };
            match event {
                ControlEvent::Question { shard, ticket, asked, question } => {
                    self.sender.questions.fetch_sub(1, Ordering::Relaxed);
                    self.answer(shard, ticket, asked, question);
                }
                ControlEvent::Reply { job, shard, reply } => self.late_reply(job, shard, reply),
                ControlEvent::Look => self.look(),
                ControlEvent::Access => self.publish_terms(),
                ControlEvent::Stop => self.stopping = true,
                ControlEvent::Recovered { shard, .. } => unreachable!("shard {shard} recovered twice"),
            }
        }
    }

    /// Stops accepting, lets requests in flight end, and leaves a checkpoint for the next start.
    fn bring_down(&mut self) {
        self.post_all(|| Mail::Refuse);
        self.waits.pause(STOP_GRACE);
        let deadline = Instant::now() + STOP_CHECKPOINT;
        // Without it the next start replays more; nothing is lost.
        let begun = Instant::now();
        let replies = self.ask_all_until(|_| Some(RequestBody::Checkpoint), Some(deadline));
        let written =
            replies.iter().filter(|(_, reply)| matches!(reply, ShardReply::Checkpoint(Ok(())))).count();
        let (shards, ms) = (self.mailboxes.len(), begun.elapsed().as_millis() as u64);
        if written == shards {
            tracing::info!(
                event = "checkpoint",
                shards,
                ms,
                "checkpoint of {shards} shards written in {ms} ms"
            );
        } else {
            tracing::warn!(
                event = "checkpoint",
                shards,
                written,
                ms,
                "{written} of {shards} shards have written a checkpoint: the next start takes longer, nothing is lost"
            );
        }
    }

    /// Gives the present catalog to all shards as the next version of the map.
    fn publish(&mut self) {
        let version = self.map.published.map.version().0 + 1;
        let published = NodeMap::publish(self.catalog.map_body(version));
        self.map = Arc::new(self.map_of(published));
        // Made here, so that no shard has to: with many partitions that takes long.
        self.map.published.hello(&self.node);
        let map = Arc::clone(&self.map);
        self.post_all(|| Mail::Map(Arc::clone(&map)));
    }

    /// The map as shards use it, with the present quotas and tokens.
    pub(super) fn map_of(&self, published: Arc<PublishedMap>) -> NodeMap {
        let access = self.access.as_ref().map(|book| book.present());
        NodeMap::new(published, |partition| self.catalog.quota_of(partition), access)
    }

    fn post(&mut self, shard: ShardId, mail: Mail) {
        let mut mail = mail;
        while let Err(back) = self.mailboxes[usize::from(shard.0)].post(mail) {
            mail = back;
            if !self.waits.pause(POST_PAUSE) {
                return;
            }
        }
    }

    fn post_all(&mut self, mail: impl Fn() -> Mail) {
        for shard in 0..self.mailboxes.len() as u16 {
            self.post(ShardId(shard), mail());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A control thread's state over shards that answer somehow.
    pub fn control_over(mailboxes: Arc<[Mailbox]>, waits: Box<dyn Waits>) -> Control {
        let facts = NodeFacts {
            begun: Instant::now(),
            drive: Value::Null,
            memory: Value::Null,
            recovery_ms: 0.0,
            ring: Value::Null,
            pinned: false,
            table_defaults: Value::Null,
            io: Value::Null,
        };
        let limits = lode_net::wire::control::NodeLimits::default();
        let node = NodeInfo { name: "n".into(), incarnation: 1, shards: Vec::new(), limits };
        let (events, _) = std::sync::mpsc::channel();
        Control::new(mailboxes, waits, ControlSender::new(events), Arc::new(node), facts)
    }
}
