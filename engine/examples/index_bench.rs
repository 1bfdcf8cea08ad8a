//! What the index of a node costs, in memory and in time.
//!
//! `cargo run --release -p lode-engine --example index_bench -- [KEYS] [PARTITIONS] [random|numbers|paths] [compact]`
//!
//! With `compact`, keys are known as far as tells them apart, and reads of records are counted in the place of done.
//!
//! Loads KEYS keys (10,000,000) into PARTITIONS partitions (1,000), looks them up, removes half and drains the rest.

use std::ops::Bound;
use std::time::{Duration, Instant};

use lode_engine::Location;
use lode_engine::index::{
    IndexArena, IndexLoad, KeyOf, Keys, Lookup, Need, PartitionIndex, Set, look_up as look_up_together,
    prefetch_for_change,
};

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

/// The same of groups of so many, each of which was timed: also the median and the fastest tenth, for others may use the
/// machine too.
fn report_groups(what: &str, of: u64, mut took: Vec<Duration>) {
    took.sort_unstable();
    report(what, of * took.len() as u64, took.iter().sum());
    let each = |share: usize| took[took.len() * share / 100].as_nanos() as f64 / of as f64;
    println!("{:28} median {:7.0} ns each, fastest tenth {:7.0}", "", each(50), each(10));
}

/// The keys of records: each lies where its number says.
struct Records {
    shape: Shape,
    /// Those that were read for the change at hand.
    read: Vec<(Location, Vec<u8>)>,
    reads: u64,
}

impl Keys for Records {
    fn key_of(&self, location: Location) -> KeyOf<'_> {
        let read = self.read.iter().find(|(at, _)| *at == location);
        read.map_or(KeyOf::Unknown, |(_, key)| KeyOf::Key(key))
    }
}

impl Records {
    fn new(shape: Shape) -> Records {
        Records { shape, read: Vec::new(), reads: 0 }
    }

    /// Reads what is needed until `act` has it.
    fn with_reads<T>(&mut self, mut act: impl FnMut(&Records) -> Result<T, Need>) -> T {
        self.read.clear();
        loop {
            match act(self) {
                Ok(done) => return done,
                Err(Need(locations)) => {
                    for location in locations {
                        let mut key = Vec::new();
                        self.shape.key(location.offset() / RECORD_BYTES, &mut key);
                        self.reads += 1;
                        self.read.push((location, key));
                    }
                }
            }
        }
    }

    fn set(&mut self, index: &mut PartitionIndex, arena: &mut IndexArena, key: &[u8], at: Location) {
        let Set { crowded, .. } = self.with_reads(|records| index.set(arena, key, at, records));
        if let Some(crowded) = crowded {
            self.with_reads(|records| index.refine(arena, &crowded, records));
        }
    }

    fn report(&mut self, what: &str, count: u64) {
        println!("{what:<28} {:.4} reads each", self.reads as f64 / count as f64);
        self.reads = 0;
    }
}

/// Record `n` lies at so many bytes times `n`.
const RECORD_BYTES: u64 = 1024;

fn location(n: u64) -> Location {
    Location::new(n * RECORD_BYTES, 1024)
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

fn keys_in(indexes: &[PartitionIndex]) -> u64 {
    indexes.iter().map(PartitionIndex::len).sum()
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
    let is_compact = args.next().is_some_and(|arg| arg == "compact");
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
    let mut indexes: Vec<PartitionIndex> = {
        let new = if is_compact { PartitionIndex::compact } else { PartitionIndex::new };
        (0..partitions).map(|_| new()).collect()
    };
    let (mut arena, mut records) = (IndexArena::new(), Records::new(shape));
    let took = insert(&mut arena, &mut indexes, keys, &mut records);
    report_groups(&format!("insert, {INSERTED_AT_ONCE} at once"), INSERTED_AT_ONCE as u64, took);
    let held = keys_in(&indexes);
    println!("{held} keys: {:.2} bytes of key", key_bytes as f64 / keys as f64);
    report_memory(&arena, &indexes, resident);
    if is_compact {
        records.report("reads for an insert", keys);
        overwrite(&mut arena, &mut indexes, keys, &mut records);
    }

    look_up(&arena, &indexes, keys, shape, 1);
    look_up(&arena, &indexes, keys, shape, 16);
    look_up(&arena, &indexes, keys, shape, 32);
    look_up(&arena, &indexes, keys, shape, 64);
    walk(&arena, &indexes, held);
    load(&arena, &mut indexes, held);
    if is_compact {
        return;
    }
    take_out(arena, indexes, keys, shape, overhead, resident);
}

/// Records of a frame whose leaves are asked for together, as a shard does before it applies them.
const INSERTED_AT_ONCE: usize = 8;

/// How long each frame took, the making of its keys not counted.
fn insert(
    arena: &mut IndexArena,
    indexes: &mut [PartitionIndex],
    keys: u64,
    records: &mut Records,
) -> Vec<Duration> {
    let shape = records.shape;
    let mut frame: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new()); INSERTED_AT_ONCE];
    let mut took = Vec::new();
    for first in (0..keys).step_by(INSERTED_AT_ONCE) {
        let numbers = first..keys.min(first + INSERTED_AT_ONCE as u64);
        for ((partition, key), n) in frame.iter_mut().zip(numbers.clone()) {
            *partition = (n % indexes.len() as u64) as usize;
            shape.key(n, key);
        }
        let of_frame = &frame[..(numbers.end - numbers.start) as usize];
        let begin = Instant::now();
        let mut lookups = [Lookup::NONE; INSERTED_AT_ONCE];
        for (lookup, (partition, key)) in lookups.iter_mut().zip(of_frame) {
            *lookup = indexes[*partition].lookup(key);
        }
        prefetch_for_change(arena, &mut lookups[..of_frame.len()]);
        for ((partition, key), n) in of_frame.iter().zip(numbers) {
            let index = &mut indexes[*partition];
            if index.is_compact() {
                records.set(index, arena, key, location(n));
            } else {
                index.insert(arena, key, location(n));
            }
        }
        took.push(begin.elapsed());
    }
    took
}

