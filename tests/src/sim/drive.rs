//! A drive with a volatile write cache: what a write has put there is read at once, and is lost with the power, sector
//! by sector, unless it was flushed.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Kept;
use crate::value::Dice;

/// What a drive keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;
/// What goes wrong as one where it is the drive's doing.
pub const BLOCK_BYTES: usize = 4096;

/// What is to be done to the drive.
#[derive(Clone, Debug)]
pub enum DriveOp {
    /// Read.
    Read {
        /// From this byte on.
        at: usize,
        /// So many bytes.
        len: usize,
    },
    /// Write; with `durable`, through the cache.
    Write {
        /// From this byte on.
        at: usize,
        /// These.
        bytes: Vec<u8>,
        /// Whether it ends only when they would survive the power's end.
        durable: bool,
    },
    /// What is in the cache goes to where it stays.
    Flush,
    /// These bytes may be forgotten.
    Discard {
        /// From this byte on.
        at: usize,
        /// So many bytes.
        len: usize,
    },
}

/// One drive, of memory.
pub struct SimDrive {
    /// What reads see.
    now: Vec<u8>,
    /// What is left when the power goes.
    stable: Vec<u8>,
    /// Sectors in the cache, and the write that put them there.
    volatile: BTreeMap<usize, u64>,
    writes: u64,
    lies: bool,
    dice: Dice,
    /// What each block held before what it holds, where that is kept.
    before: Option<Vec<u8>>,
}

/// How a block is not what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A bit has flipped.
    Bit,
    /// A sector is all zeros.
    Zeros,
    /// What was written last was lost, though the drive said that it was there: it holds what it held before.
    Stale,
    /// It holds what was meant for another place.
    Misdirected,
}

/// The kinds of harm.
pub const HARMS: [Harm; 4] = [Harm::Bit, Harm::Zeros, Harm::Stale, Harm::Misdirected];

impl Harm {
    /// What happens.
    pub fn in_words(self) -> &'static str {
        match self {
            Harm::Bit => "a bit rots",
            Harm::Zeros => "a sector becomes zeros",
            Harm::Stale => "a block holds what it held before",
            Harm::Misdirected => "a block holds what is another's",
        }
    }
}

impl SimDrive {
    /// Of zeros. One that `lies` keeps nothing out of its cache when it says so.
    pub fn new(bytes: usize, seed: u64, lies: bool) -> SimDrive {
        let zeros = vec![0; bytes];
        SimDrive {
            now: zeros.clone(),
            stable: zeros,
            volatile: BTreeMap::new(),
            writes: 0,
            lies,
            dice: Dice::new(seed),
            before: None,
        }
    }

    /// Keeps from now on what blocks held before.
    pub fn remember(&mut self) {
        self.before = Some(self.now.clone());
    }

    /// What is left when the power goes.
    pub fn stable(&self) -> &[u8] {
        &self.stable
    }

    /// Does harm to a block for good.
    pub fn harm(&mut self, at: usize, harm: Harm) {
        let mut block = self.now[at..at + BLOCK_BYTES].to_vec();
        self.distort(at, &mut block, harm);
        self.overwrite(at, &block);
    }

