//! The reactor: one thread's loop between its ring, its connections and its shard.
//!
//! One turn: events of the ring -> mail -> frames parsed in place -> `Shard::step`, again where those that wait
//! may run at once -> operations to the ring, answers to connections -> one submit. Nothing here decides what a request means; that is
//! `dispatch` and the engine.

mod connection;
mod counters;
mod deliver;
mod fair;
mod gone;
mod idle;
mod intake;
mod io;
pub mod latency;
pub mod meter;
mod observe;
mod pace;
mod pending;
mod room;
mod run;
mod slow;
mod sockets;
mod transactions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lode_engine::{
    Completion, DeviceError, Inbox, Now, Op, Outbox, OwnerId, Phase, Request, RequestId, Shard, ShardId,
    Token,
};
use lode_net::ring::{Chunk, Event, SocketId};
use lode_net::wire::server::{ConnectionLimits, NodeInfo};
use lode_net::wire::{self, Frame};

use crate::access::Addresses;
use crate::buffers::EngineBuffers;
use crate::control::ControlSender;
use crate::dispatch::{Answer, Asked};
use crate::drive::{Flushes, ShardFlushes};
use crate::io_limits::IoLimits;
use crate::mailbox::{Mail, Mailbox, NodeMap};
use crate::slow::SlowLog;
use connection::{Connections, Spares};
pub use counters::{Closed, Held, ReactorStats};
use fair::Fair;
use fair::quota::Throttle;
pub use io::ReactorIo;
use meter::Meter;
pub use observe::{Observation, Sample};
use pace::Pace;
pub use pace::Waited;
use pending::{Origin, Pending, PendingTable};
use slow::Timing;

/// Steps of one turn at most: nothing that comes from outside is looked at between them, the clock neither.
const MOST_STEPS: usize = 4;
/// How often connections are looked over for deadlines.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// The longest sleep of a shard without connections.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// The longest sleep while mail for a full mailbox waits, or a flush for those of other shards.
const BACKLOG_SLEEP: Duration = Duration::from_millis(1);
/// Most pieces of mail taken in one turn.
const MAX_MAIL_PER_TURN: usize = 256;

/// Of requests that no client has made.
const OURS: Asked = Asked { request_id: wire::RequestId(0), opcode: 0, flags: 0, owner: OwnerId(0) };

/// What a reactor is told when it is made.
pub struct ReactorConfig {
    /// Its shard.
    pub shard: ShardId,
    /// All mailboxes, by shard.
    pub mailboxes: Arc<[Mailbox]>,
    /// The way to the control thread.
    pub control: ControlSender,
    /// What a connection may use.
    pub limits: ConnectionLimits,
    /// Most connections of the node.
    pub max_connections: usize,
    /// Connections of the node, counted by all shards.
    pub connections: Arc<AtomicUsize>,
    /// Most bytes of unfinished requests of this shard.
    pub max_partial_bytes: usize,
    /// Most bytes of replies of this shard that wait for their readers outside the slab.
    pub max_reply_bytes: usize,
    /// Whether durable writes must say so to the device.
    pub writes_need_flush: bool,
    /// The flushes of all shards.
    pub flushes: Arc<Flushes>,
    /// What the drive takes.
    pub io: IoLimits,
    /// The map before the first is published.
    pub map: Arc<NodeMap>,
    /// Who has connections, by address.
    pub addresses: Arc<Addresses>,
    /// Where requests go that took long.
    pub slow: Arc<SlowLog>,
}

