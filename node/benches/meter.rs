//! What it costs a shard to be observed: for each request, and once a second. `cargo bench -p lode-node --bench meter`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lode_net::wire::{Opcode, PartitionId, Status};
use lode_node::reactor::meter::{Meter, Served};

/// Partitions that ask in turn.
const PARTITIONS: u32 = 5000;

fn request(meter: &mut Meter, n: u32, since_ns: u64) {
    let partition = PartitionId(1 + n.wrapping_mul(2_654_435_761) % PARTITIONS);
    let status = Status::Ok;
    meter.served(Served { partition, write_bytes: None, read_bytes: 1024, status, since_ns });
    meter.answered(Opcode::Get as u8, status, since_ns);
}

fn observed(criterion: &mut Criterion) {
    let (mut meter, mut n) = (Meter::default(), 0u32);
    criterion.bench_function("meter_16_requests_of_5000_partitions", |bencher| {
        bencher.iter(|| {
            for _ in 0..16 {
                n = n.wrapping_add(1);
                request(black_box(&mut meter), n, u64::from(n) * 1000);
            }
            meter.settle(u64::from(n) * 1000 + 90_000);
        });
    });
    criterion.bench_function("meter_clear_5000_partitions", |bencher| {
        bencher.iter(|| {
            (0..PARTITIONS).for_each(|n| request(&mut meter, n, 0));
            black_box(&mut meter).clear();
        });
    });
}

criterion_group!(benches, observed);
criterion_main!(benches);
