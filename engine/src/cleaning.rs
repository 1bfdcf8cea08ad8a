//! Cleaning: copies the live records out of a segment, to free it.
//!
//! One victim at a time: its frames are read in order, as fast as users' writes need the room, and live
//! records go to the lane for their expected lifetime; the index follows once their frame is durable, and the journal
//! notes it. A restart reads no cleaning frame: what the journal does not say yet is still where it was.

use std::collections::VecDeque;

use crate::append::Place;
use crate::apply::Effects;
use crate::audit::Watermarks;
use crate::format::record::{Record, RecordKind};
use crate::ids::{FrameNumber, SegmentId};
use crate::io::{Io, Purpose};
use crate::lanes::{Lanes, Origin};
use crate::lifetime::{from_hint, lane_of};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::pace::{Need, Pace};
use crate::reader::SequentialReader;
use crate::scanner::{SegmentScanner, for_each_record};
use crate::seam::DeviceError;
use crate::shard::Shard;
use crate::space::{Claim, Space};

/// Bytes read at a time from a victim.
const CHUNK_BYTES: u32 = 128 << 10;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 2;
/// Cleaning frames are at least so large where there is room: small ones waste too much in padding.
pub(crate) const LEAST_FRAME_BYTES: usize = 256 << 10;
/// Checkpoints that may be begun in a row to make room for writes that wait: they give the journal's segments back.
const MOST_STARVED_ROUNDS: u32 = 2;
/// Cleaning begins when fewer than one segment in so many is free (beyond the reserve), within bounds.
const FREE_SHARE: u32 = 1024;
const FREE_GOAL: std::ops::RangeInclusive<u32> = 2..=16;

/// A segment being cleaned.
#[derive(Debug)]
pub(crate) struct Victim {
    segment: SegmentId,
    reader: SequentialReader,
    scanner: SegmentScanner,
    /// Live records on their way: their bytes, and where each begins.
    bytes: Vec<u8>,
    records: VecDeque<Survivor>,
    /// Records scanned so far.
    scanned: usize,
    /// There is no room for its records: it is left as it is once its reads have ended.
    is_abandoned: bool,
}

/// A live record of a victim.
#[derive(Debug, Clone, Copy)]
struct Survivor {
    /// Where it begins in the victim's bytes.
    begin: usize,
    from: Location,
    lane: usize,
}

/// The cleaner of a shard.
#[derive(Debug)]
pub struct Cleaner {
    pub(crate) lanes: Lanes,
    pub(crate) victim: Option<Victim>,
    pace: Pace,
    /// Nothing is worth cleaning, as far as the last look went.
    exhausted: bool,
    /// Checkpoints begun to make room for writes that wait, since the last sign of a change.
    starved_rounds: u32,
}

impl Cleaner {
    /// Idle.
    pub fn new(place: Place, lanes: u32) -> Cleaner {
        Cleaner {
            lanes: Lanes::new(place, lanes),
            victim: None,
            pace: Pace::default(),
            exhausted: false,
            starved_rounds: 0,
        }
    }

    /// A checkpoint was written: another look may find a victim.
    pub fn look_again(&mut self) {
        self.exhausted = false;
    }

    /// All cleaning frames up to this one are durable and applied.
    pub fn durable(&self) -> FrameNumber {
        self.lanes.durable()
    }

    /// How far its frames are.
    pub fn watermarks(&self) -> Watermarks {
        self.lanes.watermarks()
    }

    /// The segments that it appends to.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.lanes.segments()
    }

    /// The log is poisoned: gives back what no operation of the drive uses. What one does use goes back
    /// when that has ended.
    pub fn close(&mut self, io: &mut Io<'_>) {
        self.lanes.release(io);
        if let Some(victim) = &mut self.victim {
            victim.reader.stop();
            while let Some(chunk) = victim.reader.take(io) {
                io.buffers.release(chunk.buffer);
            }
        }
    }

    /// A segment's header was written; says whether it is the cleaner's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        self.lanes.header_written(segment, space, io)
    }

    /// A read of the victim has ended.
    pub fn read_completed(&mut self, index: u64, result: Result<(), DeviceError>) {
        let victim = self.victim.as_mut().expect("a cleaning read is of the present victim");
        victim.reader.complete(index, result);
    }
}

