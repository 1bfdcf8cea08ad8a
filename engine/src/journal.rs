//! The journal of index changes: what was applied to the index, in the order in which it was, in a stream of its own.
//!
//! A restart loads the last image and replays the journal over it, and then the few user frames that the journal does
//! not cover yet. So neither users' frames nor those of cleaning are read again, records may move as often as
//! cleaning likes, and a segment is free as soon as it is empty and a durable journal frame says so.
//!
//! Entries are collected in memory and written when a frame is full, or when somebody waits for them. Where no
//! segment can be had for them and no checkpoint makes room, the journal *breaks off*: entries are dropped, what they
//! were about stays in the users' log, where nothing is freed, and the next checkpoint begins the journal anew.

use std::collections::{BTreeSet, VecDeque};

use crate::append::{AppendHead, Place};
use crate::audit::Watermarks;
use crate::format::align_down;
use crate::format::frame::{FRAME_HEADER_BYTES, PartitionSet, Stream, frame_len};
use crate::format::journal::{JOURNAL_HEAD_BYTES, JournalEntries, JournalEntry, JournalHead, LogPosition};
use crate::frame_builder::FrameBuilder;
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, SegmentId, Seq};
use crate::io::{Io, Purpose};
use crate::limits::{BLOCK_BYTES, MAX_KEY_BYTES};
use crate::log::LogFrame;
use crate::recovery::FrameBytes;
use crate::seam::DeviceError;
use crate::shard::Shard;
use crate::space::{Claim, Settled, Space};

/// Most bytes of a journal frame.
const MOST_FRAME_BYTES: usize = 64 << 10;
/// Least of it: any change of the catalog fits, two keys' bounds and all.
const LEAST_FRAME_BYTES: usize = 3 * BLOCK_BYTES;
const _: () = assert!(2 * MAX_KEY_BYTES + 256 + FRAME_HEADER_BYTES + JOURNAL_HEAD_BYTES <= LEAST_FRAME_BYTES);
/// Journal frames written at once.
const FRAMES_IN_FLIGHT: usize = 2;
/// Closed frames that wait to be written: with more, nothing is applied until some are.
const MOST_READY: usize = 8;
/// As many after a start, of what the users' frames did that were replayed: they are all there is to be kept.
const MOST_READY_AT_START: usize = 64;
/// A frame is written, full or not, when users' frames of so large a part of the area are not covered, or of so many
/// bytes: a restart reads them.
const UNCOVERED_SHARE: u64 = 256;
const LEAST_UNCOVERED_BYTES: u32 = 1 << 20;
const MOST_UNCOVERED_BYTES: u64 = 16 << 20;

/// A frame's payload, made and not yet written.
#[derive(Debug)]
struct Closed {
    number: FrameNumber,
    payload: Vec<u8>,
    partitions: PartitionSet,
    user_upto: FrameNumber,
}

/// A frame being written.
#[derive(Debug)]
struct Flight {
    builder: FrameBuilder,
    user_upto: FrameNumber,
    written: bool,
}

/// Whether entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Yes.
    Whole,
    /// No: there was no room. The next checkpoint begins anew.
    Broken,
    /// Yes, from the frame on with which a checkpoint under way begins anew; none is written before that is durable.
    Mending,
}

/// The journal of a shard.
#[derive(Debug)]
pub struct Journal {
    place: Place,
    head: AppendHead,
    state: State,
    /// The open frame: its entries, its number, and what was applied before them.
    open: JournalEntries,
    next_number: FrameNumber,
    seq_before: Seq,
    /// What has been applied so far.
    seq_upto: Seq,
    user_upto: FrameNumber,
    user_from: LogPosition,
    /// What the last frame that was closed says of them.
    closed_user: FrameNumber,
    ready: VecDeque<Closed>,
    in_flight: VecDeque<Flight>,
    /// All frames up to this one are durable. Set in `take_durable` and `began_anew` alone.
    durable: FrameNumber,
    /// What is before this one is in an image that is durable.
    from: FrameNumber,
    /// User frames up to this one are covered by what is durable.
    covered_user: FrameNumber,
    /// The frame that the last entry belongs to.
    last_entry: FrameNumber,
    /// The frame that says of the last record whose time was over that it was taken out.
    expired_entry: FrameNumber,
    /// Segments in use, in order, and the highest number of a frame in each.
    segments: VecDeque<(SegmentId, FrameNumber)>,
    /// Somebody waits for the entries so far.
    wanted: bool,
    /// Bytes of users' frames that were applied since the last frame was closed.
    uncovered_bytes: u64,
    /// Bytes of frames since the last checkpoint began.
    pub bytes_since_checkpoint: u64,
}

