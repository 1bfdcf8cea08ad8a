//! What is kept back of the segments, for whom, and how many bytes of records that leaves.

use super::{Claim, Space};
use crate::length_classes::longest_of;
use crate::limits::BLOCK_BYTES;

/// Segments that only cleaning may take from the last free ones.
const CLEANING_RESERVE: u32 = 2;
/// A segment that is free for the journal alone: it grows slowly, and what it takes is made up for.
const JOURNAL_RESERVE: u32 = 1;
/// Segments that users' deletes may take when puts may not, where live records are near their limit: below, cleaning makes
/// room for both.
const DELETE_RESERVE: u32 = 2;
/// What is kept back for the next image and for deletes is free at the latest when live records are so near to their
/// limit (a 128th of it below), and not yet when they are less near than this (a 32nd).
const FULL_FROM: f64 = 1.0 - 1.0 / 32.0;
/// See there.
const FULL_AT: f64 = 1.0 - 1.0 / 128.0;
/// And what is kept back for the next image, bit by bit while the journal grows from this part of its interval to the end.
const IMAGE_FROM: f64 = 0.5;
/// Most of the usable payload that live records may fill, in percent: the rest is what cleaning needs
/// to find segments worth cleaning.
const LIVE_PERCENT: u64 = 97;
/// A segment is worth cleaning only if this part of it comes free beyond what moving may waste: about the
/// padding of its cleaning frames.
pub(super) const GAIN_SHARE: u64 = 64;
/// Segments that are open at most beside one of each lane of cleaning: two of the user stream, and the
/// next of a lane.
const OPEN_SEGMENTS: u32 = 3;
/// Segments of image in use, next image and journal that are not full.
const INDEX_SLACK_SEGMENTS: u32 = 2;
/// While a checkpoint is written, so large a part of its journal is expected to come.
const JOURNAL_SLACK: u64 = 8;

/// What image and journal are expected to take.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexNeed {
    /// Bytes of entries of the next image, and of the records that they are of.
    pub entry_bytes: u64,
    /// See there.
    pub record_bytes: u64,
    /// Bytes of it that do not depend on the records.
    pub fixed_bytes: u64,
    /// Bytes of journal between two checkpoints: as of an image, but no fewer and no more than these.
    pub journal_least: u64,
    /// See there.
    pub journal_most: u64,
    /// Most bytes of a frame of either: as many may be left at a segment's end.
    pub frame_bytes: u64,
}

/// How far it is to the next image.
#[derive(Debug, Clone, Copy)]
pub enum ImageProgress {
    /// So many bytes of journal were written since the last.
    Idle {
        /// See there.
        journal_bytes: u64,
    },
    /// It begins as soon as there is room.
    Due,
    /// It is being written.
    Writing {
        /// Segments that it has taken.
        taken: u32,
    },
}

impl IndexNeed {
    /// Of the next image.
    pub fn image_bytes(&self) -> u64 {
        self.entry_bytes + self.fixed_bytes
    }

    /// From one checkpoint to the next.
    pub fn interval_bytes(&self) -> u64 {
        self.image_bytes().max(self.journal_least).min(self.journal_most)
    }

    /// What the journal takes until the next checkpoint is done.
    pub fn journal_bytes(&self) -> u64 {
        self.interval_bytes() + self.interval_bytes() / JOURNAL_SLACK
    }
}

impl Space {
    /// What image and journal will take: it is kept back as far as it is needed by now. `is_wasteful` is a journal whose
    /// segments, should they be many, are hardly used.
    pub fn expect_index(&mut self, need: IndexNeed, progress: ImageProgress, is_wasteful: bool) {
        let payload = self.geometry.segment_payload_bytes() - need.frame_bytes;
        let segments = |bytes: u64| bytes.div_ceil(payload).max(1) as u32;
        let image_segments = segments(need.image_bytes());
        self.image_is_written = matches!(progress, ImageProgress::Writing { .. });
        self.journal_segments_wanted = 1 + segments(need.journal_bytes());
        // With one more it has too many, and begins anew with an image, which gives them all back: where processes end
        // early again and again, they would take what that needs.
        let is_last = self.journal_segments >= self.journal_segments_wanted;
        self.kept_for_anew = if is_last && is_wasteful { image_segments } else { 0 };
        self.need = need;
        let part = |from: f64, to: f64, at: f64| ((at - from) / (to - from)).clamp(0.0, 1.0);
        let limit = self.live_limit_bytes(0).max(1) as f64;
        let by_fill = part(FULL_FROM, FULL_AT, need.record_bytes as f64 / limit);
        let (by_progress, taken) = match progress {
            ImageProgress::Idle { journal_bytes } => {
                let at = journal_bytes as f64 / need.interval_bytes().max(1) as f64;
                (part(IMAGE_FROM, 1.0, at), 0)
            }
            ImageProgress::Due => (1.0, 0),
            ImageProgress::Writing { taken } => (1.0, taken),
        };
        let kept = (f64::from(image_segments) * by_fill.max(by_progress)).ceil() as u32;
        self.kept_for_image = kept.saturating_sub(taken);
        self.kept_for_deletes = (f64::from(DELETE_RESERVE) * by_fill).ceil() as u32;
    }

