//! The engine's hot paths, each ready to be walked again and again: timed by criterion (`cargo bench -p lode-engine`), and
//! counted in instructions (`just counts`). Everything is drawn from fixed seeds.

use std::hint::black_box;
use std::ops::Bound;

use lode_engine::format::ChecksumSeed;
use lode_engine::format::record::{Record, RecordKind};
use lode_engine::index::{IndexArena, KeyOf, Keys, Lookup, PartitionIndex, look_up};
use lode_engine::{Location, NodeId, PartitionId, Seq, ShardId};

/// One operation with all that it needs.
pub type Path = Box<dyn FnMut()>;
/// What makes a path ready.
pub type Ready = fn() -> Path;

/// Records of the index.
const RECORDS: u64 = 20_000;
/// Lookups that a shard's step does together.
const TOGETHER: usize = 32;
/// Records of a scan.
const SCANNED: usize = 100;
/// Bytes of a value.
const VALUE_BYTES: usize = 1024;
/// Bytes that are checksummed.
const CHECKSUMMED_BYTES: usize = 4096;

/// Each path's name, and what makes it ready.
pub const PATHS: &[(&str, Ready)] = &[
    ("index_get", index_get),
    ("index_look_up_32", index_look_up_together),
    ("index_overwrite", index_overwrite),
    ("index_insert_and_remove", index_insert_and_remove),
    ("index_scan_100", index_scan),
    ("compact_index_candidates", compact_index_candidates),
    ("record_encode_1k", record_encode),
    ("record_decode_1k", record_decode),
    ("checksum_4k", checksum),
];

/// Numbers from a seed (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn record(&mut self) -> u64 {
        (self.roll() >> 16) % RECORDS
    }
}

/// The key of a record: neighbours by number lie far apart.
fn key(number: u64) -> [u8; 16] {
    let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    dice.roll();
    let digits = dice.roll();
    std::array::from_fn(|place| b"0123456789abcdef"[(digits >> (60 - 4 * place)) as usize & 15])
}

fn location(number: u64) -> Location {
    Location::new(number * VALUE_BYTES as u64, VALUE_BYTES)
}

/// No key needs to be read: none collides with another in the bytes that are known.
struct Known;

impl Keys for Known {
    fn key_of(&self, at: Location) -> KeyOf<'_> {
        let key = key(at.offset() / VALUE_BYTES as u64);
        // Leaked: the trait lends. Only while the index is filled, and only of those that are asked for.
        KeyOf::Key(Box::leak(Box::new(key)))
    }
}

fn filled() -> (IndexArena, PartitionIndex) {
    let (mut arena, mut index) = (IndexArena::new(), PartitionIndex::new());
    for number in 0..RECORDS {
        index.insert(&mut arena, &key(number), location(number));
    }
    (arena, index)
}

fn index_get() -> Path {
    let ((arena, index), mut dice) = (filled(), Dice(1));
    Box::new(move || {
        black_box(index.get(&arena, &key(dice.record())).expect("every key is there"));
    })
}

fn index_look_up_together() -> Path {
    let ((arena, index), mut dice) = (filled(), Dice(2));
    Box::new(move || {
        let keys: [_; TOGETHER] = std::array::from_fn(|_| key(dice.record()));
        let mut lookups: [Lookup<'_>; TOGETHER] = std::array::from_fn(|place| index.lookup(&keys[place]));
        look_up(&arena, &mut lookups);
        assert!(black_box(&lookups).iter().all(|lookup| lookup.found().is_some()), "every key is there");
    })
}

fn index_overwrite() -> Path {
    let ((mut arena, mut index), mut dice) = (filled(), Dice(3));
    Box::new(move || {
        let (number, elsewhere) = (dice.record(), dice.record());
        let before = index.insert(&mut arena, &key(number), location(elsewhere));
        black_box(before.expect("every key is there"));
    })
}

fn index_insert_and_remove() -> Path {
    let ((mut arena, mut index), mut number) = (filled(), RECORDS);
    Box::new(move || {
        let key = key(number);
        assert!(index.insert(&mut arena, &key, location(number)).is_none());
        assert!(index.remove(&mut arena, &key).is_some());
        number += 1;
    })
}

fn index_scan() -> Path {
    let ((arena, index), mut dice) = (filled(), Dice(4));
    Box::new(move || {
        let start = key(dice.record());
        let mut iter = index.iter(&arena, Bound::Included(&start), Bound::Unbounded);
        for _ in 0..SCANNED {
            black_box(iter.next());
        }
    })
}

fn compact_index_candidates() -> Path {
    let (mut arena, mut index) = (IndexArena::new(), PartitionIndex::compact());
    for number in 0..RECORDS {
        let key = key(number);
        let set = index.set(&mut arena, &key, location(number), &Known).expect("every key is known");
        if let Some(crowded) = set.crowded {
            index.refine(&mut arena, &crowded, &Known).expect("every key is known");
        }
    }
    let mut dice = Dice(5);
    Box::new(move || {
        let found = index.candidates(&arena, &key(dice.record()));
        assert!(!black_box(found).locations.is_empty(), "every key is there");
    })
}

fn seed() -> ChecksumSeed {
    ChecksumSeed::new(&[7; 16], ShardId(1))
}

fn record<'a>(key: &'a [u8], value: &'a [u8]) -> Record<'a> {
    let seq = Seq { wall_ns: 1_700_000_000_000_000_000, counter: 3, node: NodeId(1) };
    Record { kind: RecordKind::Put, seq, partition: PartitionId(9), key, value, expires: None }
}

fn record_encode() -> Path {
    let (seed, key, value) = (seed(), key(1), vec![5; VALUE_BYTES]);
    let mut out = vec![0; 2 * VALUE_BYTES];
    Box::new(move || {
        black_box(record(&key, black_box(&value)).encode(seed, 4096, 1, &mut out));
    })
}

fn record_decode() -> Path {
    let (seed, key, value) = (seed(), key(1), vec![5; VALUE_BYTES]);
    let mut bytes = vec![0; 2 * VALUE_BYTES];
    record(&key, &value).encode(seed, 4096, 1, &mut bytes);
    Box::new(move || {
        black_box(Record::decode(seed, 4096, 1, black_box(&bytes)).expect("it is whole"));
    })
}

fn checksum() -> Path {
    let (seed, bytes) = (seed(), vec![5; CHECKSUMMED_BYTES]);
    Box::new(move || {
        black_box(seed.at(4096, 1, black_box(&bytes)));
    })
}
