//! The read cache: whole records, by where they lie, within a hard limit of bytes.
//!
//! The policy is `quick_cache`'s (Clock-PRO with ghost entries), which one long scan does not flush. Once
//! the cache is nearly full, a doorkeeper lets a record in only when it is read for the second time
//! within a while (Einziger, Friedman and Manes, TinyLFU, 2017): reads without locality then pay for no
//! copies that would be thrown away unread.

use bytes::Bytes;
use prefetch_index::prefetch_index;
use quick_cache::{OptionsBuilder, Weighter, unsync};

use crate::ids::Generation;
use crate::location::Location;

/// Bytes of bookkeeping that an entry costs beside its record.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// Expected size of an entry, for the size of the tables.
const EXPECTED_ENTRY_BYTES: u64 = 1024;
/// The doorkeeper begins its work when the cache is filled to this many eighths.
const DOORKEEPER_EIGHTHS: u64 = 7;
/// The cache's tables need some weight to work with at all.
const LEAST_BYTES: u64 = 4096;

/// Where a record lies, and in which life of the segment: a place that was reused is another key.
type Key = (Location, Generation);

#[derive(Debug, Clone)]
struct RecordWeighter;

impl Weighter<Key, Bytes> for RecordWeighter {
    fn weight(&self, _: &Key, record: &Bytes) -> u64 {
        record.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// A shard's read cache.
pub struct ReadCache {
    cache: Option<unsync::Cache<Key, Bytes, RecordWeighter, ahash::RandomState>>,
    limit_bytes: u64,
    /// Fingerprints of records read lately, by hash; about one for each that the cache can hold.
    doorkeeper: Vec<u16>,
}

impl ReadCache {
    /// With a hard limit; too small a limit means no cache.
    pub fn new(limit_bytes: u64) -> ReadCache {
        if limit_bytes < LEAST_BYTES {
            return ReadCache { cache: None, limit_bytes, doorkeeper: Vec::new() };
        }
        let options = OptionsBuilder::new()
            .estimated_items_capacity((limit_bytes / EXPECTED_ENTRY_BYTES).max(16) as usize)
            .weight_capacity(limit_bytes)
            .build()
            .expect("both capacities are given");
        // Fixed seeds: the engine has no randomness, and the keys are not the clients' to choose.
        let hasher = ahash::RandomState::with_seeds(0x6c6f, 0x6465, 0x6361, 0x6368);
        let cache =
            unsync::Cache::with_options(options, RecordWeighter, hasher, unsync::DefaultLifecycle::default());
        let slots = (limit_bytes / EXPECTED_ENTRY_BYTES).next_power_of_two().max(1024);
        ReadCache { cache: Some(cache), limit_bytes, doorkeeper: vec![0; slots as usize] }
    }

    /// The whole record, if it is here.
    pub fn get(&self, location: Location, generation: Generation) -> Option<&Bytes> {
        self.cache.as_ref()?.get(&(location, generation))
    }

    /// The whole record, if it is here, which does not count as read by it.
    pub fn peek(&self, location: Location, generation: Generation) -> Option<&Bytes> {
        self.cache.as_ref()?.peek(&(location, generation))
    }

    /// Asks for what an insert will read of the doorkeeper.
    pub fn prefetch_doorkeeper(&self, location: Location, generation: Generation) {
        let (slot, _) = slot_of(location, generation);
        prefetch_index(&self.doorkeeper, slot & self.doorkeeper.len().wrapping_sub(1));
    }

    /// A record was read from the drive.
    pub fn insert(&mut self, location: Location, generation: Generation, record: &[u8]) {
        let Some(cache) = &mut self.cache else { return };
        let nearly_full = cache.weight() >= self.limit_bytes / 8 * DOORKEEPER_EIGHTHS;
        if nearly_full && !knock(&mut self.doorkeeper, location, generation) {
            return;
        }
        cache.insert((location, generation), Bytes::copy_from_slice(record));
    }

    /// A record died.
    pub fn remove(&mut self, location: Location, generation: Generation) {
        if let Some(cache) = &mut self.cache {
            cache.remove(&(location, generation));
        }
    }

    /// Bytes held, and the most that may be.
    pub fn bytes(&self) -> (u64, u64) {
        (self.cache.as_ref().map_or(0, |cache| cache.weight()), self.limit_bytes)
    }
}

/// Whether the doorkeeper has seen the record lately; from now on it has.
fn knock(doorkeeper: &mut [u16], location: Location, generation: Generation) -> bool {
    let (slot, fingerprint) = slot_of(location, generation);
    let slot = slot & (doorkeeper.len() - 1);
    std::mem::replace(&mut doorkeeper[slot], fingerprint) == fingerprint
}

/// A record's place in a doorkeeper, before it is cut to its size, and its fingerprint there.
fn slot_of(location: Location, generation: Generation) -> (usize, u16) {
    let mixed = (location.to_raw() ^ u64::from(generation.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Zero stands for nobody.
    ((mixed >> 40) as usize, (mixed >> 16) as u16 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(i: u64) -> Location {
        Location::new(i * 1000, 1000)
    }

    #[test]
    fn never_over_its_limit_and_a_scan_leaves_the_hot_ones() {
        let mut cache = ReadCache::new(200 * 1100);
        let record = vec![1u8; 1000];
        for _ in 0..3 {
            for i in 0..50 {
                if cache.get(location(i), Generation(1)).is_none() {
                    cache.insert(location(i), Generation(1), &record);
                }
            }
        }
        for i in 1000..5000 {
            cache.insert(location(i), Generation(1), &record);
            let (bytes, limit) = cache.bytes();
            assert!(bytes <= limit, "{bytes} of {limit}");
        }
        let hot = (0..50).filter(|i| cache.get(location(*i), Generation(1)).is_some()).count();
        assert!(hot > 40, "{hot} of 50 hot records survived a scan");
    }

    #[test]
    fn a_full_cache_takes_what_is_read_twice() {
        let mut cache = ReadCache::new(100 * 1100);
        let record = vec![1u8; 1000];
        (0..200).for_each(|i| cache.insert(location(i), Generation(1), &record));
        assert!(cache.get(location(199), Generation(1)).is_none(), "read once");
        cache.insert(location(199), Generation(1), &record);
        assert!(cache.get(location(199), Generation(1)).is_some(), "read twice");
    }

    #[test]
    fn another_life_of_a_place_is_another_record() {
        let mut cache = ReadCache::new(1 << 20);
        cache.insert(location(1), Generation(1), b"old");
        assert_eq!(cache.get(location(1), Generation(2)), None);
        assert_eq!(cache.get(location(1), Generation(1)).map(|record| &record[..]), Some(&b"old"[..]));
        assert_eq!(ReadCache::new(0).get(location(1), Generation(1)), None);
    }
}