    /// Whether an image that is due finds the segments that it will take, and cleaning one more.
    pub fn has_room_for_image(&self) -> bool {
        self.free.len() as u32 > self.kept_for_image
    }

    /// Whether the journal has more segments than were expected: a restart, or several, left some hardly used.
    pub fn journal_has_too_many(&self) -> bool {
        self.journal_segments > self.journal_segments_wanted
    }

    /// Whether the journal's segments are hardly used: so many bytes of frames are in them.
    pub fn is_wasted(&self, journal_bytes: u64) -> bool {
        let room = u64::from(self.journal_segments) * self.geometry.segment_payload_bytes();
        2 * journal_bytes < room
    }

    /// Free segments that are kept for the image and for the journal.
    fn kept_for_index(&self) -> u32 {
        self.kept_for_image + JOURNAL_RESERVE
    }

    /// Free segments that cleaning leaves to an image: to the one that is being written, and to the one that is to give back what
    /// a wasteful journal has, as long as there are enough for that.
    fn kept_from_cleaning(&self) -> u32 {
        if self.journal_has_too_many() { self.kept_from_journal() } else { self.kept_of_image_under_way() }
    }

    /// Free segments that the journal leaves to an image: it is not to have too many in the first place.
    fn kept_from_journal(&self) -> u32 {
        let is_enough = self.free.len() as u32 >= self.kept_for_anew;
        if self.image_is_written || !is_enough { self.kept_of_image_under_way() } else { self.kept_for_anew }
    }

    fn kept_of_image_under_way(&self) -> u32 {
        if self.image_is_written { self.kept_for_image } else { 0 }
    }

    /// Free segments that puts leave alone.
    pub fn reserve(&self) -> u32 {
        self.kept_for_index() + CLEANING_RESERVE + self.kept_for_deletes
    }

    /// The most bytes of live records that are taken, records of `record_bytes` among them: where records, image in use,
    /// image to come and journal fill what is not kept back, if all records were as those that there are.
    pub fn live_limit_bytes(&self, record_bytes: u64) -> u64 {
        let reserves = CLEANING_RESERVE + DELETE_RESERVE + JOURNAL_RESERVE;
        let kept_back = reserves + OPEN_SEGMENTS + self.lanes + INDEX_SLACK_SEGMENTS;
        let usable = f64::from((self.segments.len() as u32).saturating_sub(kept_back));
        let payload = self.geometry.segment_payload_bytes();
        // So full on average, some segment is still worth cleaning.
        let fullest = payload.saturating_sub(self.least_gain_bytes(record_bytes));
        let fullest = (fullest - fullest / GAIN_SHARE).min(payload * LIVE_PERCENT / 100);
        let need = &self.need;
        let index_payload = (payload - need.frame_bytes) as f64;
        // A few records tell nothing of those to come.
        let tells = need.record_bytes >= payload;
        let per_live_byte = if tells { need.entry_bytes as f64 / need.record_bytes as f64 } else { 0.0 };
        // With so many bytes of image for a byte of image, the journal's counted among them, and so many beside.
        let solve = |images: f64, more_bytes: f64| {
            let fixed = images * need.fixed_bytes as f64 + more_bytes;
            let segments_per_byte = 1.0 / fullest.max(1) as f64 + images * per_live_byte / index_payload;
            ((usable - fixed / index_payload) / segments_per_byte).max(0.0)
        };
        let slack = 1.0 + 1.0 / JOURNAL_SLACK as f64;
        let limit = solve(2.0 + slack, 0.0);
        let image_bytes = need.fixed_bytes as f64 + per_live_byte * limit;
        let journal_bytes = image_bytes.max(need.journal_least as f64).min(need.journal_most as f64);
        let limit = if journal_bytes == image_bytes { limit } else { solve(2.0, journal_bytes * slack) };
        limit as u64
    }

    /// A segment is worth cleaning when it holds so many bytes fewer than it could: what moving its
    /// records may waste behind the last one of a segment and of its frames, and then some.
    pub(super) fn least_gain_bytes(&self, record_bytes: u64) -> u64 {
        let class = self.lengths.iter().rposition(|count| *count > 0);
        let most = self.geometry.most_record_room();
        let longest = class.map_or(0, |class| longest_of(class).min(most));
        let largest = longest.max(record_bytes);
        largest
            + self.geometry.segment_payload_bytes() / GAIN_SHARE
            + u64::from(self.lanes + 1) * BLOCK_BYTES as u64
    }

    /// Whether there is a free segment for the claim.
    pub fn may_take(&self, claim: Claim) -> bool {
        self.free.len() as u32 > self.floor(claim)
    }

    /// Free segments that the claim leaves alone.
    fn floor(&self, claim: Claim) -> u32 {
        match claim {
            Claim::Put => self.reserve(),
            Claim::Delete => self.kept_for_index() + CLEANING_RESERVE,
            // It takes a few, and gives more back: for an image that is to come, too.
            Claim::Cleaning => self.kept_from_cleaning() + 1,
            Claim::Journal => self.kept_from_journal(),
            Claim::Image => 0,
        }
    }

    /// Whether there are two free segments for the claim, or more.
    pub fn has_more_than_one(&self, claim: Claim) -> bool {
        self.free.len() as u32 > self.floor(claim) + 1
    }
}
