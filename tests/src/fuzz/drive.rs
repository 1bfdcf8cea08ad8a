//! A drive that was changed behind the node's back: whatever is on it, a shard opens it or says why not, answers every
//! request, and never gives a value that nobody wrote. With either kind of index.

#[path = "../../../engine/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use lode_engine::format::record::Record;
use lode_engine::format::segment::SegmentHeader;
use lode_engine::limits::BLOCK_BYTES;
use lode_engine::{Geometry, IndexKind, Phase, ReplyBody, RequestBody, ShardConfig, ShardId, StoreKind};

use self::support::ask::use_index;
use self::support::drive::SimDrive;
use self::support::random::Random;
use self::support::{Sim, UUID};
use super::feed::Feed;
use super::seal;

const DRIVE_BYTES: u64 = 2 << 20;
const SEGMENT_BYTES: u32 = 64 << 10;
const TABLE: u32 = 1;
/// Their records were there before the last checkpoint.
const PARTITIONS: u32 = 3;
/// Its records came after it: damage of the last of them cannot be told from a write that a crash cut short.
const LATE: u32 = 4;
const KEYS: u64 = 60;
const WRITES: u64 = 2500;

/// Every value that a key has had; the last is what it has.
type History = BTreeMap<(u32, Vec<u8>), Vec<Option<Vec<u8>>>>;

/// A drive in use, and what is on it.
struct Base {
    config: ShardConfig,
    bytes: Vec<u8>,
    history: History,
    structures: Vec<Structure>,
}

static FULL: LazyLock<Base> = LazyLock::new(|| Base::make(IndexKind::Full));
static COMPACT: LazyLock<Base> = LazyLock::new(|| Base::make(IndexKind::Compact));

/// Something on the drive that has a checksum.
#[derive(Clone, Copy, Debug)]
struct Structure {
    what: What,
    /// Byte of the drive.
    at: usize,
    /// Bytes that its checksum covers, and it.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum What {
    DriveHeader,
    Superblock,
    SegmentHeader,
    Frame,
    Record { generation: u32 },
}

/// The bytes are choices: changes of the drive, with or without checksums that hold.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let choice = feed.byte();
    let base = if choice & 4 == 0 { &*FULL } else { &*COMPACT };
    let is_sealed = choice & 1 == 1;
    let mut drive = base.bytes.clone();
    for _ in 0..16 {
        if feed.is_empty() {
            break;
        }
        change(base, &mut drive, &mut feed, is_sealed);
    }
    let mut memory = SimDrive::new(0);
    memory.hold(drive);
    let mut sim = Sim::over(u64::from(choice), memory, base.config.clone());
    for _ in 0..2 {
        match sim.run_recovery() {
            Phase::Failed(error) => {
                assert!(!error.to_string().is_empty(), "refused without a word");
                return;
            }
            Phase::Serving => {}
            Phase::Recovering => unreachable!("recovery has ended"),
        }
        read_all(base, &mut sim, is_sealed);
        write_some(&mut sim, is_sealed);
        match choice & 2 {
            0 => sim.crash(),
            _ => sim.kill(),
        }
    }
}

/// One change: bytes of a structure, bytes anywhere, or a block in another one's place.
fn change(base: &Base, drive: &mut [u8], feed: &mut Feed<'_>, is_sealed: bool) {
    match feed.byte() % 8 {
        0 => {
            let at = feed.number(3) as usize % drive.len();
            drive[at] ^= feed.byte() | 1;
        }
        1 => {
            let blocks = drive.len() / BLOCK_BYTES;
            let [from, to] = [0; 2].map(|_| feed.number(2) as usize % blocks * BLOCK_BYTES);
            drive.copy_within(from..from + BLOCK_BYTES, to);
        }
        2 => {
            let block = feed.number(2) as usize % (drive.len() / BLOCK_BYTES) * BLOCK_BYTES;
            drive[block..block + BLOCK_BYTES].fill(feed.byte());
        }
        _ => {
            let structure = base.structures[feed.number(2) as usize % base.structures.len()];
            let bytes = &mut drive[structure.at..structure.at + structure.len];
            for _ in 0..=feed.byte() % 4 {
                // Most fields lie at the front.
                let wide = feed.byte().is_multiple_of(4);
                let at = feed.number(if wide { 2 } else { 1 }) as usize % bytes.len();
                bytes[at] = feed.byte();
            }
            if is_sealed {
                base.seal(structure, drive);
            }
        }
    }
}

fn read_all(base: &Base, sim: &mut Sim, is_sealed: bool) {
    for ((partition, key), values) in &base.history {
        let Ok(found) = sim.get(*partition, key) else { continue };
        if is_sealed {
            continue;
        }
        let is_right = match *partition {
            LATE => found.is_none() || values.contains(&found),
            _ => Some(&found) == values.last(),
        };
        assert!(is_right, "{partition} {} has {found:?}, and had {values:?}", key.escape_ascii());
    }
    for partition in 1..=LATE {
        let _ = sim.scan(partition, 4096, 1 << 20);
        let _ = sim.count(partition);
    }
}

