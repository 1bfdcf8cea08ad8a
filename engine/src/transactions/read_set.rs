//! What a transaction has read: keys, and ranges of them.

use std::collections::BTreeSet;

use crate::limits::MAX_READ_SET_BYTES;
use crate::request::KeyRange;

/// Bytes of memory that a key or a bound costs beside its bytes.
pub const READ_OVERHEAD_BYTES: usize = 48;

/// A range that was read, whether it held anything or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRange {
    start: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

impl ReadRange {
    /// As a range of keys.
    pub fn as_range(&self) -> KeyRange<'_> {
        KeyRange { start: &self.start, end: self.end.as_deref() }
    }
}

/// What a transaction has read.
#[derive(Debug, Default)]
pub struct ReadSet {
    keys: BTreeSet<Box<[u8]>>,
    ranges: Vec<ReadRange>,
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

    /// The ranges.
    pub fn ranges(&self) -> &[ReadRange] {
        &self.ranges
    }

    /// A key was looked for. Gives the bytes that this costs, or `None` where there is no room.
    pub fn add_key(&mut self, key: &[u8]) -> Option<usize> {
        if self.keys.contains(key) {
            return Some(0);
        }
        let bytes = self.grow(key.len() + READ_OVERHEAD_BYTES)?;
        self.keys.insert(key.into());
        Some(bytes)
    }

    /// A range was looked through. One that goes on where the last one ended, as pages do, makes that longer.
    /// Gives the bytes that this costs, or `None` where there is no room.
    pub fn add_range(&mut self, range: &KeyRange<'_>) -> Option<usize> {
        let seen = |known: &ReadRange| {
            let ends_later =
                known.end.is_none() || (range.end.is_some() && known.end.as_deref() >= range.end);
            *known.start <= *range.start && ends_later
        };
        if self.ranges.iter().any(seen) {
            return Some(0);
        }
        let (start, end) = (range.start.len(), range.end.map_or(0, <[u8]>::len));
        // What a bound costs is counted for every page, so that an allowance is never given back.
        let bytes = self.grow(start + end + 2 * READ_OVERHEAD_BYTES)?;
        if let Some(last) = self.ranges.last_mut() {
            if last.end.as_deref() == Some(range.start) {
                last.end = range.end.map(Into::into);
                return Some(bytes);
            }
            if range.end.is_some() && range.end == Some(&*last.start) {
                last.start = range.start.into();
                return Some(bytes);
            }
        }
        self.ranges.push(ReadRange { start: range.start.into(), end: range.end.map(Into::into) });
        Some(bytes)
    }

    fn grow(&mut self, bytes: usize) -> Option<usize> {
        if self.bytes + bytes > MAX_READ_SET_BYTES {
            return None;
        }
        self.bytes += bytes;
        Some(bytes)
    }
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
        assert!(up.add_range(&range(b"a", Some(b"c\0"))).is_some());
        assert!(up.add_range(&range(b"c\0", Some(b"f"))).is_some());
        assert_eq!(up.ranges().len(), 1);
        assert_eq!(up.ranges()[0].as_range(), range(b"a", Some(b"f")));
        let mut down = ReadSet::default();
        assert!(down.add_range(&range(b"m", None)).is_some());
        assert!(down.add_range(&range(b"d", Some(b"m"))).is_some());
        assert_eq!(down.ranges()[0].as_range(), range(b"d", None));
        assert_eq!(down.add_range(&range(b"e", Some(b"z"))), Some(0), "it is known");
        assert!(down.add_range(&range(b"", Some(b"b"))).is_some());
        assert_eq!(down.ranges().len(), 2);
    }

    #[test]
    fn a_read_set_takes_so_much_and_no_more() {
        let mut set = ReadSet::default();
        let cost = 16 + READ_OVERHEAD_BYTES;
        for i in 0..MAX_READ_SET_BYTES / cost {
            assert_eq!(set.add_key(format!("{i:016}").as_bytes()), Some(cost));
        }
        assert_eq!(set.add_key(b"one more than it"), None);
        assert_eq!(set.add_key(format!("{:016}", 0).as_bytes()), Some(0), "known keys cost nothing");
        assert!(set.add_range(&range(b"", None)).is_none());
        assert!(set.bytes() <= MAX_READ_SET_BYTES);
    }
}
