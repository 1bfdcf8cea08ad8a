//! Which frames of the tail count: the distinction between a torn tail and corruption.
//!
//! Frames are held back behind a bad one until it is decided: as soon as a later frame says that the
//! bad one was durable, it is corruption, and what follows counts; if the log ends first, it is a torn
//! tail, and what follows never happened. Frames carry the watermark of the time they were written, so
//! no more than the frames in flight are ever held.

use std::collections::VecDeque;

use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, PartitionSet, Stream};
use crate::format::journal;
use crate::format::record::Record;
use crate::format::superblock::VoidRange;
use crate::ids::{FrameNumber, Seq};
use crate::scanner::FoundFrame;

/// A frame's header, place and bytes.
type HeldFrame = (FrameHeader, u64, Vec<u8>);

/// What to do next.
#[derive(Debug)]
pub enum Verdict {
    /// Apply this whole frame.
    Apply {
        /// Its header.
        header: FrameHeader,
        /// Byte of the area where it begins.
        at: u64,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Durable frames are damaged: apply what is whole of them, and distrust older records of these
    /// partitions.
    Quarantine {
        /// Whose records may be lost.
        partitions: PartitionSet,
        /// The damaged frame, where its header is whole.
        salvage: Option<HeldFrame>,
        /// Versions of lost records are below this; `None` where no whole frame follows.
        below: Option<Seq>,
    },
}

/// One or several frames in number order.
#[derive(Debug)]
enum Held {
    Whole(HeldFrame),
    Damaged(HeldFrame),
    /// No trace of frames from..to.
    Missing {
        from: FrameNumber,
        to: FrameNumber,
    },
}

/// A stream's tail as it is read: of the user stream, or of the journal.
#[derive(Debug, Default)]
pub struct FrameReplay {
    expected: FrameNumber,
    void: Vec<VoidRange>,
    /// No frame claims more to be durable.
    durable: FrameNumber,
    seen: FrameNumber,
    held: VecDeque<Held>,
}

/// What is left when the log has been read to its end.
#[derive(Debug)]
pub struct End {
    /// Still to be done.
    pub verdicts: Vec<Verdict>,
    /// What was cut.
    pub void: Option<VoidRange>,
    /// Number of the next frame to write.
    pub next_number: FrameNumber,
}

impl FrameReplay {
    /// Frames from `expected` on are to be replayed, but for the void ones.
    pub fn new(expected: FrameNumber, void: Vec<VoidRange>) -> FrameReplay {
        let mut replay = FrameReplay { expected, void, ..FrameReplay::default() };
        replay.seen = FrameNumber(expected.0.saturating_sub(1));
        replay.skip_void();
        replay
    }

    fn skip_void(&mut self) {
        while let Some(range) =
            self.void.iter().find(|range| range.from <= self.expected && self.expected < range.to)
        {
            self.expected = range.to;
            self.seen = self.seen.max(FrameNumber(range.to.0 - 1));
        }
    }

    /// Of the frames before this one nothing more will come: those that are not void are missing.
    fn miss_until(&mut self, number: FrameNumber) {
        while self.expected < number {
            // Up to the frame, or up to void numbers on the way.
            let from = self.expected;
            let next_void = self.void.iter().map(|range| range.from).filter(|begin| *begin > from).min();
            let to = next_void.map_or(number, |begin| begin.min(number));
            self.held.push_back(Held::Missing { from, to });
            self.expected = to;
            self.skip_void();
        }
    }

    /// The next frame of the stream, in the order in which they were placed.
    pub fn found(&mut self, frame: &FoundFrame<'_>) {
        let number = frame.header.number;
        // A void one, too, says what was durable when it was written: a start that cut it may have ended before it had noted
        // what it found damaged.
        self.durable = self.durable.max(frame.header.durable);
        self.miss_until(number);
        if number < self.expected {
            return;
        }
        let held = (frame.header, frame.at, frame.bytes.to_vec());
        self.held.push_back(if frame.whole { Held::Whole(held) } else { Held::Damaged(held) });
        self.expected = number.next();
        self.seen = self.seen.max(number);
        self.skip_void();
    }

