//! A simulated node: the reactors of its shards, the mailboxes between them, and as much of the control thread as brings
//! the node up.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};

use lode_engine::{
    Epoch, Geometry, NodeId, Now, OpenError, PartitionId, PartitionSpec, Placement, Quota, RequestBody,
    Shard, ShardConfig, ShardId, StoreKind, TableId, TableSpec,
};
use lode_net::ring::Waker;
use lode_net::wire::control::{
    MapBody, MapPartition, MapTable, NodeLimits, PlacementKind, ShardAddress, Store,
};
use lode_net::wire::server::{ConnectionLimits, NodeInfo};
use lode_node::control::{ControlEvent, ControlSender, ShardReply};
use lode_node::mailbox::{JobId, Mail, Mailbox, NodeMap};
use lode_node::reactor::{Reactor, ReactorConfig};

use super::io::SimIo;
use super::plan::Plan;

/// The drive's identity, in every run.
pub const UUID: [u8; 16] = [0x4c; 16];
/// The one table.
pub const TABLE: &str = "kv";
const TABLE_ID: u32 = 1;
/// Memory of a shard.
const MEMORY_BYTES: u64 = 32 << 20;
const PARTIAL_BYTES: usize = 4 << 20;
const REPLY_BYTES: usize = 8 << 20;
const MAX_CONNECTIONS: usize = 64;
/// How long a shard takes at most from news to its turn, and from one turn to the next.
const TURN_NS: u64 = 20_000;

/// The first bytes of the keys of a partition; its range goes on to the next one's.
pub fn prefix_of(partition: u32) -> Vec<u8> {
    format!("p{partition:02}/").into_bytes()
}

/// The partition that a key is of.
pub fn partition_of(key: &[u8]) -> u32 {
    let digits = key.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).expect("keys begin with their partition")
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
    partitions: u32,
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
        let (may_be_damaged, partitions) = (plan.has_damage(), plan.partitions);
        SimNode { run, shards, mailboxes, control, stage, is_new, may_be_damaged, partitions }
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
            Stage::Recovering(_) if self.is_new => {
                self.create();
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

    fn create(&self) {
        for shard in 0..self.shards.len() as u16 {
            let of_shard = (0..self.partitions).filter(|p| self.shard_of(*p) == shard);
            let partitions = of_shard.map(|partition| self.partition_spec(partition)).collect();
            let body = RequestBody::CreateTable { table: table_spec(), partitions };
            self.post(shard, Mail::Command { job: JobId(1), body });
        }
    }

    fn publish(&self) {
        let map = Arc::new(NodeMap::new(NodeMap::publish(self.map_body()), |_| Quota::default()));
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

    /// First key, and first key beyond; the first and the last partition go on to the end.
    fn range(&self, partition: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        let start = if partition == 0 { Vec::new() } else { prefix_of(partition) };
        (start, (partition + 1 < self.partitions).then(|| prefix_of(partition + 1)))
    }

    fn partition_spec(&self, partition: u32) -> PartitionSpec {
        let (start, end) = self.range(partition);
        PartitionSpec {
            id: PartitionId(partition + 1),
            table: TableId(TABLE_ID),
            epoch: Epoch(1),
            start,
            end,
        }
    }

    fn map_body(&self) -> MapBody {
        let table = MapTable {
            id: TABLE_ID,
            name: TABLE.into(),
            store: Store::Durable,
            placement: PlacementKind::Range,
        };
        let partitions = (0..self.partitions).map(|partition| {
            let (start, end) = self.range(partition);
            let (id, shard) = (partition + 1, self.shard_of(partition));
            MapPartition { id, table: TABLE_ID, epoch: 1, shard, start, end }
        });
        MapBody { version: 1, tables: vec![table], partitions: partitions.collect() }
    }
}

fn table_spec() -> TableSpec {
    TableSpec {
        id: TableId(TABLE_ID),
        name: TABLE.into(),
        store: StoreKind::Durable,
        placement: Placement::Range,
        ttl_ms: None,
        quota: Quota::default(),
    }
}

fn shard_config(plan: &Plan, geometry: Geometry, shard: u16) -> ShardConfig {
    let mut config = ShardConfig::new(geometry, UUID, ShardId(shard), NodeId(1));
    config.cache_bytes = plan.cache_bytes;
    config.memory_bytes = MEMORY_BYTES;
    config.frame_bytes = plan.frame_bytes;
    config.frames_in_flight = plan.frames_in_flight;
    config.commit_window_ns = plan.commit_window_ns;
    config.checkpoint_interval_bytes = plan.checkpoint_interval_bytes;
    config.discard = plan.discard;
    config.scrub_bytes_per_s = plan.scrub_bytes_per_s;
    config
}