impl Journal {
    /// A journal whose next frame has this number, where user frames up to `user_upto` are dealt with.
    pub fn new(
        place: Place,
        next_number: FrameNumber,
        user_upto: FrameNumber,
        user_from: LogPosition,
    ) -> Journal {
        assert!(next_number.0 > 0, "frames are numbered from 1");
        let before = FrameNumber(next_number.0 - 1);
        Journal {
            place,
            head: AppendHead::new(Stream::Journal, place),
            state: State::Whole,
            open: JournalEntries::default(),
            next_number,
            seq_before: Seq::default(),
            seq_upto: Seq::default(),
            user_upto,
            user_from,
            closed_user: user_upto,
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            durable: before,
            from: next_number,
            covered_user: user_upto,
            last_entry: before,
            expired_entry: before,
            segments: VecDeque::new(),
            wanted: false,
            uncovered_bytes: 0,
            bytes_since_checkpoint: 0,
        }
    }

    /// What its frames may take.
    pub fn frame_bytes(geometry: &Geometry) -> FrameBytes {
        let longest = frame_len(payload_bytes(geometry)) as u64;
        FrameBytes { longest, in_flight: FRAMES_IN_FLIGHT as u64 * longest }
    }

    /// Recovery has found this segment of the journal, which an image does not make superfluous.
    pub fn keep(&mut self, segment: SegmentId) {
        self.segments.push_back((segment, FrameNumber(self.next_number.0 - 1)));
    }

    /// Appends what was just applied.
    pub fn push(&mut self, entry: &JournalEntry<'_>) {
        self.last_entry = self.next_number;
        if self.state == State::Broken {
            return;
        }
        let most_bytes = payload_bytes(&self.place.geometry) - JOURNAL_HEAD_BYTES;
        assert!(entry.most_bytes() <= most_bytes, "an entry of up to {} bytes", entry.most_bytes());
        if self.open.bytes() + entry.most_bytes() > most_bytes {
            self.close();
            self.last_entry = self.next_number;
        }
        self.open.push(entry);
    }

    /// A record of this version was applied.
    pub fn saw(&mut self, seq: Seq) {
        self.seq_upto = self.seq_upto.max(seq);
    }

    /// A journal that a start has read goes on: nothing that it says is of a higher version. Should a frame of it turn out damaged
    /// later, the next one tells up to where writes may be lost.
    pub fn goes_on_after(&mut self, seq: Seq) {
        self.seq_before = seq;
        self.saw(seq);
    }

    /// All of a user frame was applied; the next ones lie from here on.
    pub fn cover_user(&mut self, number: FrameNumber, next_from: LogPosition, bytes: u64) {
        assert!(self.user_upto < number, "user frames are applied in order");
        self.user_upto = number;
        self.user_from = next_from;
        self.uncovered_bytes += bytes;
    }

    /// Where user frames begin that are not applied.
    pub fn user_position(&self) -> (FrameNumber, LogPosition) {
        (self.user_upto.next(), self.user_from)
    }

    /// The frame to which the last entry belongs: when it is settled, so is all that was applied so far.
    pub fn position(&self) -> FrameNumber {
        self.last_entry
    }

    /// The last entry is of a record whose time was over.
    pub fn note_expired(&mut self) {
        self.expired_entry = self.last_entry;
    }