    /// What is decided, in order; `None` until more is known. Damaged frames wait for a whole one, which
    /// tells up to which version records are lost.
    pub fn next(&mut self) -> Option<Verdict> {
        let is_whole = |held: &Held| matches!(held, Held::Whole(_));
        self.held.iter().any(is_whole).then(|| self.decide()).flatten()
    }

    fn decide(&mut self) -> Option<Verdict> {
        match self.held.front()? {
            Held::Whole(_) => {}
            Held::Damaged((header, ..)) if header.number <= self.durable => {}
            Held::Missing { to, .. } if to.0 <= self.durable.0 + 1 => {}
            Held::Damaged(_) | Held::Missing { .. } => return None,
        }
        let below = self.next_seq_after_front();
        Some(match self.held.pop_front()? {
            Held::Whole((header, at, bytes)) => Verdict::Apply { header, at, bytes },
            Held::Damaged(held) => {
                Verdict::Quarantine { partitions: held.0.partitions, salvage: Some(held), below }
            }
            Held::Missing { .. } => {
                Verdict::Quarantine { partitions: PartitionSet::ALL, salvage: None, below }
            }
        })
    }

    /// The first version after the front frame's: all of the front frame's are below it.
    fn next_seq_after_front(&self) -> Option<Seq> {
        let whole = |held: &Held| match held {
            Held::Whole((header, _, bytes)) => first_version(header, &bytes[FRAME_HEADER_BYTES..]),
            Held::Damaged(_) | Held::Missing { .. } => None,
        };
        self.held.iter().skip(1).find_map(whole)
    }

