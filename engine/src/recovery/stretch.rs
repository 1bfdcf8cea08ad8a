//! A stretch of a segment that a start reads for its frames, and where it may stop.
//!
//! Frames lie one behind the other, and only so many of a stream are on their way to the drive at once. So where nothing
//! begins within what those could take, the stream ends. Damage as long as that would look alike: before the rest of the
//! segment is taken for empty, it is looked at in a few places at growing distances, each as long as the longest frame.
//! Where a frame of the segment begins in one of them, all is read.

use crate::format::ChecksumSeed;
use crate::format::frame::FrameHeader;
use crate::ids::{Generation, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::scanner::{FoundFrame, SegmentScanner};

/// What frames of a stream may take.
#[derive(Debug, Clone, Copy)]
pub struct FrameBytes {
    /// The longest, padding counted.
    pub longest: u64,
    /// All that may be on their way at once.
    pub in_flight: u64,
}

/// How it is read.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// To its end.
    Whole,
    /// Until nothing of it has come for long.
    UntilQuiet(FrameBytes),
    /// To see whether any frame begins in it, `distance` behind `quiet_from`.
    Look { frames: FrameBytes, quiet_from: u64, distance: u64 },
}

/// A stretch. Bytes are of the shard's area.
#[derive(Debug)]
pub struct Stretch {
    seed: ChecksumSeed,
    segment: SegmentId,
    generation: Generation,
    mode: Mode,
    from: u64,
    to: u64,
    /// The end of the segment.
    segment_end: u64,
    scanner: SegmentScanner,
    /// Where the last frame ends that was found.
    behind_last: u64,
    /// Some of it could not be read.
    is_hidden: bool,
    /// A frame was found where none was expected.
    is_hit: bool,
    /// It is read no further than what was asked for by now.
    is_stopped: bool,
    /// Its reads have been begun.
    pub is_begun: bool,
}

impl Stretch {
    /// Of a segment that ends at `to`, in which frames begin at `from`: all of it.
    pub fn whole(
        seed: ChecksumSeed,
        segment: SegmentId,
        generation: Generation,
        from: u64,
        to: u64,
    ) -> Stretch {
        Stretch {
            seed,
            segment,
            generation,
            mode: Mode::Whole,
            from,
            to,
            segment_end: to,
            scanner: SegmentScanner::new(seed, segment, generation, from, to),
            behind_last: from,
            is_hidden: false,
            is_hit: false,
            is_stopped: false,
            is_begun: false,
        }
    }

    /// The same, as far as there are frames.
    pub fn until_quiet(self, frames: FrameBytes) -> Stretch {
        Stretch { mode: Mode::UntilQuiet(frames), ..self }
    }

    /// Of which segment it is.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The first byte, and how many.
    pub fn extent(&self) -> (u64, u64) {
        (self.from, self.to - self.from)
    }