    /// Whether a restart would find every record gone whose time was over and that was taken out, whatever the clock shows
    /// then.
    pub fn expiries_are_settled(&self) -> bool {
        self.expired_entry <= self.settled().0
    }

    /// Everything up to here will be found by a restart, though what it is about were gone.
    pub fn settled(&self) -> (FrameNumber, FrameNumber) {
        (self.durable.max(FrameNumber(self.from.0 - 1)), self.covered_user)
    }

    /// Somebody waits for the entries so far to be durable.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether something may be applied: its entries would be kept in memory.
    pub fn has_room(&self) -> bool {
        self.ready.len() < MOST_READY || self.state == State::Broken
    }

    /// The same while users' frames are replayed.
    pub fn has_room_at_start(&self) -> bool {
        self.ready.len() < MOST_READY_AT_START
    }

    /// Whether entries were lost: only a checkpoint helps.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// How far it is.
    pub fn watermarks(&self) -> Watermarks {
        let written = self.in_flight.back().map_or(self.durable, |flight| flight.builder.number);
        // The open frame has a number when there is something in it.
        let begun = self.next_number.0 - u64::from(self.open.bytes() == 0);
        Watermarks { durable: self.durable, written, appended: FrameNumber(begun) }
    }

    /// The segments that it appends to.
    pub fn open_segments(&self) -> Vec<SegmentId> {
        self.head.segments().collect()
    }

    /// Its segments, each once.
    pub fn in_use(&self) -> BTreeSet<SegmentId> {
        self.segments.iter().map(|(segment, _)| *segment).chain(self.head.segments()).collect()
    }

    /// Segments in use.
    pub fn segments_in_use(&self) -> u32 {
        self.segments.len() as u32
    }

    /// Closes the open frame, if there is anything in it, or anything to be said without entries.
    fn close(&mut self) {
        self.uncovered_bytes = 0;
        if self.open.bytes() == 0 && self.closed_user == self.user_upto {
            return;
        }
        self.closed_user = self.user_upto;
        let head = JournalHead {
            user_upto: self.user_upto,
            user_from: self.user_from,
            seq_before: self.seq_before,
            seq_upto: self.seq_upto,
        };
        let (payload, partitions) = std::mem::take(&mut self.open).finish(&head);
        let number = self.next_number;
        self.ready.push_back(Closed { number, payload, partitions, user_upto: self.user_upto });
        self.next_number = number.next();
        self.seq_before = self.seq_upto;
    }

    /// There is no room: what is not yet written never will be.
    pub fn break_off(&mut self) {
        self.state = State::Broken;
        self.ready.clear();
        self.open = JournalEntries::default();
        self.uncovered_bytes = 0;
    }

    /// Whether a checkpoint may begin now. What a broken journal has in flight is waited for.
    pub fn may_begin_checkpoint(&self) -> bool {
        self.state == State::Whole || self.in_flight.is_empty()
    }

    /// A checkpoint begins. Gives the first frame that its image may lack, and where it may lie.
    pub fn begin_checkpoint(&mut self, space: &Space) -> (FrameNumber, LogPosition) {
        if self.state == State::Broken {
            assert!(self.in_flight.is_empty(), "what was in flight is waited for");
            assert!(self.ready.is_empty() && self.open.bytes() == 0, "a broken journal keeps nothing");
            // The number of the lost entries is never used. Nor is a frame closed that would say which users' frames were
            // applied meanwhile: it would come before the one with which the journal begins anew, and that one says so.
            self.uncovered_bytes = 0;
            self.next_number = self.next_number.next();
            self.seq_before = self.seq_upto;
            self.state = State::Mending;
        } else {
            self.close();
        }
        self.bytes_since_checkpoint = 0;
        let beyond = Generation(space.highest_generation().0 + 1);
        (self.next_number, self.head.position().unwrap_or(LogPosition { generation: beyond, offset: 0 }))
    }

