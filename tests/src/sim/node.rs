//! A simulated node: the reactors of its shards, the mailboxes between them, and as much of the control thread as brings
//! the node up: it sends what that would send, and makes no tables once the node serves.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};

use lode_engine::{
    Epoch, Geometry, IndexKind, NodeId, Now, OpenError, PartitionId, PartitionSpec, Placement, Quota,
    RequestBody, Shard, ShardConfig, ShardId, StoreKind, TableId, TableSpec,
};
use lode_net::ring::Waker;
use lode_net::wire::control::{
    MapBody, MapPartition, MapTable, NodeLimits, PlacementKind, ShardAddress, Store,
};
use lode_net::wire::server::{ConnectionLimits, NodeInfo};
use lode_node::control::{ControlEvent, ControlSender, ShardReply};
use lode_node::mailbox::{JobId, Mail, Mailbox, NodeMap};
use lode_node::reactor::{Held, Reactor, ReactorConfig};

use super::io::SimIo;
use super::plan::Plan;

/// The drive's identity, in every run.
pub const UUID: [u8; 16] = [0x4c; 16];
/// The tables, by the first letter of their keys.
const TABLES: [SimTable; 3] = [
    SimTable { letter: b'p', name: "kept", store: StoreKind::Durable, expires: false },
    SimTable { letter: b't', name: "brief", store: StoreKind::Durable, expires: true },
    SimTable { letter: b'm', name: "memory", store: StoreKind::Memory, expires: false },
];
/// Partitions of the second table and of the third.
pub const FEW_PARTITIONS: u32 = 2;
/// The partition that has a quota.
pub const QUOTA_PARTITION: u32 = 1;
/// How much of its quota may be taken at once.
pub const BURST_MS: u32 = 500;
const PARTIAL_BYTES: usize = 4 << 20;
const REPLY_BYTES: usize = 8 << 20;
const MAX_CONNECTIONS: usize = 64;
/// How long a shard takes at most from news to its turn, and from one turn to the next.
const TURN_NS: u64 = 20_000;

/// One table.
struct SimTable {
    /// The first letter of its keys.
    letter: u8,
    name: &'static str,
    store: StoreKind,
    /// Whether its records expire.
    expires: bool,
}

/// The first bytes of the keys of a partition of a node that has so many of the first table; its range goes on to the
/// next one's.
pub fn prefix_of(partition: u32, of_first: u32) -> Vec<u8> {
    let (table, place) = match partition.checked_sub(of_first) {
        None => (0, partition),
        Some(beyond) => (1 + beyond / FEW_PARTITIONS, beyond % FEW_PARTITIONS),
    };
    format!("{}{place:02}/", char::from(TABLES[table as usize].letter)).into_bytes()
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
    TABLES.iter().any(|table| table.letter == key[0] && table.store == StoreKind::Memory)
}

