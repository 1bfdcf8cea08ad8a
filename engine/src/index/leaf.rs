//! A leaf: a sorted run of keys and their locations.

use super::node::Split;
use super::packed::{Packed, common_prefix};
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// Bytes of a location in a leaf.
const LOCATION_BYTES: usize = 8;
/// Most keys in a leaf: a search looks at the heads of all of them.
const MAX_KEYS: usize = 128;
/// Size at which a leaf splits, its prefix not counted; long keys may take it to twice that.
const MAX_BODY_BYTES: usize = 4096;
/// A leaf smaller than this, in keys and in bytes, looks for a neighbour to merge with.
const SMALL_KEYS: usize = MAX_KEYS / 4;
const SMALL_BODY_BYTES: usize = MAX_BODY_BYTES / 2;
/// A merger must leave room to grow, or the next insert would split it again.
const MERGED_KEYS: usize = MAX_KEYS * 3 / 4;
const MERGED_BODY_BYTES: usize = MAX_BODY_BYTES * 3 / 4;

type Run = Packed<2, LOCATION_BYTES>;

/// What one key can take.
const MAX_ENTRY_BYTES: usize = MAX_KEY_BYTES + Run::ENTRY_BYTES;

// A leaf of b bytes splits into halves of at most (b + one entry) / 2, so leaves of long keys settle at two
// entries, and hold three while they split.
const _: () = assert!(MAX_BODY_BYTES <= 2 * MAX_ENTRY_BYTES && 3 * MAX_ENTRY_BYTES <= Run::MAX_TAIL_BYTES);

/// A sorted run of keys and their locations.
pub(super) struct Leaf {
    run: Run,
}

impl Leaf {
    /// No keys, no allocation.
    pub const fn new() -> Leaf {
        Leaf { run: Run::new() }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.run.len()
    }

    /// What the leaf's allocation takes.
    pub fn memory_bytes(&self) -> usize {
        self.run.memory_bytes()
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &[u8] {
        self.run.prefix()
    }

    /// Appends what follows the prefix in key `i` to `out`.
    pub fn suffix_into(&self, i: usize, out: &mut Vec<u8>) {
        self.run.suffix_into(i, out);
    }

    /// The place of `key`, or the place where it would go.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.run.search(key)
    }

    /// The location of key `i`.
    pub fn location(&self, i: usize) -> Location {
        let raw = u64::from_le_bytes(self.run.value(i));
        Location::from_raw(raw).expect("a leaf holds nothing but encoded locations")
    }

    /// Replaces the location of key `i`.
    pub fn set_location(&mut self, i: usize, location: Location) {
        self.run.set_value(i, location.to_raw().to_le_bytes());
    }

    /// Puts `key` in place `at`, where [`search`](Self::search) said it would go. What does not fit
    /// comes back as the leaf to the right. `rightmost`: this is the partition's last leaf, so a key
    /// at its end is likely one of an ascending series, and the leaf is left full.
    pub fn insert_at(&mut self, at: usize, key: &[u8], location: Location, rightmost: bool) -> Option<Split> {
        let value = location.to_raw().to_le_bytes();
        if self.len() > 0 && self.wants_leaf_of_its_own(at, key, rightmost) {
            let mut run = Run::new();
            run.insert_at(0, key, value);
            if at > 0 {
                assert_eq!(at, self.len(), "a key without the prefix lies at an end");
                if rightmost {
                    self.run.shrink_to_fit();
                }
                return Some(self.split_off(Leaf { run }));
            }
            let right = std::mem::replace(self, Leaf { run });
            return Some(self.split_off(right));
        }
        self.run.insert_at(at, key, value);
        if self.len() <= MAX_KEYS && self.run.body_bytes() <= MAX_BODY_BYTES || self.len() == 1 {
            return None;
        }
        let middle = self.middle();
        let right = Leaf { run: self.run.slice(middle..self.len()) };
        self.run = self.run.slice(0..middle);
        Some(self.split_off(right))
    }

    /// Puts `key` behind all others if it belongs there and there is room; `false`, and nothing done, if not.
    pub fn append(&mut self, key: &[u8], location: Location) -> bool {
        let at = self.len();
        let fits = at > 0 && key.starts_with(self.prefix()) && !self.wants_leaf_of_its_own(at, key, true);
        if !fits || !self.run.ends_before(key) {
            return false;
        }
        self.run.insert_at(at, key, location.to_raw().to_le_bytes());
        true
    }

    /// Whether `key` would spoil the leaf: shorten the prefix so much that the keys no longer fit,
    /// or be the first of an ascending series beyond a full leaf.
    fn wants_leaf_of_its_own(&self, at: usize, key: &[u8], rightmost: bool) -> bool {
        let keeps_prefix = key.starts_with(self.prefix());
        let full =
            self.len() == MAX_KEYS || self.run.body_bytes() + Run::ENTRY_BYTES + key.len() > MAX_BODY_BYTES;
        rightmost && at == self.len() && full
            || !keeps_prefix && self.run.body_bytes_with(key) > MAX_BODY_BYTES
    }

    /// Names the border between this leaf and `right` by as few bytes as will do.
    fn split_off(&self, right: Leaf) -> Split {
        let last = self.run.key(self.len() - 1);
        let mut separator = right.run.key(0);
        separator.truncate(common_prefix(&last, &separator) + 1);
        Split { separator, right: right.into() }
    }

    /// The place that cuts the body into halves, neither of them empty.
    fn middle(&self) -> usize {
        let half = self.run.body_bytes() / 2;
        let mut left = 0;
        for i in 0..self.len() {
            let entry = self.run.entry_bytes(i);
            if left + entry / 2 >= half {
                assert!(i > 0, "a key among several takes less than all of them");
                return i;
            }
            left += entry;
        }
        self.len() - 1
    }

    /// Takes key `at` out.
    pub fn remove_at(&mut self, at: usize) {
        self.run.remove_at(at);
    }

    /// Takes all keys from place `len` out.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len(), "truncate to {len} of {}", self.len());
        self.run = self.run.slice(0..len);
    }

    /// Whether the leaf should look for a neighbour to merge with.
    pub fn is_small(&self) -> bool {
        self.len() < SMALL_KEYS && self.run.body_bytes() < SMALL_BODY_BYTES
    }

    /// This leaf and `right` in one, if they fit.
    pub fn merged(&self, right: &Leaf) -> Option<Leaf> {
        let fits = self.len() + right.len() <= MERGED_KEYS
            && self.run.merged_body_bytes(None, &right.run) <= MERGED_BODY_BYTES;
        fits.then(|| Leaf { run: self.run.merged(None, &right.run) })
    }
}
