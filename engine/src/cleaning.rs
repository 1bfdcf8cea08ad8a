//! Cleaning: copies the live records out of a segment, to free it.
//!
//! One victim at a time: its frames are read in order, live records go to the cleaning stream's own
//! frames, and the index follows once those are durable. Every cleaning frame names the segment that
//! its records came from, so that a replay moves a key only if it still points there.

use std::collections::VecDeque;

use crate::append::{AppendHead, Place};
use crate::apply::Effects;
use crate::format::frame::{Stream, frame_len};
use crate::format::record::{Record, RecordKind};
use crate::frame_builder::FrameBuilder;
use crate::ids::{FrameNumber, Generation, SegmentId};
use crate::io::{Io, Purpose};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::reader::SequentialReader;
use crate::scanner::{SegmentScanner, for_each_record};
use crate::seam::DeviceError;
use crate::shard::Shard;
use crate::space::{Claim, Space};

/// Bytes read at a time from a victim.
const CHUNK_BYTES: u32 = 128 << 10;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 2;
/// Cleaning frames written at once.
const FRAMES_IN_FLIGHT: usize = 2;
/// Cleaning frames are at least so large where there is room: small ones waste too much in padding.
const LEAST_FRAME_BYTES: usize = 128 << 10;
/// Checkpoints that may be begun in a row to make room for writes that wait: the first makes the tail
/// cleanable, the second what cleaning it has left.
const MOST_STARVED_ROUNDS: u32 = 2;
/// Cleaning begins when fewer than one segment in so many is free (beyond the reserve).
const FREE_SHARE: u32 = 16;

/// A segment being cleaned.
#[derive(Debug)]
struct Victim {
    segment: SegmentId,
    reader: SequentialReader,
    scanner: SegmentScanner,
    /// Live records on their way: their bytes, and where each begins and comes from.
    bytes: Vec<u8>,
    records: VecDeque<(usize, Location)>,
    /// There is no room for its records: it is left as it is once its reads have ended.
    is_abandoned: bool,
}

/// A cleaning frame being written.
#[derive(Debug)]
struct Moving {
    builder: FrameBuilder,
    source: SegmentId,
    written: bool,
}

/// The cleaner of a shard.
#[derive(Debug)]
pub struct Cleaner {
    place: Place,
    head: AppendHead,
    victim: Option<Victim>,
    open: Option<Moving>,
    in_flight: VecDeque<Moving>,
    next_number: FrameNumber,
    durable: FrameNumber,
    /// Nothing is worth cleaning, as far as the last look went.
    exhausted: bool,
    /// Checkpoints begun to make room for writes that wait, since the last sign of a change.
    starved_rounds: u32,
}

impl Cleaner {
    /// Idle.
    pub fn new(place: Place) -> Cleaner {
        Cleaner {
            place,
            head: AppendHead::new(Stream::Cleaning, place),
            victim: None,
            open: None,
            in_flight: VecDeque::new(),
            next_number: FrameNumber(1),
            durable: FrameNumber(0),
            exhausted: false,
            starved_rounds: 0,
        }
    }

    /// Recovery has seen cleaning frames below this number.
    pub fn resume_at(&mut self, number: FrameNumber) {
        self.next_number = number;
        self.durable = FrameNumber(number.0 - 1);
    }

    /// A checkpoint was written: another look may find a victim.
    pub fn look_again(&mut self) {
        self.exhausted = false;
    }

    /// The first frame whose effects a checkpoint that begins now may lack, and the generation of the
    /// first segment that may hold it.
    pub fn replay_from(&self, space: &Space) -> (FrameNumber, Generation) {
        let first = self.in_flight.front().or(self.open.as_ref());
        let number = first.map_or(self.next_number, |moving| moving.builder.number);
        let placed = first.map(|moving| moving.builder.place.generation);
        let beyond = Generation(space.highest_generation().0 + 1);
        (number, placed.or(self.head.generation()).unwrap_or(beyond))
    }

    /// The log is poisoned: gives back what no operation of the drive uses. What one does use goes back
    /// when that has ended.
    pub fn close(&mut self, io: &mut Io<'_>) {
        if let Some(open) = self.open.take() {
            io.buffers.release(open.builder.buffer);
        }
        while let Some(at) = self.in_flight.iter().position(|moving| moving.written) {
            let moving = self.in_flight.remove(at).expect("the position was just found");
            io.buffers.release(moving.builder.buffer);
        }
        if let Some(victim) = &mut self.victim {
            victim.reader.stop();
            while let Some(chunk) = victim.reader.take(io) {
                io.buffers.release(chunk.buffer);
            }
        }
    }

    /// A segment's header was written; says whether it is the cleaner's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        self.head.header_written(segment, space, io)
    }

    /// A read of the victim has ended.
    pub fn read_completed(&mut self, index: u64, result: Result<(), DeviceError>) {
        let victim = self.victim.as_mut().expect("a cleaning read is of the present victim");
        victim.reader.complete(index, result);
    }
}

