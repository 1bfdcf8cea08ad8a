//! A shard under a load of PUTs, on a drive of memory, in virtual time.

use std::collections::HashMap;

use lode_engine::{
    Census, Condition, DriveIdentity, Geometry, Inbox, NodeId, Now, Outbox, Phase, ReplyBody, Request,
    RequestBody, RequestId, Shard, ShardConfig, ShardId, StoreKind, Ttl, format_drive,
};

use crate::drive::{MemoryDrive, Speed};
use crate::support::UUID;
use crate::support::ask::{partition_spec, table_spec, target};
use crate::support::drive::PoolBuffers;
use crate::support::random::Random;

/// Partitions of the table.
const PARTITIONS: u32 = 16;
/// What a step costs in CPU, and what each of its requests does.
const STEP_NS: u64 = 1_000;
const REQUEST_NS: u64 = 1_000;
/// Random bytes from which values are cut.
const VALUE_POOL_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 64 << 20;
/// Between two looks at what the segments are there for.
const PUTS_PER_CENSUS: u64 = 1_000;
/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// When the next PUT comes.
#[derive(Clone, Copy)]
pub enum Arrival {
    /// So many are always under way.
    InFlight(usize),
    /// One every so many nanoseconds, whether or not earlier ones were answered.
    EveryNs(u64),
}

pub struct Load {
    pub shard: Shard,
    config: ShardConfig,
    pub drive: MemoryDrive,
    /// What the segments were there for, every so many PUTs.
    pub censuses: Vec<Census>,
    /// Nanoseconds that each PUT took from the moment it should have been sent.
    pub latencies_ns: Vec<u64>,
    buffers: PoolBuffers,
    now_ns: u64,
    next_id: u64,
    sent_ns: HashMap<RequestId, u64>,
    values: Vec<u8>,
    value_bytes: usize,
    random: Random,
}

impl Load {
    /// A fresh drive, and a shard that serves it.
    pub fn new(geometry: Geometry, value_bytes: usize, speed: Speed) -> Load {
        let mut drive = MemoryDrive::new(geometry.drive_bytes as usize, speed);
        for (at, block) in format_drive(&geometry, DriveIdentity { uuid: UUID, created_wall_ns: 1 }) {
            drive.put(at.0 as usize, &block);
        }
        let mut config = ShardConfig::new(geometry, UUID, ShardId(0), NodeId(1));
        config.cache_bytes = 0;
        config.memory_bytes = 4 << 30;
        let mut random = Random::new(1);
        let values =
            (0..VALUE_POOL_BYTES / 8 + value_bytes).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut load = Load {
            shard: Shard::new(config.clone()),
            config,
            drive,
            censuses: Vec::new(),
            latencies_ns: Vec::new(),
            buffers: PoolBuffers::new(BUFFER_BYTES),
            now_ns: 1,
            next_id: 0,
            sent_ns: HashMap::new(),
            values,
            value_bytes,
            random,
        };
        load.recover();
        let partitions = (1..=PARTITIONS).map(|id| partition_spec(1, id)).collect();
        let body = RequestBody::CreateTable { table: table_spec(1, StoreKind::Durable), partitions };
        load.step(vec![Request { id: RequestId(0), body }]);
        while load.shard.stats().partitions == 0 {
            load.wait(None);
            load.step(Vec::new());
        }
        load
    }

    /// The process was killed, and starts anew. Gives the bytes that it has read when it serves, and loads all else.
    pub fn restart(&mut self) -> u64 {
        self.settle();
        self.shard = Shard::new(self.config.clone());
        self.recover();
        let read_bytes = self.shard.stats().recovery_read_bytes;
        self.settle();
        read_bytes
    }

    fn recover(&mut self) {
        while *self.shard.phase() == Phase::Recovering {
            self.step(Vec::new());
            if *self.shard.phase() == Phase::Recovering {
                self.wait(None);
            }
        }
        assert_eq!(*self.shard.phase(), Phase::Serving, "the drive is whole");
    }

