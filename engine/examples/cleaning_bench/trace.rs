//! Which record is written next, from one seed: the same trace for the engine and for its peers.

use crate::support::random::Random;

/// Exponent of the zipfian distribution, YCSB's.
const THETA: f64 = 0.99;

/// Draws records: 0 is the most popular.
pub struct Trace {
    random: Random,
    records: u32,
    /// Sums of popularity up to each record; empty where all are alike.
    sums: Vec<f64>,
}

impl Trace {
    pub fn new(zipf: bool, records: u32, seed: u64) -> Trace {
        let sums = if zipf { popularity(records) } else { Vec::new() };
        let sums = sums
            .iter()
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        Trace { random: Random::new(seed), records, sums }
    }

    /// The record that is written next.
    pub fn draw(&mut self) -> u32 {
        if self.sums.is_empty() {
            return self.random.below(u64::from(self.records)) as u32;
        }
        let unit = (self.random.next() >> 11) as f64 / (1u64 << 53) as f64;
        (self.sums.partition_point(|sum| *sum < unit) as u32).min(self.records - 1)
    }

    /// Every record once, in an order of no meaning.
    pub fn fill(&mut self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.records).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.random.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// The share of each record in a zipfian load.
pub fn popularity(records: u32) -> Vec<f64> {
    let weights: Vec<f64> = (1..=records).map(|rank| f64::from(rank).powf(-THETA)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}
