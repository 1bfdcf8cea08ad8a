//! The user log: group commit into frames, several in flight, acknowledged strictly in order.

use std::collections::{HashMap, VecDeque};

use crate::append::{AppendHead, Place};
use crate::audit::Watermarks;
use crate::config::ShardConfig;
use crate::format::frame::{Stream, frame_len};
use crate::format::record::{Record, record_room};
use crate::frame_builder::FrameBuilder;
use crate::ids::{FrameNumber, PartitionId, RequestId, SegmentId, Seq, WallMs};
use crate::io::{Io, Purpose};
use crate::limits::{MAX_BATCH_BYTES, MAX_BATCH_WRITES};
use crate::location::RECORD_ALIGN_BYTES;
use crate::recovery::FrameBytes;
use crate::reply::Delay;
use crate::seam::DeviceError;
use crate::space::{Claim, Space};
use crate::stats::ShardStats;

/// Which counter an acknowledged write belongs to, and which reply it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// A put.
    Put,
    /// A delete.
    Delete,
    /// A batch.
    Batch,
    /// An increment.
    Increment,
    /// A change of a record's expiry.
    Expire,
    /// A change of the catalog, complete with its last record.
    Catalog,
    /// A change of the catalog of which more is to come.
    Silent,
}

/// A request that waits for its frame to be durable.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// The request.
    pub id: RequestId,
    /// How many records it wrote.
    pub records: u32,
    /// Bytes of its keys and values.
    pub user_bytes: u64,
    /// Its last record's version.
    pub seq: Seq,
    /// Its kind.
    pub kind: AckKind,
    /// Of an increment, the number that it wrote.
    pub number: Option<i64>,
    /// When its records were in the frame.
    pub appended_ns: u64,
}

/// A number that an increment wrote and that is not yet applied: the next increment goes on from here, in
/// the same frame or the next, without waiting for the drive.
#[derive(Debug)]
struct PendingNumber {
    partition: PartitionId,
    key: Box<[u8]>,
    number: i64,
    expires: Option<WallMs>,
}

/// A frame that is open, being written, or durable and not yet applied.
#[derive(Debug)]
pub struct LogFrame {
    /// Its records.
    pub builder: FrameBuilder,
    /// Who waits, in the order of the records.
    pub acks: Vec<Ack>,
    opened_ns: u64,
    closed_ns: u64,
    /// How long its write took.
    drive_ns: u64,
    written: bool,
}

impl LogFrame {
    /// What a request with records in it has waited for by now, where it is durable.
    pub fn delay(&self, ack: &Ack, now_ns: u64) -> Delay {
        let since_ns = now_ns.saturating_sub(ack.appended_ns);
        let drive_ns = self.drive_ns.min(since_ns);
        Delay { drive_ns, commit_ns: since_ns - drive_ns }
    }
}

/// The user log.
#[derive(Debug)]
pub struct Log {
    place: Place,
    head: AppendHead,
    open: Option<LogFrame>,
    in_flight: VecDeque<LogFrame>,
    /// Number of the next frame to open.
    next_number: FrameNumber,
    /// All frames up to this one are durable. Set in `take_durable` alone.
    durable: FrameNumber,
    /// Keys written and not yet applied, by hash: the last frame that writes them, and how many of its
    /// records do.
    pending: HashMap<u64, (FrameNumber, u32), ahash::RandomState>,
    /// Of those, the ones whose last write is an increment's, by the same hash.
    numbers: HashMap<u64, PendingNumber, ahash::RandomState>,
    hasher: ahash::RandomState,
    /// Bytes of records appended and not yet applied.
    pending_bytes: u64,
    pending_writes: u64,
    /// The last write that found no room lacked a segment.
    lacks_segment: bool,
    poisoned: bool,
}

