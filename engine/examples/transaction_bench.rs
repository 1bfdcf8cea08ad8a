//! What an open transaction costs the writers of its partition, and what a commit costs; in CPU, on a drive of memory.
//!
//! `cargo run --release -p lode-engine --example transaction_bench -- 100000`
//!
//! It overwrites so many records of 100 bytes, 64 puts a step, by turns with no transaction open, with one on
//! another partition, with one on theirs (each key is remembered), and once more with the same one (each key is
//! known), five rounds of each, and gives the middle one. Then commits, of transactions that have read one key, and
//! all of the partition while a hundredth of it was overwritten.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use lode_engine::{
    BatchWrite, BufferId, Buffers, Completion, Condition, DriveIdentity, DriveOffset, Epoch, Geometry, Inbox,
    KeyRange, NodeId, Now, Op, Outbox, OwnerId, PartitionId, PartitionSpec, Phase, Placement, Quota,
    ReplyBody, Request, RequestBody, RequestId, Shard, ShardConfig, ShardId, StoreKind, TableId, TableSpec,
    Target, TransactionId, TransactionRead, Ttl, WriteError, format_drive,
};

const UUID: [u8; 16] = [7; 16];
const PUTS_PER_STEP: u64 = 64;
const ROUNDS: usize = 5;
const MIXED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Buffers of plain memory.
#[derive(Default)]
struct Heap {
    buffers: Vec<Vec<u8>>,
    free: Vec<BufferId>,
}

impl Buffers for Heap {
    fn acquire(&mut self, len: usize) -> Option<BufferId> {
        let id = self.free.pop().unwrap_or_else(|| {
            self.buffers.push(Vec::new());
            BufferId(self.buffers.len() as u32 - 1)
        });
        self.buffers[id.0 as usize].resize(len, 0);
        Some(id)
    }
    fn release(&mut self, buffer: BufferId) {
        self.free.push(buffer);
    }
    fn bytes(&self, buffer: BufferId) -> &[u8] {
        &self.buffers[buffer.0 as usize]
    }
    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        &mut self.buffers[buffer.0 as usize]
    }
}

struct Bench {
    shard: Shard,
    drive: Vec<u8>,
    heap: Heap,
    now_ns: u64,
    completions: Vec<Completion>,
    replies: Vec<ReplyBody>,
    /// Spent in the shard alone.
    step_ns: u64,
}

impl Bench {
    fn new() -> Bench {
        let geometry = Geometry::plan(1 << 30, 1, Some(8 << 20), 1 << 16).expect("large enough");
        let mut drive = vec![0; geometry.drive_bytes as usize];
        for (DriveOffset(at), block) in
            format_drive(&geometry, DriveIdentity { uuid: UUID, created_wall_ns: 1 })
        {
            drive[at as usize..at as usize + block.len()].copy_from_slice(&block);
        }
        let mut config = ShardConfig::new(geometry, UUID, ShardId(0), NodeId(1));
        config.memory_bytes = u64::MAX;
        // All that is overwritten is to be remembered.
        config.max_transaction_bytes = usize::MAX;
        let (heap, completions, replies) = (Heap::default(), Vec::new(), Vec::new());
        let shard = Shard::new(config);
        let mut bench = Bench { shard, drive, heap, now_ns: 1 << 60, completions, replies, step_ns: 0 };
        while *bench.shard.phase() == Phase::Recovering {
            bench.step(Vec::new());
        }
        bench
    }

    fn step(&mut self, requests: Vec<Request<'_>>) {
        self.now_ns += 100_000;
        let mut inbox =
            Inbox { requests, completions: std::mem::take(&mut self.completions), ..Inbox::default() };
        let mut outbox = Outbox::default();
        let now = Now { monotonic_ns: self.now_ns, wall_ns: self.now_ns };
        let begun = Instant::now();
        self.shard.step(now, &mut inbox, &mut outbox, &mut self.heap);
        self.step_ns += begun.elapsed().as_nanos() as u64;
        for op in outbox.ops {
            let token = match op {
                Op::Read { token, buffer, at, len } => {
                    let from = &self.drive[at.0 as usize..][..len as usize];
                    self.heap.bytes_mut(buffer)[..len as usize].copy_from_slice(from);
                    token
                }
                Op::Write { token, buffer, at, len, .. } => {
                    let to = &mut self.drive[at.0 as usize..][..len as usize];
                    to.copy_from_slice(&self.heap.bytes(buffer)[..len as usize]);
                    token
                }
                Op::Flush { token } | Op::Discard { token, .. } => token,
            };
            self.completions.push(Completion { token, result: Ok(()) });
        }
        self.replies.extend(outbox.replies.into_iter().map(|reply| reply.body));
    }

    /// All of these, and until they are answered.
    fn ask(&mut self, requests: Vec<Request<'_>>) -> Vec<ReplyBody> {
        let count = requests.len();
        self.step(requests);
        while self.replies.len() < count {
            self.step(Vec::new());
        }
        std::mem::take(&mut self.replies)
    }

    fn ask_one(&mut self, body: RequestBody<'_>) -> ReplyBody {
        self.ask(vec![Request { id: RequestId(0), body }]).remove(0)
    }

    fn create(&mut self, number: u32) {
        let (id, table, epoch) = (PartitionId(number), TableId(number), Epoch(1));
        let spec = TableSpec {
            id: table,
            name: format!("t{number}"),
            store: StoreKind::Durable,
            placement: Placement::Range,
            ttl_ms: None,
            quota: Quota::default(),
            index: lode_engine::IndexKind::Full,
        };
        let partitions = vec![PartitionSpec { id, table, epoch, start: Vec::new(), end: None }];
        let made = self.ask_one(RequestBody::CreateTable { table: spec, partitions });
        assert!(matches!(made, ReplyBody::Catalog(Ok(()))), "{made:?}");
    }

