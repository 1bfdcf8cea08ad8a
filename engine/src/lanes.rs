//! The lanes of cleaning: logs side by side, each for survivors of another expected lifetime.
//!
//! Frames are numbered over all lanes in the order in which they are closed, from 1 at each start, and are applied in
//! that order.

use std::collections::VecDeque;

use crate::append::{AppendHead, Place};
use crate::audit::Watermarks;
use crate::format::frame::{Stream, frame_len};
use crate::format::record::Record;
use crate::frame_builder::FrameBuilder;
use crate::ids::{FrameNumber, SegmentId};
use crate::io::{Io, Purpose};
use crate::location::Location;
use crate::space::{Claim, Space};

/// Cleaning frames written at once.
const FRAMES_IN_FLIGHT: usize = 4;

/// A cleaning frame, open or being written.
#[derive(Debug)]
pub struct Moving {
    /// Its records.
    pub builder: FrameBuilder,
    /// Where each comes from.
    pub from: Vec<Origin>,
    written: bool,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Its place.
    pub location: Location,
    /// Its segment is kept as it is for this record alone, and not as a victim.
    pub is_pinned: bool,
}

#[derive(Debug)]
struct Lane {
    head: AppendHead,
    open: Option<Moving>,
}

/// All lanes of a shard.
#[derive(Debug)]
pub struct Lanes {
    place: Place,
    lanes: Vec<Lane>,
    in_flight: VecDeque<Moving>,
    next_number: FrameNumber,
    durable: FrameNumber,
}

impl Lanes {
    /// So many, with no segment yet.
    pub fn new(place: Place, count: u32) -> Lanes {
        let lane = |_| Lane { head: AppendHead::new(Stream::Cleaning, place), open: None };
        Lanes {
            place,
            lanes: (0..count).map(lane).collect(),
            in_flight: VecDeque::new(),
            next_number: FrameNumber(1),
            durable: FrameNumber(0),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// All frames up to this one are durable, and applied as soon as they are taken.
    pub fn durable(&self) -> FrameNumber {
        self.durable
    }

    /// How far they are.
    pub fn watermarks(&self) -> Watermarks {
        let written = self.in_flight.back().map_or(self.durable, |moving| moving.builder.number);
        Watermarks { durable: self.durable, written, appended: FrameNumber(self.next_number.0 - 1) }
    }

    /// The segments that they append to.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.lanes.iter().flat_map(|lane| lane.head.segments()).collect()
    }

    /// The log is poisoned: gives back what no operation of the drive uses.
    pub fn release(&mut self, io: &mut Io<'_>) {
        for open in self.lanes.iter_mut().filter_map(|lane| lane.open.take()) {
            io.buffers.release(open.builder.buffer);
        }
        while let Some(at) = self.in_flight.iter().position(|moving| moving.written) {
            let moving = self.in_flight.remove(at).expect("the position was just found");
            io.buffers.release(moving.builder.buffer);
        }
    }

    /// A segment's header was written; says whether it is a lane's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        self.lanes.iter_mut().any(|lane| lane.head.header_written(segment, space, io))
    }

    /// Whether any lane has a good part of a segment left.
    pub fn has_room(&self) -> bool {
        self.lanes.iter().any(|lane| lane.head.has_room())
    }

    /// Whether a segment is on its way to any lane.
    pub fn is_opening(&self) -> bool {
        self.lanes.iter().any(|lane| lane.head.is_opening())
    }

