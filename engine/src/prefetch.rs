//! Memory that the requests and completions of a step will need, asked for ahead of its use.
//!
//! What one request waits for memory is nothing that the next one could not wait for at the same time: a processor has tens of
//! reads under way, but code that serves request after request has one. So what many will need is asked for first, and not
//! waited for.

use prefetch_index::prefetch_index;

use crate::catalog::Catalog;
use crate::ids::PartitionId;
use crate::index::{LOOKUPS_AT_ONCE, Lookup, prefetch_for_change};
use crate::io::Purpose;
use crate::lookups::Located;
use crate::partition::Store;
use crate::seam::{Buffers, Completion};
use crate::shard::Shard;

/// What a read brings along from memory, in bytes.
const LINE_BYTES: usize = 64;
/// The processor fetches the rest of a long record ahead by itself.
const MOST_FETCHED_BYTES: usize = 2048;

/// Changes of indexes whose leaves are asked for together: as many whole leaves as stay in a core's first cache.
pub const CHANGES_AT_ONCE: usize = 8;

/// Asks for the line that a value begins in.
pub fn prefetch<T>(value: &T) {
    prefetch_index(std::slice::from_ref(value), 0);
}

/// Asks for what a reader of these bytes reads first.
fn prefetch_bytes(bytes: &[u8]) {
    (0..bytes.len().min(MOST_FETCHED_BYTES)).step_by(LINE_BYTES).for_each(|at| prefetch_index(bytes, at));
}

impl Catalog {
    /// Asks for what changes of these keys' places in the indexes will need: of [`CHANGES_AT_ONCE`] at most.
    pub fn prefetch_for_change<'k>(&self, keys: impl Iterator<Item = (PartitionId, &'k [u8])>) {
        let mut lookups = [Lookup::NONE; CHANGES_AT_ONCE];
        let mut count = 0;
        for (partition, key) in keys {
            if let Some(Store::Durable(index)) = self.get(partition).map(|partition| &partition.store) {
                lookups[count] = index.lookup(key);
                count += 1;
            }
        }
        // One alone has nobody to wait with.
        if count > 1 {
            prefetch_for_change(&self.arena, &mut lookups[..count]);
        }
    }
}

impl Shard {
    /// Asks for what the completions of reads will need: the records, and the cache's doorkeeper.
    pub(crate) fn prefetch_completed(&self, completions: &[Completion], buffers: &dyn Buffers) {
        for completion in completions {
            let (Purpose::Read, slot) = Purpose::of(completion.token) else { continue };
            let Some((location, record)) = self.reads.under_way(slot as usize, buffers) else { continue };
            prefetch_bytes(record);
            self.cache.prefetch_doorkeeper(location, self.space.of(location).1.generation);
        }
    }

    /// Asks for what gets will need of the cache: its entries are read, and then the records and their counts of references.
    pub(crate) fn prefetch_cached(&self, located: &[Located; LOOKUPS_AT_ONCE]) {
        let cached = located.each_ref().map(|located| match located {
            Located::At(Some(location)) => self.cache.peek(*location, self.space.of(*location).1.generation),
            Located::At(None) | Located::Unknown => None,
        });
        cached.iter().flatten().for_each(|record| prefetch_bytes(record));
        // Where the count lies only the record knows: it is read.
        std::hint::black_box(cached.iter().flatten().fold(false, |any, record| any ^ record.is_unique()));
    }
}