    /// Writes keys `from..to` of partition 1; gives nanoseconds for each.
    fn put(&mut self, from: u64, to: u64) -> u64 {
        let begun_ns = self.step_ns;
        for first in (from..to).step_by(PUTS_PER_STEP as usize) {
            let keys: Vec<_> = (first..to.min(first + PUTS_PER_STEP)).map(key).collect();
            let (condition, ttl) = (Condition::Always, Ttl::Never);
            let put = |key| RequestBody::Put { target: target(1), key, value: &[7; 100], condition, ttl };
            let requests =
                keys.iter().zip(0..).map(|(key, id)| Request { id: RequestId(id), body: put(key) });
            let replies = self.ask(requests.collect());
            assert!(replies.iter().all(|reply| matches!(reply, ReplyBody::Write(Ok(_)))), "a put failed");
        }
        (self.step_ns - begun_ns) / (to - from)
    }

    fn begin(&mut self, partition: u32) -> TransactionId {
        let (target, owner) = (target(partition), OwnerId(1));
        let begun = self.ask_one(RequestBody::Begin { target, owner, read_only: false, lifetime_ms: 60_000 });
        let ReplyBody::Begin(Ok(transaction)) = begun else { panic!("{begun:?}") };
        transaction
    }

    fn end(&mut self, partition: u32, transaction: TransactionId) {
        self.ask_one(RequestBody::Rollback { target: target(partition), transaction });
        while self.shard.has_work() {
            self.step(Vec::new());
        }
    }

    /// Nanoseconds from the commit's arrival until it is decided, without its write.
    fn commit(&mut self, transaction: TransactionId) -> (u64, Result<(), WriteError>) {
        let writes = vec![BatchWrite::Put { key: b"committed", value: b"v" }];
        let begun_ns = self.step_ns;
        let id = RequestId(0);
        self.step(vec![Request { id, body: RequestBody::Commit { target: target(1), transaction, writes } }]);
        let took_ns = self.step_ns - begun_ns;
        while self.replies.is_empty() {
            self.step(Vec::new());
        }
        let ReplyBody::Write(written) = self.replies.remove(0) else { panic!("no answer to a commit") };
        (took_ns, written.map(drop))
    }
}

fn target(partition: u32) -> Target {
    Target { partition: PartitionId(partition), epoch: Epoch(1) }
}

fn key(i: u64) -> Vec<u8> {
    format!("{:020}", i.wrapping_mul(MIXED)).into_bytes()
}

fn middle(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

fn writers(bench: &mut Bench, records: u64) {
    let (mut none, mut elsewhere, mut first, mut again) = (vec![], vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        none.push(bench.put(0, records));
        let other = bench.begin(2);
        elsewhere.push(bench.put(0, records));
        bench.end(2, other);
        let open = bench.begin(1);
        first.push(bench.put(0, records));
        bytes = bench.shard.stats().transaction_bytes / records;
        again.push(bench.put(0, records));
        bench.end(1, open);
    }
    println!("a put: {} ns with no transaction open, {} ns", middle(none), middle(elsewhere));
    println!("  with one on another partition, {} ns with one on this ({bytes} B", middle(first));
    println!("  each are remembered), {} ns where the key is known already", middle(again));
}

fn commits(bench: &mut Bench, records: u64) {
    let (mut of_key, mut of_range) = (vec![], vec![]);
    for _ in 0..ROUNDS * 20 {
        let (transaction, key) = (bench.begin(1), key(1));
        let read = TransactionRead::Get { key: &key };
        let seen = bench.ask_one(RequestBody::Within { target: target(1), transaction, read });
        if let ReplyBody::Get(Ok(Some(found))) = seen
            && let lode_engine::Payload::Buffer { buffer, .. } = found.value
        {
            bench.heap.release(buffer);
        }
        let (took_ns, committed) = bench.commit(transaction);
        assert_eq!(committed, Ok(()));
        of_key.push(took_ns);
    }
    for _ in 0..ROUNDS {
        let transaction = bench.begin(1);
        // Below all keys, so that what is overwritten is looked through only where it was read.
        let read = TransactionRead::Count { range: KeyRange { start: b"", end: Some(b"x") } };
        bench.ask_one(RequestBody::Within { target: target(1), transaction, read });
        // New keys that come and go: all are looked through, and none is a conflict.
        let keys: Vec<_> = (records..records + records / 100).map(key).collect();
        for keys in keys.chunks(PUTS_PER_STEP as usize) {
            let (condition, ttl) = (Condition::Always, Ttl::Never);
            let put = |key| RequestBody::Put { target: target(1), key, value: b"v", condition, ttl };
            let delete = |key| RequestBody::Delete { target: target(1), key, condition };
            bench.ask(keys.iter().map(|key| Request { id: RequestId(0), body: put(key) }).collect());
            bench.ask(keys.iter().map(|key| Request { id: RequestId(0), body: delete(key) }).collect());
        }
        let (took_ns, committed) = bench.commit(transaction);
        assert_eq!(committed, Ok(()));
        of_range.push(took_ns);
    }
    let changes = records / 100;
    println!("a commit that has read one key: {} ns", middle(of_key));
    println!("a commit that has read all, with {changes} keys changed: {} us", middle(of_range) / 1000);
}

fn main() {
    let records = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("a number of records"));
    let mut bench = Bench::new();
    bench.create(1);
    bench.create(2);
    bench.put(0, records);
    writers(&mut bench, records);
    commits(&mut bench, records);
}
