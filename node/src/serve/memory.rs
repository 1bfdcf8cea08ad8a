//! How the node's memory is divided, once, at the start.

use lode_engine::ShardConfig;
use lode_engine::limits::{MAX_SCAN_BYTES, MAX_TRANSACTION_BYTES};
use serde_json::{Value, json};

use super::ServeError;

/// The least memory of a shard, in bytes.
pub const MIN_MEMORY_PER_SHARD: u64 = 64 << 20;

/// The most that each kind of what waits for something may take of a shard's memory.
const MOST_OF_WAITING_BYTES: u64 = 128 << 20;
/// So much of what is left is the cache's and the index's by two to three; beyond it by one to four.
const EVENLY_SHARED_BYTES: u64 = 1 << 30;

/// What a cache leaves for keys at least, of a shard.
const LEAST_INDEX_BYTES: u64 = 8 << 20;

/// Receive chunks of a shard.
pub const CHUNKS: u16 = 128;
/// Bytes of a receive chunk.
pub const CHUNK_BYTES: u32 = 16 * 1024;
/// The most bytes of a shard's buffers that are registered, and so count against memlock (8 MiB for all
/// of a user's processes by default).
pub const REGISTERED_BYTES: usize = 2 << 20;

/// How much of each shard's buffers is to be registered: all shards together take half of what this user may lock
/// at most, for the rings lock some too, and so may other nodes.
pub fn registered_bytes(shards: u16) -> usize {
    use rustix::process::{Resource, getrlimit};
    use rustix::thread::{CapabilitySet, capabilities};
    let is_free = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let limit = getrlimit(Resource::Memlock).current.filter(|_| !is_free);
    limit.map_or(REGISTERED_BYTES, |limit| share_of_lock(limit, shards))
}

fn share_of_lock(limit: u64, shards: u16) -> usize {
    usize::try_from(limit / 2 / u64::from(shards))
        .map_or(REGISTERED_BYTES, |share| share.min(REGISTERED_BYTES))
}

/// One shard's share, in bytes. Buffers are an eighth (16 to 256 MiB), replies another (8 to 256 MiB),
/// unfinished requests, requests that wait and unfinished scans (at most 128 MiB each) and transactions (at most 8 MiB) a sixteenth each; of the rest, two fifths of
/// the first GiB and a fifth of what is beyond are the read cache's, and the others are for the index and memory tables: whoever gives a shard more has more keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Block-aligned buffers for the drive.
    pub buffer_bytes: u64,
    /// Replies that wait for their readers, and lie in no buffer.
    pub reply_bytes: u64,
    /// Requests that have arrived in part.
    pub partial_bytes: u64,
    /// Requests that wait in the engine.
    pub queued_bytes: u64,
    /// Records held by unfinished scans.
    pub scan_bytes: u64,
    /// What open transactions have read, and what was overwritten since they began.
    pub transaction_bytes: u64,
    /// The read cache.
    pub cache_bytes: u64,
    /// Index and memory tables.
    pub index_bytes: u64,
}

/// Bytes of memory that this machine has.
pub fn machine_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit.max(1))
}

/// Divides the memory that a node is given; refuses what its shards cannot work with, and what this machine has not.
pub fn plan_memory(
    memory_bytes: u64,
    cache_bytes: Option<u64>,
    shards: u16,
) -> Result<MemoryPlan, ServeError> {
    let machine_bytes = machine_bytes();
    if memory_bytes > machine_bytes {
        return Err(ServeError::MemoryBeyondMachine { given_bytes: memory_bytes, machine_bytes });
    }
    let min_bytes = u64::from(shards) * MIN_MEMORY_PER_SHARD;
    let plan = MemoryPlan::new(memory_bytes, shards);
    let plan = plan.ok_or(ServeError::Memory { shards, min_bytes, given_bytes: memory_bytes })?;
    let Some(given_bytes) = cache_bytes else { return Ok(plan) };
    plan.with_cache(given_bytes / u64::from(shards)).ok_or_else(|| {
        let most_bytes = plan.most_cache_bytes() * u64::from(shards);
        ServeError::Cache { shards, given_bytes, most_bytes }
    })
}

impl MemoryPlan {
    /// Divides `memory_bytes` among `shards`; `None` where that is too little.
    pub fn new(memory_bytes: u64, shards: u16) -> Option<MemoryPlan> {
        let share = memory_bytes / u64::from(shards);
        if share < MIN_MEMORY_PER_SHARD {
            return None;
        }
        let buffer_bytes = (share / 8).clamp(16 << 20, 256 << 20);
        let reply_bytes = (share / 8).clamp(8 << 20, 256 << 20);
        let sixteenth = (share / 16).min(MOST_OF_WAITING_BYTES);
        let scan_bytes = sixteenth.max(MAX_SCAN_BYTES as u64);
        let chunk_bytes = u64::from(CHUNKS) * u64::from(CHUNK_BYTES);
        let transaction_bytes = sixteenth.min(MAX_TRANSACTION_BYTES as u64);
        let fixed = buffer_bytes + reply_bytes + chunk_bytes;
        let rest = share - fixed - 2 * sixteenth - scan_bytes - transaction_bytes;
        let first = rest.min(EVENLY_SHARED_BYTES);
        let cache_bytes = first * 2 / 5 + (rest - first) / 5;
        Some(MemoryPlan {
            buffer_bytes,
            reply_bytes,
            partial_bytes: sixteenth,
            queued_bytes: sixteenth,
            scan_bytes,
            transaction_bytes,
            cache_bytes,
            index_bytes: rest - cache_bytes,
        })
    }

