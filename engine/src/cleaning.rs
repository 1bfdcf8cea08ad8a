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
        }
    }

    /// Recovery has seen cleaning frames up to this number.
    pub fn resume_after(&mut self, number: FrameNumber) {
        self.next_number = number.next();
        self.durable = number;
    }

    /// Records died or were written: another look may find a victim.
    pub fn space_may_have_changed(&mut self) {
        self.exhausted = false;
    }

    /// Generation of the first segment that may hold a frame which a checkpoint that begins now lacks.
    pub fn replay_from(&self, space: &Space) -> Generation {
        let first = self.in_flight.front().or(self.open.as_ref());
        let placed = first.map(|moving| moving.builder.place.generation);
        let beyond = Generation(space.highest_generation().0 + 1);
        placed.or(self.head.generation()).unwrap_or(beyond)
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
            if self.finish_victim(io) {
                self.choose_victim(io);
                self.read_victim(io);
            }
        }
    }

    fn choose_victim(&mut self, io: &mut Io<'_>) {
        let (_, free) = self.space.counts();
        let starved = free <= self.space.reserve() && !self.parked.is_empty();
        if free >= self.cleaning_begins_at() || (self.cleaner.exhausted && !starved) {
            return;
        }
        let (user_from, cleaning_from) =
            (self.superblock.user_from_generation, self.superblock.cleaning_from_generation);
        if let Some(segment) = self.space.victim(user_from, cleaning_from) {
            self.cleaner.victim = Some(self.victim(segment));
            return;
        }
        // What was written since the last checkpoint may not be cleaned before the next.
        let tail = self.log.bytes_since_checkpoint;
        let worth_it = tail >= self.config.checkpoint_interval_bytes / 4 || (starved && tail > 0);
        if self.checkpointer.is_running() {
            return;
        }
        if worth_it {
            self.begin_checkpoint();
        } else {
            self.cleaner.exhausted = true;
            // Dropped partitions still give space back, and so do emptied segments.
            if starved && self.catalog.dropping.is_empty() && !self.log.head().is_opening() {
                self.fail_parked_puts(io);
            }
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
        Victim { segment, reader, scanner, bytes: Vec::new(), records: VecDeque::new() }
    }

    /// Takes the next chunk, if the records of the last are on their way. Says whether it did.
    fn read_victim(&mut self, io: &mut Io<'_>) -> bool {
        let Some(victim) = &mut self.cleaner.victim else { return false };
        victim.reader.pump(io);
        if !victim.records.is_empty() {
            return false;
        }
        victim.bytes.clear();
        let Some(chunk) = victim.reader.take() else { return false };
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
        let wanted = least.max(self.config.frame_bytes as usize).min(place.room as usize);
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
        self.stats.segments_cleaned += 1;
        if self.space.get(victim.segment).live_bytes > 0 {
            self.space.mark_damaged(victim.segment);
        }
        self.free_emptied(io);
        true
    }
}
