//! The scrub: reads what lies on the drive before somebody needs it, and says what is damaged.
//!
//! A round looks at both copies of the superblock, at the image in use, and at every sealed segment with
//! live records: headers of segments and frames, each record's checksum, and whether every record that the
//! index points to is there. One read is in flight at a time, a small one, and no more bytes in a second than
//! the configuration says. Superblock and image are written anew where damaged; damaged records are listed,
//! for there is no other copy of them.
//!
//! Resting -> Superblocks -> Segment (-> Hunt) -> Segment ... -> Resting.

pub mod damage;
mod hunt;
mod report;
mod walk;
pub mod watch;

use std::collections::VecDeque;

pub use self::report::{DamagedRecord, QuarantinedPartition, ScrubStats};

use self::damage::{DamageTable, Damaged};
use self::hunt::{Hunt, Next};
use self::walk::{Verdict, Walk};
use crate::format::frame::Stream;
use crate::format::superblock::Superblock;
use crate::ids::{DriveOffset, PartitionId, SegmentId};
use crate::io::{Io, Purpose};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::reader::SequentialReader;
use crate::reads::ReadFor;
use crate::request::KeyRange;
use crate::seam::DeviceError;
use crate::shard::Shard;
use crate::space::SegmentState;

/// Bytes of one read: as cleaning reads, so that a read of a client waits behind it no longer than behind that; with
/// half of it an idle node wakes twice as often.
const CHUNK_BYTES: u32 = 128 << 10;
/// A round begins no sooner than so long after the one before began: a small drive need not be read all day.
const LEAST_ROUND_NS: u64 = 24 * 3600 * 1_000_000_000;
/// How long a read is put off while clients' reads wait for buffers, or while there is none for it.
const PUT_OFF_NS: u64 = 5_000_000;
/// Most segments that are begun in one step.
const MOST_BEGUN_PER_STEP: usize = 16;

/// What the scrub is at.
#[derive(Debug)]
enum Task {
    /// Waiting for the next round.
    Resting,
    /// Reading the superblock's two copies, as they were when this began.
    Superblocks { present: Box<Superblock>, whole: u32 },
    /// Reading a segment.
    Segment(Box<Walk>),
    /// Looking for the records that a segment has lost.
    Hunt(Box<Hunt>),
}

/// The scrub of a shard.
#[derive(Debug)]
pub struct Scrubber {
    task: Task,
    reader: SequentialReader,
    /// Bytes of `reader` that the rate was charged for.
    charged_bytes: u64,
    /// No read, and no round, before this.
    next_ns: u64,
    /// The segment that is read at this moment.
    pinned: Option<SegmentId>,
    /// Segments of the image that are still to be read, and the next of the others.
    image: VecDeque<SegmentId>,
    next_segment: u32,
    /// Frames of the image that this checkpoint wrote which were found whole.
    image_checkpoint: u64,
    image_frames: u64,
    /// How far the image was read when a checkpoint replaced it does not matter.
    image_done: bool,
    round: RoundState,
    /// What was found.
    pub damage: DamageTable,
    repaired_superblocks: u64,
    repaired_images: u64,
}

/// Rounds, begun and finished.
#[derive(Debug, Default)]
struct RoundState {
    /// Number of the last that began; 0 before the first.
    number: u64,
    finished: u64,
    begun_ns: u64,
    /// Bytes read in this round, and in all.
    bytes: u64,
    total_bytes: u64,
    finished_wall_ns: u64,
    /// How often a round at full rate was asked for, what the present one answers, and what is answered.
    asked: u64,
    answering: u64,
    answered: u64,
}

impl RoundState {
    fn is_at_full_rate(&self) -> bool {
        self.answering > self.answered
    }
}

impl Scrubber {
    /// At rest; the first round begins at once, where a rate is set.
    pub fn new() -> Scrubber {
        Scrubber {
            task: Task::Resting,
            reader: idle_reader(),
            charged_bytes: 0,
            next_ns: 0,
            pinned: None,
            image: VecDeque::new(),
            next_segment: 0,
            image_checkpoint: 0,
            image_frames: 0,
            image_done: false,
            round: RoundState::default(),
            damage: DamageTable::default(),
            repaired_superblocks: 0,
            repaired_images: 0,
        }
    }

    /// When the scrub wants a step, in monotonic nanoseconds. A read that ends brings one, too.
    pub fn next_wake_ns(&self, rate_bytes_per_s: u64) -> Option<u64> {
        let is_off = rate_bytes_per_s == 0 && self.round.asked == self.round.answered;
        (!is_off && !self.reader.is_reading()).then_some(self.next_ns)
    }

    /// A read has ended.
    pub fn read_completed(&mut self, index: u64, result: Result<(), DeviceError>) {
        self.reader.complete(index, result);
    }

