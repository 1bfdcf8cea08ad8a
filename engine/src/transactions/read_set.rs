//! What a transaction has read: keys, and ranges of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::limits::MAX_READ_SET_BYTES;
use crate::partition::is_void;
use crate::request::KeyRange;

/// Bytes of memory that a key or a bound costs beside its bytes.
pub const READ_OVERHEAD_BYTES: usize = 48;

/// What a transaction has read.
#[derive(Debug, Default)]
pub struct ReadSet {
    keys: BTreeSet<Box<[u8]>>,
    /// From where to where; no two overlap or touch, so that a look at all of them sees no change twice.
    ranges: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    bytes: usize,
}

impl ReadSet {
    /// Bytes of memory it takes, by estimate of the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|key| &**key)
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = KeyRange<'_>> {
        self.ranges.iter().map(|(start, end)| KeyRange { start, end: end.as_deref() })
    }

    /// Whether it was read, by itself or in a range.
    pub fn has(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
            || self.range_from(key).is_some_and(|(_, end)| end.is_none_or(|end| key < end))
    }

    /// The last range that begins at a key or before it.
    fn range_from(&self, key: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
        let mut before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        before.next_back().map(|(start, end)| (&**start, end.as_deref()))
    }

    /// A key was looked for. Says whether there is room to remember that.
    pub fn add_key(&mut self, key: &[u8]) -> bool {
        if self.keys.contains(key) {
            return true;
        }
        let bytes = self.bytes + key.len() + READ_OVERHEAD_BYTES;
        if bytes > MAX_READ_SET_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.keys.insert(key.into());
        true
    }

    /// A range was looked through. It becomes one with those that it overlaps or touches, as pages do. Says
    /// whether there is room to remember that.
    pub fn add_range(&mut self, range: &KeyRange<'_>) -> bool {
        if is_void(range) {
            return true;
        }
        let before = self.range_from(range.start);
        let before = before.filter(|(_, end)| end.is_none_or(|end| end >= range.start));
        let start = before.map_or(range.start, |(start, _)| start);
        let touches = |start: &[u8]| range.end.is_none_or(|end| start <= end);
        let from = self.ranges.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let merged: Vec<_> = from.take_while(|(start, _)| touches(start)).collect();
        let ends_of = merged.iter().map(|(_, end)| end.as_deref()).chain([range.end]);
        // One that is open has the last end of all.
        let end = ends_of.reduce(|a, b| Some(a?.max(b?))).flatten();
        let given_back: usize = merged.iter().map(|(start, end)| cost(start, end.as_deref())).sum();
        let bytes = self.bytes - given_back + cost(start, end);
        if bytes > MAX_READ_SET_BYTES && bytes > self.bytes {
            return false;
        }
        let (start, end): (Box<[u8]>, Option<Box<[u8]>>) = (start.into(), end.map(Into::into));
        let merged: Vec<Box<[u8]>> = merged.into_iter().map(|(start, _)| start.clone()).collect();
        merged.iter().for_each(|start| drop(self.ranges.remove(start)));
        self.ranges.insert(start, end);
        self.bytes = bytes;
        true
    }
}

/// Bytes that a range costs.
fn cost(start: &[u8], end: Option<&[u8]>) -> usize {
    start.len() + end.map_or(0, <[u8]>::len) + 2 * READ_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> KeyRange<'a> {
        KeyRange { start, end }
    }

    #[test]
    fn pages_become_one_range_in_both_directions() {
        let mut up = ReadSet::default();
        assert!(up.add_range(&range(b"a", Some(b"c\0"))));
        let one_page = up.bytes();
        assert!(up.add_range(&range(b"c\0", Some(b"f"))));
        assert!(up.ranges().eq([range(b"a", Some(b"f"))]));
        assert!(up.bytes() < one_page, "a bound that was given up costs nothing");
        let mut down = ReadSet::default();
        assert!(down.add_range(&range(b"m", None)));
        assert!(down.add_range(&range(b"d", Some(b"m"))));
        assert!(down.ranges().eq([range(b"d", None)]));
        let bytes = down.bytes();
        assert!(down.add_range(&range(b"e", Some(b"z"))) && down.add_range(&range(b"z", Some(b"e"))));
        assert_eq!(down.bytes(), bytes, "they are known, or hold nothing");
        assert!(down.add_range(&range(b"", Some(b"b"))));
        assert!(down.ranges().eq([range(b"", Some(b"b")), range(b"d", None)]));
    }

    #[test]
    fn ranges_never_overlap_and_hold_what_was_added() {
        for seed in 0..200u64 {
            let mut state = seed;
            let mut draw = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8 % 32
            };
            let mut set = ReadSet::default();
            let mut held = [false; 33];
            for _ in 0..12 {
                let (from, to) = (draw(), draw());
                let (from, to) = (from.min(to), from.max(to));
                let is_open = draw() == 0;
                let (start, end) = ([from], [to]);
                assert!(set.add_range(&range(&start, (!is_open).then_some(&end[..]))));
                let upto = if is_open { 33 } else { usize::from(to) };
                held[usize::from(from)..upto].fill(true);
            }
            for (key, is_held) in held.iter().enumerate() {
                assert_eq!(set.has(&[key as u8]), *is_held, "seed {seed}, key {key}");
            }
            let ranges: Vec<_> = set.ranges().collect();
            let apart = |pair: &[KeyRange<'_>]| pair[0].end.is_some_and(|end| end < pair[1].start);
            assert!(ranges.windows(2).all(apart), "seed {seed}: {ranges:?}");
            assert_eq!(set.bytes(), ranges.iter().map(|range| cost(range.start, range.end)).sum());
        }
    }

    #[test]
    fn a_read_set_takes_so_much_and_no_more() {
        let mut set = ReadSet::default();
        let cost = 16 + READ_OVERHEAD_BYTES;
        for i in 0..MAX_READ_SET_BYTES / cost {
            assert!(set.add_key(format!("{i:016}").as_bytes()));
        }
        assert_eq!(set.bytes(), MAX_READ_SET_BYTES / cost * cost);
        assert!(!set.add_key(b"one more than it"));
        assert!(set.add_key(format!("{:016}", 0).as_bytes()), "known keys cost nothing");
        assert!(!set.add_range(&range(b"", None)));
        assert!(set.ranges().next().is_none() && set.bytes() <= MAX_READ_SET_BYTES);
    }
}