impl Log {
    /// A log whose next frame is `next_number`.
    pub fn new(place: Place, next_number: FrameNumber) -> Log {
        assert!(next_number.0 > 0, "frames are numbered from 1");
        let hasher = ahash::RandomState::with_seeds(11, 12, 13, 14);
        Log {
            place,
            head: AppendHead::new(Stream::User, place),
            open: None,
            in_flight: VecDeque::new(),
            next_number,
            durable: FrameNumber(next_number.0 - 1),
            pending: HashMap::with_hasher(hasher.clone()),
            numbers: HashMap::with_hasher(hasher.clone()),
            hasher,
            pending_bytes: 0,
            pending_writes: 0,
            lacks_segment: false,
            poisoned: false,
        }
    }

    /// What its frames may take: one holds at least a whole batch.
    pub fn frame_bytes(config: &ShardConfig) -> FrameBytes {
        let batch = MAX_BATCH_BYTES
            + MAX_BATCH_BYTES / 64
            + MAX_BATCH_WRITES * record_room(0, RECORD_ALIGN_BYTES, true);
        let longest = frame_len(batch).max(config.frame_bytes as usize) as u64;
        FrameBytes { longest, in_flight: config.frames_in_flight as u64 * longest }
    }

    /// Whether a frame is being written, or waits to be applied.
    pub fn is_writing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether a write has failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether the last write that found no room lacked a segment, and not something that comes back
    /// by itself.
    pub fn lacks_segment(&self) -> bool {
        self.lacks_segment
    }

    /// The last frame that was opened.
    pub fn last_number(&self) -> FrameNumber {
        FrameNumber(self.next_number.0 - 1)
    }

    /// All frames up to this one are durable.
    pub fn durable(&self) -> FrameNumber {
        self.durable
    }

    /// How far it is.
    pub fn watermarks(&self) -> Watermarks {
        let written = self.in_flight.back().map_or(self.durable, |frame| frame.builder.number);
        Watermarks { durable: self.durable, written, appended: self.last_number() }
    }

