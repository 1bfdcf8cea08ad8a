//! Keys of records, the same in every run.

use clap::ValueEnum;

use super::dice::mix;

/// Digits that tell a record's key from all others.
const DIGITS: usize = 16;
/// What fills a longer key behind its digits.
const FILLING: u8 = b'-';

/// In which order of their keys records are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyOrder {
    /// In none: neighbours by number lie far apart.
    Hashed,
    /// In that of their numbers: those written one after the other lie side by side.
    Ordered,
}

/// The keys of a load.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    order: KeyOrder,
    bytes: usize,
}

/// The key of record `index` where nothing else is asked for: 16 hexadecimal digits, hashed.
fn key(index: u64) -> [u8; DIGITS] {
    digits(mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

fn digits(number: u64) -> [u8; DIGITS] {
    std::array::from_fn(|i| b"0123456789abcdef"[(number >> (60 - 4 * i)) as usize & 15])
}

impl Keys {
    /// Shortest key, in bytes.
    pub const LEAST_BYTES: usize = DIGITS;

    /// Keys of so many bytes.
    ///
    /// # Panics
    /// Below [`Keys::LEAST_BYTES`]: they would not be told apart.
    pub fn new(order: KeyOrder, bytes: usize) -> Keys {
        assert!(bytes >= Keys::LEAST_BYTES, "keys of {bytes} bytes");
        Keys { order, bytes }
    }

    /// Which order.
    pub fn order(&self) -> KeyOrder {
        self.order
    }

    /// Writes the key of record `index` into `out`, which is emptied first.
    pub fn write(&self, index: u64, out: &mut Vec<u8>) {
        out.clear();
        let first = match self.order {
            KeyOrder::Hashed => key(index),
            KeyOrder::Ordered => digits(index),
        };
        out.extend_from_slice(&first);
        out.resize(self.bytes, FILLING);
    }

    /// First keys of all but the first of `partitions` ranges that hold about as many of `records` each.
    pub fn splits(&self, records: u64, partitions: u32) -> Vec<Vec<u8>> {
        let whole = match self.order {
            KeyOrder::Hashed => 1u128 << 64,
            KeyOrder::Ordered => u128::from(records),
        };
        let at = |part: u32| (whole * u128::from(part) / u128::from(partitions)) as u64;
        let mut splits: Vec<Vec<u8>> = (1..partitions).map(|part| digits(at(part)).to_vec()).collect();
        // Of fewer records than partitions.
        splits.dedup();
        splits.retain(|split| split.iter().any(|&digit| digit != b'0'));
        splits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_distinct_and_stable() {
        let keys: HashSet<_> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), 10_000);
        assert_eq!(&key(0), b"e220a8397b1dcdaf");
    }

    #[test]
    fn keys_have_their_length_and_order() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let keys = Keys::new(KeyOrder::Ordered, 24);
        keys.write(255, &mut one);
        keys.write(256, &mut two);
        assert_eq!(one, b"00000000000000ff--------");
        assert!(one < two);
        Keys::new(KeyOrder::Hashed, 16).write(0, &mut one);
        assert_eq!(one, key(0));
    }

    #[test]
    fn splits_part_the_records_evenly() {
        for order in [KeyOrder::Hashed, KeyOrder::Ordered] {
            let keys = Keys::new(order, 16);
            let splits = keys.splits(10_000, 10);
            assert_eq!(splits.len(), 9);
            let mut counts = [0; 10];
            let mut key = Vec::new();
            for index in 0..10_000 {
                keys.write(index, &mut key);
                counts[splits.partition_point(|split| *split <= key)] += 1;
            }
            assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        }
        assert_eq!(Keys::new(KeyOrder::Ordered, 16).splits(2, 8).len(), 1, "one record in each of two");
        assert_eq!(Keys::new(KeyOrder::Hashed, 16).splits(5, 1).len(), 0);
    }
}
