//! What the index of a node costs, in memory and in time.
//!
//! `cargo run --release -p lode-engine --example index_bench -- [KEYS] [PARTITIONS] [random|numbers|paths]`
//!
//! Loads KEYS keys (10,000,000) into PARTITIONS partitions (1,000), looks them up, removes half and drains the rest.

use std::ops::Bound;
use std::time::{Duration, Instant};

use lode_engine::Location;
use lode_engine::index::PartitionIndex;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Random,
    Numbers,
    Paths,
}

impl Shape {
    /// Key `n`, the same every time.
    fn key(self, n: u64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        out.clear();
        let mut rng = Rng(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        rng.next();
        match self {
            Shape::Random => {
                let bytes = [rng.next(), rng.next(), rng.next()].map(u64::to_le_bytes);
                out.extend_from_slice(&bytes.as_flattened()[..16 + (rng.next() >> 32) as usize % 9]);
            }
            Shape::Numbers => write!(out, "user:{:012}", rng.next() >> 28).expect("a Vec takes all"),
            Shape::Paths => {
                let (a, b, c) = (rng.next() >> 54, rng.next() >> 58, rng.next() >> 48);
                write!(out, "tenant/dir-{a:04}/module_{b}/file_{c}.rs").expect("a Vec takes all");
            }
        }
    }
}

fn report(what: &str, count: u64, took: Duration) {
    let rate = count as f64 / took.as_secs_f64() / 1e6;
    println!("{what:<28} {rate:7.2} M/s  {:7.0} ns each", took.as_nanos() as f64 / count as f64);
}

/// Resident bytes of the process, where the system tells.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|line| {
        let resident = line.split(' ').nth(1)?;
        resident.parse::<u64>().ok()
    });
    pages.unwrap_or(0) * 4096
}

fn memory(indexes: &[PartitionIndex]) -> (u64, u64) {
    let keys = indexes.iter().map(PartitionIndex::len).sum();
    (keys, indexes.iter().map(|index| index.memory_bytes() as u64).sum())
}

fn main() {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().map_or(10_000_000, |arg| arg.parse().expect("KEYS is a number"));
    let partitions: u64 = args.next().map_or(1_000, |arg| arg.parse().expect("PARTITIONS is a number"));
    let shape = match args.next().as_deref() {
        None | Some("random") => Shape::Random,
        Some("numbers") => Shape::Numbers,
        Some("paths") => Shape::Paths,
        Some(other) => panic!("unknown shape of keys: {other}"),
    };
    let mut key = Vec::new();
    let mut key_bytes = 0;
    let begin = Instant::now();
    for n in 0..keys {
        shape.key(n, &mut key);
        key_bytes += std::hint::black_box(&key).len() as u64;
    }
    let overhead = begin.elapsed();
    report("(making a key)", keys, overhead);

    let resident = resident_bytes();
    let mut indexes: Vec<PartitionIndex> = (0..partitions).map(|_| PartitionIndex::new()).collect();
    let begin = Instant::now();
    for n in 0..keys {
        shape.key(n, &mut key);
        indexes[(n % partitions) as usize].insert(&key, Location::new(n * 4096 % (1 << 40), 1024));
    }
    report("insert", keys, begin.elapsed().saturating_sub(overhead));
    let (held, bytes) = memory(&indexes);
    let per_key = |bytes: u64| bytes as f64 / held as f64;
    println!(
        "{held} keys: {:.1} bytes of key, {:.2} bytes of memory a key ({:.2} resident)",
        key_bytes as f64 / keys as f64,
        per_key(bytes),
        per_key(resident_bytes().saturating_sub(resident)),
    );

    look_up(&indexes, keys, shape);
    walk(&indexes, held);
    load(&indexes, held);
    take_out(indexes, keys, shape, overhead);
}

/// Lookups in an order of no meaning, the making of keys not counted.
fn look_up(indexes: &[PartitionIndex], keys: u64, shape: Shape) {
    let mut rng = Rng(42);
    let mut took = Duration::ZERO;
    let mut batch: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new()); 1_000];
    let rounds = (keys / 1_000).clamp(1, 5_000);
    for _ in 0..rounds {
        for (partition, key) in &mut batch {
            let n = (rng.next() >> 8) % keys;
            *partition = (n % indexes.len() as u64) as usize;
            shape.key(n, key);
        }
        let begin = Instant::now();
        let found = batch.iter().filter(|(partition, key)| indexes[*partition].get(key).is_some()).count();
        took += begin.elapsed();
        assert_eq!(found, batch.len(), "every key is there");
    }
    report("lookup", rounds * 1_000, took);
}

fn walk(indexes: &[PartitionIndex], held: u64) {
    let begin = Instant::now();
    let mut walked = 0;
    for index in indexes {
        let mut iter = index.iter(Bound::Unbounded, Bound::Unbounded);
        while let Some(entry) = iter.next() {
            std::hint::black_box(entry);
            walked += 1;
        }
    }
    report("walk", walked, begin.elapsed());
    assert_eq!(walked, held);
}

/// Builds every index anew from its keys in order, as at a start from an image.
fn load(indexes: &[PartitionIndex], held: u64) {
    let mut took = Duration::ZERO;
    let mut bytes = 0;
    for index in indexes {
        let mut entries = Vec::new();
        let mut iter = index.iter(Bound::Unbounded, Bound::Unbounded);
        while let Some((key, location)) = iter.next() {
            entries.push((key.to_vec(), location));
        }
        let begin = Instant::now();
        let mut loaded = PartitionIndex::new();
        for (key, location) in &entries {
            loaded.append(key, *location);
        }
        took += begin.elapsed();
        bytes += loaded.memory_bytes() as u64;
    }
    report("append", held, took);
    println!("loaded in order: {:.2} bytes of memory a key", bytes as f64 / held as f64);
}

fn take_out(mut indexes: Vec<PartitionIndex>, keys: u64, shape: Shape, overhead: Duration) {
    let mut key = Vec::new();
    let per_round = indexes.len() as u64;
    let mut removed = 0;
    let begin = Instant::now();
    for n in (0..keys).filter(|n| (n / per_round).is_multiple_of(2)) {
        removed += 1;
        shape.key(n, &mut key);
        let partition = (n % indexes.len() as u64) as usize;
        indexes[partition].remove(&key);
    }
    report("remove half", removed, begin.elapsed().saturating_sub(overhead / 2));
    let (held, bytes) = memory(&indexes);
    if held > 0 {
        println!("{held} keys left: {:.2} bytes of memory a key", bytes as f64 / held as f64);
    }
    let begin = Instant::now();
    for index in &mut indexes {
        while !index.drain_some(1_000, &mut |location| {
            std::hint::black_box(location);
        }) {}
    }
    report("drain", held.max(1), begin.elapsed());
    assert_eq!(memory(&indexes), (0, 0), "nothing left");
}
