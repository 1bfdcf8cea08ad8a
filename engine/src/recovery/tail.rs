//! The tail: the journal behind the image, and the user frames behind the journal.
//!
//! Which frames count is judged alike for both (`replay.rs`). Entries of the journal are done as they stand, in order.
//! What user frames do that it does not cover is noted in it anew.

use super::stretch::Stretch;
use super::{CHUNK_BYTES, CHUNKS_AHEAD, Recovery, Stage};
use crate::apply::Effects;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, PartitionSet, Stream};
use crate::format::journal::{self, JournalEntry, JournalHead, LogPosition};
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, SegmentId, WallMs};
use crate::io::{Io, Purpose};
use crate::journal::Journal;
use crate::limits::{BLOCK_BYTES, MAX_KEY_BYTES};
use crate::loading::is_possible;
use crate::location::Location;
use crate::log::Log;
use crate::replay::{FrameReplay, Verdict};
use crate::scanner::{FoundFrame, for_each_record};
use crate::seam::Op;
use crate::shard::Shard;

impl Shard {
    pub(super) fn begin_journal(&mut self, recovery: &mut Recovery) {
        let superblock = &self.superblock;
        recovery.covered = JournalHead {
            user_upto: FrameNumber(superblock.user_from.0 - 1),
            user_from: superblock.user_from_position,
            seq_before: superblock.highest_seq,
            seq_upto: superblock.highest_seq,
        };
        recovery.replay = FrameReplay::new(superblock.journal_from, superblock.journal_void.clone());
        recovery.hidden_blocks = 0;
        let from = superblock.journal_from_position;
        self.walk_tail(recovery, Stream::Journal, from);
    }

    /// The journal has been read: the users' frames that it does not cover are next.
    pub(super) fn end_journal(&mut self, recovery: &mut Recovery) {
        let end = std::mem::take(&mut recovery.replay).finish(recovery.hidden_blocks);
        for verdict in end.verdicts {
            self.replay_verdict(recovery, verdict);
        }
        recovery.journal_void = end.void;
        recovery.hidden_blocks = 0;
        let JournalHead { user_upto, user_from, seq_upto, .. } = recovery.covered;
        self.journal = Journal::new(self.place, end.next_number, user_upto, user_from);
        self.journal.goes_on_after(seq_upto);
        self.journal.bytes_since_checkpoint = recovery.journal_bytes;
        self.free_untouched(recovery, Stream::Journal, self.superblock.journal_from_position);
        for (_, segment) in
            self.tail_segments(Stream::Journal, self.superblock.journal_from_position.generation)
        {
            self.space.set_in_use(segment, true);
            self.journal.keep(segment);
        }
        if recovery.met_damage {
            // There was no journal to note it in when it was met.
            for id in self.catalog.partition_ids() {
                if let Some(below) = self.catalog.quarantine_of(id) {
                    self.tail_effects(true).quarantine_one(id, below);
                }
            }
        }
        recovery.replay = FrameReplay::new(user_upto.next(), self.superblock.void.clone());
        self.walk_tail(recovery, Stream::User, user_from);
    }

    /// All segments of a stream from a generation on, in the order in which they were opened.
    fn tail_segments(&self, stream: Stream, from: Generation) -> Vec<(Generation, SegmentId)> {
        let with_generation = |id| (self.space.get(id).generation, id);
        let is_of_tail = |(generation, id): &(Generation, SegmentId)| {
            self.space.is_known(*id) && self.space.get(*id).stream == stream && *generation >= from
        };
        let mut tail: Vec<_> = self.space.ids().map(with_generation).filter(is_of_tail).collect();
        tail.sort_unstable();
        tail
    }

    /// The tail has been read: what a process that ended soon had opened and not written to is free.
    fn free_untouched(&mut self, recovery: &Recovery, stream: Stream, from: LogPosition) {
        for (generation, id) in self.tail_segments(stream, from.generation) {
            // Of the first, only what lies behind the position was read.
            let is_all_of_it = generation > from.generation || u64::from(from.offset) <= BLOCK_BYTES as u64;
            if is_all_of_it && !recovery.written.contains(&id) {
                self.space.found_untouched(id);
            }
        }
    }