impl Shard {
    /// Free segments beyond the reserve that cleaning keeps: few, for what is free serves no separation; and
    /// fewer where little is dead at all.
    pub(crate) fn free_goal(&self) -> u32 {
        let (segments, _) = self.space.counts();
        let payload = self.place.geometry.segment_payload_bytes();
        let full = (self.space.live_bytes() / payload) as u32 + 2 * self.space.reserve();
        let goal = (segments / FREE_SHARE).min(segments.saturating_sub(full) / 4);
        goal.clamp(*FREE_GOAL.start(), *FREE_GOAL.end())
    }

    pub(crate) fn pump_cleaning(&mut self, io: &mut Io<'_>) {
        self.apply_moved(io);
        // Before anything is thought to be missing.
        self.free_emptied(io);
        if self.is_loading() {
            // What is live is not known yet.
            if self.is_starved() && !self.log.head().is_opening() {
                self.fail_starved(io);
            }
            return;
        }
        self.earn();
        if self.cleaner.victim.is_none() {
            // What was gathered and could not be written at once.
            self.stats.cleaning_frame_bytes += self.cleaner.lanes.close_all(&mut self.space, io);
        }
        if self.cleaner.victim.is_none() && self.cleaner.lanes.is_settled() {
            self.choose_victim(io);
        }
        if self.cleaner.victim.is_some() {
            self.move_records(io);
            // Every chunk that is there: nothing else may be under way to bring us here again.
            while self.read_victim(io) {
                self.move_records(io);
            }
            self.abandon_stuck_victim(io);
            if self.finish_victim(io) {
                self.choose_victim(io);
                self.read_victim(io);
            }
        }
    }

    fn earn(&mut self) {
        let free = self.free_soon();
        let victim = self.cleaner.victim.as_ref();
        let gain = victim.and_then(|victim| self.space.gain_bytes(victim.segment));
        let payload = self.place.geometry.segment_payload_bytes();
        let need = Need {
            user_frame_bytes: self.stats.user_frame_bytes,
            free: free.saturating_sub(self.space.reserve()),
            goal: self.free_goal(),
            work_per_byte: payload as f64 / gain.unwrap_or(payload) as f64,
            is_quiet: self.log.pending_writes() == 0,
        };
        self.cleaner.pace.earn(need, CHUNK_BYTES);
    }

    /// Leaves a victim for whose records there is no segment: it may not hold up everything else.
    fn abandon_stuck_victim(&mut self, io: &mut Io<'_>) {
        let no_segment = !self.space.may_take(Claim::Cleaning);
        let Cleaner { victim, lanes, .. } = &mut self.cleaner;
        let Some(victim) = victim else { return };
        let placeless = |survivor: &Survivor| !lanes.any_takes(survivor.from.room() as usize) && no_segment;
        if lanes.is_idle() && victim.records.front().is_some_and(placeless) {
            victim.is_abandoned = true;
            victim.reader.stop();
            victim.records.clear();
        }
        if victim.is_abandoned {
            while let Some(chunk) = victim.reader.take(io) {
                io.buffers.release(chunk.buffer);
            }
        }
    }

    /// Whether writes wait for a segment that they may not take.
    pub(crate) fn is_starved(&self) -> bool {
        let waiting = (!self.parked.is_empty() && self.parked_for_segment) || self.catalog_jobs.is_stalled();
        waiting && !self.space.may_take(Claim::Put)
    }

    /// Records died or were written: another look may find a victim, and another checkpoint room.
    pub(crate) fn space_may_have_changed(&mut self) {
        self.cleaner.exhausted = false;
        self.cleaner.starved_rounds = 0;
        self.checkpointer.found_no_room = false;
    }

