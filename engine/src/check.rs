//! Offline verification of a drive: everything that a start would read, and every live record.
//!
//! It runs the very recovery that a start runs, on a device that takes no writes, and then reads every
//! record that the index points to. Nothing on the drive is changed.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::config::ShardConfig;
use crate::format::drive_header::{DRIVE_HEADER_BYTES, DriveHeaderError, DriveIdentity, read_drive_header};
use crate::format::record::Record;
use crate::format::superblock::Superblock;
use crate::format::{align_down, align_up};
use crate::geometry::Geometry;
use crate::ids::{BufferId, NodeId, PartitionId, ShardId};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::partition::Store;
use crate::scrub::{DamagedRecord, QuarantinedPartition};
use crate::seam::{Buffers, Completion, DeviceError, Inbox, Now, Op, Outbox};
use crate::shard::{OpenError, Phase, Shard};

/// Bytes read at a time while records are verified.
const WINDOW_BYTES: u64 = 1 << 20;
/// Most damaged records that are named; all are counted.
const MAX_NAMED: usize = 1000;

/// Reads the drive: fills the slice from this byte on.
pub type ReadDrive<'a> = dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError> + 'a;

/// What was found on a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The drive's division.
    pub geometry: Geometry,
    /// The drive's identity.
    pub identity: DriveIdentity,
    /// Whether the first block and its copy in the last are whole and equal.
    pub headers_whole: (bool, bool),
    /// Shard by shard.
    pub shards: Vec<ShardReport>,
}

/// What was found in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// Why it could not be opened, if so; the rest is then empty.
    pub open_error: Option<OpenError>,
    /// Of the four superblock slots (head, head, tail, tail), those that hold a whole superblock. A
    /// shard that has written none or one checkpoint has two.
    pub superblocks_whole: u32,
    /// Whether both copies of the present superblock are whole. The next start mends it where not; it is
    /// no damage, for a crash can leave one.
    pub superblock_mirrored: bool,
    /// Tables.
    pub tables: u64,
    /// Partitions.
    pub partitions: u64,
    /// Live records.
    pub records: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Frames replayed from the tail of the log.
    pub replayed_frames: u64,
    /// Places of the tail and of the image where durable data is damaged.
    pub quarantined_frames: u64,
    /// Live records that are damaged or unreadable.
    pub damaged_records: u64,
    /// The first thousand of them.
    pub damaged: Vec<DamagedRecord>,
    /// Partitions of which writes may be lost to damage, of the log or an image, that a start met, this one or one before.
    pub partitions_quarantined: u64,
    /// The first thousand of them.
    pub quarantined: Vec<QuarantinedPartition>,
}

impl CheckReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.headers_whole == (true, true) && self.shards.iter().all(ShardReport::is_clean)
    }
}

impl ShardReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.open_error.is_none()
            && self.quarantined_frames == 0
            && self.partitions_quarantined == 0
            && self.damaged_records == 0
    }
}

/// Why a drive could not be checked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CheckError {
    /// Neither the header nor its copy is whole.
    #[error("{0}")]
    Header(#[from] DriveHeaderError),
    /// The file or device is shorter than the drive was when it was formatted.
    #[error("the drive was formatted with {formatted_bytes} bytes, but only {drive_bytes} are there")]
    Shortened {
        /// At format.
        formatted_bytes: u64,
        /// Now.
        drive_bytes: u64,
    },
}

/// Verifies a drive of `drive_bytes`.
pub fn check_drive(read: &mut ReadDrive<'_>, drive_bytes: u64) -> Result<CheckReport, CheckError> {
    let mut block = vec![0u8; DRIVE_HEADER_BYTES];
    let mut header_at = |at: u64| {
        let fault = Err(DriveHeaderError::NotADrive);
        read(at, &mut block).map_or(fault, |()| read_drive_header(&block))
    };
    let first = header_at(0);
    let formatted_bytes = first.as_ref().map_or(drive_bytes, |(geometry, _)| geometry.drive_bytes);
    let copy = header_at(Geometry::header_mirror_at(formatted_bytes).0);
    let (geometry, identity) = first.or_else(|error| copy.map_err(|_| error))?;
    if geometry.drive_bytes > drive_bytes {
        let formatted_bytes = geometry.drive_bytes;
        return Err(CheckError::Shortened { formatted_bytes, drive_bytes });
    }
    let whole = Ok((geometry, identity));
    let shards = (0..geometry.shards).map(ShardId);
    let shards = shards.map(|shard| check_shard(read, geometry, identity, shard)).collect();
    Ok(CheckReport { geometry, identity, headers_whole: (first == whole, copy == whole), shards })
}

fn check_shard(
    read: &mut ReadDrive<'_>,
    geometry: Geometry,
    identity: DriveIdentity,
    id: ShardId,
) -> ShardReport {
    let mut config = ShardConfig::new(geometry, identity.uuid, id, NodeId(0));
    config.cache_bytes = 0;
    config.memory_bytes = u64::MAX;
    let mut shard = Shard::new(config);
    recover(&mut shard, read);
    let superblocks = superblocks(&shard, read);
    let newest = Superblock::newest(superblocks.clone());
    let same = superblocks.iter().filter(|found| found.is_some() && **found == newest).count();
    let stats = shard.stats();
    let mut report = ShardReport {
        shard: id,
        open_error: None,
        superblocks_whole: superblocks.iter().flatten().count() as u32,
        superblock_mirrored: same == 2,
        tables: stats.tables,
        partitions: stats.partitions,
        records: stats.records,
        live_bytes: 0,
        replayed_frames: stats.recovered_frames,
        quarantined_frames: stats.quarantined_frames,
        damaged_records: 0,
        damaged: Vec::new(),
        partitions_quarantined: stats.partitions_quarantined,
        quarantined: shard.quarantined(MAX_NAMED),
    };
    match shard.phase() {
        Phase::Failed(error) => report.open_error = Some(error.clone()),
        _ => verify_records(&shard, read, &mut report),
    }
    report
}

