//! What the drive does to bytes that it has taken: they rot, were lost, or went to another place; or a read gives others.
//!
//! The last frames of a log are left alone as long as no later frame calls them durable: damage there is a torn tail,
//! for all that anybody can tell (DESIGN, section 4). So are the copies of a superblock while one of them is damaged, and
//! whichever is left of a segment's header and first frame while no image knows the segment (FORMAT.md, what is not covered).
//! Everything else may be damaged, and then the node says so, or is none the wiser; it never gives a wrong answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FrameHeader, Stream};
use lode_engine::format::segment::SegmentHeader;
use lode_engine::format::superblock::Superblock;
use lode_engine::{DriveOffset, ShardId};

use super::super::drive::{BLOCK_BYTES, DriveOp, HARMS};
use super::super::node::{SimNode, UUID};
use super::{Happening, IO_ERROR, World};

/// How often a place is drawn that may be damaged.
pub(super) const DRAWS: u64 = 40;
/// Of a hundred damages, how many are of superblocks: they are few blocks among many.
const SUPERBLOCK_PERCENT: u64 = 10;
/// Starts in a row that may fail for what was misread.
const MOST_FAILED_STARTS: u32 = 4;

/// What was damaged so far.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Superblocks of which a copy is damaged.
    pub(super) superblocks: BTreeSet<usize>,
    /// Shards of which a superblock was misread in this life.
    misread: BTreeSet<u16>,
    /// The first two blocks of segments of which one was misread in this life.
    unnamed: BTreeSet<usize>,
    /// How many damages and misreads there were.
    pub(super) count: u64,
    /// Shards of which something lies on the drive that was not written so.
    pub(super) harmed: BTreeSet<u16>,
    /// Starts that failed, one after the other.
    failed_starts: u32,
    /// A shard cannot be opened for damage, and says so: that is the end.
    pub(super) is_told: bool,
}