    /// The most that the cache can have.
    fn most_cache_bytes(&self) -> u64 {
        (self.cache_bytes + self.index_bytes).saturating_sub(LEAST_INDEX_BYTES)
    }

    /// The same with so much for the cache, and the rest of it for keys; `None` where too little would be left for these.
    pub fn with_cache(self, cache_bytes: u64) -> Option<MemoryPlan> {
        let index_bytes = (self.cache_bytes + self.index_bytes).checked_sub(cache_bytes)?;
        (cache_bytes <= self.most_cache_bytes()).then_some(MemoryPlan { cache_bytes, index_bytes, ..self })
    }

    /// Sets what the engine may use.
    pub fn apply(&self, config: &mut ShardConfig) {
        config.cache_bytes = self.cache_bytes;
        config.memory_bytes = self.index_bytes;
        config.max_queued_bytes = self.queued_bytes as usize;
        config.max_scan_bytes = self.scan_bytes as usize;
        config.max_transaction_bytes = self.transaction_bytes as usize;
    }

    /// For statistics; per shard.
    pub fn to_json(self) -> Value {
        json!({
            "buffer_bytes": self.buffer_bytes,
            "reply_bytes": self.reply_bytes,
            "partial_request_bytes": self.partial_bytes,
            "queued_request_bytes": self.queued_bytes,
            "scan_bytes": self.scan_bytes,
            "transaction_bytes": self.transaction_bytes,
            "cache_bytes": self.cache_bytes,
            "index_and_memory_table_bytes": self.index_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lock_no_more_than_half_of_what_may_be_locked() {
        let limit = 8 << 20;
        assert_eq!(share_of_lock(limit, 1), REGISTERED_BYTES);
        assert_eq!(share_of_lock(limit, 2), REGISTERED_BYTES);
        assert!(
            (3..=256).all(|shards| share_of_lock(limit, shards) * usize::from(shards) <= limit as usize / 2)
        );
        assert_eq!(share_of_lock(u64::MAX, 256), REGISTERED_BYTES);
    }

    #[test]
    fn shares_add_up_to_no_more_than_was_given() {
        assert_eq!(MemoryPlan::new(2 * MIN_MEMORY_PER_SHARD - 1, 2), None);
        for (memory, shards) in [(MIN_MEMORY_PER_SHARD, 1), (1 << 30, 2), (64 << 30, 32)] {
            let plan = MemoryPlan::new(memory, shards).expect("enough");
            let share = plan.buffer_bytes
                + plan.reply_bytes
                + plan.partial_bytes
                + plan.queued_bytes
                + plan.scan_bytes
                + plan.transaction_bytes
                + plan.cache_bytes
                + plan.index_bytes;
            assert!(share * u64::from(shards) <= memory);
            assert!(plan.index_bytes >= plan.cache_bytes && plan.cache_bytes >= 8 << 20);
        }
    }

    #[test]
    fn a_cache_that_was_asked_for_is_had_as_long_as_keys_have_some() {
        let plan = MemoryPlan::new(256 << 20, 2).expect("enough");
        let (most, both) = (plan.most_cache_bytes(), plan.cache_bytes + plan.index_bytes);
        assert_eq!(most, both - LEAST_INDEX_BYTES);
        for cache_bytes in [0, 1, most] {
            let asked = plan.with_cache(cache_bytes).expect("it leaves enough");
            assert_eq!((asked.cache_bytes, asked.cache_bytes + asked.index_bytes), (cache_bytes, both));
            assert_eq!(
                MemoryPlan { cache_bytes: 0, index_bytes: 0, ..asked },
                MemoryPlan { cache_bytes: 0, index_bytes: 0, ..plan }
            );
        }
        for too_much in [most + 1, both, both + 1, u64::MAX] {
            assert_eq!(plan.with_cache(too_much), None);
        }
        let planned = |bytes| plan_memory(256 << 20, Some(bytes), 2);
        assert_eq!(planned(2 * most).expect("the most").cache_bytes, most);
        let error = planned(2 * most + 2).expect_err("more").to_string();
        assert!(error.contains(&(2 * most).to_string()) && error.contains("--cache"), "{error}");
    }

    #[test]
    fn more_memory_is_more_of_everything_and_mostly_of_keys() {
        let plans = (64..16_384).step_by(64).map(|mib| MemoryPlan::new(mib << 20, 1).expect("enough"));
        let plans: Vec<_> = plans.collect();
        for pair in plans.windows(2) {
            let parts = |plan: &MemoryPlan| [plan.cache_bytes, plan.index_bytes, plan.partial_bytes];
            assert!(parts(&pair[0]).iter().zip(parts(&pair[1])).all(|(less, more)| *less <= more));
        }
        for (mib, most) in [(2047, 2047 << 16), (2048, 128 << 20), (2049, 128 << 20)] {
            let MemoryPlan { partial_bytes, queued_bytes, scan_bytes, .. } =
                MemoryPlan::new(mib << 20, 1).expect("enough");
            assert_eq!([partial_bytes, queued_bytes, scan_bytes], [most; 3], "of {mib} MiB");
        }
        // Eight cores, 64 GiB, a drive of 1.92 TB that is filled to 85 % with records of 1 KiB and keys of 16 to 24 bytes (docs/hardware.md).
        let plan = MemoryPlan::new(62 << 30, 8).expect("enough");
        assert!(8 * plan.index_bytes > 1_520_000_000 * 27, "{} bytes for keys", 8 * plan.index_bytes);
        // Sixteen, 128 GiB, six such drives, and a compact index.
        let plan = MemoryPlan::new(125 << 30, 16).expect("enough");
        assert!(16 * plan.index_bytes > 9_120_000_000 * 9, "{} bytes for keys", 16 * plan.index_bytes);
    }
}
