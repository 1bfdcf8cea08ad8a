//! What a pass over an input has seen, in little memory: tells whether the input was another when it was read before,
//! and for which keys.

use std::sync::atomic::{AtomicU64, Ordering};

use lode_node::input::InputRecord;

/// Parts that keys fall into: so many that a few changed records cast doubt on few others. 512 KiB in all.
const PARTS: usize = 1 << 16;

/// One sum for each part of the keys; the order of the records does not matter.
pub struct Fingerprint {
    sums: Vec<AtomicU64>,
}

impl Fingerprint {
    /// Of nothing.
    pub fn new() -> Fingerprint {
        Fingerprint { sums: (0..PARTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds a record.
    pub fn add(&self, record: &InputRecord) {
        let key = crc32c::crc32c(&record.key);
        let both = crc32c::crc32c_append(key, &record.value);
        let sum = (record.value.len() as u64) << 32 | u64::from(both);
        self.sums[part_of(key)].fetch_add(sum, Ordering::Relaxed);
    }

    /// Whether both have seen the same records under the keys of `key`'s part.
    pub fn agrees_on(&self, other: &Fingerprint, key: &[u8]) -> bool {
        let part = part_of(crc32c::crc32c(key));
        self.sums[part].load(Ordering::Relaxed) == other.sums[part].load(Ordering::Relaxed)
    }

    /// Whether both have seen the same records.
    pub fn agrees(&self, other: &Fingerprint) -> bool {
        let mut pairs = self.sums.iter().zip(&other.sums);
        pairs.all(|(a, b)| a.load(Ordering::Relaxed) == b.load(Ordering::Relaxed))
    }
}

fn part_of(key_checksum: u32) -> usize {
    key_checksum as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[(&str, &str)]) -> Fingerprint {
        let print = Fingerprint::new();
        for (key, value) in records {
            print.add(&InputRecord { key: (*key).into(), value: (*value).into(), input_bytes: 0 });
        }
        print
    }

    #[test]
    fn a_changed_record_is_told_and_the_others_are_not_doubted() {
        let before = of(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert!(before.agrees(&of(&[("c", "3"), ("a", "1"), ("b", "2")])));
        for after in [
            of(&[("a", "1"), ("b", "x"), ("c", "3")]),
            of(&[("a", "1"), ("c", "3")]),
            of(&[("a", "1"), ("b", "2"), ("b", "2"), ("c", "3")]),
        ] {
            assert!(!before.agrees(&after));
            assert!(!before.agrees_on(&after, b"b"));
            assert!(before.agrees_on(&after, b"a") && before.agrees_on(&after, b"c"));
        }
    }
}
