//! What the drive does to writes on their way: it reports them as done, and has lost them, or put them at another place.
//!
//! Left alone is what `damage.rs` leaves alone, and for the same reasons. A frame of a log is always the last one when it is
//! written, and would be taken for a torn tail; so it is lost until the process ends, and then for good if by then a later
//! frame calls it durable. Else it has only come late.

use std::ops::Range;

use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::FrameHeader;
use lode_engine::format::segment::SegmentHeader;
use lode_engine::{Generation, ShardId};

use super::super::drive::{BLOCK_BYTES, DriveOp};
use super::super::node::UUID;
use super::World;
use super::damage::{DRAWS, called_durable, is_of_log};

/// A frame of a log that was lost, and is so for good when a later frame calls it durable.
pub(super) struct Late {
    shard: u16,
    at: usize,
    bytes: Vec<u8>,
    header: FrameHeader,
}

impl Late {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.bytes.len()
    }
}

impl World<'_> {
    /// Whether a write that is reported as done is not where it belongs.
    pub(super) fn miswrite(&mut self, shard: u16, op: &DriveOp) -> bool {
        let DriveOp::Write { at, bytes, .. } = op else { return false };
        if !self.happens(self.plan.faults.miswrites_ppm) || self.is_needed(shard, *at, bytes) {
            return false;
        }
        let place = if self.dice.below(2) == 0 { self.place_of_another(*at, bytes.len()) } else { None };
        if self.geometry.superblock_slots(ShardId(shard)).iter().any(|slot| slot.0 as usize == *at) {
            self.damage.superblocks.insert(*at);
        }
        self.supersedes(*at, bytes.len());
        if let Some(header) = self.frame_of(shard, *at, bytes).filter(is_of_log) {
            self.late.push(Late { shard, at: *at, bytes: bytes.clone(), header });
        }
        self.damage.count += 1;
        self.is_harmed(shard);
        match place {
            None => self.trace.note(self.now_ns, "a write is lost", &[("at", *at as u64)]),
            Some((other, to)) => {
                let facts = [("at", *at as u64), ("to", to as u64)];
                self.trace.note(self.now_ns, "a write goes to another place", &facts);
                self.drive.overwrite(to, bytes);
                self.is_harmed(other);
            }
        }
        true
    }

    fn is_harmed(&mut self, shard: u16) {
        self.damage.harmed.insert(shard);
        self.history.damaged(shard);
    }

    /// The frame that a write of a shard's is, if it is one.
    fn frame_of(&self, shard: u16, at: usize, bytes: &[u8]) -> Option<FrameHeader> {
        let id = ShardId(shard);
        let in_area = at.checked_sub(self.geometry.area_at(id).0 as usize)?;
        FrameHeader::decode_any(ChecksumSeed::new(&UUID, id), in_area as u64, bytes)
    }

    /// The life of a segment that its header says on the drive.
    fn life_in_header(&self, shard: u16, at: usize) -> Option<Generation> {
        let id = ShardId(shard);
        let in_area = at as u64 - self.geometry.area_at(id).0;
        let header = SegmentHeader::decode(ChecksumSeed::new(&UUID, id), in_area, &self.drive.stable()[at..]);
        header.map(|header| header.generation)
    }

    /// Whether without this write nothing could be told of what was lost: the other superblock is damaged, or of the two
    /// blocks that say which life a segment is in this is the first frame, and the drive does not have the header.
    fn is_needed(&self, shard: u16, at: usize, bytes: &[u8]) -> bool {
        let id = ShardId(shard);
        let slots = self.geometry.superblock_slots(id).map(|slot| slot.0 as usize);
        if slots.contains(&at) {
            return slots.iter().any(|slot| self.damage.superblocks.contains(slot));
        }
        let Some([header, first]) = self.names_of(id, at) else { return false };
        let life = self.frame_of(shard, at, bytes).map(|frame| frame.generation);
        at == first && self.life_in_header(shard, header) != life
    }

    /// Where a write of so many bytes goes that does not go where it belongs, and whose place that is.
    fn place_of_another(&mut self, at: usize, len: usize) -> Option<(u16, usize)> {
        let blocks = self.geometry.area_bytes() / BLOCK_BYTES as u64;
        for _ in 0..DRAWS {
            let shard = ShardId(self.dice.below(u64::from(self.plan.shards)) as u16);
            let area = self.geometry.area_at(shard).0 as usize;
            let to = area + self.dice.below(blocks) as usize * BLOCK_BYTES;
            let range = to..to + len;
            let overlaps = |other: &Range<usize>| other.start < range.end && range.start < other.end;
            if range.end > area + self.geometry.area_bytes() as usize || overlaps(&(at..at + len)) {
                continue;
            }
            let is_last_name = |block: usize| {
                let both = self.names_of(shard, block);
                self.alone_names(shard, block)
                    || both.is_some_and(|both| both.iter().all(|name| range.contains(name)))
            };
            let is_left_alone = self.undecided(shard).iter().any(overlaps)
                || self.late.iter().map(Late::range).any(|late| overlaps(&late))
                || range.clone().step_by(BLOCK_BYTES).any(is_last_name);
            if !is_left_alone {
                return Some((shard.0, to));
            }
        }
        None
    }

    /// Something else is there now than what was to be there.
    pub(super) fn supersedes(&mut self, at: usize, len: usize) {
        self.late.retain(|late| late.range().end <= at || at + len <= late.range().start);
    }

    /// The process has ended: what nobody could tell from a torn tail was not lost, but late.
    pub(super) fn arrive_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            let durable = called_durable(&self.log_frames(ShardId(late.shard)));
            let upto = durable.get(&(late.header.stream as u8)).copied().unwrap_or_default();
            if late.header.number.0 > upto {
                self.trace.note(self.now_ns, "a write arrives late", &[("at", late.at as u64)]);
                self.drive.overwrite(late.at, &late.bytes);
            }
        }
    }
}