    /// The segments that it appends to.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.head.segments().collect()
    }

    /// Bytes of records appended and not yet applied.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Requests appended and not yet acknowledged.
    pub fn pending_writes(&self) -> u64 {
        self.pending_writes
    }

    /// The segment head, for headers that were written.
    pub fn head(&mut self) -> &mut AppendHead {
        &mut self.head
    }

    /// Stands for a key.
    pub fn hash(&self, partition: PartitionId, key: &[u8]) -> u64 {
        self.hasher.hash_one((partition.0, key))
    }

    /// The last frame that writes a key (or one of the same hash) and is not yet applied.
    pub fn pending_frame(&self, partition: PartitionId, key: &[u8]) -> Option<FrameNumber> {
        self.pending.get(&self.hash(partition, key)).map(|(frame, _)| *frame)
    }

    /// The number of a key whose last write is an increment that is not yet applied, and when it expires.
    pub fn pending_number(&self, partition: PartitionId, key: &[u8]) -> Option<(i64, Option<WallMs>)> {
        let pending = self.numbers.get(&self.hash(partition, key))?;
        let is_it = pending.partition == partition && *pending.key == *key;
        is_it.then_some((pending.number, pending.expires))
    }

    /// The record just appended holds this number.
    pub fn note_number(&mut self, partition: PartitionId, key: &[u8], number: i64, expires: Option<WallMs>) {
        let hash = self.hash(partition, key);
        assert!(self.pending.contains_key(&hash), "a pending number is of a pending record");
        self.numbers.insert(hash, PendingNumber { partition, key: key.into(), number, expires });
    }

    /// Whether a record of so many bytes would find no segment: then there is no use in reading for it.
    pub fn would_lack_segment(&mut self, record_bytes: usize, claim: Claim, space: &Space) -> bool {
        self.lacks_segment = false;
        if self.open.as_ref().is_some_and(|open| open.builder.fits(record_bytes)) {
            return false;
        }
        let open_bytes = self.open.as_ref().map_or(0, |open| open.builder.frame_len());
        let claimed = self.head.claim_for((open_bytes + frame_len(record_bytes)) as u64);
        let kept_for_deletes = claimed == Some(Claim::Delete);
        self.lacks_segment =
            claimed.is_none() || (claim == Claim::Put && kept_for_deletes && !space.may_take(Claim::Put));
        if claimed.is_none() {
            self.head.want_next();
        }
        self.lacks_segment
    }

    /// Makes sure that the open frame takes `record_bytes` more. False where that needs something that
    /// is not there yet: a free frame in flight, a segment, a buffer.
    pub fn make_room(
        &mut self,
        record_bytes: usize,
        claim: Claim,
        config: &ShardConfig,
        space: &mut Space,
        stats: &mut ShardStats,
        io: &mut Io<'_>,
    ) -> bool {
        self.lacks_segment = false;
        if self.open.as_ref().is_some_and(|open| open.builder.fits(record_bytes)) {
            return true;
        }
        if self.open.is_some() {
            if self.in_flight.len() >= config.frames_in_flight {
                return false;
            }
            self.close(space, stats, io);
        }
        let least = frame_len(record_bytes);
        let kept_for_deletes = self.head.claim_for(least as u64) == Some(Claim::Delete);
        if claim == Claim::Put && kept_for_deletes && !space.may_take(Claim::Put) {
            self.lacks_segment = true;
            return false;
        }
        let Some(place) = self.head.place_for(least as u64, space) else {
            self.lacks_segment = true;
            return false;
        };
        let wanted = least.max(config.frame_bytes as usize).min(place.room as usize);
        let full = io.buffers.acquire(wanted).map(|buffer| (buffer, wanted));
        let Some((buffer, capacity)) = full.or_else(|| io.buffers.acquire(least).map(|b| (b, least))) else {
            return false;
        };
        let builder = FrameBuilder::new(Stream::User, self.next_number, place, buffer, capacity);
        self.next_number = self.next_number.next();
        let opened_ns = io.now.monotonic_ns;
        let acks = Vec::new();
        self.open =
            Some(LogFrame { builder, acks, opened_ns, closed_ns: opened_ns, drive_ns: 0, written: false });
        true
    }

    /// Appends a record for which there is room.
    pub fn append(&mut self, record: &Record<'_>, io: &mut Io<'_>) {
        let hash = self.hash(record.partition, record.key);
        let open = self.open.as_mut().expect("make_room opened a frame");
        open.builder.push(&self.place, io.buffers, record);
        let pending = self.pending.entry(hash).or_default();
        let records = if pending.0 == open.builder.number { pending.1 + 1 } else { 1 };
        *pending = (open.builder.number, records);
        // Whatever was known of the key, or of another of its hash, is now behind another write.
        self.numbers.remove(&hash);
        self.pending_bytes += record.room() as u64;
    }

    /// The records just appended belong to this request.
    pub fn acknowledge(&mut self, ack: Ack) {
        let open = self.open.as_mut().expect("records were appended to an open frame");
        open.acks.push(ack);
        self.pending_writes += 1;
    }

    /// Closes the open frame if it is time: nothing in flight, or the commit window is over and there
    /// is room for one more in flight.
    pub fn close_if_due(
        &mut self,
        config: &ShardConfig,
        space: &mut Space,
        stats: &mut ShardStats,
        io: &mut Io<'_>,
    ) {
        let Some(open) = &self.open else { return };
        let due = open.opened_ns + config.commit_window_ns <= io.now.monotonic_ns
            || open.builder.len() >= config.frame_bytes as usize;
        let idle = self.in_flight.is_empty();
        let room = self.in_flight.len() < config.frames_in_flight;
        if open.builder.records() > 0 && !self.poisoned && (idle || (due && room)) {
            self.close(space, stats, io);
        }
    }

    /// When `close_if_due` wants to be called again, if ever.
    pub fn next_wake_ns(&self, config: &ShardConfig) -> Option<u64> {
        let open = self.open.as_ref()?;
        let waits = !self.in_flight.is_empty() && self.in_flight.len() < config.frames_in_flight;
        waits.then_some(open.opened_ns + config.commit_window_ns)
    }

    fn close(&mut self, space: &mut Space, stats: &mut ShardStats, io: &mut Io<'_>) {
        let mut open = self.open.take().expect("there is an open frame to close");
        open.closed_ns = io.now.monotonic_ns;
        let builder = &open.builder;
        assert!(builder.records() > 0, "an empty frame is never written");
        assert!(self.durable < builder.number, "{} is durable already", builder.number);
        space.saw_frame(builder.place.segment, builder.number);
        let header = builder.header(self.durable, builder.records());
        let token = Purpose::UserFrame.token(builder.number.0);
        let bytes = builder.write(&self.place, io, token, true, &header) as u64;
        self.head.advance(bytes);
        stats.user_frame_writes += 1;
        stats.user_frame_bytes += bytes;
        self.in_flight.push_back(open);
    }

    /// A frame's write has ended. Gives the requests to answer `Poisoned`, where it failed.
    pub fn written(&mut self, number: u64, result: Result<(), DeviceError>, io: &mut Io<'_>) -> Vec<Ack> {
        let frame = self.in_flight.iter_mut().find(|frame| frame.builder.number.0 == number);
        let frame = frame.expect("a frame that was written is in flight");
        assert!(!frame.written, "frame {number} written twice");
        frame.written = true;
        frame.drive_ns = io.now.monotonic_ns.saturating_sub(frame.closed_ns);
        if result.is_ok() && !self.poisoned {
            return Vec::new();
        }
        self.poison(io)
    }

    /// Closes the log for good. Gives all requests that wait for it.
    pub fn poison(&mut self, io: &mut Io<'_>) -> Vec<Ack> {
        self.poisoned = true;
        let mut acks: Vec<Ack> = Vec::new();
        for frame in &mut self.in_flight {
            acks.append(&mut frame.acks);
        }
        if let Some(open) = self.open.take() {
            acks.extend(open.acks);
            io.buffers.release(open.builder.buffer);
        }
        self.pending_writes = 0;
        // Buffers of frames that the drive still writes from stay until their own end.
        let finished = |frame: &LogFrame| frame.written;
        while let Some(at) = self.in_flight.iter().position(finished) {
            let frame = self.in_flight.remove(at).expect("the position was just found");
            io.buffers.release(frame.builder.buffer);
        }
        acks
    }

    /// The frame that [`take_durable`](Self::take_durable) would give.
    pub fn next_durable(&self) -> Option<&LogFrame> {
        self.in_flight.front().filter(|frame| frame.written && !self.poisoned)
    }

    /// The next frame that became durable, in order. This is where the durable watermark moves.
    pub fn take_durable(&mut self) -> Option<LogFrame> {
        if self.poisoned || !self.in_flight.front()?.written {
            return None;
        }
        let frame = self.in_flight.pop_front()?;
        let number = frame.builder.number;
        assert_eq!(self.durable.next(), number, "frames become durable in order");
        self.durable = number;
        self.pending_writes -= frame.acks.len() as u64;
        Some(frame)
    }

    /// A record of a durable frame was applied. Says whether it is an increment's and the last that was
    /// written of its key.
    pub fn applied(&mut self, frame: FrameNumber, record: &Record<'_>) -> bool {
        self.pending_bytes -= record.room() as u64;
        let hash = self.hash(record.partition, record.key);
        let Some(pending) = self.pending.get_mut(&hash).filter(|pending| pending.0 == frame) else {
            return false;
        };
        pending.1 -= 1;
        if pending.1 > 0 {
            return false;
        }
        self.pending.remove(&hash);
        self.numbers.remove(&hash).is_some()
    }
}