    /// A round at full rate from the beginning, at once or behind the one that was asked for before.
    /// Gives its number among those that were asked for.
    pub fn ask_for_round(&mut self, now_ns: u64) -> u64 {
        self.round.asked += 1;
        self.next_ns = self.next_ns.min(now_ns);
        self.round.asked
    }
}

fn idle_reader() -> SequentialReader {
    SequentialReader::new(Purpose::ScrubRead, DriveOffset(0), CHUNK_BYTES, 1)
}

impl Shard {
    pub(crate) fn pump_scrub(&mut self, io: &mut Io<'_>) {
        let is_asked = self.scrubber.round.asked > self.scrubber.round.answered;
        if (self.config.scrub_bytes_per_s == 0 && !is_asked) || self.is_loading() {
            return;
        }
        while let Some(chunk) = self.scrubber.reader.take(io) {
            self.scrub_chunk(chunk.at, &chunk.bytes(io), chunk.result.is_ok());
            io.buffers.release(chunk.buffer);
        }
        let restart = is_asked && !self.scrubber.round.is_at_full_rate();
        if restart && !self.scrubber.reader.is_reading() {
            self.begin_round(io.now.monotonic_ns);
        }
        self.scrub_go_on(io);
        self.charge_scrub(io);
        self.pin_scrubbed();
    }

    /// Begins tasks until one has something to read, and reads.
    fn scrub_go_on(&mut self, io: &mut Io<'_>) {
        for _ in 0..MOST_BEGUN_PER_STEP {
            if !self.scrubber.reader.is_done() {
                return self.scrub_read(io);
            }
            if !self.scrub_next(io) {
                return;
            }
        }
        self.has_more = true;
    }

    fn scrub_read(&mut self, io: &mut Io<'_>) {
        let scrubber = &mut self.scrubber;
        if scrubber.reader.is_reading() || io.now.monotonic_ns < scrubber.next_ns {
            return;
        }
        let before = scrubber.reader.bytes_read;
        if self.reads.queued() == 0 {
            scrubber.reader.pump(io);
        }
        if scrubber.reader.bytes_read == before {
            scrubber.next_ns = io.now.monotonic_ns + PUT_OFF_NS;
        }
    }

    /// What was read since the last time puts off what is read next.
    fn charge_scrub(&mut self, io: &Io<'_>) {
        let scrubber = &mut self.scrubber;
        let bytes = scrubber.reader.bytes_read - scrubber.charged_bytes;
        scrubber.charged_bytes += bytes;
        scrubber.round.bytes += bytes;
        scrubber.round.total_bytes += bytes;
        if bytes > 0 && !scrubber.round.is_at_full_rate() {
            let rate = u128::from(self.config.scrub_bytes_per_s.max(1));
            let cost_ns = (u128::from(bytes) * 1_000_000_000).div_ceil(rate) as u64;
            scrubber.next_ns = scrubber.next_ns.max(io.now.monotonic_ns) + cost_ns;
        }
    }

    /// A segment is not reused while it is being read; between two reads it may be.
    fn pin_scrubbed(&mut self) {
        let scrubber = &mut self.scrubber;
        let segment = match &scrubber.task {
            Task::Segment(walk) => Some(walk.segment),
            Task::Hunt(hunt) => Some(hunt.segment),
            Task::Resting | Task::Superblocks { .. } => None,
        };
        let wanted = segment.filter(|_| scrubber.reader.is_reading());
        if wanted != scrubber.pinned {
            scrubber.pinned.into_iter().for_each(|segment| self.space.unpin(segment));
            wanted.into_iter().for_each(|segment| self.space.pin(segment));
            scrubber.pinned = wanted;
        }
    }

    fn scrub_chunk(&mut self, at: u64, bytes: &[u8], readable: bool) {
        let mut task = std::mem::replace(&mut self.scrubber.task, Task::Resting);
        match &mut task {
            Task::Resting => unreachable!("nothing is read at rest"),
            Task::Superblocks { present, whole } => {
                let found = Superblock::decode(self.place.seed, at, bytes);
                *whole += u32::from(found.as_ref() == Some(&**present));
            }
            Task::Segment(walk) => {
                if walk.is_current(&self.space) {
                    walk.feed(self, at, bytes);
                } else {
                    self.scrubber.reader.stop();
                }
            }
            Task::Hunt(hunt) => hunt.feed(bytes, readable),
        }
        self.scrubber.task = task;
    }

