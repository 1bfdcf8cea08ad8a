//! A simulated node: the reactors of its shards, the mailboxes between them, and its control thread, in step with them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lode_engine::{Geometry, NodeId, Now, OpenError, Shard, ShardConfig, ShardId};
use lode_net::ring::Waker;
use lode_net::wire::control::{CreateTable, NodeLimits, Placement, ShardAddress, Store};
use lode_net::wire::server::{ConnectionLimits, NodeInfo};
use lode_node::access::{Addresses, ClientLimits};
use lode_node::control::{ControlEvent, ControlSender, RecoverError};
use lode_node::drive::Flushes;
use lode_node::io_limits::IoLimits;
use lode_node::mailbox::{Mailbox, NodeMap};
use lode_node::reactor::{Held, Reactor, ReactorConfig};
use lode_node::slow::{SlowEntry, SlowLog};

use super::control::SimControl;
use super::io::SimIo;
use super::plan::Plan;

/// The drive's identity, in every run.
pub const UUID: [u8; 16] = [0x4c; 16];
/// The tables, by the first letter of their keys.
const TABLES: [SimTable; 4] = [
    SimTable { letter: b'p', name: "kept", store: Store::Durable, expires: false },
    SimTable { letter: b't', name: "brief", store: Store::Durable, expires: true },
    SimTable { letter: b'm', name: "memory", store: Store::Memory, expires: false },
    SimTable { letter: b'c', name: "comes and goes", store: Store::Durable, expires: false },
];
/// The one whose records expire.
pub const BRIEF: usize = 1;
/// The one that is kept in memory.
pub const MEMORY: usize = 2;
/// The last of them is made and dropped while clients work.
pub const CHURNED: usize = 3;
/// Partitions of all tables but the first.
pub const FEW_PARTITIONS: u32 = 2;
/// The partition that has a quota.
pub const QUOTA_PARTITION: u32 = 1;
/// How much of its quota may be taken at once.
pub const BURST_MS: u32 = 500;
const PARTIAL_BYTES: usize = 4 << 20;
const REPLY_BYTES: usize = 8 << 20;
const MAX_CONNECTIONS: usize = 64;
/// Requests that take this long are slow.
pub const SLOW_REQUEST: Duration = Duration::from_millis(2);
/// How long a shard takes at most from news to its turn, and from one turn to the next.
const TURN_NS: u64 = 20_000;

/// One table.
#[derive(Clone, Copy)]
struct SimTable {
    /// The first letter of its keys.
    letter: u8,
    name: &'static str,
    store: Store,
    /// Whether its records expire.
    expires: bool,
}

/// The first bytes of the keys of a partition of a node that has so many of the first table; its range goes on to the
/// next one's.
pub fn prefix_of(partition: u32, of_first: u32) -> Vec<u8> {
    let (table, place) = place_of(partition, of_first);
    format!("{}{place:02}/", char::from(TABLES[table].letter)).into_bytes()
}

/// The partition that a key is of.
pub fn partition_of(key: &[u8], of_first: u32) -> u32 {
    let digits = key.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
    let place: u32 = digits.and_then(|digits| digits.parse().ok()).expect("keys begin with their partition");
    match TABLES.iter().position(|table| table.letter == key[0]).expect("keys begin with their table") as u32
    {
        0 => place,
        table => of_first + (table - 1) * FEW_PARTITIONS + place,
    }
}

/// The name of the table that a key is of.
pub fn table_of(key: &[u8]) -> &'static str {
    TABLES.iter().find(|table| table.letter == key[0]).expect("keys begin with their table").name
}

/// Whether the records of a key's table are gone when the node ends.
pub fn is_in_memory(key: &[u8]) -> bool {
    TABLES.iter().any(|table| table.letter == key[0] && table.store == Store::Memory)
}

/// Whether the records of a key's table expire.
pub fn does_expire(key: &[u8]) -> bool {
    TABLES.iter().any(|table| table.letter == key[0] && table.expires)
}

/// How many of its tables there are.
pub const fn table_count() -> usize {
    TABLES.len()
}

/// The shard of a partition: control deals those of each table in turn, from another shard on for each table.
pub fn shard_of(partition: u32, plan: &Plan) -> u16 {
    let (table, place) = place_of(partition, plan.partitions);
    ((place + table as u32 + 1) % u32::from(plan.shards)) as u16
}