    /// These bytes are there for good, whoever wrote them.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        for sector in at / SECTOR_BYTES..(at + bytes.len()) / SECTOR_BYTES {
            self.volatile.remove(&sector);
        }
        self.put(at, bytes);
    }

    /// Does harm to a block's bytes, which were read.
    pub fn distort(&mut self, at: usize, block: &mut [u8], harm: Harm) {
        match harm {
            Harm::Bit => {
                let bit = self.dice.below(8 * BLOCK_BYTES as u64) as usize;
                block[bit / 8] ^= 1 << (bit % 8);
            }
            Harm::Zeros => {
                let begin = self.dice.below((BLOCK_BYTES / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES;
                block[begin..begin + SECTOR_BYTES].fill(0);
            }
            Harm::Stale => {
                if let Some(before) = &self.before {
                    block.copy_from_slice(&before[at..at + BLOCK_BYTES]);
                }
            }
            Harm::Misdirected => {
                let other = self.dice.below((self.now.len() / BLOCK_BYTES) as u64) as usize * BLOCK_BYTES;
                block.copy_from_slice(&self.now[other..other + BLOCK_BYTES]);
            }
        }
    }

    /// Bytes that were there before the node began.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        self.stable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Does it, whole. Gives what was read.
    pub fn perform(&mut self, op: &DriveOp) -> Vec<u8> {
        match op {
            DriveOp::Read { at, len } => return self.now[*at..at + len].to_vec(),
            DriveOp::Write { at, bytes, durable } => {
                self.cache(*at, bytes, |_| true);
                if *durable {
                    self.harden(*at, bytes.len());
                }
            }
            DriveOp::Flush => self.harden(0, self.now.len()),
            DriveOp::Discard { at, len } => {
                // What was discarded reads as anything: as it was, or as zeros.
                for begin in (*at..at + len).step_by(SECTOR_BYTES) {
                    if self.dice.below(3) > 0 {
                        self.put(begin, &[0; SECTOR_BYTES]);
                    }
                }
                self.harden(*at, *len);
            }
        }
        Vec::new()
    }

    /// Fails: whether any of a write arrived, nobody knows. A flush that fails may cost some of what was in the cache,
    /// and the next one, which does not fail, brings none of that back.
    pub fn fail(&mut self, op: &DriveOp) {
        match op {
            DriveOp::Write { at, bytes, .. } => {
                let mask = self.dice.roll();
                self.cache(*at, bytes, |sector| mask >> (sector % 64) & 1 == 0);
            }
            DriveOp::Flush => {
                let lost: BTreeSet<u64> = self.volatile.values().copied().collect();
                let lost: BTreeSet<u64> = lost.into_iter().filter(|_| self.dice.below(2) == 0).collect();
                let (now, stable) = (&mut self.now, &self.stable);
                self.volatile.retain(|sector, write| {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    if lost.contains(write) {
                        now[range.clone()].copy_from_slice(&stable[range]);
                    }
                    !lost.contains(write)
                });
            }
            DriveOp::Read { .. } | DriveOp::Discard { .. } => {}
        }
    }

    /// The process ends with this under way: it arrives whole, in part, or not at all.
    pub fn abandon(&mut self, op: &DriveOp) {
        let DriveOp::Write { at, bytes, .. } = op else { return };
        match self.dice.below(3) {
            0 => {}
            1 => self.cache(*at, bytes, |_| true),
            _ => {
                let mask = self.dice.roll();
                self.cache(*at, bytes, |sector| mask >> (sector % 64) & 1 == 0);
            }
        }
    }

    /// Writes of which something is lost if the power goes with these under way.
    pub fn writes_at_risk(&self, under_way: usize) -> u32 {
        let cached: BTreeSet<u64> = self.volatile.values().copied().collect();
        (cached.len() + under_way) as u32
    }

    /// The power goes with these under way, in the order in which they began: what is not durable is kept as the cut
    /// has it.
    pub fn cut(&mut self, under_way: &[DriveOp], kept: Kept) {
        for op in under_way {
            if let DriveOp::Write { at, bytes, .. } = op {
                self.cache(*at, bytes, |_| true);
            }
        }
        let volatile = std::mem::take(&mut self.volatile);
        let writes: BTreeSet<u64> = volatile.values().copied().collect();
        let (first, last) = (writes.first().copied(), writes.last().copied());
        for (sector, write) in volatile {
            let place = writes.range(..write).count();
            let is_kept = match kept {
                Kept::None => false,
                Kept::All => true,
                Kept::First => Some(write) == first,
                Kept::AllButFirst => Some(write) != first,
                Kept::Last => Some(write) == last,
                Kept::EverySecond => place.is_multiple_of(2),
                Kept::Torn => sector.is_multiple_of(2),
                Kept::Some(which) => which.checked_shr(place as u32).is_some_and(|bits| bits & 1 == 1),
            };
            if is_kept {
                self.keep(sector);
            }
        }
        self.now.copy_from_slice(&self.stable);
    }

    /// What reads see.
    pub fn bytes(&self) -> &[u8] {
        &self.now
    }

    /// The power goes: of what was in the cache some writes stay, some vanish, some stay in part.
    pub fn lose_power(&mut self) {
        let mut fates = BTreeMap::new();
        for (sector, write) in std::mem::take(&mut self.volatile) {
            let dice = &mut self.dice;
            let fate = *fates.entry(write).or_insert_with(|| dice.below(3));
            if fate == 0 || fate == 1 && dice.below(2) == 0 {
                self.keep(sector);
            }
        }
        self.now.copy_from_slice(&self.stable);
    }

    fn cache(&mut self, at: usize, bytes: &[u8], which: impl Fn(usize) -> bool) {
        assert!(
            at.is_multiple_of(SECTOR_BYTES) && bytes.len().is_multiple_of(SECTOR_BYTES),
            "aligned writes"
        );
        self.writes += 1;
        if let Some(before) = &mut self.before {
            before[at..at + bytes.len()].copy_from_slice(&self.now[at..at + bytes.len()]);
        }
        for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate().filter(|(i, _)| which(*i)) {
            let begin = at + i * SECTOR_BYTES;
            self.now[begin..begin + sector.len()].copy_from_slice(sector);
            self.volatile.insert(begin / SECTOR_BYTES, self.writes);
        }
    }

    fn harden(&mut self, at: usize, len: usize) {
        if self.lies {
            return;
        }
        let sectors = at / SECTOR_BYTES..(at + len).div_ceil(SECTOR_BYTES);
        let cached: Vec<usize> = self.volatile.range(sectors).map(|(sector, _)| *sector).collect();
        for sector in cached {
            self.volatile.remove(&sector);
            self.keep(sector);
        }
    }

    fn keep(&mut self, sector: usize) {
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        self.stable[range.clone()].copy_from_slice(&self.now[range]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: usize, byte: u8, sectors: usize, durable: bool) -> DriveOp {
        DriveOp::Write { at, bytes: vec![byte; sectors * SECTOR_BYTES], durable }
    }

    #[test]
    fn a_cut_keeps_what_is_durable_and_of_the_rest_what_it_says() {
        for kept in Kept::ALL.into_iter().chain(Kept::of(3)) {
            let mut drive = SimDrive::new(1 << 16, 1, false);
            drive.perform(&write(0, 1, 8, true));
            drive.perform(&write(4096, 2, 8, false));
            drive.perform(&write(8192, 3, 8, false));
            drive.cut(&[write(12288, 4, 8, true)], kept);
            let block = |i: usize| drive.bytes()[4096 * i..4096 * (i + 1)].iter().any(|byte| *byte != 0);
            let blocks = [block(0), block(1), block(2), block(3)];
            let expected = match kept {
                Kept::None => [true, false, false, false],
                Kept::All | Kept::Torn => [true; 4],
                Kept::First => [true, true, false, false],
                Kept::AllButFirst => [true, false, true, true],
                Kept::Last => [true, false, false, true],
                Kept::EverySecond => [true, true, false, true],
                Kept::Some(which) => [true, which & 1 == 1, which >> 1 & 1 == 1, which >> 2 & 1 == 1],
            };
            assert_eq!(blocks, expected, "{kept:?}");
            assert_eq!(drive.bytes()[4096 + 512] == 0, kept != Kept::All && !blocks[1] || kept == Kept::Torn);
        }
    }

    #[test]
    fn each_part_of_a_few_writes_may_be_what_is_left() {
        assert_eq!((Kept::of(0).len(), Kept::of(1).len(), Kept::of(3).len()), (1, 3, 9));
        assert_eq!(Kept::of(100), Kept::ALL);
        let mut drive = SimDrive::new(1 << 16, 1, false);
        drive.perform(&write(0, 1, 8, false));
        drive.perform(&write(4096, 1, 8, false));
        assert_eq!(drive.writes_at_risk(1), 3);
        drive.perform(&DriveOp::Flush);
        assert_eq!(drive.writes_at_risk(0), 0);
    }

    #[test]
    fn a_flush_that_fails_may_cost_what_the_next_one_does_not_bring_back() {
        let mut lost = 0;
        for seed in 0..40 {
            let mut drive = SimDrive::new(1 << 16, seed, false);
            drive.perform(&write(0, 1, 8, true));
            drive.perform(&write(8192, 2, 8, false));
            drive.fail(&DriveOp::Flush);
            drive.perform(&DriveOp::Flush);
            assert_eq!(drive.bytes(), drive.stable());
            assert_eq!(drive.bytes()[..4096], [1; 4096]);
            lost += usize::from(drive.bytes()[8192..12288] == [0; 4096]);
        }
        assert!(lost > 10 && lost < 30, "{lost} of 40 lost");
    }

    #[test]
    fn what_is_durable_survives_the_power_and_what_is_not_may_not() {
        let mut lost = 0;
        for seed in 0..40 {
            let mut drive = SimDrive::new(1 << 16, seed, false);
            drive.perform(&write(0, 1, 8, true));
            drive.perform(&write(8192, 2, 8, false));
            drive.perform(&DriveOp::Flush);
            drive.perform(&write(16384, 3, 8, false));
            drive.lose_power();
            let read = |drive: &mut SimDrive, at| drive.perform(&DriveOp::Read { at, len: 4096 });
            assert_eq!((read(&mut drive, 0), read(&mut drive, 8192)), (vec![1; 4096], vec![2; 4096]));
            lost += usize::from(read(&mut drive, 16384) != vec![3; 4096]);
        }
        assert!(lost > 10 && lost < 40, "{lost} of 40 lost");
    }
}