/// Whether the records of a key's table expire.
pub fn does_expire(key: &[u8]) -> bool {
    TABLES.iter().any(|table| table.letter == key[0] && table.expires)
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many shards have still to read their parts of the drive.
    Recovering(usize),
    /// So many shards have still to make the table: only on a new drive.
    Creating(usize),
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
    stage: Stage,
    is_new: bool,
    may_be_damaged: bool,
    /// Of the first table.
    partitions: u32,
    is_compact: bool,
    ttl_ms: u64,
    quota_per_s: u64,
    /// Answers of shards that have still to come before the next table is made.
    next_table: usize,
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
    pub fn start(plan: &Plan, geometry: Geometry, run: u64, is_new: bool, now_ns: u64) -> SimNode {
        let mailbox = |_| Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
        let mailboxes: Arc<[Mailbox]> = (0..plan.shards).map(mailbox).collect();
        let (events_in, control) = channel();
        let sender = ControlSender::new(events_in);
        let connections = Arc::new(AtomicUsize::new(0));
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
                map: Arc::new(NodeMap::empty()),
            };
            let engine = Shard::new(shard_config(plan, geometry, shard));
            ShardThread { reactor: Reactor::new(config, SimIo::new(), engine), turn_at_ns: now_ns }
        });
        let shards = shards.collect::<Vec<_>>();
        let stage = Stage::Recovering(shards.len());
        SimNode {
            run,
            shards,
            mailboxes,
            control,
            stage,
            is_new,
            may_be_damaged: plan.has_damage(),
            partitions: plan.partitions,
            is_compact: plan.is_compact,
            ttl_ms: plan.ttl_ms,
            quota_per_s: plan.quota_per_s,
            next_table: 0,
        }
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

    /// When the next turn of any shard is, and whose.
    pub fn next_turn(&self) -> (u64, u16) {
        let turns = self.shards.iter().enumerate().map(|(shard, thread)| (thread.turn_at_ns, shard as u16));
        turns.min().expect("a node has shards")
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

    /// What the control thread would do.
    fn control(&mut self, now_ns: u64) {
        while let Ok(event) = self.control.try_recv() {
            match event {
                ControlEvent::Recovered { shard, outcome, .. } => {
                    match outcome {
                        Ok(()) => self.one_done(now_ns),
                        // Of a write that the drive has failed: whoever runs the node starts it again.
                        Err(OpenError::Device { .. }) => self.stage = Stage::Failed,
                        Err(
                            OpenError::RootDamaged
                            | OpenError::CatalogDamaged
                            | OpenError::DirectoryDamaged
                            | OpenError::NoSuperblock,
                        ) if self.may_be_damaged => self.stage = Stage::Damaged,
                        Err(error) => panic!("shard {shard} cannot be opened: {error}"),
                    }
                }
                ControlEvent::Reply { reply: ShardReply::Catalog(result), shard, .. } => {
                    result.unwrap_or_else(|error| panic!("shard {shard} cannot make the table: {error}"));
                    self.one_done(now_ns);
                }
                other => panic!("nobody asks the control thread: {other:?}"),
            }
        }
    }

    fn one_done(&mut self, now_ns: u64) {
        self.stage = match self.stage {
            Stage::Recovering(left @ 2..) => Stage::Recovering(left - 1),
            Stage::Creating(left @ 2..) => Stage::Creating(left - 1),
            Stage::Recovering(_) | Stage::Creating(_) if self.is_new && self.next_table < TABLES.len() => {
                self.create(self.next_table);
                self.next_table += 1;
                Stage::Creating(self.shards.len())
            }
            Stage::Recovering(_) | Stage::Creating(_) => {
                self.publish();
                Stage::Serving
            }
            Stage::Failed => Stage::Failed,
            Stage::Damaged => Stage::Damaged,
            Stage::Serving => unreachable!("everything was done before"),
        };
        for shard in &mut self.shards {
            shard.turn_at_ns = shard.turn_at_ns.min(now_ns + 1);
        }
    }

    fn post(&self, shard: u16, mail: Mail) {
        let posted = self.mailboxes[usize::from(shard)].post(mail);
        posted.unwrap_or_else(|_| panic!("the mailbox of shard {shard} is full before it serves"));
    }

    fn create(&self, table: usize) {
        for shard in 0..self.shards.len() as u16 {
            let of_shard = self.partitions_of(table).filter(|p| self.shard_of(*p) == shard);
            let partitions = of_shard.map(|partition| self.partition_spec(table, partition)).collect();
            let body = RequestBody::CreateTable { table: self.table_spec(table), partitions };
            self.post(shard, Mail::Command { job: JobId(1), body });
        }
    }

    fn publish(&self) {
        let requests_per_s = self.quota_per_s;
        let limited = Quota { requests_per_s, burst_ms: BURST_MS, ..Quota::default() };
        let quota_of = |partition: lode_net::wire::PartitionId| {
            if partition.0 == QUOTA_PARTITION + 1 { limited } else { Quota::default() }
        };
        let map = Arc::new(NodeMap::new(NodeMap::publish(self.map_body()), quota_of));
        let shards = 0..self.shards.len() as u16;
        let node = Arc::new(NodeInfo {
            name: "simulated".into(),
            incarnation: self.run,
            shards: shards.clone().map(|shard| ShardAddress { shard, port: shard }).collect(),
            limits: NodeLimits::default(),
        });
        for shard in shards {
            self.post(shard, Mail::Map(Arc::clone(&map)));
            self.post(shard, Mail::Serve { node: Arc::clone(&node), listeners: Vec::new() });
        }
    }

    fn shard_of(&self, partition: u32) -> u16 {
        (partition % self.shards.len() as u32) as u16
    }

    /// The partitions of a table.
    fn partitions_of(&self, table: usize) -> Range<u32> {
        let few = |table: usize| self.partitions + table as u32 * FEW_PARTITIONS;
        if table == 0 { 0..self.partitions } else { few(table - 1)..few(table) }
    }

    /// First key, and first key beyond; the first and the last partition go on to the end.
    fn range(&self, table: usize, partition: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        let all = self.partitions_of(table);
        let prefix = |partition| prefix_of(partition, self.partitions);
        let start = if partition == all.start { Vec::new() } else { prefix(partition) };
        (start, (partition + 1 < all.end).then(|| prefix(partition + 1)))
    }

    fn partition_spec(&self, table: usize, partition: u32) -> PartitionSpec {
        let (start, end) = self.range(table, partition);
        PartitionSpec {
            id: PartitionId(partition + 1),
            table: TableId(table as u32 + 1),
            epoch: Epoch(1),
            start,
            end,
        }
    }

    fn map_body(&self) -> MapBody {
        let mut body = MapBody { version: 1, ..MapBody::default() };
        for (place, SimTable { name, store, .. }) in TABLES.iter().enumerate() {
            let table = place as u32 + 1;
            let store = match store {
                StoreKind::Memory => Store::Memory,
                StoreKind::Durable if self.is_compact => Store::Compact,
                StoreKind::Durable => Store::Durable,
            };
            let placement = PlacementKind::Range;
            body.tables.push(MapTable { id: table, name: (*name).into(), store, placement });
            body.partitions.extend(self.partitions_of(place).map(|partition| {
                let (start, end) = self.range(place, partition);
                let (id, shard) = (partition + 1, self.shard_of(partition));
                MapPartition { id, table, epoch: 1, shard, start, end }
            }));
        }
        body
    }

    fn table_spec(&self, table: usize) -> TableSpec {
        let SimTable { name, store, expires, .. } = TABLES[table];
        let is_compact = self.is_compact && store == StoreKind::Durable;
        TableSpec {
            id: TableId(table as u32 + 1),
            name: name.into(),
            store,
            placement: Placement::Range,
            ttl_ms: expires.then_some(self.ttl_ms),
            index: if is_compact { IndexKind::Compact } else { IndexKind::Full },
            quota: Quota::default(),
        }
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
