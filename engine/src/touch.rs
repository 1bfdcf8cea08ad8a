//! Memory that the requests and completions of a step will need, read ahead of its use.
//!
//! What one request waits for memory is nothing that the next one could not wait for at the same time: in
//! loops that do nothing else than read a byte of each cache line, the processor has many reads under way; in
//! the code that serves request after request it has one. (As in `index/lookup.rs`, safe code has no
//! prefetch.)

use crate::io::Purpose;
use crate::location::Location;
use crate::lookups::Located;
use crate::seam::{Buffers, Completion};
use crate::shard::Shard;

/// What a read brings along from memory, in bytes.
const LINE_BYTES: usize = 64;
/// The processor fetches the rest of a long record ahead by itself.
const MOST_TOUCHED_BYTES: usize = 2048;

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

    /// Reads ahead what gets will need of the cache.
    pub(crate) fn touch_cached(&self, located: &[Located]) {
        let is_cached = |located: &Located| match located {
            Located::At(Some(location)) => self.is_cached(*location),
            Located::At(None) | Located::Unknown => false,
        };
        std::hint::black_box(located.iter().filter(|located| is_cached(located)).count());
    }

    fn is_cached(&self, location: Location) -> bool {
        self.cache.contains(location, self.space.of(location).1.generation)
    }
}
