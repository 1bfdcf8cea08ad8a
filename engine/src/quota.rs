//! What a partition may take of its shard. The engine keeps it with the catalog; whoever runs the shard enforces it.

use crate::format::{ByteReader, ByteWriter};
use crate::ids::{PartitionId, TableId};
use crate::limits::{DEFAULT_BURST_MS, DEFAULT_WEIGHT, MAX_BURST_MS, MAX_QUOTA_PER_S, MAX_WEIGHT};

/// The share and the limits of one partition. A table's are those of each of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Its share of the shard where others want it too, over theirs: 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// How much of a rate it may save up, in milliseconds: 1 to [`MAX_BURST_MS`].
    pub burst_ms: u32,
    /// Requests a second; 0 for any number. At most [`MAX_QUOTA_PER_S`], as those below.
    pub requests_per_s: u64,
    /// Bytes of keys and values read a second; 0 for any number.
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
    /// Bytes of it in a change of the catalog.
    pub const BYTES: usize = 32;

    /// Whether every number is one that it may be.
    pub fn is_sound(&self) -> bool {
        let rates = [self.requests_per_s, self.read_bytes_per_s, self.write_bytes_per_s];
        (1..=MAX_WEIGHT).contains(&self.weight)
            && (1..=MAX_BURST_MS).contains(&self.burst_ms)
            && rates.iter().all(|rate| *rate <= MAX_QUOTA_PER_S)
    }

    /// As stored.
    pub fn write(&self, out: &mut ByteWriter) {
        out.u32(self.weight).u32(self.burst_ms).u64(self.requests_per_s);
        out.u64(self.read_bytes_per_s).u64(self.write_bytes_per_s);
    }

    /// From storage; `None` for bytes that end early.
    pub fn read(reader: &mut ByteReader<'_>) -> Option<Quota> {
        Some(Quota {
            weight: reader.u32()?,
            burst_ms: reader.u32()?,
            requests_per_s: reader.u64()?,
            read_bytes_per_s: reader.u64()?,
            write_bytes_per_s: reader.u64()?,
        })
    }
}

/// Whose quota is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaOf {
    /// Of every partition of a table that has none of its own.
    Table(TableId),
    /// One partition's own.
    Partition(PartitionId),
}
