//! Who asked for something lately, and what share of the shard that makes for each.

use lode_net::wire::PartitionId;

use crate::io_limits::IoLimits;

/// What may run of a partition of the usual weight however many others there are.
pub const LEAST_SHARE: u32 = 2;
/// So many are many.
const MANY: u64 = 64;
/// A partition counts as active until this long after its last request, at least.
pub const WINDOW_NS: u64 = 100_000_000;

/// How many partitions asked for something lately, and what they weigh: bits of those of this window, and the sums of
/// the last one. Two partitions may share a bit; beyond a few thousand the share is the least anyway.
#[derive(Debug)]
pub struct Active {
    most_running: u32,
    free_running: u32,
    free_among_many: u32,
    seen: [u64; 64],
    this: Sum,
    last: Sum,
    ends_ns: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    weight: u64,
}

impl Active {
    /// Nobody yet.
    pub fn new(limits: &IoLimits) -> Active {
        let IoLimits { most_running, free_running, free_among_many, .. } = *limits;
        let (this, last) = (Sum::default(), Sum::default());
        Active { most_running, free_running, free_among_many, seen: [0; 64], this, last, ends_ns: 0 }
    }

    /// A partition asks for something.
    pub fn note(&mut self, partition: PartitionId, weight: u32, now_ns: u64) {
        if now_ns >= self.ends_ns {
            let is_next = now_ns < self.ends_ns + WINDOW_NS;
            self.last = if is_next { self.this } else { Sum::default() };
            self.seen = [0; 64];
            self.this = Sum::default();
            self.ends_ns = now_ns + WINDOW_NS;
        }
        // Multiplication spreads ids that follow one another; the upper bits are the well mixed ones.
        let place = partition.0.wrapping_mul(0x9e37_79b9) >> 20;
        let (word, bit) = (&mut self.seen[place as usize / 64], 1 << (place % 64));
        if *word & bit == 0 {
            self.this.count += 1;
            self.this.weight += u64::from(weight);
        }
        *word |= bit;
    }

    /// What may run of a partition of this weight; at least one request.
    pub fn share(&self, weight: u32) -> u32 {
        let sum = if self.this.weight > self.last.weight { self.this } else { self.last };
        let all = u64::from(self.most_running).max(u64::from(LEAST_SHARE) * sum.count);
        let share = all * u64::from(weight) / sum.weight.max(u64::from(weight)).max(1);
        share.clamp(1, u64::from(self.most_running)) as u32
    }

    /// How much may run whoever asks.
    pub fn free_running(&self) -> u32 {
        if self.this.count.max(self.last.count) > MANY { self.free_among_many } else { self.free_running }
    }

    /// How many asked in this window.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.this.count
    }
}