/// What runs and what waits, by partition.
type Waiting = Fair<Waits>;
/// One of them.
type Waits = (RequestId, OwnerId, Frame<'static>);

/// One shard's thread, from its first step to its last.
pub struct Reactor<I> {
    config: ReactorConfig,
    ring: I,
    engine: Shard,
    connections: Connections,
    pending: PendingTable,
    fair: Waiting,
    throttle: Throttle,
    spares: Spares,
    stats: ReactorStats,
    /// Where somebody observes the node.
    meter: Option<Box<Meter>>,
    map: Arc<NodeMap>,
    node: Option<Arc<NodeInfo>>,
    listeners: Vec<SocketId>,
    pace: Pace,
    flushes: ShardFlushes,
    /// Mail that found the box of its shard full.
    backlog: VecDeque<(ShardId, Mail)>,
    gone: gone::Gone,
    events: Vec<Event>,
    received: Vec<(SocketId, Chunk)>,
    mailed: Vec<(RequestId, Asked, Frame<'static>)>,
    commands: Vec<Request<'static>>,
    /// Empty: the memory of the last turn's frames.
    frames: Vec<(RequestId, OwnerId, Frame<'static>)>,
    completions: Vec<Completion>,
    outbox: Outbox,
    answers: Vec<(RequestId, Answer)>,
    /// Connections whose answers are held back until the next turn.
    held: Vec<SocketId>,
    /// Connections that are not read from because too much is held of unfinished requests.
    unfinished: VecDeque<SocketId>,
    /// The one whose unfinished request comes in all the same.
    finishing: Option<SocketId>,
    partial_bytes: usize,
    /// When this turn began.
    now: Now,
    next_sweep_ns: u64,
    begun: bool,
    announced: bool,
    refusing: bool,
    exiting: bool,
}

impl<I: ReactorIo> Reactor<I> {
    /// A reactor over a ring with its drive, and a shard that has not begun to recover.
    pub fn new(config: ReactorConfig, ring: I, engine: Shard) -> Reactor<I> {
        Reactor {
            map: Arc::clone(&config.map),
            spares: Spares::new(config.max_reply_bytes),
            fair: Fair::new(&config.io),
            flushes: ShardFlushes::new(Arc::clone(&config.flushes), config.shard),
            config,
            ring,
            engine,
            connections: Connections::default(),
            pending: PendingTable::default(),
            throttle: Throttle::default(),
            stats: ReactorStats::default(),
            meter: None,
            node: None,
            listeners: Vec::new(),
            pace: Pace::default(),
            backlog: VecDeque::new(),
            gone: gone::Gone::default(),
            events: Vec::new(),
            received: Vec::new(),
            mailed: Vec::new(),
            commands: Vec::new(),
            frames: Vec::new(),
            completions: Vec::new(),
            outbox: Outbox::default(),
            answers: Vec::new(),
            held: Vec::new(),
            unfinished: VecDeque::new(),
            finishing: None,
            partial_bytes: 0,
            now: Now { monotonic_ns: 0, wall_ns: 0 },
            next_sweep_ns: 0,
            begun: false,
            announced: false,
            refusing: false,
            exiting: false,
        }
    }

    /// Its drive, sockets and memory.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.ring
    }

    /// Its drive, sockets and memory, as they are.
    pub fn io(&self) -> &I {
        &self.ring
    }

    /// Its engine.
    pub fn engine(&self) -> &Shard {
        &self.engine
    }

    /// What it holds for those who wait.
    pub fn held(&self) -> Held {
        Held {
            pending: self.pending.len() as u64,
            queued: self.fair.queued() as u64,
            queued_bytes: self.fair.queued_bytes() as u64,
            partial_bytes: self.partial_bytes as u64,
            reply_bytes: self.spares.waiting_bytes() as u64,
        }
    }

    /// One turn.
    pub fn turn(&mut self, now: Now) {
        self.stats.turns += 1;
        self.now = now;
        self.settle_meter(now.monotonic_ns);
        let mut events = std::mem::take(&mut self.events);
        let in_flight = self.ring.drive_operations();
        self.ring.take_events(&mut events);
        let ended = (in_flight - self.ring.drive_operations()) as u64;
        let waiting = self.pending.len() + self.fair.queued();
        self.pace.observe(now.monotonic_ns, waiting, in_flight, ended);
        let mut worked = !events.is_empty() || !self.begun;
        for event in events.drain(..) {
            self.on_event(event, now.monotonic_ns);
        }
        self.events = events;
        self.completions.extend(self.flushes.settle().map(|(token, result)| Completion { token, result }));
        worked |= !self.completions.is_empty();
        worked |= self.take_mail(now.monotonic_ns);
        worked |= !self.commands.is_empty()
            || self.engine.has_work()
            || self.is_due(now.monotonic_ns)
            || self.fair.is_ready()
            || !self.gone.is_empty();
        if worked {
            self.begun = true;
            self.step_while_ready(now);
            self.announce_phase();
        }
        if now.monotonic_ns >= self.next_sweep_ns {
            self.sweep(now.monotonic_ns);
        }
        self.post_backlog();
        self.tell_lying_bytes();
        self.look_at_touched(now.monotonic_ns);
    }

    /// One step, and more of them while those that waited for their turn may run as others were answered at once: what they are answered goes
    /// out with the rest.
    fn step_while_ready(&mut self, now: Now) {
        for _ in 0..MOST_STEPS {
            self.step(now);
            if !self.fair.is_ready() {
                return;
            }
        }
    }

    /// Frames to requests, one step of the shard, operations to the ring, answers to who asked.
    fn step(&mut self, now: Now) {
        let mut received = std::mem::take(&mut self.received);
        let unwanted = self.unwanted();
        {
            let buffers = room::Buffers::of(self.ring.slab());
            let (slab, chunks) = self.ring.memory();
            let mut intake = intake::Intake {
                config: &self.config,
                connections: &mut self.connections,
                pending: &mut self.pending,
                fair: &mut self.fair,
                throttle: &mut self.throttle,
                spares: &mut self.spares,
                stats: &mut self.stats,
                meter: &mut self.meter,
                answers: &mut self.answers,
                map: &self.map,
                node: self.node.as_deref(),
                partial_bytes: &mut self.partial_bytes,
                refusing: self.refusing,
                buffers,
                now_ns: now.monotonic_ns,
                frames: emptied(std::mem::take(&mut self.frames)),
            };
            for (socket, chunk) in &received {
                intake.chunk(*socket, chunks.bytes(chunk));
            }
            for (id, asked, frame) in self.mailed.drain(..) {
                intake.admit(id, asked, None, frame);
            }
            intake.release();
            let frames = intake.frames;
            let mut requests: Vec<Request<'_>> = std::mem::take(&mut self.commands);
            let control = &self.config.control;
            intake::ask(&frames, control, self.config.shard, &mut requests, &mut self.answers);
            let mut inbox = Inbox { requests, completions: std::mem::take(&mut self.completions), unwanted };
            self.engine.step(now, &mut inbox, &mut self.outbox, &mut EngineBuffers(slab));
            self.completions = inbox.completions;
            self.commands = emptied(inbox.requests);
            let (replies, threshold_ns) = (&self.outbox.replies, self.config.slow.threshold_ns());
            slow::mark_keys(&mut self.pending, replies, &frames, now.monotonic_ns, threshold_ns);
            self.frames = emptied(frames);
            assert!(self.completions.is_empty(), "a step takes all completions");
        }
        for (_, chunk) in received.drain(..) {
            self.ring.recycle(chunk);
        }
        self.received = received;
        self.start_operations();
        self.deliver_replies(now.monotonic_ns);
    }

    fn on_event(&mut self, event: Event, now_ns: u64) {
        match event {
            Event::Drive { token, result } => {
                let (token, result) = (Token(token), result.map_err(|os_error| DeviceError { os_error }));
                match self.flushes.is_under_way(token) {
                    true => self.flushes.ended(result),
                    false => self.completions.push(Completion { token, result }),
                }
            }
            Event::Received { socket, chunk } => self.received.push((socket, chunk)),
            Event::Accepted { socket, .. } => self.accepted(socket, now_ns),
            Event::AcceptFailed { .. } => {
                // Out of descriptors, most likely: the next sweep listens again.
            }
            Event::ReceiveEnded { socket, os_error } => self.input_ended(socket, os_error),
            Event::SentPart { socket, bytes } => self.sent_part(socket, bytes, now_ns),
            Event::Sent { socket, bytes, outgoing, result } => {
                self.spares.put(outgoing);
                self.sent(socket, bytes, result.is_ok(), now_ns);
            }
            Event::Closed { socket } => self.closed(socket),
        }
    }

    fn take_mail(&mut self, now_ns: u64) -> bool {
        let mailboxes = Arc::clone(&self.config.mailboxes);
        let mailbox = &mailboxes[usize::from(self.config.shard.0)];
        for taken in 0..MAX_MAIL_PER_TURN {
            match mailbox.take() {
                Some(mail) => self.on_mail(mail, now_ns),
                None => return taken > 0,
            }
        }
        true
    }

    fn on_mail(&mut self, mail: Mail, now_ns: u64) {
        match mail {
            Mail::Request { origin, ticket, owner, frame } => {
                self.stats.hops_in += 1;
                let asked = Asked::of(&frame.header, owner);
                let origin = Origin::Hop { shard: origin, ticket };
                let timing = Timing::of(&frame, now_ns);
                let id = self.pending.insert_at(Pending { origin, asked }, timing);
                self.mailed.push((id, asked, frame));
            }
            Mail::Answer { ticket, answer, stages } => {
                self.pending.timing(ticket).far = stages;
                self.answers.push((ticket, *answer));
            }
            Mail::Command { job, body } => {
                let id = self.pending.insert(Pending { origin: Origin::Control(job), asked: OURS });
                self.commands.push(Request { id, body });
            }
            Mail::Observe(observation) => self.observe(*observation),
            Mail::Gone { origin: shard, tickets } => {
                tickets.into_iter().for_each(|ticket| self.gone.add(Origin::Hop { shard, ticket }));
            }
            Mail::Connection { socket, ip } => {
                let socket = self.ring.adopt(socket);
                self.take_in(socket, Some(ip), now_ns);
            }
            Mail::EndTransactions(owner) => self.end_transactions_here(owner),
            Mail::Map(map) => {
                self.throttle.retain(|partition| *map.quota_of(partition));
                self.map = map;
            }
            Mail::Serve { node, listeners } => {
                self.node = Some(node);
                for listener in listeners {
                    let socket = self.ring.listen(listener);
                    self.listeners.push(socket);
                }
            }
            Mail::Refuse => {
                self.refusing = true;
                for listener in self.listeners.drain(..) {
                    self.ring.close(listener);
                }
            }
            Mail::Exit => self.exiting = true,
        }
    }

    /// Tells the control thread once how the recovery ended.
    fn announce_phase(&mut self) {
        if self.announced {
            return;
        }
        let outcome = match self.engine.phase() {
            Phase::Recovering => return,
            Phase::Serving => Ok(()),
            Phase::Failed(error) => Err(error.clone()),
        };
        self.announced = true;
        self.config.control.recovered(self.config.shard, outcome, self.ring.features());
    }

    fn is_due(&self, now_ns: u64) -> bool {
        self.engine.next_wake_ns().is_some_and(|wake_ns| wake_ns <= now_ns)
    }

    fn mailbox(&self) -> &Mailbox {
        &self.config.mailboxes[usize::from(self.config.shard.0)]
    }

    /// Whether there is something to do that no event will tell of.
    pub fn has_more(&self) -> bool {
        self.engine.has_work()
            || !self.completions.is_empty()
            || !self.mailbox().is_empty()
            || !self.commands.is_empty()
            || self.fair.is_ready()
            || !self.gone.is_empty()
    }

    /// How long nothing need be done, unless an event or mail comes.
    pub fn longest_sleep(&self, now_ns: u64) -> Duration {
        let until = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(now_ns));
        let mut sleep = match self.connections.len() + self.listeners.len() {
            0 => LONGEST_SLEEP,
            _ if self.connections.len() == 0 => 2 * SWEEP_INTERVAL,
            _ => until(self.next_sweep_ns),
        };
        if let Some(wake_ns) = self.engine.next_wake_ns() {
            sleep = sleep.min(until(wake_ns));
        }
        if !self.backlog.is_empty() || self.flushes.waits() {
            sleep = sleep.min(BACKLOG_SLEEP);
        }
        if !self.held.is_empty() {
            sleep = sleep.min(self.pace.batch(self.ring.drive_operations()).patience);
        }
        sleep
    }

    fn start_operations(&mut self) {
        for op in self.outbox.ops.drain(..) {
            if let Op::Flush { token } = op
                && self.config.writes_need_flush
            {
                self.flushes.begin(token);
            }
            deliver::start(&mut self.ring, op, self.config.writes_need_flush, &mut self.completions);
        }
    }

    fn close_all(&mut self) {
        let open = self.connections.len();
        self.config.connections.fetch_sub(open, Ordering::Relaxed);
    }

    /// The counters and gauges as of now.
    fn stats(&self) -> ReactorStats {
        let thread = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        ReactorStats {
            connections: self.connections.len() as u64,
            pending: self.pending.len() as u64,
            reply_bytes: self.spares.waiting_bytes() as u64,
            queued: self.fair.queued() as u64,
            queued_bytes: self.fair.queued_bytes() as u64,
            buffer_bytes: self.ring.slab().total_bytes() as u64,
            buffer_bytes_free: self.ring.slab().free_bytes() as u64,
            buffers_refused: self.ring.slab().refused(),
            cpu_us: thread.tv_sec as u64 * 1_000_000 + thread.tv_nsec as u64 / 1000,
            ring: self.ring.counters(),
            waited: self.pace.waited(),
            ..self.stats.clone()
        }
    }
}

/// An empty vector with the memory of another, whose items lived for another time. (An item that is never made needs
/// no conversion, and the standard library collects in place where sizes are the same.)
fn emptied<A, B>(mut vec: Vec<A>) -> Vec<B> {
    const { assert!(size_of::<A>() == size_of::<B>() && align_of::<A>() == align_of::<B>()) };
    vec.clear();
    vec.into_iter().map(|_| unreachable!("it was emptied")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_vector_keeps_its_memory() {
        let text = String::from("borrowed");
        let mut borrowed: Vec<&str> = Vec::with_capacity(100);
        borrowed.push(&text);
        let memory = borrowed.as_ptr().cast::<u8>();
        let emptied: Vec<&'static str> = emptied(borrowed);
        assert!(emptied.is_empty());
        assert_eq!((emptied.capacity(), emptied.as_ptr().cast::<u8>()), (100, memory));
    }
}
