//! What is drawn: keys, values, kinds of request and the times between them, all from a seed.

use crate::options::Distribution;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Exponent of the zipfian distribution, YCSB's.
const THETA: f64 = 0.99;
/// Random bytes from which values are cut, beyond the longest value.
const POOL_EXTRA_BYTES: usize = 64 << 10;

/// A stream of numbers from a seed: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound` (which is not 0), by multiplication: its bias is below 2^-32 here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to but without 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A time between two arrivals of a Poisson process with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// A bijection of 64 bits: no two records share a key, and neighbours lie far apart.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of record `index`: 16 hexadecimal digits, the same in every run.
pub fn key(index: u64) -> [u8; KEY_BYTES] {
    let mixed = mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15));
    std::array::from_fn(|i| b"0123456789abcdef"[(mixed >> (60 - 4 * i)) as usize & 15])
}

/// Values that tell which record they belong to, and do not compress.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
    value: Vec<u8>,
}

impl Values {
    /// Values of `bytes` bytes.
    pub fn new(bytes: usize, seed: u64) -> Values {
        let mut dice = Dice::new(seed);
        let numbers = (bytes + POOL_EXTRA_BYTES).div_ceil(8);
        let pool = (0..numbers).flat_map(|_| dice.roll().to_le_bytes()).collect();
        Values { pool, value: vec![0; bytes] }
    }

    /// A value of record `index`.
    pub fn next(&mut self, index: u64, dice: &mut Dice) -> &[u8] {
        let from = dice.below(POOL_EXTRA_BYTES as u64) as usize;
        let bytes = self.value.len();
        self.value.copy_from_slice(&self.pool[from..from + bytes]);
        let tag = index.to_le_bytes();
        let tagged = bytes.min(tag.len());
        self.value[..tagged].copy_from_slice(&tag[..tagged]);
        &self.value
    }
}

/// Whether `value` is one that [`Values`] of `bytes` bytes would give for record `index`.
pub fn belongs(value: &[u8], index: u64, bytes: usize) -> bool {
    let tag = index.to_le_bytes();
    let tagged = bytes.min(tag.len());
    value.len() == bytes && value[..tagged] == tag[..tagged]
}

/// Draws records by their popularity.
#[derive(Debug, Clone)]
pub enum Popularity {
    /// All alike.
    Uniform {
        /// How many records.
        records: u64,
    },
    /// Record 0 is the most popular. Gray et al.: "Quickly generating billion-record synthetic
    /// databases", SIGMOD 1994.
    Zipfian {
        /// How many records.
        records: u64,
        /// Sum of the first `records` terms of the series.
        zeta: f64,
        /// The formula's eta.
        eta: f64,
    },
}

impl Popularity {
    /// The distribution over `records` records. Zipfian takes a pass over them.
    pub fn new(distribution: Distribution, records: u64) -> Popularity {
        match distribution {
            Distribution::Uniform => Popularity::Uniform { records },
            Distribution::Zipfian => {
                let zeta: f64 = (1..=records).map(|i| (i as f64).powf(-THETA)).sum();
                let zeta_2 = 1.0 + 0.5f64.powf(THETA);
                let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta_2 / zeta);
                Popularity::Zipfian { records, zeta, eta }
            }
        }
    }

    /// The next record.
    pub fn draw(&self, dice: &mut Dice) -> u64 {
        match *self {
            Popularity::Uniform { records } => dice.below(records),
            Popularity::Zipfian { records, zeta, eta } => {
                let u = dice.unit();
                let scaled = u * zeta;
                let rank = if scaled < 1.0 {
                    0
                } else if scaled < 1.0 + 0.5f64.powf(THETA) {
                    1
                } else {
                    (records as f64 * (eta * u - eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64
                };
                rank.min(records - 1)
            }
        }
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
    fn a_value_belongs_to_its_record_and_to_no_other() {
        let mut dice = Dice::new(1);
        for bytes in [0, 3, 8, 1024] {
            let mut values = Values::new(bytes, 1);
            let value = values.next(77, &mut dice).to_vec();
            assert!(belongs(&value, 77, bytes));
            assert!(bytes == 0 || !belongs(&value, 78, bytes), "{bytes}");
            assert!(!belongs(&value, 77, bytes + 1));
        }
    }

    #[test]
    fn uniform_draws_reach_all_records_alike() {
        let popularity = Popularity::new(Distribution::Uniform, 10);
        let mut dice = Dice::new(3);
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[popularity.draw(&mut dice) as usize] += 1);
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
    }

    #[test]
    fn zipfian_draws_follow_the_series() {
        let popularity = Popularity::new(Distribution::Zipfian, 1000);
        let mut dice = Dice::new(3);
        let mut counts = vec![0u32; 1000];
        (0..200_000).for_each(|_| counts[popularity.draw(&mut dice) as usize] += 1);
        let zeta: f64 = (1..=1000).map(|i| f64::from(i).powf(-THETA)).sum();
        let expected = |rank: f64| 200_000.0 * rank.powf(-THETA) / zeta;
        assert!((f64::from(counts[0]) / expected(1.0) - 1.0).abs() < 0.05, "{}", counts[0]);
        assert!((f64::from(counts[1]) / expected(2.0) - 1.0).abs() < 0.05, "{}", counts[1]);
        let tail: u32 = counts[500..].iter().sum();
        let tail_expected: f64 = (501..=1000).map(|rank| expected(f64::from(rank))).sum();
        assert!((f64::from(tail) / tail_expected - 1.0).abs() < 0.1, "{tail} {tail_expected}");
    }

    #[test]
    fn arrivals_keep_their_mean() {
        let mut dice = Dice::new(5);
        let sum: f64 = (0..100_000).map(|_| dice.exponential(20.0)).sum();
        assert!((sum / 2_000_000.0 - 1.0).abs() < 0.02, "{sum}");
    }
}