/// What is acknowledged on a damaged drive holds, through a crash too.
fn write_some(sim: &mut Sim, is_sealed: bool) {
    for partition in 1..=LATE {
        let before = sim.get(partition, b"new");
        let value = [partition as u8; 300];
        let is_written = sim.put(partition, b"new", &value).is_ok();
        if !is_sealed {
            let is_kept = |found: &Option<Vec<u8>>| found.is_none() || found.as_deref() == Some(&value);
            assert!(before.iter().all(is_kept), "a value that nobody wrote");
        }
        let after = sim.get(partition, b"new");
        // A forged superblock may say that all that is written was lost.
        let is_kept = after == Ok(Some(value.to_vec())) || is_sealed && after.is_err();
        assert!(!is_written || is_kept, "acknowledged, and {after:?}");
    }
    let _ = sim.checkpoint();
    assert!(matches!(sim.ask(RequestBody::Scrub), ReplyBody::Scrub(_)));
    sim.settle();
}

impl Base {
    fn make(index: IndexKind) -> Base {
        use_index(index);
        let geometry =
            Geometry::plan(DRIVE_BYTES, 1, Some(SEGMENT_BYTES), 8 << 10).expect("it is large enough");
        let mut sim = Sim::format(1, geometry, |_| {});
        let mut history = History::new();
        let partitions: Vec<u32> = (1..=LATE).collect();
        sim.create(TABLE, StoreKind::Durable, &partitions).expect("the drive is empty");
        let mut dice = Random::new(2);
        for write in 0..WRITES {
            let partition = 1 + dice.below(u64::from(PARTITIONS)) as u32;
            put(&mut sim, &mut history, &mut dice, partition);
            if write % 700 == 699 {
                sim.checkpoint().expect("the drive takes writes");
            }
        }
        sim.checkpoint().expect("the drive takes writes");
        (0..40).for_each(|_| put(&mut sim, &mut history, &mut dice, LATE));
        sim.settle();
        sim.drive.settle();
        let bytes = sim.drive.now.clone();
        let mut base = Base { config: sim.config, bytes, history, structures: Vec::new() };
        base.structures = base.find();
        base
    }

    fn area_at(&self) -> usize {
        self.config.geometry.area_at(ShardId(0)).0 as usize
    }

    fn checksum_seed() -> ChecksumSeed {
        ChecksumSeed::new(&UUID, ShardId(0))
    }

    /// All that has a checksum.
    fn find(&self) -> Vec<Structure> {
        let geometry = &self.config.geometry;
        let block = |what, at: u64| Structure { what, at: at as usize, len: BLOCK_BYTES };
        let mut found = vec![block(What::DriveHeader, 0)];
        found.push(block(What::DriveHeader, Geometry::header_mirror_at(geometry.drive_bytes).0));
        found.extend(geometry.superblock_slots(ShardId(0)).map(|slot| block(What::Superblock, slot.0)));
        for at in (0..geometry.area_bytes() as usize).step_by(BLOCK_BYTES) {
            let bytes = &self.bytes[self.area_at() + at..];
            let drive_at = self.area_at() + at;
            if SegmentHeader::decode(Base::checksum_seed(), at as u64, bytes).is_some() {
                found.push(block(What::SegmentHeader, drive_at as u64));
            }
            if let Some(header) = FrameHeader::decode_any(Base::checksum_seed(), at as u64, bytes) {
                let len = FRAME_HEADER_BYTES + header.payload_bytes as usize;
                found.push(Structure { what: What::Frame, at: drive_at, len });
                found.extend(self.records(&header, drive_at));
            }
        }
        found
    }

    fn records(&self, header: &FrameHeader, drive_at: usize) -> Vec<Structure> {
        let mut found = Vec::new();
        let is_of_records = matches!(header.stream, Stream::User | Stream::Cleaning);
        let (mut at, end) =
            (drive_at + FRAME_HEADER_BYTES, drive_at + FRAME_HEADER_BYTES + header.payload_bytes as usize);
        while is_of_records && at < end {
            let Ok(record) = Record::decode_unchecked(&self.bytes[at..end]) else { break };
            let what = What::Record { generation: header.generation.0 };
            found.push(Structure { what, at, len: record.len() });
            at += record.room();
        }
        found
    }

    /// Makes its checksum hold.
    fn seal(&self, structure: Structure, drive: &mut [u8]) {
        let Structure { what, at, len } = structure;
        let bytes = &mut drive[at..at + len];
        let seed = Base::checksum_seed();
        let area_at = at.wrapping_sub(self.area_at()) as u64;
        match what {
            What::DriveHeader => seal::drive_header(bytes),
            What::Superblock => seal::superblock(seed, at as u64, bytes),
            What::SegmentHeader => seal::segment_header(seed, area_at, bytes),
            What::Frame => seal::frame(seed, area_at, bytes),
            What::Record { generation } => seal::record(seed, area_at, generation, bytes),
        }
    }
}

fn put(sim: &mut Sim, history: &mut History, dice: &mut Random, partition: u32) {
    let key = format!("key{:03}", dice.below(KEYS)).into_bytes();
    let values = history.entry((partition, key.clone())).or_insert_with(|| vec![None]);
    if dice.percent(10) {
        sim.delete(partition, &key).expect("there is room");
        values.push(None);
        return;
    }
    let value = vec![dice.below(256) as u8; dice.below(1500) as usize];
    sim.put(partition, &key, &value).expect("there is room");
    values.push(Some(value));
}
