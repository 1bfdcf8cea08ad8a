//! What was done to the golden drive, what it holds since, and how its image is kept in a file.

use lode_engine::limits::MAX_TTL_MS;
use lode_engine::{BatchWrite, Geometry, IndexKind, StoreKind};

use crate::support::Sim;
use crate::support::ask::use_index;

/// Where the image of the present version is.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version_3.img");
/// First bytes of that file.
const MAGIC: &[u8] = b"lode golden drive image\n";
const SEED: u64 = 3;
/// Keys of partition 1 that are numbered.
const NUMBERED: u32 = 150;
/// Of those, the first are overwritten behind the checkpoint, and the last deleted there.
const OVERWRITTEN: u32 = 60;
const DELETED_FROM: u32 = 140;
/// Keys of partition 5, whose index is compact, and those overwritten behind the checkpoint.
const COMPACT: u32 = 30;
const COMPACT_OVERWRITTEN: u32 = 10;

fn key(i: u32) -> Vec<u8> {
    format!("key{i:03}").into_bytes()
}

fn value(i: u32, round: u8) -> Vec<u8> {
    let mut value = format!("<{i} of round {round}>").into_bytes();
    value.resize(if round == 1 { 40 } else { 1500 }, round);
    value
}

fn long_value() -> Vec<u8> {
    vec![0x6c; 9000]
}

/// A drive of 40 segments, and all that is done to it: the same bytes each time.
pub fn tell() -> Sim {
    let geometry = Geometry::plan((40 * 64 + 256) << 10, 1, Some(64 << 10), 12 << 10).expect("40 segments");
    use_index(IndexKind::Full);
    let mut sim = Sim::format(SEED, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("a new table");
    sim.create(2, StoreKind::Durable, &[3]).expect("a new table");
    for i in 0..NUMBERED {
        sim.put(1, &key(i), &value(i, 1)).expect("there is room");
    }
    use_index(IndexKind::Compact);
    sim.create(5, StoreKind::Durable, &[5]).expect("a new table");
    use_index(IndexKind::Full);
    for i in 0..COMPACT {
        sim.put(5, &key(i), &value(i, 1)).expect("there is room");
    }
    sim.put(1, b"long", &long_value()).expect("there is room");
    sim.put_ttl(1, b"expires", b"in a hundred years", MAX_TTL_MS).expect("there is room");
    sim.increment(2, b"counter", 40).expect("it is a number");
    let writes = [&b"a"[..], b"b"].map(|key| BatchWrite::Put { key, value: b"of a batch" }).to_vec();
    sim.batch(2, writes).expect("there is room");
    sim.put(3, b"dropped", b"with its table").expect("there is room");
    sim.checkpoint().expect("there is room");
    for i in 0..OVERWRITTEN {
        sim.put(1, &key(i), &value(i, 2)).expect("there is room");
    }
    for i in DELETED_FROM..NUMBERED {
        sim.delete(1, &key(i)).expect("there is room");
    }
    for i in 0..COMPACT_OVERWRITTEN {
        sim.put(5, &key(i), &value(i, 2)).expect("there is room");
    }
    sim.increment(2, b"counter", 2).expect("it is a number");
    sim.drop_table(2).expect("it is there");
    sim.create(3, StoreKind::Durable, &[4]).expect("a new table");
    sim.put(4, b"new", b"in a new table").expect("there is room");
    sim.put(1, b"last", b"but one").expect("there is room");
    sim.put(1, b"very last", b"of all").expect("there is room");
    sim.settle();
    sim.drive.settle();
    sim
}

/// Every key that ever was, by partition, and its value.
pub fn holds() -> Vec<(u32, Vec<u8>, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for i in 0..NUMBERED {
        let round = if i < OVERWRITTEN { 2 } else { 1 };
        all.push((1, key(i), (i < DELETED_FROM).then(|| value(i, round))));
    }
    for i in 0..COMPACT {
        all.push((5, key(i), Some(value(i, if i < COMPACT_OVERWRITTEN { 2 } else { 1 }))));
    }
    let mut more = |partition, key: &[u8], value: &[u8]| {
        all.push((partition, key.to_vec(), Some(value.to_vec())));
    };
    more(1, b"long", &long_value());
    more(1, b"expires", b"in a hundred years");
    more(1, b"last", b"but one");
    more(1, b"very last", b"of all");
    more(2, b"counter", b"42");
    more(2, b"a", b"of a batch");
    more(2, b"b", b"of a batch");
    more(4, b"new", b"in a new table");
    all
}

/// Runs of a byte that are shorter are kept as they are.
const SHORT_RUN: usize = 8;

/// The file of an image: its length, then in turns bytes as they are, behind a u16 of how many, and a run: a u32 of its
/// length, and the byte.
pub fn pack(image: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend((image.len() as u64).to_le_bytes());
    let (mut plain, mut rest) = (Vec::new(), image);
    let mut flush = |plain: &mut Vec<u8>, run: usize, byte: u8| {
        file.extend((plain.len() as u16).to_le_bytes());
        file.append(plain);
        file.extend((run as u32).to_le_bytes());
        file.push(byte);
    };
    while let Some(&byte) = rest.first() {
        let run = rest.iter().take_while(|other| **other == byte).count();
        rest = &rest[run..];
        if run >= SHORT_RUN || plain.len() + run > usize::from(u16::MAX) {
            flush(&mut plain, run, byte);
        } else {
            plain.extend(vec![byte; run]);
        }
    }
    flush(&mut plain, 0, 0);
    file
}

/// The reverse.
pub fn unpack(file: &[u8]) -> Vec<u8> {
    let mut rest = file.strip_prefix(MAGIC).expect("a golden image");
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len).expect("the file is not cut off");
        rest = left;
        taken
    };
    let len = u64::from_le_bytes(take(8).try_into().expect("eight bytes")) as usize;
    let mut image = Vec::with_capacity(len);
    while image.len() < len {
        let plain = u16::from_le_bytes(take(2).try_into().expect("two bytes"));
        image.extend_from_slice(take(plain.into()));
        let run = u32::from_le_bytes(take(4).try_into().expect("four bytes"));
        image.resize(image.len() + run as usize, take(1)[0]);
    }
    image
}