    /// The next bytes: zeros where the drive refused them. Calls `each` for every frame that they complete.
    pub fn feed(&mut self, at: u64, bytes: &[u8], is_readable: bool, mut each: impl FnMut(FoundFrame<'_>)) {
        self.is_hidden |= !is_readable;
        if let Mode::Look { .. } = self.mode {
            let mut blocks = bytes.chunks(BLOCK_BYTES).zip(0u64..);
            self.is_hit |= blocks.any(|(block, i)| {
                let at = at + i * BLOCK_BYTES as u64;
                FrameHeader::decode(self.seed, at, self.segment, self.generation, block).is_some()
            });
            return;
        }
        let behind_last = &mut self.behind_last;
        self.scanner.feed(bytes, |frame| {
            *behind_last = frame.at + frame.bytes.len() as u64;
            each(frame);
        });
    }

    fn is_quiet(&self) -> bool {
        let Mode::UntilQuiet(frames) = self.mode else { return false };
        !self.is_hidden && self.scanner.examined() - self.behind_last >= frames.in_flight
    }

    /// Whether no more of it need be asked for.
    pub fn may_stop(&self) -> bool {
        self.is_quiet() && !self.is_stopped
    }

    /// No more of it is asked for.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// All that was asked for was fed: what is to be read next of the segment.
    pub fn next(self) -> Option<Stretch> {
        match self.mode {
            Mode::Whole => None,
            Mode::UntilQuiet(_) if !self.is_stopped => None,
            Mode::UntilQuiet(frames) if self.is_quiet() => {
                let quiet_from = self.scanner.examined();
                self.look(frames, quiet_from, frames.in_flight)
            }
            // It was not the end.
            Mode::UntilQuiet(_) => Some(self.rest(self.scanner.examined())),
            Mode::Look { quiet_from, .. } if self.is_hit || self.is_hidden => Some(self.rest(quiet_from)),
            Mode::Look { frames, quiet_from, distance } => self.look(frames, quiet_from, 2 * distance),
        }
    }

    fn rest(&self, from: u64) -> Stretch {
        Stretch::whole(self.seed, self.segment, self.generation, from, self.segment_end)
    }

    fn look(&self, frames: FrameBytes, quiet_from: u64, distance: u64) -> Option<Stretch> {
        let from = quiet_from + distance;
        let to = (from + frames.longest).min(self.segment_end);
        let mode = Mode::Look { frames, quiet_from, distance };
        (from < to).then(|| Stretch { mode, to, ..self.rest(from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::{FRAME_HEADER_BYTES, PartitionSet, Stream};
    use crate::ids::{FrameNumber, ShardId};

    const BLOCK: u64 = BLOCK_BYTES as u64;
    const SEGMENT_BLOCKS: u64 = 1000;
    const FRAMES: FrameBytes = FrameBytes { longest: 8 * BLOCK, in_flight: 16 * BLOCK };
    const CHUNK: u64 = 4 * BLOCK;

    fn seed() -> ChecksumSeed {
        ChecksumSeed::new(&[5; 16], ShardId(0))
    }

    /// A segment with frames of two blocks up to block `until`, none of them in the blocks of `hole`.
    fn segment(until: u64, hole: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (SEGMENT_BLOCKS * BLOCK) as usize];
        for block in (1..until).step_by(2).filter(|block| !hole.contains(block)) {
            let header = FrameHeader {
                stream: Stream::Journal,
                segment: SegmentId(0),
                generation: Generation(3),
                payload_bytes: BLOCK as u32,
                number: FrameNumber(block),
                durable: FrameNumber(0),
                detail: crc32c::crc32c(&vec![0; BLOCK as usize]),
                partitions: PartitionSet::default(),
            };
            let at = (block * BLOCK) as usize;
            header.encode(seed(), at as u64, &mut bytes[at..at + FRAME_HEADER_BYTES]);
        }
        bytes
    }

    /// Reads as recovery does, two chunks ahead. Gives the frames that were found, and how many blocks were read.
    fn read(bytes: &[u8], unreadable: Option<u64>) -> (Vec<u64>, u64) {
        let end = SEGMENT_BLOCKS * BLOCK;
        let first = Stretch::whole(seed(), SegmentId(0), Generation(3), BLOCK, end).until_quiet(FRAMES);
        let (mut found, mut blocks) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(mut stretch) = next {
            let (from, len) = stretch.extent();
            let mut asked = from + len;
            let mut at = from;
            while at < asked {
                let to = (at + CHUNK).min(asked);
                let is_hidden = unreadable.is_some_and(|block| (at..to).contains(&(block * BLOCK)));
                let zeros = vec![0; (to - at) as usize];
                let chunk = if is_hidden { &zeros } else { &bytes[at as usize..to as usize] };
                stretch.feed(at, chunk, !is_hidden, |frame| found.push(frame.header.number.0));
                blocks += (to - at) / BLOCK;
                at = to;
                if stretch.may_stop() {
                    stretch.stop();
                    asked = asked.min(at + 2 * CHUNK);
                }
            }
            next = stretch.next();
        }
        (found, blocks)
    }

    #[test]
    fn reading_ends_soon_behind_the_last_frame() {
        for until in [1, 3, 101, 901, 990, 999] {
            let (found, blocks) = read(&segment(until, 0..0), None);
            assert_eq!(found, (1..until).step_by(2).collect::<Vec<_>>());
            let most = until + 16 + 4 + 8 + 6 * 8;
            assert!(blocks <= most, "{blocks} blocks for frames up to {until}");
        }
    }

    #[test]
    fn frames_behind_long_damage_are_found() {
        for (from, to) in [(11, 23), (11, 31), (11, 51), (1, 101), (101, 501)] {
            let (found, _) = read(&segment(901, from..to), None);
            let left: Vec<_> = (1..901).step_by(2).filter(|block| !(from..to).contains(block)).collect();
            assert_eq!(found, left, "frames but those in blocks {from} to {to}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        let (_, blocks) = read(&segment(101, 0..0), Some(105));
        assert_eq!(blocks, SEGMENT_BLOCKS - 1, "all is read: frames may hide there");
        let (_, blocks) = read(&segment(101, 0..0), Some(142));
        assert!(blocks > SEGMENT_BLOCKS - 101, "and where it was looked, too");
    }
}