impl Shard {
    /// Free segments below which cleaning works.
    fn cleaning_begins_at(&self) -> u32 {
        let (segments, _) = self.space.counts();
        self.space.reserve() + (segments / FREE_SHARE).max(2)
    }

    pub(crate) fn pump_cleaning(&mut self, io: &mut Io<'_>) {
        self.apply_moved(io);
        if self.cleaner.victim.is_none() && self.cleaner.in_flight.is_empty() {
            self.choose_victim(io);
        }
        if self.cleaner.victim.is_some() {
            self.cleaner.head.open_ahead(Claim::Cleaning, &mut self.space, io);
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

    /// Leaves a victim for whose records there is no segment: it may not hold up everything else.
    fn abandon_stuck_victim(&mut self, io: &mut Io<'_>) {
        let no_segment = !self.space.may_take(Claim::Cleaning);
        let Cleaner { victim, open, in_flight, head, .. } = &mut self.cleaner;
        let Some(victim) = victim else { return };
        let placeless = |(_, from): &(usize, Location)| {
            head.claim_for(frame_len(from.len() as usize) as u64).is_none() && no_segment
        };
        let is_stuck =
            open.is_none() && in_flight.is_empty() && victim.records.front().is_some_and(placeless);
        if is_stuck {
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
    fn is_starved(&self) -> bool {
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
        let (_, free) = self.space.counts();
        let starved = self.is_starved();
        if free >= self.cleaning_begins_at() || (self.cleaner.exhausted && !starved) {
            return;
        }
        let durable = (self.superblock.user_from_generation, self.superblock.cleaning_from_generation);
        let has_room = self.cleaner.head.has_room() || self.space.may_take(Claim::Cleaning);
        if let Some(segment) = self.space.victim(durable.0, durable.1).filter(|_| has_room) {
            self.cleaner.victim = Some(self.victim(segment));
            return;
        }
        if self.checkpointer.is_running() {
            return;
        }
        // What was written since the last checkpoint may not be cleaned before the next.
        let tail = self.log.bytes_since_checkpoint;
        let may_retry = starved && self.cleaner.starved_rounds < MOST_STARVED_ROUNDS;
        let worth_it = tail >= self.config.checkpoint_interval_bytes / 4 || may_retry;
        let next = (self.log.replay_from(&self.space).1, self.cleaner.replay_from(&self.space).1);
        if worth_it && !self.checkpointer.found_no_room && self.space.checkpoint_would_help(durable, next) {
            self.cleaner.starved_rounds += u32::from(starved);
            self.begin_checkpoint();
            return;
        }
        self.cleaner.exhausted = true;
        // Dropped partitions still give space back, and so do emptied segments.
        let more_to_come = !self.catalog.dropping.is_empty() || self.space.is_freeing();
        if starved && !more_to_come && !self.log.head().is_opening() {
            self.fail_starved(io);
        }
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
        Victim { segment, reader, scanner, bytes: Vec::new(), records: VecDeque::new(), is_abandoned: false }
    }

    /// Takes the next chunk, if the records of the last are on their way. Says whether it did.
    fn read_victim(&mut self, io: &mut Io<'_>) -> bool {
        let Some(victim) = &mut self.cleaner.victim else { return false };
        victim.reader.pump(io);
        if !victim.records.is_empty() || victim.is_abandoned {
            return false;
        }
        victim.bytes.clear();
        let Some(chunk) = victim.reader.take(io) else { return false };
        let unreadable;
        let bytes = match chunk.result {
            Ok(()) => &io.buffers.bytes(chunk.buffer)[..chunk.len as usize],
            Err(_) => {
                unreadable = vec![0u8; chunk.len as usize];
                &unreadable
            }
        };
        let (catalog, seed) = (&self.catalog, self.place.seed);
        let (out, records) = (&mut victim.bytes, &mut victim.records);
        victim.scanner.feed(bytes, |frame| {
            for_each_record(seed, &frame.header, frame.at, frame.bytes, |record, at, len| {
                let location = Location::new(at, len);
                let is_live = record.kind == RecordKind::Put
                    && catalog.locate(record.partition, record.key) == Some(location);
                if is_live {
                    records.push_back((out.len(), location));
                    let offset = (at - frame.at) as usize;
                    out.extend_from_slice(&frame.bytes[offset..offset + len as usize]);
                }
            });
        });
        io.buffers.release(chunk.buffer);
        victim.reader.pump(io);
        true
    }

    /// Encodes waiting records into cleaning frames, while there is room.
    fn move_records(&mut self, io: &mut Io<'_>) {
        while let Some((begin, from)) = self.next_to_move() {
            if !self.make_cleaning_room(from.len() as usize, io) {
                return;
            }
            let Cleaner { victim, open, place, .. } = &mut self.cleaner;
            let (Some(victim), Some(open)) = (victim.as_mut(), open.as_mut()) else { return };
            let record = Record::decode_unchecked(&victim.bytes[begin..])
                .expect("records on their way were checked when they were read");
            open.builder.push(place, io.buffers, &record);
            self.stats.relocated_bytes += u64::from(from.len());
            victim.records.pop_front();
        }
    }

    /// The next waiting record that is still live.
    fn next_to_move(&mut self) -> Option<(usize, Location)> {
        let victim = self.cleaner.victim.as_mut()?;
        while let Some(&(begin, from)) = victim.records.front() {
            let record = Record::decode_unchecked(&victim.bytes[begin..]).ok();
            let is_live = record.is_some_and(|r| self.catalog.locate(r.partition, r.key) == Some(from));
            if is_live {
                return Some((begin, from));
            }
            victim.records.pop_front();
        }
        None
    }

    fn make_cleaning_room(&mut self, record_bytes: usize, io: &mut Io<'_>) -> bool {
        let cleaner = &mut self.cleaner;
        let Some(source) = cleaner.victim.as_ref().map(|victim| victim.segment) else { return false };
        if cleaner.open.as_ref().is_some_and(|open| open.builder.fits(record_bytes)) {
            return true;
        }
        if cleaner.open.is_some() && !self.close_cleaning_frame(io) {
            return false;
        }
        let cleaner = &mut self.cleaner;
        let least = frame_len(record_bytes);
        let place = cleaner.head.place_for(least as u64, &mut self.space);
        let Some(place) = place else {
            cleaner.head.open_ahead(Claim::Cleaning, &mut self.space, io);
            return false;
        };
        let full = LEAST_FRAME_BYTES.max(self.config.frame_bytes as usize);
        let wanted = least.max(full).min(place.room as usize);
        let full = io.buffers.acquire(wanted).map(|buffer| (buffer, wanted));
        let Some((buffer, capacity)) = full.or_else(|| io.buffers.acquire(least).map(|b| (b, least))) else {
            return false;
        };
        let builder = FrameBuilder::new(Stream::Cleaning, cleaner.next_number, place, buffer, capacity);
        cleaner.next_number = cleaner.next_number.next();
        cleaner.open = Some(Moving { builder, source, written: false });
        true
    }

    fn close_cleaning_frame(&mut self, io: &mut Io<'_>) -> bool {
        let cleaner = &mut self.cleaner;
        if cleaner.in_flight.len() >= FRAMES_IN_FLIGHT {
            return false;
        }
        let Some(moving) = cleaner.open.take() else { return true };
        let number = moving.builder.number;
        let header = moving.builder.header(cleaner.durable, moving.source.0);
        let token = Purpose::CleaningFrame.token(number.0);
        let bytes = moving.builder.write(&cleaner.place, io, token, true, &header) as u64;
        cleaner.head.advance(bytes);
        self.stats.cleaning_frame_bytes += bytes;
        cleaner.in_flight.push_back(moving);
        true
    }

    pub(crate) fn cleaning_frame_written(
        &mut self,
        number: u64,
        result: Result<(), DeviceError>,
        io: &mut Io<'_>,
    ) {
        let in_flight = &mut self.cleaner.in_flight;
        let moving = in_flight.iter_mut().find(|moving| moving.builder.number.0 == number);
        moving.expect("a cleaning frame that was written is in flight").written = true;
        if result.is_err() {
            self.poison(io);
        }
        if self.log.is_poisoned() {
            let at = self.cleaner.in_flight.iter().position(|moving| moving.builder.number.0 == number);
            let moving = at.and_then(|at| self.cleaner.in_flight.remove(at));
            if let Some(moving) = moving {
                io.buffers.release(moving.builder.buffer);
            }
        }
    }

    /// Lets the index follow the frames that became durable, in order.
    fn apply_moved(&mut self, io: &mut Io<'_>) {
        while self.cleaner.in_flight.front().is_some_and(|moving| moving.written) {
            let Some(moving) = self.cleaner.in_flight.pop_front() else { return };
            assert_eq!(self.cleaner.durable.next(), moving.builder.number, "in order");
            self.cleaner.durable = moving.builder.number;
            let Shard { catalog, space, cache, .. } = self;
            let mut effects = Effects { catalog, space, cache };
            moving.builder.for_each_record(io.buffers, |record, location| {
                effects.relocated(&record, location, moving.source);
            });
            io.buffers.release(moving.builder.buffer);
        }
    }

    /// Says whether the victim is done with.
    fn finish_victim(&mut self, io: &mut Io<'_>) -> bool {
        let done = |victim: &Victim| victim.reader.is_done() && victim.records.is_empty();
        if !self.cleaner.victim.as_ref().is_some_and(done) || !self.close_cleaning_frame(io) {
            return false;
        }
        if !self.cleaner.in_flight.is_empty() {
            return false;
        }
        let Some(victim) = self.cleaner.victim.take() else { return false };
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