/// What a partition is of, and the how manieth of that.
fn place_of(partition: u32, of_first: u32) -> (usize, u32) {
    match partition.checked_sub(of_first) {
        None => (0, partition),
        Some(beyond) => (1 + (beyond / FEW_PARTITIONS) as usize, beyond % FEW_PARTITIONS),
    }
}

/// A table as it is asked for: its ranges begin with the keys of its partitions.
pub fn table_request(table: usize, plan: &Plan) -> (CreateTable, Option<u64>) {
    let SimTable { name, store, expires, .. } = TABLES[table];
    let first = if table == 0 { 0 } else { plan.partitions + (table as u32 - 1) * FEW_PARTITIONS };
    let count = if table == 0 { plan.partitions } else { FEW_PARTITIONS };
    let splits = (first + 1..first + count).map(|partition| prefix_of(partition, plan.partitions));
    let placement = Placement::Range { splits: splits.collect() };
    let store = if plan.is_compact && store == Store::Durable { Store::Compact } else { store };
    (CreateTable { name: name.into(), store, placement }, expires.then_some(plan.ttl_ms))
}

/// What a table is called.
pub fn name_of(table: usize) -> &'static str {
    TABLES[table].name
}

/// Whether a key is of the table that comes and goes.
pub fn is_churned(key: &[u8]) -> bool {
    key[0] == TABLES[CHURNED].letter
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Shards read their parts of the drive, and are brought together.
    Recovering,
    /// Connections are taken.
    Serving,
    /// A shard could not be opened.
    Failed,
    /// A shard could not be opened for damage.
    Damaged,
}

/// One life of the node, from its start to its crash.
pub struct SimNode {
    /// Which life; never 0.
    pub run: u64,
    shards: Vec<ShardThread>,
    mailboxes: Arc<[Mailbox]>,
    control: Receiver<ControlEvent>,
    thread: SimControl,
    slow: Arc<SlowLog>,
    stage: Stage,
    may_be_damaged: bool,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug)]
pub struct SimHeld {
    /// See `Held`.
    pub pending: u64,
    /// See there.
    pub queued: u64,
    /// See there.
    pub queued_bytes: u64,
    /// See there.
    pub partial_bytes: u64,
    /// See there.
    pub reply_bytes: u64,
    /// Bytes of buffers that are in use.
    pub buffer_bytes: u64,
    /// Whether mail waits.
    pub mail: u64,
}

struct ShardThread {
    reactor: Reactor<SimIo>,
    turn_at_ns: u64,
}

impl SimNode {
    /// Starts on the drive as it is.
    pub fn start(plan: &Plan, geometry: Geometry, run: u64, now_ns: u64) -> SimNode {
        let mailbox = |_| Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
        let mailboxes: Arc<[Mailbox]> = (0..plan.shards).map(mailbox).collect();
        let (events_in, control) = channel();
        let sender = ControlSender::new(events_in);
        let connections = Arc::new(AtomicUsize::new(0));
        let slow = Arc::new(SlowLog::new(SLOW_REQUEST, plan.shards));
        let flushes = Arc::new(Flushes::new(plan.shards));
        let shards = (0..plan.shards).map(|shard| {
            let config = ReactorConfig {
                shard: ShardId(shard),
                mailboxes: Arc::clone(&mailboxes),
                control: sender.clone(),
                limits: ConnectionLimits::default(),
                max_connections: MAX_CONNECTIONS,
                connections: Arc::clone(&connections),
                max_partial_bytes: PARTIAL_BYTES,
                max_reply_bytes: REPLY_BYTES,
                writes_need_flush: true,
                flushes: Arc::clone(&flushes),
                io: IoLimits::default(),
                map: Arc::new(NodeMap::empty()),
                addresses: Arc::new(Addresses::new(ClientLimits::default())),
                slow: Arc::clone(&slow),
            };
            let engine = Shard::new(shard_config(plan, geometry, shard));
            ShardThread { reactor: Reactor::new(config, SimIo::new(), engine), turn_at_ns: now_ns }
        });
        let shards: Vec<ShardThread> = shards.collect();
        let addresses = (0..plan.shards).map(|shard| ShardAddress { shard, port: shard });
        let node = NodeInfo {
            name: "simulated".into(),
            incarnation: run,
            shards: addresses.collect(),
            limits: NodeLimits::default(),
        };
        let listeners = shards.iter().map(|_| Vec::new()).collect();
        let thread = SimControl::start(Arc::clone(&mailboxes), sender, node, listeners);
        let (stage, may_be_damaged) = (Stage::Recovering, plan.has_damage());
        SimNode { run, shards, mailboxes, control, thread, slow, stage, may_be_damaged }
    }