    fn walk_tail(&mut self, recovery: &mut Recovery, stream: Stream, from: LogPosition) {
        recovery.reader = self.recovery_reader(CHUNK_BYTES, CHUNKS_AHEAD);
        let frames = match stream {
            Stream::Journal => Journal::frame_bytes(&self.place.geometry),
            _ => Log::frame_bytes(&self.config),
        };
        for (generation, id) in self.tail_segments(stream, from.generation) {
            let begin = self.place.geometry.segment_at(id);
            let end = begin + u64::from(self.place.geometry.segment_bytes);
            let offset = if generation == from.generation { u64::from(from.offset) } else { 0 };
            let first = begin + offset.max(BLOCK_BYTES as u64);
            if first < end {
                let whole = Stretch::whole(self.place.seed, id, generation, first, end);
                recovery.walk.push_back(whole.until_quiet(frames));
            }
        }
    }

    pub(super) fn tail_frame(&mut self, recovery: &mut Recovery, frame: &FoundFrame<'_>) {
        if frame.header.stream == Stream::Journal {
            recovery.journal_bytes += frame.bytes.len() as u64;
        }
        recovery.written.insert(frame.header.segment);
        recovery.replay.found(frame);
        while let Some(verdict) = recovery.replay.next() {
            self.replay_verdict(recovery, verdict);
        }
    }

    fn replay_verdict(&mut self, recovery: &mut Recovery, verdict: Verdict) {
        let is_journal = recovery.stage == Stage::Journal;
        match verdict {
            Verdict::Apply { header, at, bytes } => self.replay_frame(recovery, &header, at, &bytes),
            Verdict::Quarantine { partitions, salvage, below } => {
                self.stats.quarantined_frames += 1;
                recovery.met_damage = true;
                if let Some((header, at, bytes)) = salvage.filter(|_| !is_journal) {
                    self.replay_frame(recovery, &header, at, &bytes);
                }
                match below {
                    Some(below) => self.tail_effects(!is_journal).quarantine(partitions, below),
                    None => recovery.unbounded.push(partitions),
                }
            }
        }
    }