impl World<'_> {
    pub(super) fn damage(&mut self) {
        self.after_interval(self.plan.faults.damage_interval_ns, Happening::Damage);
        let shard = ShardId(self.dice.below(u64::from(self.plan.shards)) as u16);
        let slots = self.geometry.superblock_slots(shard).map(|slot| slot.0 as usize);
        let (area, bytes) = (self.geometry.area_at(shard).0 as usize, self.geometry.area_bytes() as usize);
        let undecided = self.undecided(shard);
        for _ in 0..DRAWS {
            let at = match self.dice.below(100) < SUPERBLOCK_PERCENT {
                true => slots[self.dice.below(4) as usize],
                false => area + self.dice.below((bytes / BLOCK_BYTES) as u64) as usize * BLOCK_BYTES,
            };
            let is_slot = slots.contains(&at);
            let is_used = self.drive.stable()[at..at + BLOCK_BYTES].iter().any(|byte| *byte != 0);
            let is_left_alone = match is_slot {
                true => slots.iter().any(|slot| self.damage.superblocks.contains(slot)),
                false => undecided.iter().any(|frame| frame.contains(&at)) || self.alone_names(shard, at),
            };
            if !is_used || is_left_alone {
                continue;
            }
            if is_slot {
                self.damage.superblocks.insert(at);
            }
            let harm = HARMS[self.dice.below(HARMS.len() as u64) as usize];
            if !self.strikes() {
                return;
            }
            self.trace.note(self.now_ns, harm.in_words(), &[("at", at as u64)]);
            self.drive.harm(at, harm);
            self.damage.count += 1;
            self.damage.harmed.insert(shard.0);
            return self.history.damaged(shard.0);
        }
    }

    /// A write makes a damaged superblock whole, and nothing that was to be there before arrives any more.
    pub(super) fn is_written(&mut self, op: &DriveOp) {
        if let DriveOp::Write { at, bytes, .. } = op {
            self.damage.superblocks.remove(at);
            self.supersedes(*at, bytes.len());
        }
    }

    /// What a read gives, where it does not give what lies there; nothing where it does.
    pub(super) fn misread(&mut self, shard: u16, at: usize, len: usize) -> Option<Result<Vec<u8>, i32>> {
        if self.reads_true() || !self.happens(self.plan.faults.misreads_ppm) {
            return None;
        }
        let id = ShardId(shard);
        let slots = self.geometry.superblock_slots(id).map(|slot| slot.0 as usize);
        let of_superblock = slots.contains(&at);
        let block = at + self.dice.below((len / BLOCK_BYTES) as u64) as usize * BLOCK_BYTES;
        let is_unreadable = self.dice.below(5) == 0;
        if of_superblock {
            let is_damaged = slots.iter().any(|slot| self.damage.superblocks.contains(slot));
            if is_damaged || !self.damage.misread.insert(shard) {
                return None;
            }
        } else if !self.node.as_ref().is_some_and(SimNode::is_serving) {
            let lost = if is_unreadable { at..at + len } else { block..block + BLOCK_BYTES };
            let overlaps = |frame: &Range<usize>| frame.start < lost.end && lost.start < frame.end;
            let is_last_name = |block| self.alone_names(id, block) || self.damage.unnamed.contains(&block);
            if self.undecided(id).iter().any(overlaps) || lost.clone().step_by(BLOCK_BYTES).any(is_last_name)
            {
                return None;
            }
            let both = self.names_of(id, block);
            self.damage
                .unnamed
                .extend(both.into_iter().flatten().filter(|_| !is_unreadable || len == BLOCK_BYTES));
        }
        self.history.damaged(shard);
        self.damage.count += 1;
        if is_unreadable {
            return Some(Err(IO_ERROR));
        }
        let harm = HARMS[self.dice.below(HARMS.len() as u64) as usize];
        let mut bytes = self.drive.perform(&DriveOp::Read { at, len });
        self.drive.distort(block, &mut bytes[block - at..block - at + BLOCK_BYTES], harm);
        Some(Ok(bytes))
    }

    /// The two blocks that say which life a segment is in, its header and that of its first frame, where this is one of them.
    pub(super) fn names_of(&self, shard: ShardId, at: usize) -> Option<[usize; 2]> {
        let area = self.geometry.area_at(shard).0;
        let in_area = at as u64 - area;
        let begin = self.geometry.segment_at(self.geometry.segment_of(in_area));
        let header = (area + begin) as usize;
        (at <= header + BLOCK_BYTES).then_some([header, header + BLOCK_BYTES])
    }

    /// Whether nothing but this block says which life its segment is in: of its header and its first frame the other does
    /// not, or not any more, and the segment was opened after the last checkpoint, so that no image names it.
    pub(super) fn alone_names(&self, shard: ShardId, at: usize) -> bool {
        let Some([header, first]) = self.names_of(shard, at) else { return false };
        let (seed, stable) = (ChecksumSeed::new(&UUID, shard), self.drive.stable());
        let area = self.geometry.area_at(shard).0 as usize;
        let segment = self.geometry.segment_of((header - area) as u64);
        let of_header = SegmentHeader::decode(seed, (header - area) as u64, &stable[header..]);
        let of_header = of_header.filter(|named| named.segment == segment).map(|named| named.generation);
        let named_by = |at: usize| {
            let named = FrameHeader::decode_any(seed, (at - area) as u64, &stable[at..]);
            named.filter(|named| named.segment == segment).map(|named| named.generation)
        };
        let of_first = named_by(first);
        let end = header + self.geometry.segment_bytes as usize;
        let present = (first..end).step_by(BLOCK_BYTES).filter_map(named_by).chain(of_header).max();
        let slots = self.geometry.superblock_slots(shard);
        let superblock = |slot: &DriveOffset| Superblock::decode(seed, slot.0, &stable[slot.0 as usize..]);
        // A start writes a superblock for what it cuts, too, and before the first checkpoint there is no image.
        let newest = Superblock::newest(slots.iter().map(superblock));
        let of_image = newest.filter(|newest| newest.roots.is_some()).map(|newest| newest.highest_generation);
        let other = if at == header { of_first } else { of_header };
        present > of_image && other != present
    }

    /// Where the frames of logs lie that no later frame on the drive calls durable.
    pub(super) fn undecided(&self, shard: ShardId) -> Vec<Range<usize>> {
        let frames = self.log_frames(shard);
        let durable = called_durable(&frames);
        let is_undecided = |header: &FrameHeader| header.number.0 > durable[&(header.stream as u8)];
        frames.into_iter().filter(|(header, _)| is_undecided(header)).map(|(_, range)| range).collect()
    }

    /// The frames of logs that the drive has, and where.
    pub(super) fn log_frames(&self, shard: ShardId) -> Vec<(FrameHeader, Range<usize>)> {
        let seed = ChecksumSeed::new(&UUID, shard);
        let area = self.geometry.area_at(shard).0 as usize;
        let stable = &self.drive.stable()[area..area + self.geometry.area_bytes() as usize];
        let mut frames = Vec::new();
        for at in (0..stable.len()).step_by(BLOCK_BYTES) {
            let Some(header) = FrameHeader::decode_any(seed, at as u64, &stable[at..]) else { continue };
            if is_of_log(&header) {
                frames.push((header, area + at..area + at + header.frame_len()));
            }
        }
        frames
    }

    /// A shard could not be opened, and said that it is for damage: it is tried again, for it may have been misread; in
    /// the end with nothing misread.
    pub(super) fn cannot_open(&mut self) {
        if self.reads_true() {
            self.damage.is_told = true;
            if self.damage.harmed.is_empty() {
                let told =
                    "a shard says that it is too damaged to be opened, and nothing on the drive is damaged";
                self.history.violations.push(told.to_owned());
            }
        }
        self.damage.failed_starts += 1;
        self.crash();
    }

    /// Whether a node that would not open is given what lies on the drive, and nothing else.
    fn reads_true(&self) -> bool {
        self.damage.failed_starts >= MOST_FAILED_STARTS
    }

    /// A life begins.
    pub(super) fn begins(&mut self) {
        self.damage.misread.clear();
        self.damage.unnamed.clear();
    }

    /// It serves.
    pub(super) fn serves(&mut self) {
        self.damage.failed_starts = 0;
    }
}

/// Whether a frame is of a stream of which the last frames may be a torn tail.
pub(super) fn is_of_log(header: &FrameHeader) -> bool {
    matches!(header.stream, Stream::User | Stream::Journal)
}

/// By stream, the last frame that any frame calls durable.
pub(super) fn called_durable(frames: &[(FrameHeader, Range<usize>)]) -> BTreeMap<u8, u64> {
    let mut durable: BTreeMap<u8, u64> = BTreeMap::new();
    for (header, _) in frames {
        let durable = durable.entry(header.stream as u8).or_default();
        *durable = (*durable).max(header.durable.0);
    }
    durable
}