    fn choose_victim(&mut self, io: &mut Io<'_>) {
        let starved = self.is_starved();
        let enough = self.free_soon() >= self.space.reserve() + self.free_goal();
        if enough || (self.cleaner.exhausted && !starved) {
            return;
        }
        let has_room = self.cleaner.lanes.has_room() || self.space.may_take(Claim::Cleaning);
        let (applied, settled) = (self.log.durable(), self.settled());
        if let Some(segment) = self.space.victim(applied, settled).filter(|_| has_room) {
            // Its place is not used anew before all that is copied has been applied.
            self.space.pin(segment);
            self.cleaner.victim = Some(self.victim(segment));
            return;
        }
        let more_is_coming = self.log.is_writing() || self.log.head().is_opening();
        if self.checkpointer.is_running() || self.emptied_soon() > 0 || more_is_coming {
            return;
        }
        let may_retry = starved && self.cleaner.starved_rounds < MOST_STARVED_ROUNDS;
        let would_help = self.journal.segments_in_use() > 1 && self.journal.may_begin_checkpoint();
        if may_retry && would_help && !self.checkpointer.found_no_room {
            self.cleaner.starved_rounds += 1;
            self.begin_checkpoint();
            return;
        }
        self.cleaner.exhausted = true;
        // Dropped partitions still give space back, and so do emptied segments.
        let more_to_come = !self.catalog.dropping.is_empty() || self.space.is_freeing();
        if starved && !more_to_come {
            self.fail_starved(io);
        }
    }

    /// Whether cleaning can go on, as far as is known.
    pub(crate) fn may_clean(&self) -> bool {
        !self.cleaner.exhausted && self.space.may_take(Claim::Cleaning)
    }

    /// Segments that are free, or will be as soon as the journal says that they are empty.
    pub(crate) fn free_soon(&self) -> u32 {
        self.space.counts().1 + self.emptied_soon()
    }

    /// Segments of which the journal will say that they are empty, if it can.
    fn emptied_soon(&self) -> u32 {
        if self.journal_is_stuck() { 0 } else { self.space.emptied() }
    }

    fn victim(&self, segment: SegmentId) -> Victim {
        let geometry = self.place.geometry;
        let (begin, block) = (geometry.segment_at(segment), BLOCK_BYTES as u64);
        let known = self.space.get(segment);
        let mut reader =
            SequentialReader::new(Purpose::CleaningRead, self.place.area_at, CHUNK_BYTES, CHUNKS_AHEAD);
        reader.push(begin + block, known.consumed_bytes);
        let end = begin + u64::from(geometry.segment_bytes);
        let scanner = SegmentScanner::new(self.place.seed, segment, known.generation, begin + block, end);
        let (bytes, records) = (Vec::new(), VecDeque::new());
        Victim { segment, reader, scanner, bytes, records, scanned: 0, is_abandoned: false }
    }

    /// Reads on in the victim, as far as the pace allows.
    fn read_ahead(&mut self, io: &mut Io<'_>) {
        let Cleaner { victim, pace, .. } = &mut self.cleaner;
        let Some(victim) = victim.as_mut().filter(|_| pace.may_read()) else { return };
        let before = victim.reader.bytes_read;
        victim.reader.pump(io);
        pace.spend(victim.reader.bytes_read - before);
    }

    /// Takes the next chunk, if the records of the last are on their way. Says whether it did.
    fn read_victim(&mut self, io: &mut Io<'_>) -> bool {
        self.read_ahead(io);
        let Some(victim) = &mut self.cleaner.victim else { return false };
        if !victim.records.is_empty() || victim.is_abandoned {
            return false;
        }
        victim.bytes.clear();
        let Some(chunk) = victim.reader.take(io) else { return false };
        let bytes = chunk.bytes(io);
        let (catalog, space, seed) = (&self.catalog, &self.space, self.place.seed);
        let (out, records, scanned) = (&mut victim.bytes, &mut victim.records, &mut victim.scanned);
        let hints = &space.get(victim.segment).hints;
        let (now, live, lanes) = (space.clock.now(), space.live_bytes(), self.cleaner.lanes.count());
        victim.scanner.feed(&bytes, |frame| {
            for_each_record(seed, &frame.header, frame.at, frame.bytes, |record, from| {
                let hint = hints.get(*scanned).copied().unwrap_or(0);
                *scanned += 1;
                let is_live =
                    record.kind == RecordKind::Put && catalog.holds(record.partition, record.key, from);
                if is_live {
                    // It has lived so long; and what it replaced tells how long it may yet.
                    let age = now - space.clock.at(record.seq.wall_ns);
                    let lane = lane_of(age.max(from_hint(hint)), live, lanes);
                    records.push_back(Survivor { begin: out.len(), from, lane });
                    let offset = (from.offset() - frame.at) as usize;
                    out.extend_from_slice(&frame.bytes[offset..offset + record.len()]);
                }
            });
        });
        io.buffers.release(chunk.buffer);
        self.read_ahead(io);
        true
    }