    /// What was to be read has been: goes on to what comes next. Says whether there is something at once.
    fn scrub_next(&mut self, io: &mut Io<'_>) -> bool {
        let now_ns = io.now.monotonic_ns;
        match std::mem::replace(&mut self.scrubber.task, Task::Resting) {
            Task::Resting => {
                let is_due = now_ns >= self.scrubber.next_ns;
                if is_due {
                    self.begin_round(now_ns);
                }
                is_due
            }
            Task::Superblocks { present, whole } => {
                self.mend_superblock(&present, whole, io);
                self.begin_segment(io)
            }
            Task::Segment(walk) => match self.finish_walk(*walk) {
                Some(hunt) => self.go_on_hunting(hunt, io),
                None => self.begin_segment(io),
            },
            Task::Hunt(hunt) => self.go_on_hunting(hunt, io),
        }
    }

    fn begin_round(&mut self, now_ns: u64) {
        let [head_0, head_1, tail_0, tail_1] = self.place.geometry.superblock_slots(self.config.shard);
        let even = self.superblock.version.is_multiple_of(2);
        let copies = if even { [head_0, tail_0] } else { [head_1, tail_1] };
        let scrubber = &mut self.scrubber;
        let mut reader = SequentialReader::new(Purpose::ScrubRead, DriveOffset(0), BLOCK_BYTES as u32, 1);
        copies.iter().for_each(|at| reader.push(at.0, BLOCK_BYTES as u64));
        scrubber.set_reader(reader);
        self.space.watch.end();
        scrubber.task = Task::Superblocks { present: Box::new(self.superblock.clone()), whole: 0 };
        scrubber.image = self.checkpointer.image_segments.iter().copied().collect();
        scrubber.image_checkpoint = self.superblock.checkpoint;
        scrubber.image_frames = 0;
        scrubber.image_done = false;
        scrubber.next_segment = 0;
        scrubber.next_ns = scrubber.next_ns.min(now_ns);
        let round = &mut scrubber.round;
        round.number += 1;
        round.begun_ns = now_ns;
        round.bytes = 0;
        round.answering = round.asked;
    }

    /// Writes the superblock anew where one of its copies, or both, are not what they should be.
    fn mend_superblock(&mut self, present: &Superblock, whole: u32, io: &mut Io<'_>) {
        let replaced = self.superblock != *present || self.checkpointer.is_running();
        if whole == 2 || replaced || self.log.is_poisoned() {
            // A checkpoint under way writes the next one in any case.
            return;
        }
        let mut next = self.superblock.clone();
        next.version += 1;
        self.scrubber.repaired_superblocks += 1;
        self.rewrite_superblock(next, io);
    }

    /// The next segment that holds something, or the round's end. Says whether something is to be done at once.
    fn begin_segment(&mut self, io: &Io<'_>) -> bool {
        let holds_something = |shard: &Shard, id: SegmentId| {
            let segment = shard.space.get(id);
            segment.state == SegmentState::Sealed && segment.live_bytes > 0
        };
        while let Some(id) = self.scrubber.image.pop_front() {
            if holds_something(self, id) {
                return self.begin_walk(id);
            }
        }
        self.check_image();
        let (segments, _) = self.space.counts();
        while self.scrubber.next_segment < segments {
            let id = SegmentId(self.scrubber.next_segment);
            self.scrubber.next_segment += 1;
            if holds_something(self, id) && self.space.get(id).stream != Stream::Image {
                return self.begin_walk(id);
            }
        }
        self.finish_round(io);
        false
    }

    fn begin_walk(&mut self, id: SegmentId) -> bool {
        let walk = Walk::new(self, id);
        let (at, len) = walk.extent(self);
        self.space.watch.begin(id);
        self.scrub_area(at, len, Task::Segment(Box::new(walk)));
        true
    }

    fn scrub_area(&mut self, at: u64, len: u64, task: Task) {
        let mut reader = SequentialReader::new(Purpose::ScrubRead, self.place.area_at, CHUNK_BYTES, 1);
        reader.push(at, len);
        self.scrubber.set_reader(reader);
        self.scrubber.task = task;
    }

    /// All of the image was read: if frames of it are missing, a new one is written.
    fn check_image(&mut self) {
        let scrubber = &mut self.scrubber;
        if std::mem::replace(&mut scrubber.image_done, true) {
            return;
        }
        let same = scrubber.image_checkpoint == self.superblock.checkpoint && scrubber.image_checkpoint > 0;
        if same && scrubber.image_frames != self.checkpointer.image_frames {
            scrubber.repaired_images += 1;
            self.checkpointer.wanted = true;
        }
    }

