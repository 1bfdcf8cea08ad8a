//! What records that expire cost: memory beside the index, and time to set and to take out.
//!
//! `cargo run --release -p lode-engine --example expiry_bench -- 1000000`
//!
//! It writes so many records with an expiry, of keys of 20 bytes and in no order, to a memory table and,
//! for comparison, as many without one; resident memory is what the process says of itself.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use lode_engine::{
    Buffers, Condition, DriveIdentity, DriveOffset, Epoch, Geometry, Inbox, NodeId, Now, Op, Outbox,
    PartitionId, PartitionSpec, Phase, Placement, Quota, ReplyBody, Request, RequestBody, RequestId, Shard,
    ShardConfig, ShardId, StoreKind, TableId, TableSpec, Target, Ttl, format_drive,
};

const UUID: [u8; 16] = [7; 16];

/// Buffers of plain memory.
#[derive(Default)]
struct Heap(Vec<Vec<u8>>, Vec<u32>);

impl Buffers for Heap {
    fn acquire(&mut self, len: usize) -> Option<lode_engine::BufferId> {
        let id = self.1.pop().unwrap_or_else(|| {
            self.0.push(Vec::new());
            self.0.len() as u32 - 1
        });
        self.0[id as usize].resize(len, 0);
        Some(lode_engine::BufferId(id))
    }
    fn release(&mut self, buffer: lode_engine::BufferId) {
        self.1.push(buffer.0);
    }
    fn bytes(&self, buffer: lode_engine::BufferId) -> &[u8] {
        &self.0[buffer.0 as usize]
    }
    fn bytes_mut(&mut self, buffer: lode_engine::BufferId) -> &mut [u8] {
        &mut self.0[buffer.0 as usize]
    }
}

struct Bench {
    shard: Shard,
    drive: Vec<u8>,
    heap: Heap,
    wall_ns: u64,
    completions: Vec<lode_engine::Completion>,
    answered: u64,
}

impl Bench {
    fn new() -> Bench {
        let geometry = Geometry::plan(64 << 20, 1, Some(1 << 20), 1 << 16).expect("large enough");
        let mut drive = vec![0; geometry.drive_bytes as usize];
        for (DriveOffset(at), block) in
            format_drive(&geometry, DriveIdentity { uuid: UUID, created_wall_ns: 1 })
        {
            drive[at as usize..at as usize + block.len()].copy_from_slice(&block);
        }
        let mut config = ShardConfig::new(geometry, UUID, ShardId(0), NodeId(1));
        config.memory_bytes = u64::MAX;
        let shard = Shard::new(config);
        let (heap, completions) = (Heap::default(), Vec::new());
        let mut bench = Bench { shard, drive, heap, wall_ns: 1 << 60, completions, answered: 0 };
        while *bench.shard.phase() == Phase::Recovering {
            bench.step(Vec::new());
        }
        bench
    }

    fn step(&mut self, requests: Vec<Request<'_>>) {
        let mut inbox =
            Inbox { requests, completions: std::mem::take(&mut self.completions), ..Inbox::default() };
        let mut outbox = Outbox::default();
        let now = Now { monotonic_ns: self.wall_ns, wall_ns: self.wall_ns };
        self.shard.step(now, &mut inbox, &mut outbox, &mut self.heap);
        for op in outbox.ops {
            let token = match op {
                Op::Read { token, buffer, at, len } => {
                    let from = &self.drive[at.0 as usize..][..len as usize];
                    self.heap.bytes_mut(buffer)[..len as usize].copy_from_slice(from);
                    token
                }
                Op::Write { token, buffer, at, len, .. } => {
                    self.drive[at.0 as usize..][..len as usize]
                        .copy_from_slice(&self.heap.bytes(buffer)[..len as usize]);
                    token
                }
                Op::Flush { token } | Op::Discard { token, .. } => token,
            };
            self.completions.push(lode_engine::Completion { token, result: Ok(()) });
        }
        for reply in outbox.replies {
            match reply.body {
                ReplyBody::Write(Ok(_)) | ReplyBody::Catalog(Ok(())) => self.answered += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn create(&mut self, table: u32) {
        let spec = TableSpec {
            id: TableId(table),
            name: format!("t{table}"),
            store: StoreKind::Memory,
            placement: Placement::Range,
            ttl_ms: None,
            quota: Quota::default(),
            index: lode_engine::IndexKind::Full,
        };
        let (id, table, epoch) = (PartitionId(table), TableId(table), Epoch(1));
        let partitions = vec![PartitionSpec { id, table, epoch, start: Vec::new(), end: None }];
        let goal = self.answered + 1;
        self.step(vec![Request {
            id: RequestId(0),
            body: RequestBody::CreateTable { table: spec, partitions },
        }]);
        while self.answered < goal {
            self.wall_ns += 1_000_000;
            self.step(Vec::new());
        }
    }

    fn fill(&mut self, partition: u32, records: u64, ttl: Ttl) {
        let target = Target { partition: PartitionId(partition), epoch: Epoch(1) };
        for i in 0..records {
            let key = format!("{:020}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (key, condition) = (key.as_bytes(), Condition::Always);
            let body = RequestBody::Put { target, key, value: b"", condition, ttl };
            self.wall_ns += 1_000;
            self.step(vec![Request { id: RequestId(i), body }]);
        }
    }
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).expect("two numbers").parse().expect("a number");
    pages * 4096
}

fn main() {
    let records =
        std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of records"));
    let mut bench = Bench::new();
    bench.create(1);
    bench.create(2);
    let mut measured = Vec::new();
    for (partition, ttl) in [(1, Ttl::Never), (2, Ttl::After { ttl_ms: 3_600_000 })] {
        let (before, begun) = (resident_bytes(), Instant::now());
        bench.fill(partition, records, ttl);
        let ns = begun.elapsed().as_nanos() as u64 / records;
        measured.push(((resident_bytes() - before) / records, ns));
    }
    let [(plain_bytes, plain_ns), (expiring_bytes, expiring_ns)] = measured[..] else { unreachable!() };
    let counted = bench.shard.stats().expiry_bytes / records;
    println!(
        "{records} records: resident {plain_bytes} B each without an expiry, {expiring_bytes} B with one"
    );
    println!("so an expiry costs {} B; counted are {counted} B", expiring_bytes.saturating_sub(plain_bytes));
    println!("a put takes {plain_ns} ns without, {expiring_ns} ns with");
    bench.wall_ns += 10_000_000_000_000;
    let begun = Instant::now();
    bench.step(Vec::new());
    while bench.shard.has_work() {
        bench.step(Vec::new());
    }
    assert_eq!(bench.shard.stats().expired, records);
    println!("all at once expired: {} ns each", begun.elapsed().as_nanos() as u64 / records);
}
