//! A drive of memory that is slow, completes out of order, and forgets at a crash what it may forget.

use lode_engine::{BufferId, Buffers, Completion, DeviceError, Op, Token};

use super::random::Random;

const SECTOR_BYTES: usize = 512;

/// A write that the drive may still forget, in whole or by the sector.
struct Volatile {
    at: usize,
    bytes: Vec<u8>,
}

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
    volatile: Vec<Volatile>,
    pending: Vec<Pending>,
    /// Percent of pending operations that end in a step.
    pub pace_percent: u64,
    /// Writes from now on fail with this error.
    pub fail_writes: Option<i32>,
    pub reads: u64,
    pub written_bytes: u64,
}

impl SimDrive {
    pub fn new(len: usize) -> SimDrive {
        SimDrive {
            now: vec![0; len],
            stable: vec![0; len],
            volatile: Vec::new(),
            pending: Vec::new(),
            pace_percent: 40,
            fail_writes: None,
            reads: 0,
            written_bytes: 0,
        }
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
                // As the bytes are now: changing them before the write has ended would be a bug, which
                // the comparison at its end finds.
                let bytes = buffers.bytes(buffer)[..len as usize].to_vec();
                (token, What::Write { at: at.0 as usize, bytes, durable })
            }
            Op::Flush { token } => (token, What::Flush),
            Op::Discard { token, at, len } => {
                (token, What::Discard { at: at.0 as usize, len: len as usize })
            }
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
                buffers.bytes_mut(buffer)[..len].copy_from_slice(&self.now[at..at + len]);
            }
            What::Write { at, bytes, durable } => match self.fail_writes {
                Some(os_error) => {
                    self.volatile.push(Volatile { at, bytes });
                    result = Err(DeviceError { os_error });
                }
                None => {
                    self.now[at..at + bytes.len()].copy_from_slice(&bytes);
                    if durable {
                        self.stable[at..at + bytes.len()].copy_from_slice(&bytes);
                    } else {
                        self.volatile.push(Volatile { at, bytes });
                    }
                }
            },
            What::Flush => {
                for write in std::mem::take(&mut self.volatile) {
                    self.stable[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
                }
            }
            // A discarded range reads as anything; zeros are one such thing.
            What::Discard { at, len } => {
                self.now[at..at + len].fill(0);
                self.stable[at..at + len].fill(0);
            }
        }
        Completion { token: pending.token, result }
    }

    /// Power is lost: of what was not durable, each sector is there or not.
    pub fn crash(&mut self, random: &mut Random) {
        let mut unsure = std::mem::take(&mut self.volatile);
        for pending in std::mem::take(&mut self.pending) {
            if let What::Write { at, bytes, .. } = pending.what {
                unsure.push(Volatile { at, bytes });
            }
        }
        for write in unsure {
            // Some writes vanish whole, some are there whole, some are torn.
            let fate = random.below(3);
            for (i, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                if fate == 0 || (fate == 1 && random.percent(50)) {
                    let at = write.at + i * SECTOR_BYTES;
                    self.stable[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.now.copy_from_slice(&self.stable);
    }

    /// The process ends, the power does not: what was written is there.
    pub fn settle(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if let What::Write { at, bytes, .. } = pending.what {
                self.now[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.volatile.clear();
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
