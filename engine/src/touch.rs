//! Memory that the requests and completions of a step will need, read ahead of its use.
//!
//! What one request waits for memory is nothing that the next one could not wait for at the same time: in
//! loops that do nothing else than read a byte of each cache line, the processor has many reads under way; in
//! the code that serves request after request it has one. (As in `index/lookup.rs`, safe code has no
//! prefetch.)

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::ids::PartitionId;
use crate::index::{Lookup, touch_for_change};
use crate::io::Purpose;
use crate::lookups::{LOOKUPS_AT_ONCE, Located};
use crate::partition::Store;
use crate::seam::{Buffers, Completion};
use crate::shard::Shard;

/// What a read brings along from memory, in bytes.
const LINE_BYTES: usize = 64;
/// The processor fetches the rest of a long record ahead by itself.
const MOST_TOUCHED_BYTES: usize = 2048;

/// Changes of indexes whose places are read ahead together.
pub const CHANGES_AT_ONCE: usize = 32;

impl Catalog {
    /// Reads ahead what changes of these keys' places in the indexes will need: of [`CHANGES_AT_ONCE`] at most.
    pub fn touch_for_change<'k>(&self, keys: impl Iterator<Item = (PartitionId, &'k [u8])>) {
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
            touch_for_change(&self.arena, &mut lookups[..count]);
        }
    }
}

impl Shard {
    /// Reads ahead what the completions of reads will need: the records, and the cache's doorkeeper.
    pub(crate) fn touch_completed(&self, completions: &[Completion], buffers: &dyn Buffers) {
        let mut sum = 0;
        for completion in completions {
            let (Purpose::Read, slot) = Purpose::of(completion.token) else { continue };
            let Some((location, record)) = self.reads.under_way(slot as usize, buffers) else { continue };
            let touched = &record[..record.len().min(MOST_TOUCHED_BYTES)];
            sum ^= touched.iter().step_by(LINE_BYTES).fold(0, |sum, byte| sum ^ byte);
            sum ^= self.cache.touch_doorkeeper(location, self.space.of(location).1.generation);
        }
        std::hint::black_box(sum);
    }

    /// Reads ahead what gets will need of the cache: its entries first, and then the records and their counts of references.
    pub(crate) fn touch_cached(&self, located: &[Located; LOOKUPS_AT_ONCE]) {
        let cached = located.each_ref().map(|located| match located {
            Located::At(Some(location)) => self.cache.peek(*location, self.space.of(*location).1.generation),
            Located::At(None) | Located::Unknown => None,
        });
        let touch = |record: &Bytes| {
            let touched = &record[..record.len().min(MOST_TOUCHED_BYTES)];
            touched.iter().step_by(LINE_BYTES).fold(u8::from(record.is_unique()), |sum, byte| sum ^ byte)
        };
        std::hint::black_box(cached.iter().flatten().fold(0, |sum, record| sum ^ touch(record)));
    }
}