    /// A segment was read to its end. Gives the hunt for the records that it lacks.
    fn finish_walk(&mut self, mut walk: Walk) -> Option<Box<Hunt>> {
        let verified_bytes = self.space.watch.end();
        if !walk.is_current(&self.space) {
            return None;
        }
        self.scrubber.image_frames += walk.image_frames;
        let verdict = walk.finish(self, verified_bytes);
        if !walk.places.is_empty() {
            self.put_behind(walk.segment);
        }
        let Walk { segment, generation, places, .. } = walk;
        let Shard { catalog, space, scrubber, .. } = self;
        if verified_bytes == space.get(segment).live_bytes {
            scrubber.damage.found_whole(generation, |whole| space.of(whole).0 == segment);
        }
        let listed = scrubber.damage.listed(catalog, space).map(|damaged| damaged.location);
        let listed: Vec<_> = listed.filter(|location| space.of(*location).0 == segment).collect();
        let known_bytes: u64 = listed.iter().map(|location| u64::from(location.room())).sum();
        let is_known = verified_bytes + known_bytes == space.get(segment).live_bytes
            && !scrubber.damage.is_cut_short(segment);
        match verdict {
            Verdict::Missing(suspects) if !is_known => {
                let partitions = catalog.partition_ids();
                Some(Box::new(Hunt::new(segment, generation, places, suspects, partitions)))
            }
            Verdict::Missing(_) | Verdict::Whole => {
                let hit: Vec<_> = listed.into_iter().filter_map(|at| hunt::is_in(&places, at)).collect();
                let without = (0..places.len()).filter(|place| !hit.contains(place)).count();
                scrubber.damage.set_segment(segment, generation, 0, without as u64);
                None
            }
        }
    }

    /// Damage that a restart would meet is put behind the next checkpoint: what is in memory is whole. So is that of a
    /// segment which no checkpoint names yet, for its header may be what is damaged.
    fn put_behind(&mut self, segment: SegmentId) {
        let is_new = self.space.get(segment).generation > self.superblock.highest_generation;
        self.checkpointer.wanted |= is_new || self.space.is_needed_by_restart(segment, self.settled());
    }

    fn go_on_hunting(&mut self, mut hunt: Box<Hunt>, io: &Io<'_>) -> bool {
        match hunt.go_on(self) {
            Next::Read(at, len) => {
                self.scrub_area(at, len, Task::Hunt(hunt));
                true
            }
            Next::Step => {
                self.scrubber.task = Task::Hunt(hunt);
                self.has_more = true;
                false
            }
            Next::Done => {
                let (unlisted, places) = hunt.outcome();
                self.scrubber.damage.set_segment(hunt.segment, hunt.generation, unlisted, places);
                self.begin_segment(io)
            }
        }
    }

    fn finish_round(&mut self, io: &Io<'_>) {
        let Shard { catalog, space, scrubber, .. } = self;
        scrubber.damage.forget_healed(catalog, space);
        let round = &mut scrubber.round;
        round.finished += 1;
        round.finished_wall_ns = io.now.wall_ns;
        round.answered = round.answering;
        scrubber.task = Task::Resting;
        scrubber.next_ns = scrubber.next_ns.max(round.begun_ns + LEAST_ROUND_NS);
        if round.asked > round.answered {
            scrubber.next_ns = io.now.monotonic_ns;
            self.has_more = true;
        }
    }

    /// A read has found a record damaged.
    pub(crate) fn note_damaged(&mut self, why: &ReadFor, location: Location) {
        let (partition, key) = match why {
            ReadFor::Get { partition, key, .. } => (*partition, &**key),
            ReadFor::Condition(write) => write.place(),
            // A scan says itself which of its records it was; a key's reader knows none.
            ReadFor::Scan { .. } | ReadFor::Key { .. } => return,
        };
        if self.catalog.holds(partition, key, location) {
            let range = KeyRange { start: key, end: None };
            self.list_damaged(partition, key, (range, false), location);
        }
    }

    /// A record was found damaged by whoever asked for this key, or, of a compact index, for a page that it is on (its range,
    /// and whether that is read downwards): it is listed until it is overwritten or deleted.
    pub(crate) fn list_damaged(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        page: (KeyRange<'_>, bool),
        location: Location,
    ) {
        let Shard { catalog, space, scrubber, .. } = self;
        let generation = space.of(location).1.generation;
        // Whoever scans over damage again and again shall not look for its key each time.
        if scrubber.damage.has((location, generation), catalog, space) {
            return;
        }
        let found = if catalog.is_compact(partition) {
            catalog.known_key(partition, page, location)
        } else {
            Some((key.to_vec(), true))
        };
        // Where it is not found so soon, the scrub finds it.
        let Some((key, is_whole_key)) = found else { return };
        let damaged = Damaged { partition, key: key.into(), is_whole_key, location, generation };
        scrubber.damage.add(damaged, catalog, space);
    }
}

impl Scrubber {
    fn set_reader(&mut self, reader: SequentialReader) {
        assert!(!self.reader.is_reading(), "a read of the scrub is still under way");
        self.reader = reader;
        self.charged_bytes = 0;
    }
}
