//! A drive of memory that is slow, completes out of order, and forgets at a crash what it may forget.

use std::collections::{BTreeMap, BTreeSet};

use lode_engine::{BufferId, Buffers, Completion, DeviceError, Op, Token};

use super::random::Random;

const SECTOR_BYTES: usize = 512;
const BLOCK_BYTES: usize = 4096;

struct Pending {
    token: Token,
    what: What,
}

enum What {
    Read { buffer: BufferId, at: usize, len: usize },
    Write { at: usize, bytes: Vec<u8>, durable: bool },
    Flush,
    Discard { at: usize, len: usize },
}

pub struct SimDrive {
    /// What reads see.
    pub now: Vec<u8>,
    /// What survives a crash for sure.
    stable: Vec<u8>,
    /// Sectors that are in the drive's cache alone, and by which write.
    volatile: BTreeMap<usize, u64>,
    writes: u64,
    pending: Vec<Pending>,
    /// Percent of pending operations that end in a step.
    pub pace_percent: u64,
    /// Writes from now on fail with this error.
    pub fail_writes: Option<i32>,
    /// Blocks that cannot be read, by number.
    pub unreadable: BTreeSet<usize>,
    /// The error that says so: 5, of the medium, unless a test has another.
    pub unreadable_os_error: i32,
    /// So many reads of them fail, if a test says so; then they can be read.
    pub unreadable_times: Option<u32>,
    /// So many reads of them give what lies there, before one fails.
    pub unreadable_spared: u32,
    pub reads: u64,
    pub written_bytes: u64,
    pub flushes: u64,
}

impl SimDrive {
    pub fn new(len: usize) -> SimDrive {
        SimDrive {
            now: vec![0; len],
            stable: vec![0; len],
            volatile: BTreeMap::new(),
            writes: 0,
            pending: Vec::new(),
            pace_percent: 40,
            fail_writes: None,
            unreadable: BTreeSet::new(),
            unreadable_os_error: 5,
            unreadable_times: None,
            unreadable_spared: 0,
            reads: 0,
            written_bytes: 0,
            flushes: 0,
        }
    }

    /// All that is on it becomes this, and its length this one's.
    pub fn hold(&mut self, bytes: Vec<u8>) {
        self.stable.clone_from(&bytes);
        self.now = bytes;
    }