/// Runs recovery to its end. Writes are taken for done and dropped.
fn recover(shard: &mut Shard, read: &mut ReadDrive<'_>) {
    let mut buffers = HeapBuffers::default();
    let mut completions = Vec::new();
    while *shard.phase() == Phase::Recovering || (*shard.phase() == Phase::Serving && shard.is_loading()) {
        let mut inbox = Inbox { completions: std::mem::take(&mut completions), ..Inbox::default() };
        let mut outbox = Outbox::default();
        shard.step(Now { monotonic_ns: 0, wall_ns: 0 }, &mut inbox, &mut outbox, &mut buffers);
        for op in outbox.ops {
            completions.push(match op {
                Op::Read { token, buffer, at, len } => {
                    let bytes = &mut buffers.bytes_mut(buffer)[..len as usize];
                    Completion { token, result: read(at.0, bytes) }
                }
                Op::Write { token, .. } | Op::Flush { token } | Op::Discard { token, .. } => {
                    Completion { token, result: Ok(()) }
                }
            });
        }
    }
}

fn superblocks(shard: &Shard, read: &mut ReadDrive<'_>) -> Vec<Option<Superblock>> {
    let slots = shard.place.geometry.superblock_slots(shard.config.shard);
    let mut block = vec![0u8; BLOCK_BYTES];
    let mut decode = |at: u64| {
        read(at, &mut block).ok()?;
        Superblock::decode(shard.place.seed, at, &block)
    };
    slots.iter().map(|slot| decode(slot.0)).collect()
}

/// Reads every record that the index points to, in the order in which they lie.
fn verify_records(shard: &Shard, read: &mut ReadDrive<'_>, report: &mut ShardReport) {
    let mut locations = Vec::new();
    for_each_entry(shard, |_, _, _, location| locations.push(location));
    // The shard's own count still holds what it has not yet taken out of its books of dropped tables.
    report.live_bytes = locations.iter().map(|location| u64::from(location.room())).sum();
    locations.sort_unstable_by_key(|location| location.offset());
    let (area_at, area_bytes) = (shard.place.area_at.0, shard.place.geometry.area_bytes());
    let mut window = Vec::new();
    let (mut from, mut readable) = (0u64, false);
    let mut damaged = BTreeSet::new();
    for location in locations {
        let end = location.offset() + u64::from(location.room());
        if location.offset() < from || end > from + window.len() as u64 {
            from = align_down(location.offset(), BLOCK_BYTES as u64);
            let least = align_up(end, BLOCK_BYTES as u64) - from;
            let len = least.max(WINDOW_BYTES).min(area_bytes - from);
            window.resize(len as usize, 0);
            readable = read(area_at + from, &mut window).is_ok();
            if !readable {
                // One bad sector must not speak for its neighbours: this record alone.
                window.truncate(least as usize);
                readable = read(area_at + from, &mut window).is_ok();
            }
        }
        let begin = (location.offset() - from) as usize;
        let bytes = &window[begin..begin + location.room() as usize];
        if !readable || !is_whole(shard, location, bytes) {
            damaged.insert(location.to_raw());
        }
    }
    report.damaged_records = damaged.len() as u64;
    for_each_entry(shard, |partition, key, is_whole_key, location| {
        if damaged.contains(&location.to_raw()) && report.damaged.len() < MAX_NAMED {
            report.damaged.extend(shard.damaged_record(partition, (key, is_whole_key), location));
        }
    });
}

fn is_whole(shard: &Shard, location: Location, bytes: &[u8]) -> bool {
    let generation = shard.space.of(location).1.generation;
    let record = Record::decode(shard.place.seed, location.offset(), generation.0, bytes);
    record.is_ok_and(|record| shard.catalog.holds(record.partition, record.key, location))
}

fn for_each_entry(shard: &Shard, mut each: impl FnMut(PartitionId, &[u8], bool, Location)) {
    use std::ops::Bound::Unbounded;
    for id in shard.catalog.partition_ids() {
        let Some(partition) = shard.catalog.get(id) else { continue };
        let Store::Durable(index) = &partition.store else { continue };
        let mut entries = index.iter(&shard.catalog.arena, Unbounded, Unbounded);
        while let Some((key, is_whole_key, location)) = entries.next_known() {
            each(id, key, is_whole_key, location);
        }
    }
}

/// Buffers of plain memory, as many as are asked for.
#[derive(Default)]
struct HeapBuffers {
    slots: Vec<Vec<u8>>,
    free: Vec<usize>,
}

impl Buffers for HeapBuffers {
    fn acquire(&mut self, len: usize) -> Option<BufferId> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::new());
            self.slots.len() - 1
        });
        self.slots[slot].resize(len, 0);
        Some(BufferId(slot as u32))
    }

    fn release(&mut self, buffer: BufferId) {
        self.free.push(buffer.0 as usize);
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        &self.slots[buffer.0 as usize]
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        &mut self.slots[buffer.0 as usize]
    }
}