/// Lookups in an order of no meaning, the making of keys not counted; several prefetched together as a
/// shard's step does with those that it finds in its inbox.
fn look_up(arena: &IndexArena, indexes: &[PartitionIndex], keys: u64, shape: Shape, at_once: usize) {
    let mut rng = Rng(42);
    let mut took = Vec::new();
    let mut batch: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new()); 1_000];
    let rounds = (keys / 1_000).clamp(1, 5_000);
    for _ in 0..rounds {
        for (partition, key) in &mut batch {
            let n = (rng.next() >> 8) % keys;
            *partition = (n % indexes.len() as u64) as usize;
            shape.key(n, key);
        }
        let begin = Instant::now();
        let (mut found, mut lookups) = (0, Vec::new());
        for group in batch.chunks(at_once) {
            if at_once > 1 {
                lookups.clear();
                lookups.extend(group.iter().map(|(partition, key)| indexes[*partition].lookup(key)));
                look_up_together(arena, &mut lookups);
                found += lookups.iter().filter(|lookup| lookup.found().is_some()).count();
            } else {
                found += usize::from(is_found(&indexes[group[0].0], arena, &group[0].1));
            }
        }
        took.push(begin.elapsed());
        assert_eq!(found, batch.len(), "every key is there");
    }
    report_groups(&format!("lookup, {at_once} at once"), 1_000, took);
}

fn is_found(index: &PartitionIndex, arena: &IndexArena, key: &[u8]) -> bool {
    if index.is_compact() {
        return !index.candidates(arena, key).locations.is_empty();
    }
    index.get(arena, key).is_some()
}

/// Overwrites some of the keys, and counts what a lookup of a key that is there reads, and of one that is not.
fn overwrite(arena: &mut IndexArena, indexes: &mut [PartitionIndex], keys: u64, records: &mut Records) {
    let (mut key, count) = (Vec::new(), (keys / 10).max(1));
    let begin = Instant::now();
    for n in (0..count).map(|n| n * 7 % keys) {
        records.shape.key(n, &mut key);
        let index = &mut indexes[(n % indexes.len() as u64) as usize];
        records.set(index, arena, &key, location(n));
    }
    report("overwrite", count, begin.elapsed());
    // The location is the same: what an overwrite elsewhere reads are its candidates.
    let (mut there, mut not_there) = (0, 0);
    for n in 0..count {
        records.shape.key(n, &mut key);
        let index = &indexes[(n % indexes.len() as u64) as usize];
        let found = index.candidates(arena, &key);
        let place = found.locations.iter().position(|at| *at == location(n)).expect("every key is there");
        there += if found.is_certain { 1 } else { place as u64 + 1 };
        records.shape.key(keys + n, &mut key);
        let found = index.candidates(arena, &key);
        not_there += if found.is_certain { 0 } else { found.locations.len() as u64 };
    }
    println!("{:<28} {:.4} reads each", "lookup, there", there as f64 / count as f64);
    println!("{:<28} {:.4} reads each", "lookup or insert, not there", not_there as f64 / count as f64);
}

fn walk(arena: &IndexArena, indexes: &[PartitionIndex], held: u64) {
    let begin = Instant::now();
    let mut walked = 0;
    for index in indexes {
        let mut iter = index.iter(arena, Bound::Unbounded, Bound::Unbounded);
        while let Some(entry) = iter.next() {
            std::hint::black_box(entry);
            walked += 1;
        }
    }
    report("walk", walked, begin.elapsed());
    assert_eq!(walked, held);
}