    fn tail_effects(&mut self, is_noted: bool) -> Effects<'_> {
        let Shard { catalog, space, cache, journal, facts, .. } = self;
        let journal = Some(journal).filter(|_| is_noted);
        Effects { catalog, space, cache, journal, facts, own: None, now: WallMs(0) }
    }

    fn replay_frame(&mut self, recovery: &mut Recovery, header: &FrameHeader, at: u64, bytes: &[u8]) {
        if header.stream == Stream::Journal {
            self.replay_journal_frame(recovery, &bytes[FRAME_HEADER_BYTES..], header.payload_bytes as usize);
        } else {
            self.replay_user_frame(header, at, bytes);
        }
    }

    /// Does what the entries of a whole journal frame say, in order.
    fn replay_journal_frame(&mut self, recovery: &mut Recovery, bytes: &[u8], payload_bytes: usize) {
        let Some((head, packed)) = journal::decode_head(&bytes[..payload_bytes]) else { return };
        let geometry = self.place.geometry;
        let (mut entries, mut impossible) = (0, 0);
        let mut effects = self.tail_effects(false);
        let whole = journal::for_each_entry(packed, |entry| {
            if may_be(&entry, &geometry) {
                effects.replayed(&entry);
                entries += 1;
            } else {
                impossible += 1;
            }
        });
        self.stats.recovered_journal_entries += entries;
        if whole.is_none() || impossible > 0 {
            // Its checksum is right, and no version of ours wrote it.
            self.stats.quarantined_frames += 1;
            recovery.unbounded.push(PartitionSet::ALL);
        }
        self.sequencer.observe(head.seq_upto);
        recovery.covered = head;
    }

    fn replay_user_frame(&mut self, header: &FrameHeader, at: u64, bytes: &[u8]) {
        let seed = self.place.seed;
        let mut highest = self.superblock.highest_seq;
        let mut effects = self.tail_effects(true);
        for_each_record(seed, header, at, bytes, |record, location| {
            highest = highest.max(record.seq);
            effects.user(&record, location);
        });
        self.sequencer.observe(highest);
        let frame_bytes = header.frame_len() as u64;
        self.space.clock.advance(frame_bytes, highest.wall_ns);
        let offset = at + frame_bytes - self.place.geometry.segment_at(header.segment);
        let behind = LogPosition { generation: header.generation, offset: offset as u32 };
        self.journal.cover_user(header.number, behind, frame_bytes);
        if !self.journal.has_room_at_start() {
            // A journal that had no room for long is not made up for in memory.
            self.journal.break_off();
        }
        self.stats.recovered_frames += 1;
    }

    /// Damaged frames behind which nothing whole was found: every version up to now may be one that they
    /// replaced. What is written from here on is beyond.
    fn distrust_all_before(&mut self, recovery: &mut Recovery, io: &mut Io<'_>) {
        if recovery.unbounded.is_empty() {
            return;
        }
        self.sequencer.next(io.now.wall_ns);
        self.sequencer.observe(self.sequencer.last());
        let below = self.sequencer.last();
        for partitions in std::mem::take(&mut recovery.unbounded) {
            self.tail_effects(true).quarantine(partitions, below);
        }
    }

    /// The log has been read to its end: cut what was torn, and serve.
    pub(super) fn end_replay(&mut self, recovery: &mut Recovery, io: &mut Io<'_>) {
        let end = std::mem::take(&mut recovery.replay).finish(recovery.hidden_blocks);
        for verdict in end.verdicts {
            self.replay_verdict(recovery, verdict);
        }
        self.distrust_all_before(recovery, io);
        self.clock.observe(self.sequencer.last().wall_ns);
        self.catalog.forget_unfinished();
        // The journal and a checkpoint put the damage behind the next start, and may come before anybody has looked for what it took.
        self.catalog.may_lack_tables = self.superblock.may_lack_tables || self.stats.quarantined_frames > 0;
        self.settle_what_is_in_no_image();
        let last = FrameNumber(end.next_number.0 - 1);
        let from = recovery.covered.user_from;
        self.free_untouched(recovery, Stream::User, from);
        self.space.replayed_user(from.generation, last);
        self.space.begin_serving();
        if !self.is_loading() {
            self.space.finish_recovery();
        }
        self.expect_image();
        self.log = Log::new(self.place, end.next_number);
        self.journal.saw(self.sequencer.last());
        if self.journal.user_position().0 <= last {
            // What came to nothing is dealt with, too.
            let generation = Generation(self.space.highest_generation().0 + 1);
            self.journal.cover_user(last, LogPosition { generation, offset: 0 }, 0);
        }
        recovery.stage = Stage::Settling;
        let journal_void = recovery.journal_void;
        let says_what_is =
            recovery.mirrored && self.superblock.may_lack_tables == self.catalog.may_lack_tables;
        if end.void.is_none() && journal_void.is_none() && says_what_is {
            // What was read may have been in the drive's cache alone, left there by a process that was
            // killed: it is relied on from now on, so it must be durable.
            io.start(Op::Flush { token: Purpose::Superblock.token(0) });
        } else {
            self.settle_superblock(end.void, journal_void, io);
        }
    }
}

/// Whether an entry is about places and keys that there are.
fn may_be(entry: &JournalEntry<'_>, geometry: &Geometry) -> bool {
    let is_key = |key: &[u8]| (1..=MAX_KEY_BYTES).contains(&key.len());
    let is_place = |at: Location, key: &[u8]| is_possible(at, key.len(), geometry);
    match entry {
        JournalEntry::Set { key, location, replaces, .. } => {
            is_key(key) && [Some(*location), *replaces].into_iter().flatten().all(|at| is_place(at, key))
        }
        JournalEntry::Remove { key, replaces, .. } => {
            is_key(key) && replaces.is_none_or(|at| is_place(at, key))
        }
        JournalEntry::Superseded { key, location, .. } => is_key(key) && is_place(*location, key),
        JournalEntry::Freed(segment, _) => segment.0 < geometry.segments_per_shard,
        JournalEntry::Catalog(_) | JournalEntry::Quarantine(..) => true,
    }
}