    /// Encodes waiting records into cleaning frames, while there is room.
    fn move_records(&mut self, io: &mut Io<'_>) {
        let full = LEAST_FRAME_BYTES.max(self.config.frame_bytes as usize);
        while let Some(survivor) = self.next_to_move() {
            let room = survivor.from.room() as usize;
            let Shard { cleaner, space, stats, .. } = self;
            let Cleaner { victim: Some(victim), lanes, .. } = cleaner else { return };
            let lane = lanes.choose(survivor.lane, room, space);
            let (has_room, closed_bytes) = lanes.make_room(lane, room, full, space, io);
            stats.cleaning_frame_bytes += closed_bytes;
            if !has_room {
                if !lanes.is_opening() {
                    // What is closed gives its segment's room, its buffer and its place in flight back.
                    stats.cleaning_frame_bytes += lanes.close_all(space, io);
                }
                return;
            }
            let record = Record::decode_unchecked(&victim.bytes[survivor.begin..])
                .expect("records on their way were checked when they were read");
            lanes.push(lane, &record, Origin { location: survivor.from, is_pinned: false }, io);
            stats.relocated_bytes += u64::from(survivor.from.room());
            victim.records.pop_front();
        }
    }

    /// The next waiting record that is still live.
    fn next_to_move(&mut self) -> Option<Survivor> {
        while let Some(victim) = &self.cleaner.victim {
            let &survivor = victim.records.front()?;
            let record = Record::decode_unchecked(&victim.bytes[survivor.begin..]).ok();
            let live = record.filter(|r| self.catalog.holds(r.partition, r.key, survivor.from));
            let now = self.clock.now();
            let expired = live.filter(|r| r.expires.is_some_and(|at| at <= now));
            let expired = expired.map(|r| (r.partition, r.key.to_vec()));
            if live.is_some() && expired.is_none() {
                return Some(survivor);
            }
            // What has expired is not copied, and dies here, for the segment is to become empty.
            if let Some((partition, key)) = expired {
                self.expire_at(partition, &key, survivor.from);
            }
            self.cleaner.victim.as_mut()?.records.pop_front();
        }
        None
    }

    pub(crate) fn cleaning_frame_written(
        &mut self,
        number: u64,
        result: Result<(), DeviceError>,
        io: &mut Io<'_>,
    ) {
        self.cleaner.lanes.written(number);
        if result.is_err() {
            self.poison(io);
        }
        if self.log.is_poisoned() {
            self.cleaner.lanes.release(io);
        }
    }

    /// Lets the index follow the frames that became durable, in order, as fast as the journal takes it.
    fn apply_moved(&mut self, io: &mut Io<'_>) {
        while self.journal.has_room() {
            let Some(moving) = self.cleaner.lanes.take_durable() else { return };
            let now = self.clock.now();
            let Shard { catalog, space, cache, journal, facts, .. } = self;
            let mut effects =
                Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
            let mut from = moving.from.into_iter();
            moving.builder.for_each_record(io.buffers, |record, to| {
                let from: Origin = from.next().expect("a place for each record");
                effects.relocated(&record, from.location, to);
                if from.is_pinned {
                    effects.space.unpin(effects.space.of(from.location).0);
                }
            });
            io.buffers.release(moving.builder.buffer);
        }
    }

    /// Says whether the victim is done with.
    fn finish_victim(&mut self, io: &mut Io<'_>) -> bool {
        let done = |victim: &Victim| victim.reader.is_done() && victim.records.is_empty();
        if !self.cleaner.victim.as_ref().is_some_and(done) {
            return false;
        }
        self.stats.cleaning_frame_bytes += self.cleaner.lanes.close_all(&mut self.space, io);
        if !self.cleaner.lanes.is_idle() {
            return false;
        }
        let Some(victim) = self.cleaner.victim.take() else { return false };
        self.space.unpin(victim.segment);
        if victim.is_abandoned {
            return true;
        }
        self.stats.segments_cleaned += 1;
        if self.space.get(victim.segment).live_bytes > 0 {
            self.space.mark_damaged(victim.segment);
        }
        self.free_emptied(io);
        true
    }
}