/// Takes every index's leaves out as an image holds them, and in again into another arena, as a start does.
fn load(arena: &IndexArena, indexes: &mut [PartitionIndex], held: u64) {
    let mut took = Duration::ZERO;
    let (mut loaded_arena, mut bytes, mut record_bytes) = (IndexArena::new(), 0, 0);
    for index in indexes {
        let leaves = leaves_of(arena, index);
        let begin = Instant::now();
        let mut loaded = IndexLoad::new(index.is_compact());
        for leaf in &leaves {
            bytes += leaf.len();
            let mut each = |location: Location, _| {
                record_bytes += u64::from(location.room());
                true
            };
            loaded.push(&mut loaded_arena, leaf, &mut each).expect("a leaf that was just written");
        }
        let loaded = loaded.finish(&mut loaded_arena);
        took += begin.elapsed();
        assert_eq!(loaded.len(), index.len(), "all keys are loaded");
    }
    assert_eq!(record_bytes, held * RECORD_BYTES, "all records are loaded");
    report("load from an image", held, took);
    println!(
        "an image: {:.2} bytes a key; {:.0} MB/s",
        per(bytes as u64, held),
        bytes as f64 / took.as_secs_f64() / 1e6
    );
}

fn per(bytes: u64, keys: u64) -> f64 {
    bytes as f64 / keys as f64
}

/// The leaves of an index as an image holds them.
fn leaves_of(arena: &IndexArena, index: &mut PartitionIndex) -> Vec<Vec<u8>> {
    let (mut leaves, mut last_key) = (Vec::new(), Vec::new());
    if index.is_compact() {
        index.begin_image();
        while let Some(leaf) = index.leaf_to_image(arena) {
            leaves.push(leaf.bytes.into_owned());
            index.leaf_imaged(arena);
        }
        return leaves;
    }
    while let Some(leaf) = index.leaf_after(arena, &last_key, usize::MAX) {
        last_key = leaf.last_key;
        leaves.push(leaf.bytes.into_owned());
    }
    leaves
}

fn take_out(
    mut arena: IndexArena,
    mut indexes: Vec<PartitionIndex>,
    keys: u64,
    shape: Shape,
    overhead: Duration,
    resident: u64,
) {
    let mut key = Vec::new();
    let per_round = indexes.len() as u64;
    let mut removed = 0;
    let begin = Instant::now();
    for n in (0..keys).filter(|n| (n / per_round).is_multiple_of(2)) {
        removed += 1;
        shape.key(n, &mut key);
        let partition = (n % indexes.len() as u64) as usize;
        indexes[partition].remove(&mut arena, &key);
    }
    report("remove half", removed, begin.elapsed().saturating_sub(overhead / 2));
    let held = keys_in(&indexes);
    if held > 0 {
        println!("{held} keys left");
        report_memory(&arena, &indexes, resident);
    }
    let begin = Instant::now();
    for index in &mut indexes {
        while !index.drain_some(&mut arena, 1_000, &mut |location| {
            std::hint::black_box(location);
        }) {}
    }
    report("drain", held.max(1), begin.elapsed());
    assert_eq!((keys_in(&indexes), arena.used_bytes()), (0, 0), "nothing left");
    println!("{} bytes left, {} resident", arena.held_bytes(), resident_bytes().saturating_sub(resident));
}

/// Bytes that tell the keys of a leaf apart: what is behind the prefix that the leaf stores once.
fn distinguishing_bytes(arena: &IndexArena, indexes: &[PartitionIndex]) -> u64 {
    let mut bytes = 0;
    for index in indexes {
        let mut iter = index.iter(arena, Bound::Unbounded, Bound::Unbounded);
        while let Some((key, _)) = iter.next() {
            bytes += key.len() as u64;
        }
        let mut last_key = Vec::new();
        while let Some(leaf) = index.leaf_after(arena, &last_key, usize::MAX) {
            // A leaf begins with its number of keys and the length of its prefix (engine/FORMAT.md).
            let prefix_len = u16::from_le_bytes([leaf.bytes[2], leaf.bytes[3]]);
            bytes -= leaf.records * u64::from(prefix_len);
            last_key = leaf.last_key;
        }
    }
    bytes
}

/// Bytes a key: in nodes, in the arena with what is free between them, and resident in the process.
fn report_memory(arena: &IndexArena, indexes: &[PartitionIndex], resident: u64) {
    let held = keys_in(indexes);
    let per_key = |bytes: u64| bytes as f64 / held as f64;
    let resident_now = resident_bytes().saturating_sub(resident);
    println!(
        "bytes of memory a key: {:.2} in nodes, {:.2} held, {:.2} resident",
        per_key(arena.used_bytes() as u64),
        per_key(arena.held_bytes() as u64),
        per_key(resident_now),
    );
    if indexes.iter().any(PartitionIndex::is_compact) {
        return;
    }
    let own = distinguishing_bytes(arena, indexes);
    println!(
        "of them distinguishing bytes of the key: {:.2}; beyond, of what is resident: {:.2}",
        per_key(own),
        per_key(resident_now.saturating_sub(own)),
    );
}