    /// A checkpoint that begins with this frame is durable: what lies before it is superfluous.
    pub fn began_anew(&mut self, from: FrameNumber, user_from: FrameNumber, space: &mut Space) {
        assert!(self.from <= from && from <= self.next_number, "checkpoints only go forward");
        self.from = from;
        self.covered_user = self.covered_user.max(FrameNumber(user_from.0 - 1));
        if self.state == State::Mending {
            self.state = State::Whole;
            self.durable = FrameNumber(from.0 - 1);
        }
        let is_old = |(segment, last): &(SegmentId, FrameNumber)| {
            self.head.segment() == Some(*segment) && *last < from && self.in_flight.is_empty()
        };
        if self.segments.back().is_some_and(is_old) {
            // Nothing in it is of use any more: it makes room.
            self.head.seal(space);
        }
        let current = self.head.segment();
        self.segments.retain(|(segment, last)| {
            let is_needed = *last >= from || current == Some(*segment);
            if !is_needed {
                space.set_in_use(*segment, false);
            }
            is_needed
        });
    }

    /// A checkpoint found no room: a journal that was to begin anew with it stays broken.
    pub fn checkpoint_abandoned(&mut self) {
        if self.state == State::Mending {
            self.break_off();
        }
    }

    /// A segment's header was written; says whether it is the journal's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        self.head.header_written(segment, space, io)
    }

    /// Writes what is ready. Gives the bytes that were written, and whether a segment is lacking.
    fn write(&mut self, space: &mut Space, io: &mut Io<'_>) -> (u64, bool) {
        let share = (self.place.geometry.area_bytes() / UNCOVERED_SHARE).min(MOST_UNCOVERED_BYTES);
        let least = self.place.geometry.segment_bytes.min(LEAST_UNCOVERED_BYTES);
        let is_due = self.uncovered_bytes >= share.max(u64::from(least));
        let is_idle = self.ready.is_empty() && self.in_flight.is_empty();
        if self.state == State::Whole && is_idle && (self.wanted || is_due) {
            self.close();
            self.wanted = false;
        }
        let mut bytes = 0;
        while self.in_flight.len() < FRAMES_IN_FLIGHT && self.state == State::Whole {
            let Some(closed) = self.ready.front() else { break };
            let len = frame_len(closed.payload.len());
            let Some(place) = self.head.place_for(len as u64, space) else {
                let taken = self.head.open_for(len as u64, Claim::Journal, space, io);
                taken.into_iter().for_each(|segment| space.set_in_use(segment, true));
                return (bytes, !self.head.is_opening() && !space.may_take(Claim::Journal));
            };
            let Some(buffer) = io.buffers.acquire(len) else { break };
            let Some(Closed { number, payload, partitions, user_upto }) = self.ready.pop_front() else {
                break;
            };
            let mut builder = FrameBuilder::new(Stream::Journal, number, place, buffer, len);
            builder.push_raw(io.buffers, &payload, partitions);
            let header = builder.header(self.durable, crc32c::crc32c(&payload));
            let token = Purpose::JournalFrame.token(number.0);
            let written = builder.write(&self.place, io, token, true, &header) as u64;
            self.head.advance(written);
            bytes += written;
            match self.segments.back_mut().filter(|(segment, _)| *segment == place.segment) {
                Some((_, last)) => *last = number,
                None => self.segments.push_back((place.segment, number)),
            }
            self.in_flight.push_back(Flight { builder, user_upto, written: false });
        }
        self.bytes_since_checkpoint += bytes;
        (bytes, false)
    }

    /// A frame's write has ended.
    fn written(&mut self, number: u64) {
        let flight = self.in_flight.iter_mut().find(|flight| flight.builder.number.0 == number);
        flight.expect("a journal frame that was written is in flight").written = true;
    }

    /// Takes the frames that became durable, in order. This is where the durable watermark moves.
    fn take_durable(&mut self, io: &mut Io<'_>) {
        while self.in_flight.front().is_some_and(|flight| flight.written) {
            let Some(Flight { builder, user_upto, .. }) = self.in_flight.pop_front() else { break };
            assert_eq!(self.durable.next(), builder.number, "journal frames become durable in order");
            self.durable = builder.number;
            self.covered_user = self.covered_user.max(user_upto);
            io.buffers.release(builder.buffer);
        }
    }

    /// The log is poisoned: gives back what no operation of the drive uses.
    pub fn release(&mut self, io: &mut Io<'_>) {
        while let Some(at) = self.in_flight.iter().position(|flight| flight.written) {
            let flight = self.in_flight.remove(at).expect("the position was just found");
            io.buffers.release(flight.builder.buffer);
        }
    }
}