    /// PUTs these records, and waits until all are answered.
    pub fn put(&mut self, arrival: Arrival, records: impl IntoIterator<Item = u32>) {
        let mut records = records.into_iter().peekable();
        let mut due_ns = self.now_ns;
        let mut batch: Vec<([u8; KEY_BYTES], u32, usize)> = Vec::new();
        loop {
            batch.clear();
            let first = self.next_id + 1;
            loop {
                let sent_ns = match arrival {
                    Arrival::InFlight(most) if self.sent_ns.len() < most => self.now_ns,
                    Arrival::EveryNs(_) if due_ns <= self.now_ns => due_ns,
                    _ => break,
                };
                let Some(record) = records.next() else { break };
                if let Arrival::EveryNs(gap_ns) = arrival {
                    due_ns += gap_ns;
                }
                self.next_id += 1;
                if self.next_id.is_multiple_of(PUTS_PER_CENSUS) {
                    self.censuses.push(self.shard.census());
                }
                self.sent_ns.insert(RequestId(self.next_id), sent_ns);
                let from = self.random.below(VALUE_POOL_BYTES as u64) as usize;
                batch.push((key(record), 1 + record % PARTITIONS, from));
            }
            let values = std::mem::take(&mut self.values);
            let mut requests = Vec::with_capacity(batch.len());
            for (i, (key, partition, from)) in batch.iter().enumerate() {
                let value = &values[*from..*from + self.value_bytes];
                let (target, condition) = (target(*partition), Condition::Always);
                let body = RequestBody::Put { target, key, value, condition, ttl: Ttl::Table };
                requests.push(Request { id: RequestId(first + i as u64), body });
            }
            self.step(requests);
            self.values = values;
            if records.peek().is_none() && self.sent_ns.is_empty() {
                break;
            }
            let next_ns = matches!(arrival, Arrival::EveryNs(_)).then_some(due_ns);
            let is_open = matches!(arrival, Arrival::InFlight(most) if self.sent_ns.len() < most);
            if !(is_open && records.peek().is_some()) {
                self.wait(next_ns.filter(|_| records.peek().is_some()));
            }
        }
    }

    /// Steps until nothing is under way.
    pub fn settle(&mut self) {
        while self.drive.next_end_ns().is_some() || self.shard.has_work() {
            self.wait(None);
            self.step(Vec::new());
        }
    }

    /// Lets time pass until something happens.
    fn wait(&mut self, next_ns: Option<u64>) {
        if self.shard.has_work() {
            return;
        }
        let times = [next_ns, self.drive.next_end_ns(), self.shard.next_wake_ns()];
        let first = times.into_iter().flatten().min();
        let stuck = || format!("{} PUTs wait for nothing: {:?}", self.sent_ns.len(), self.shard.stats());
        let first = first.unwrap_or_else(|| panic!("{}", stuck()));
        self.now_ns = self.now_ns.max(first);
    }

    fn step(&mut self, requests: Vec<Request<'_>>) {
        self.now_ns += STEP_NS + REQUEST_NS * requests.len() as u64;
        let completions = self.drive.complete(self.now_ns, &mut self.buffers);
        let mut inbox = Inbox { requests, completions, ..Inbox::default() };
        let mut outbox = Outbox::default();
        let now = Now { monotonic_ns: self.now_ns, wall_ns: self.now_ns };
        self.shard.step(now, &mut inbox, &mut outbox, &mut self.buffers);
        for op in outbox.ops {
            self.drive.start(op, self.now_ns);
        }
        for reply in outbox.replies {
            match reply.body {
                ReplyBody::Write(Ok(_)) => {
                    let sent_ns = self.sent_ns.remove(&reply.id).expect("what is answered was sent");
                    self.latencies_ns.push(self.now_ns - sent_ns);
                }
                ReplyBody::Catalog(Ok(())) => {}
                other => panic!("{other:?}: {:?}", self.shard.stats()),
            }
        }
    }
}

/// The key of a record: 16 hexadecimal digits in no order.
fn key(record: u32) -> [u8; KEY_BYTES] {
    let mixed = Random::new(u64::from(record)).next();
    std::array::from_fn(|i| b"0123456789abcdef"[(mixed >> (60 - 4 * i)) as usize & 15])
}