    /// The requests that took long, the latest first.
    pub fn slow(&self) -> Vec<SlowEntry> {
        self.slow.entries()
    }

    /// Whether connections are taken.
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Whether a shard says that its part of the drive is too damaged to be opened.
    pub fn is_damaged(&self) -> bool {
        self.stage == Stage::Damaged
    }

    /// The drive and the sockets of a shard.
    pub fn io(&mut self, shard: u16) -> &mut SimIo {
        self.shards[usize::from(shard)].reactor.io_mut()
    }

    /// A shard's engine.
    pub fn engine(&self, shard: u16) -> &Shard {
        self.shards[usize::from(shard)].reactor.engine()
    }

    /// What a shard holds for clients that wait.
    pub fn held(&self, shard: u16) -> SimHeld {
        let ShardThread { reactor, .. } = &self.shards[usize::from(shard)];
        let Held { pending, queued, queued_bytes, partial_bytes, reply_bytes } = reactor.held();
        let mail = u64::from(!self.mailboxes[usize::from(shard)].is_empty());
        let buffer_bytes = reactor.io().used_bytes() as u64;
        SimHeld { pending, queued, queued_bytes, partial_bytes, reply_bytes, buffer_bytes, mail }
    }

    /// When the next turn of any shard is, and whose; or when the control thread goes on.
    pub fn next_turn(&self) -> (u64, u16) {
        let turns = self.shards.iter().enumerate().map(|(shard, thread)| (thread.turn_at_ns, shard as u16));
        let (turn_ns, shard) = turns.min().expect("a node has shards");
        // With any shard's turn comes that of the control thread.
        (turn_ns.min(self.thread.wake_ns().unwrap_or(u64::MAX)), shard)
    }

    /// There is news for a shard: its turn comes soon.
    pub fn wake(&mut self, shard: u16, now_ns: u64, delay_ns: u64) {
        let at = &mut self.shards[usize::from(shard)].turn_at_ns;
        *at = (*at).min(now_ns + delay_ns % TURN_NS);
    }

    /// One turn of a shard, and what it means for the others.
    pub fn turn(&mut self, shard: u16, now: Now, delay_ns: u64) {
        let now_ns = now.monotonic_ns;
        let thread = &mut self.shards[usize::from(shard)];
        thread.reactor.turn(now);
        let soon_ns = now_ns + 1 + delay_ns % TURN_NS;
        let is_busy = thread.reactor.has_more() || thread.reactor.io_mut().is_ready();
        let sleep_ns = thread.reactor.longest_sleep(now_ns).as_nanos() as u64;
        thread.turn_at_ns = if is_busy { soon_ns } else { now_ns + sleep_ns.max(1) };
        self.control(now_ns);
        for (other, mailbox) in self.mailboxes.iter().enumerate() {
            if !mailbox.is_empty() {
                let at = &mut self.shards[other].turn_at_ns;
                *at = (*at).min(soon_ns);
            }
        }
    }

    /// What the control thread does.
    fn control(&mut self, now_ns: u64) {
        while let Ok(event) = self.control.try_recv() {
            self.thread.tell(event);
        }
        self.thread.run(now_ns);
        self.stage = match self.thread.started() {
            None => return,
            Some(Ok(())) => Stage::Serving,
            // Of a write that the drive has failed: whoever runs the node starts it again.
            Some(Err(RecoverError::Shard { error: OpenError::Device { .. }, .. })) => Stage::Failed,
            Some(Err(RecoverError::Shard {
                error:
                    OpenError::RootDamaged
                    | OpenError::CatalogDamaged
                    | OpenError::DirectoryDamaged
                    | OpenError::NoSuperblock,
                ..
            })) if self.may_be_damaged => Stage::Damaged,
            Some(Err(error)) => panic!("the node does not come up: {error}"),
        };
    }
}

fn shard_config(plan: &Plan, geometry: Geometry, shard: u16) -> ShardConfig {
    let mut config = ShardConfig::new(geometry, UUID, ShardId(shard), NodeId(1));
    config.cache_bytes = plan.cache_bytes;
    config.memory_bytes = plan.memory_bytes;
    config.frame_bytes = plan.frame_bytes;
    config.frames_in_flight = plan.frames_in_flight;
    config.commit_window_ns = plan.commit_window_ns;
    config.checkpoint_interval_bytes = plan.checkpoint_interval_bytes;
    config.discard = plan.discard;
    config.scrub_bytes_per_s = plan.scrub_bytes_per_s;
    config
}