impl Shard {
    /// What a restart would find though it were gone.
    pub(crate) fn settled(&self) -> Settled {
        let (journal, user) = self.journal.settled();
        Settled { journal, user, cleaning: self.cleaner.durable() }
    }

    /// All of a user frame was applied: the journal says so in its next frame.
    pub(crate) fn cover_applied(&mut self, frame: &LogFrame) {
        let (place, bytes) = (frame.builder.place, frame.builder.frame_len() as u64);
        let offset = place.at + bytes - self.place.geometry.segment_at(place.segment);
        let behind = LogPosition { generation: place.generation, offset: offset as u32 };
        self.journal.cover_user(frame.builder.number, behind, bytes);
    }

    pub(crate) fn pump_journal(&mut self, io: &mut Io<'_>) {
        let (bytes, lacks_segment) = self.journal.write(&mut self.space, io);
        self.stats.journal_bytes += bytes;
        if lacks_segment && !self.checkpointer.is_running() {
            if self.checkpointer.found_no_room {
                self.journal.break_off();
                self.has_more = true;
            } else {
                // It gives the journal's segments back.
                self.checkpointer.wanted = true;
            }
        }
        self.checkpointer.wanted |= self.journal.is_broken() && !self.checkpointer.found_no_room;
    }

    /// The journal has broken off, and the checkpoint that was to begin it anew has found no room: what waits for it waits until
    /// there is some.
    pub(crate) fn journal_is_stuck(&self) -> bool {
        self.journal.is_broken() && self.checkpointer.found_no_room && !self.checkpointer.is_running()
    }

    pub(crate) fn journal_frame_written(
        &mut self,
        number: u64,
        result: Result<(), DeviceError>,
        io: &mut Io<'_>,
    ) {
        self.journal.written(number);
        if result.is_err() {
            self.poison(io);
        }
        if self.log.is_poisoned() {
            self.journal.release(io);
        } else {
            self.journal.take_durable(io);
        }
    }
}

/// Payload of one journal frame: several frames share a segment, however small it is.
fn payload_bytes(geometry: &Geometry) -> usize {
    let quarter = align_down(geometry.segment_payload_bytes() / 4, BLOCK_BYTES as u64) as usize;
    quarter.clamp(LEAST_FRAME_BYTES, MOST_FRAME_BYTES) - FRAME_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ChecksumSeed;
    use crate::ids::{DriveOffset, ShardId};

    #[test]
    fn a_journal_that_begins_anew_has_no_frame_before_its_first() {
        let geometry =
            Geometry::plan(64 << 20, 1, Some(1 << 20), 64 << 10).expect("the drive is large enough");
        let (seed, space) = (ChecksumSeed::new(&[7; 16], ShardId(0)), Space::new(geometry, 1));
        let place = Place { geometry, area_at: DriveOffset(0), seed };
        let mut journal = Journal::new(place, FrameNumber(1), FrameNumber(0), LogPosition::default());
        journal.break_off();
        // Users' frames go on being applied, and say nothing to it.
        journal.cover_user(FrameNumber(1), LogPosition::default(), 4096);
        journal.push(&JournalEntry::Freed(SegmentId(0), Generation(1)));
        let (from, _) = journal.begin_checkpoint(&space);
        assert_eq!(from, FrameNumber(2), "the number of what was lost is left out");
        assert!(journal.ready.is_empty(), "a frame before the first would never be in its turn");
        // And the first says what was applied.
        journal.close();
        let first = journal.ready.front().expect("there is something to be said");
        assert_eq!((first.number, first.user_upto), (from, FrameNumber(1)));
    }
}