    /// The log ends here: what is not decided is a torn tail. `hidden_blocks` of it could not be read: as
    /// many frames may turn up at another start, and must not then be taken for those written since.
    pub fn finish(mut self, hidden_blocks: u64) -> End {
        // What was cut lay behind frames that were there; and its numbers are not given to others.
        let cut_before = self.void.iter().map(|range| range.to).max();
        self.miss_until(cut_before.unwrap_or_default());
        let mut verdicts = Vec::new();
        while let Some(verdict) = self.decide() {
            verdicts.push(verdict);
        }
        let end = self.seen.next().max(self.expected);
        let after = FrameNumber(end.0 + hidden_blocks);
        let cut = match self.held.front() {
            None => None,
            Some(Held::Damaged((header, ..)) | Held::Whole((header, ..))) => Some(header.number),
            Some(Held::Missing { from, .. }) => {
                let known = self.durable.next().max(*from);
                if known > *from {
                    let below = self.next_seq_after_front();
                    let partitions = PartitionSet::ALL;
                    verdicts.push(Verdict::Quarantine { partitions, salvage: None, below });
                }
                Some(known)
            }
        };
        let from = cut.or((hidden_blocks > 0).then_some(end));
        let void = from.map(|from| VoidRange { from, to: after });
        End { verdicts, void, next_number: after }
    }
}

/// A version that is above all that frames before this whole one say anything about.
fn first_version(header: &FrameHeader, payload: &[u8]) -> Option<Seq> {
    if header.stream == Stream::Journal {
        let (head, _) = journal::decode_head(payload)?;
        let before = head.seq_before;
        return Some(Seq { counter: before.counter.saturating_add(1), ..before });
    }
    Record::decode_unchecked(payload).ok().map(|record| record.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, SegmentId};

    fn feed(replay: &mut FrameReplay, number: u64, durable: u64, whole: bool) {
        let header = FrameHeader {
            stream: Stream::User,
            segment: SegmentId(0),
            generation: Generation(1),
            payload_bytes: 0,
            number: FrameNumber(number),
            durable: FrameNumber(durable),
            detail: 0,
            partitions: PartitionSet(0),
        };
        replay.found(&FoundFrame { header, at: 0, bytes: &[0; FRAME_HEADER_BYTES], whole });
    }

    /// The numbers applied (quarantined ones as negatives, missing ones as 0), and the end.
    fn run(frames: &[(u64, u64, bool)], void: Vec<VoidRange>) -> (Vec<i64>, End) {
        let mut replay = FrameReplay::new(FrameNumber(1), void);
        let mut done = Vec::new();
        let mut note = |verdict: &Verdict| {
            done.push(match verdict {
                Verdict::Apply { header, .. } => header.number.0 as i64,
                Verdict::Quarantine { salvage: Some((header, ..)), .. } => -(header.number.0 as i64),
                Verdict::Quarantine { salvage: None, .. } => 0,
            });
        };
        for &(number, durable, whole) in frames {
            feed(&mut replay, number, durable, whole);
            while let Some(verdict) = replay.next() {
                note(&verdict);
            }
        }
        let end = replay.finish(0);
        end.verdicts.iter().for_each(&mut note);
        (done, end)
    }

    fn range(from: u64, to: u64) -> VoidRange {
        VoidRange { from: FrameNumber(from), to: FrameNumber(to) }
    }

    #[test]
    fn a_whole_log_is_applied() {
        let (done, end) = run(&[(1, 0, true), (2, 1, true), (3, 1, true)], Vec::new());
        assert_eq!((done, end.void, end.next_number), (vec![1, 2, 3], None, FrameNumber(4)));
    }

    #[test]
    fn a_torn_frame_cuts_off_the_whole_ones_behind_it() {
        let (done, end) = run(&[(1, 0, true), (2, 1, false), (3, 1, true)], Vec::new());
        assert_eq!((done, end.void, end.next_number), (vec![1], Some(range(2, 4)), FrameNumber(4)));
    }

    #[test]
    fn a_bad_frame_that_a_later_one_calls_durable_is_corruption() {
        let (done, end) = run(&[(1, 0, true), (2, 1, false), (3, 2, true)], Vec::new());
        assert_eq!((done, end.void, end.next_number), (vec![1, -2, 3], None, FrameNumber(4)));
    }

    #[test]
    fn missing_frames_are_torn_or_corrupt_by_the_same_rule() {
        let (done, end) = run(&[(1, 0, true), (4, 1, true)], Vec::new());
        assert_eq!((done, end.void), (vec![1], Some(range(2, 5))));
        let (done, end) = run(&[(1, 0, true), (4, 3, true)], Vec::new());
        assert_eq!((done, end.void), (vec![1, 0, 4], None));
        let (done, end) = run(&[(1, 0, true), (4, 2, true)], Vec::new());
        assert_eq!((done, end.void), (vec![1, 0], Some(range(3, 5))), "2 was durable, 3 was not");
    }

    #[test]
    fn frames_that_may_hide_where_nothing_could_be_read_are_void() {
        let mut replay = FrameReplay::new(FrameNumber(1), Vec::new());
        feed(&mut replay, 1, 0, true);
        feed(&mut replay, 2, 1, true);
        let end = replay.finish(3);
        assert_eq!((end.void, end.next_number), (Some(range(3, 6)), FrameNumber(6)));
    }

    #[test]
    fn what_was_cut_once_stays_cut() {
        let frames = [(1, 0, true), (3, 1, true), (4, 3, true), (5, 4, true)];
        let (done, end) = run(&frames, vec![range(2, 4)]);
        assert_eq!((done, end.void, end.next_number), (vec![1, 4, 5], None, FrameNumber(6)));
        let (done, end) = run(&[(1, 0, true), (3, 1, true)], vec![range(2, 4)]);
        assert_eq!((done, end.void, end.next_number), (vec![1], None, FrameNumber(4)));
        let (done, end) = run(&[(3, 1, true), (4, 3, true)], vec![range(2, 4)]);
        assert_eq!((done, end.void), (vec![0, 4], None), "though 1, before it, is lost to damage");
    }

    #[test]
    fn what_void_frames_call_durable_is_not_cut_and_their_numbers_are_not_given_again() {
        let (done, end) = run(&[(1, 0, true), (2, 1, false), (4, 2, true)], vec![range(3, 5)]);
        assert_eq!((done, end.void, end.next_number), (vec![1, -2], None, FrameNumber(5)));
        let (done, end) = run(&[(1, 0, true), (4, 2, true)], vec![range(3, 5)]);
        assert_eq!((done, end.void, end.next_number), (vec![1, 0], None, FrameNumber(5)));
        let (done, end) = run(&[(1, 0, true)], vec![range(3, 5)]);
        assert_eq!((done, end.void, end.next_number), (vec![1], Some(range(2, 5)), FrameNumber(5)));
    }
}
