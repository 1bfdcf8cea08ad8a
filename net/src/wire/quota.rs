//! What a partition may take of its node, as it travels.

use crate::wire::header::{array_at, u32_at};
use crate::wire::limits::{DEFAULT_BURST_MS, DEFAULT_WEIGHT};

/// The share and the limits of one partition. A table's are those of each of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Its share of the shard where others want it too, over theirs: 1 to
    /// [`MAX_WEIGHT`](crate::wire::limits::MAX_WEIGHT), 100 by default.
    pub weight: u32,
    /// How much of each rate it may save up and then spend at once, in milliseconds: 1 to
    /// [`MAX_BURST_MS`](crate::wire::limits::MAX_BURST_MS), a second by default.
    pub burst_ms: u32,
    /// Requests a second; 0 for any number. Each write of a batch or a commit counts. This and the two below are at
    /// most [`MAX_QUOTA_PER_S`](crate::wire::limits::MAX_QUOTA_PER_S).
    pub requests_per_s: u64,
    /// Bytes of answers to reads a second; 0 for any number.
    pub read_bytes_per_s: u64,
    /// Bytes of keys and values written a second; 0 for any number.
    pub write_bytes_per_s: u64,
}

impl Default for Quota {
    /// A share as everybody's, and no limits.
    fn default() -> Quota {
        Quota {
            weight: DEFAULT_WEIGHT,
            burst_ms: DEFAULT_BURST_MS,
            requests_per_s: 0,
            read_bytes_per_s: 0,
            write_bytes_per_s: 0,
        }
    }
}

impl Quota {
    /// Bytes of it on the wire.
    pub const BYTES: usize = 32;

    /// As it travels.
    pub fn to_bytes(&self) -> [u8; Quota::BYTES] {
        let mut bytes = [0; Quota::BYTES];
        bytes[0..4].copy_from_slice(&self.weight.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.burst_ms.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.requests_per_s.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.read_bytes_per_s.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.write_bytes_per_s.to_le_bytes());
        bytes
    }

    /// The reverse. Whether its numbers may be is the node's to say.
    pub fn from_bytes(bytes: &[u8; Quota::BYTES]) -> Quota {
        let rate = |at| u64::from_le_bytes(array_at(bytes, at));
        Quota {
            weight: u32_at(bytes, 0),
            burst_ms: u32_at(bytes, 4),
            requests_per_s: rate(8),
            read_bytes_per_s: rate(16),
            write_bytes_per_s: rate(24),
        }
    }
}

/// A quota that was set, in the answer to Quotas: table, partition (0: the table's own), quota.
pub const QUOTA_ROW_BYTES: usize = 8 + Quota::BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_comes_back_from_its_bytes() {
        let (requests_per_s, read_bytes_per_s, write_bytes_per_s) = (1 << 40, 7, u64::MAX);
        let quota = Quota { weight: 3, burst_ms: 4, requests_per_s, read_bytes_per_s, write_bytes_per_s };
        assert_eq!(Quota::from_bytes(&quota.to_bytes()), quota);
        assert_ne!(Quota::default(), quota);
    }
}