    /// Whether nothing is open and nothing being written.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.lanes.iter().all(|lane| lane.open.is_none())
    }

    /// Whether all that was closed is durable.
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn takes(&self, lane: usize, record_bytes: usize) -> bool {
        let Lane { head, open } = &self.lanes[lane];
        let fits = open.as_ref().is_some_and(|open| open.builder.fits(record_bytes));
        fits || head.claim_for(frame_len(record_bytes) as u64).is_some()
    }

    /// Whether any lane has room for a record, or is about to.
    pub fn any_takes(&self, record_bytes: usize) -> bool {
        (0..self.lanes.len()).any(|lane| self.takes(lane, record_bytes))
    }

    /// The lane for a record: the wanted one, or, where that has no room and segments are scarce, another.
    pub fn choose(&self, wanted: usize, record_bytes: usize, space: &Space) -> usize {
        if self.takes(wanted, record_bytes) || space.has_more_than_one(Claim::Cleaning) {
            return wanted;
        }
        let other = (0..self.lanes.len()).find(|lane| self.takes(*lane, record_bytes));
        other.unwrap_or(wanted)
    }

    /// Makes sure that the lane's open frame takes `record_bytes` more. False where that needs something
    /// that is not there yet. Gives the bytes of a frame that it closed for this.
    pub fn make_room(
        &mut self,
        lane: usize,
        record_bytes: usize,
        frame_bytes: usize,
        space: &mut Space,
        io: &mut Io<'_>,
    ) -> (bool, u64) {
        if self.lanes[lane].open.as_ref().is_some_and(|open| open.builder.fits(record_bytes)) {
            return (true, 0);
        }
        let Some(closed_bytes) = self.close(lane, space, io) else { return (false, 0) };
        let head = &mut self.lanes[lane].head;
        let least = frame_len(record_bytes);
        let Some(place) = head.place_for(least as u64, space) else {
            head.open_for(least as u64, Claim::Cleaning, space, io);
            return (false, closed_bytes);
        };
        let wanted = least.max(frame_bytes).min(place.room as usize);
        let full = io.buffers.acquire(wanted).map(|buffer| (buffer, wanted));
        let Some((buffer, capacity)) = full.or_else(|| io.buffers.acquire(least).map(|b| (b, least))) else {
            return (false, closed_bytes);
        };
        // It gets its number when it is closed.
        let builder = FrameBuilder::new(Stream::Cleaning, FrameNumber(0), place, buffer, capacity);
        self.lanes[lane].open = Some(Moving { builder, from: Vec::new(), written: false });
        (true, closed_bytes)
    }

    /// Appends a record that comes from there, and for which there is room.
    pub fn push(&mut self, lane: usize, record: &Record<'_>, from: Origin, io: &mut Io<'_>) {
        let open = self.lanes[lane].open.as_mut().expect("make_room opened a frame");
        open.builder.push(&self.place, io.buffers, record);
        open.from.push(from);
    }

    /// Opens the next segment where the present one has no room for `len` bytes more: what comes next will not have to wait.
    pub fn open_ahead(&mut self, lane: usize, len: u64, space: &mut Space, io: &mut Io<'_>) {
        self.lanes[lane].head.open_for(len, Claim::Cleaning, space, io);
    }

    /// Closes a lane's open frame, if any, and gives its bytes; `None` where too many are being written.
    fn close(&mut self, lane: usize, space: &mut Space, io: &mut Io<'_>) -> Option<u64> {
        let Lane { head, open } = &mut self.lanes[lane];
        if open.is_none() {
            return Some(0);
        }
        if self.in_flight.len() >= FRAMES_IN_FLIGHT {
            return None;
        }
        let mut moving = open.take()?;
        let number = self.next_number;
        self.next_number = number.next();
        moving.builder.number = number;
        space.saw_frame(moving.builder.place.segment, number);
        let header = moving.builder.header(self.durable, moving.builder.records());
        let token = Purpose::CleaningFrame.token(number.0);
        let bytes = moving.builder.write(&self.place, io, token, true, &header) as u64;
        head.advance(bytes);
        self.in_flight.push_back(moving);
        Some(bytes)
    }

    /// Closes all open frames, as far as so many may be written at once. Gives their bytes.
    pub fn close_all(&mut self, space: &mut Space, io: &mut Io<'_>) -> u64 {
        (0..self.lanes.len()).map_while(|lane| self.close(lane, space, io)).sum()
    }

    /// A frame's write has ended.
    pub fn written(&mut self, number: u64) {
        let moving = self.in_flight.iter_mut().find(|moving| moving.builder.number.0 == number);
        moving.expect("a cleaning frame that was written is in flight").written = true;
    }

    /// The next frame that became durable, in order.
    pub fn take_durable(&mut self) -> Option<Moving> {
        if !self.in_flight.front()?.written {
            return None;
        }
        let moving = self.in_flight.pop_front()?;
        assert_eq!(self.durable.next(), moving.builder.number, "cleaning frames become durable in order");
        self.durable = moving.builder.number;
        Some(moving)
    }
}