    /// Writes at once and for good.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        self.stable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Flips a bit for good.
    pub fn flip(&mut self, at: usize) {
        self.now[at] ^= 0x10;
        self.stable[at] = self.now[at];
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn start(&mut self, op: Op, buffers: &PoolBuffers) {
        let (token, what) = match op {
            Op::Read { token, buffer, at, len } => {
                self.reads += 1;
                assert!(at.0.is_multiple_of(4096) && len.is_multiple_of(4096), "{op:?} is not aligned");
                (token, What::Read { buffer, at: at.0 as usize, len: len as usize })
            }
            Op::Write { token, buffer, at, len, durable } => {
                assert!(at.0.is_multiple_of(4096) && len.is_multiple_of(4096), "{op:?} is not aligned");
                self.written_bytes += u64::from(len);
                // As the bytes are now: changing them before the write has ended would be a bug.
                let bytes = buffers.bytes(buffer)[..len as usize].to_vec();
                (token, What::Write { at: at.0 as usize, bytes, durable })
            }
            Op::Flush { token } => (token, What::Flush),
            Op::Discard { token, at, len } => (token, What::Discard { at: at.0 as usize, len: len as usize }),
        };
        self.pending.push(Pending { token, what });
    }

    /// Ends a random choice of the pending operations, in random order.
    pub fn complete_some(&mut self, buffers: &mut PoolBuffers, random: &mut Random) -> Vec<Completion> {
        let mut completions = Vec::new();
        let mut at = 0;
        while at < self.pending.len() {
            if random.percent(self.pace_percent) {
                let pending = self.pending.swap_remove(at);
                completions.push(self.finish(pending, buffers));
            } else {
                at += 1;
            }
        }
        completions
    }

    fn finish(&mut self, pending: Pending, buffers: &mut PoolBuffers) -> Completion {
        let mut result = Ok(());
        match pending.what {
            What::Read { buffer, at, len } => {
                let blocks = at / BLOCK_BYTES..(at + len) / BLOCK_BYTES;
                let left = self.unreadable_times.unwrap_or(1);
                let is_meant = left > 0 && self.unreadable.range(blocks).next().is_some();
                let is_spared = is_meant && self.unreadable_spared > 0;
                self.unreadable_spared -= u32::from(is_spared);
                if is_meant && !is_spared {
                    self.unreadable_times = self.unreadable_times.map(|left| left - 1);
                    result = Err(DeviceError { os_error: self.unreadable_os_error });
                } else {
                    buffers.bytes_mut(buffer)[..len].copy_from_slice(&self.now[at..at + len]);
                }
            }
            What::Write { at, bytes, durable } => match self.fail_writes {
                // Whether any of it arrived, nobody knows.
                Some(os_error) => {
                    self.cache(at, &bytes, |sector| sector % 2 == 0);
                    result = Err(DeviceError { os_error });
                }
                None => {
                    self.cache(at, &bytes, |_| true);
                    if durable {
                        self.harden(at, bytes.len());
                    }
                }
            },
            What::Flush => {
                self.flushes += 1;
                self.harden(0, self.now.len());
            }
            // A discarded range reads as anything: what it was, or zeros.
            What::Discard { at, len } => {
                for block in (at..at + len)
                    .step_by(BLOCK_BYTES)
                    .filter(|block| !(block / BLOCK_BYTES).is_multiple_of(3))
                {
                    self.put(block, &[0; BLOCK_BYTES]);
                }
                self.harden(at, len);
            }
        }
        Completion { token: pending.token, result }
    }

    /// Sectors of a write reach the drive's cache.
    fn cache(&mut self, at: usize, bytes: &[u8], which: impl Fn(usize) -> bool) {
        self.writes += 1;
        for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate().filter(|(i, _)| which(*i)) {
            let begin = at + i * SECTOR_BYTES;
            self.now[begin..begin + sector.len()].copy_from_slice(sector);
            self.volatile.insert(begin / SECTOR_BYTES, self.writes);
        }
    }

    /// What the cache holds of this range becomes stable.
    fn harden(&mut self, at: usize, len: usize) {
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

    /// The process dies: of the writes under way, some arrive in the drive's cache, some in part.
    pub fn kill(&mut self, random: &mut Random) {
        for pending in std::mem::take(&mut self.pending) {
            if let What::Write { at, bytes, .. } = pending.what {
                match random.below(3) {
                    0 => {}
                    1 => self.cache(at, &bytes, |_| true),
                    _ => {
                        let mask = random.next();
                        self.cache(at, &bytes, |sector| mask >> (sector % 64) & 1 == 0);
                        // Not even a sector is whole or not at all; the first one is the hardest.
                        let sector = random.below(2) * random.below((bytes.len() / SECTOR_BYTES) as u64);
                        let begin = sector as usize * SECTOR_BYTES;
                        let len = random.below(SECTOR_BYTES as u64 / 4) as usize;
                        self.now[at + begin..at + begin + len].copy_from_slice(&bytes[begin..begin + len]);
                        self.volatile.insert((at + begin) / SECTOR_BYTES, self.writes);
                    }
                }
            }
        }
        self.fail_writes = None;
    }

    /// Power is lost: of what was not durable, some writes vanish, some stay, some stay in part.
    pub fn crash(&mut self, random: &mut Random) {
        self.kill(random);
        let mut fates = BTreeMap::new();
        for (sector, write) in std::mem::take(&mut self.volatile) {
            let fate = *fates.entry(write).or_insert_with(|| random.below(3));
            if fate == 0 || (fate == 1 && random.percent(50)) {
                self.keep(sector);
            }
        }
        self.now.copy_from_slice(&self.stable);
    }

    /// All that is under way arrives, and stays.
    pub fn settle(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if let What::Write { at, bytes, .. } = pending.what {
                self.now[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.volatile.clear();
        self.fail_writes = None;
        self.stable.copy_from_slice(&self.now);
    }
}

/// Buffers of plain memory, within a bound.
pub struct PoolBuffers {
    slots: Vec<Option<Vec<u8>>>,
    free: Vec<usize>,
    left_bytes: usize,
}

impl PoolBuffers {
    pub fn new(limit_bytes: usize) -> PoolBuffers {
        PoolBuffers { slots: Vec::new(), free: Vec::new(), left_bytes: limit_bytes }
    }

    /// Buffers that are out.
    pub fn in_use(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_some()).count()
    }
}

impl Buffers for PoolBuffers {
    fn acquire(&mut self, len: usize) -> Option<BufferId> {
        if len > self.left_bytes {
            return None;
        }
        self.left_bytes -= len;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        // Old contents are anything but zero.
        self.slots[slot] = Some(vec![0xa5; len]);
        Some(BufferId(slot as u32))
    }

    fn release(&mut self, buffer: BufferId) {
        let bytes = self.slots[buffer.0 as usize].take().expect("a buffer is released once");
        self.left_bytes += bytes.len();
        self.free.push(buffer.0 as usize);
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        self.slots[buffer.0 as usize].as_deref().expect("the buffer is owned")
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        self.slots[buffer.0 as usize].as_deref_mut().expect("the buffer is owned")
    }
}
