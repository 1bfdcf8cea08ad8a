//! Which record is asked for.

use clap::ValueEnum;

use super::dice::Dice;

/// Exponent of the zipfian distribution, YCSB's.
const THETA: f64 = 0.99;

/// Which records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Few of them very often: zipf with exponent 0.99.
    Zipfian,
    /// What was inserted last most often: zipf with exponent 0.99 by age.
    Latest,
}

/// Draws ranks by the zipf distribution. Gray et al.: "Quickly generating billion-record synthetic databases",
/// SIGMOD 1994.
#[derive(Debug, Clone)]
struct Zipf {
    items: u64,
    theta: f64,
    /// Sum of the first `items` terms of the series.
    zeta: f64,
    /// The formula's eta.
    eta: f64,
}

impl Zipf {
    /// Takes a pass over the items.
    fn new(items: u64, theta: f64) -> Zipf {
        let zeta: f64 = (1..=items).map(|i| (i as f64).powf(-theta)).sum();
        let zeta_2 = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta_2 / zeta);
        Zipf { items, theta, zeta, eta }
    }

    /// 0 is the most popular.
    fn draw(&self, dice: &mut Dice) -> u64 {
        let u = dice.unit();
        let scaled = u * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(self.theta) {
            1
        } else {
            (self.items as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - self.theta))) as u64
        };
        rank.min(self.items - 1)
    }
}

/// Draws records by their popularity.
#[derive(Debug, Clone)]
pub struct Popularity {
    records: u64,
    /// `None`: all alike.
    zipf: Option<Zipf>,
    is_latest: bool,
    /// What ranks are multiplied by, so that the popular do not lie side by side; shares no factor with `records`.
    stride: u64,
}

impl Popularity {
    /// The distribution over `records` records; zipfian and latest take a pass over them. `scatters` where
    /// neighbours by number are neighbours by key.
    pub fn new(distribution: Distribution, records: u64, scatters: bool) -> Popularity {
        let zipf = (distribution != Distribution::Uniform).then(|| Zipf::new(records, THETA));
        let is_latest = distribution == Distribution::Latest;
        let stride = if scatters && distribution == Distribution::Zipfian { stride(records) } else { 1 };
        Popularity { records, zipf, is_latest, stride }
    }

    /// The next record. Of the latest, one below `inserted` is meant to be that of the caller's own, counted
    /// from the last: [`Drawn::Inserted`].
    pub fn draw(&self, dice: &mut Dice, inserted: u64) -> Drawn {
        let Some(zipf) = &self.zipf else {
            return Drawn::Loaded(dice.below(self.records));
        };
        let rank = zipf.draw(dice);
        if self.is_latest {
            return match rank.checked_sub(inserted) {
                None => Drawn::Inserted(inserted - 1 - rank),
                Some(before) => Drawn::Loaded(self.records - 1 - before.min(self.records - 1)),
            };
        }
        Drawn::Loaded(((u128::from(rank) * u128::from(self.stride)) % u128::from(self.records)) as u64)
    }
}

/// Which record was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// One of those that were loaded before.
    Loaded(u64),
    /// The so-many-th of those that the load itself has inserted.
    Inserted(u64),
}

/// A number near the golden section of `records` that shares no factor with it.
fn stride(records: u64) -> u64 {
    let mut stride = ((records as f64 * 0.618_033_988_749_895) as u64).max(1);
    while greatest_common_divisor(stride, records) != 1 {
        stride += 1;
    }
    stride
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Draws tenants, of which few ask for much: zipf with a given exponent over blocks of records.
#[derive(Debug, Clone)]
pub struct Tenants {
    zipf: Zipf,
}

impl Tenants {
    /// So many tenants. The exponent is above 0 and is not 1, for which the formula has no value.
    pub fn new(tenants: u64, theta: f64) -> Tenants {
        Tenants { zipf: Zipf::new(tenants, theta) }
    }

    /// The next tenant; 0 asks for the most.
    pub fn draw(&self, dice: &mut Dice) -> u64 {
        self.zipf.draw(dice)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn loaded(popularity: &Popularity, dice: &mut Dice) -> usize {
        match popularity.draw(dice, 0) {
            Drawn::Loaded(index) => index as usize,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn uniform_draws_reach_all_records_alike() {
        let popularity = Popularity::new(Distribution::Uniform, 10, false);
        let mut dice = Dice::new(3);
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[loaded(&popularity, &mut dice)] += 1);
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
    }

    #[test]
    fn zipfian_draws_follow_the_series() {
        let popularity = Popularity::new(Distribution::Zipfian, 1000, false);
        let mut dice = Dice::new(3);
        let mut counts = vec![0u32; 1000];
        (0..200_000).for_each(|_| counts[loaded(&popularity, &mut dice)] += 1);
        let zeta: f64 = (1..=1000).map(|i| f64::from(i).powf(-THETA)).sum();
        let expected = |rank: f64| 200_000.0 * rank.powf(-THETA) / zeta;
        assert!((f64::from(counts[0]) / expected(1.0) - 1.0).abs() < 0.05, "{}", counts[0]);
        assert!((f64::from(counts[1]) / expected(2.0) - 1.0).abs() < 0.05, "{}", counts[1]);
        let tail: u32 = counts[500..].iter().sum();
        let tail_expected: f64 = (501..=1000).map(|rank| expected(f64::from(rank))).sum();
        assert!((f64::from(tail) / tail_expected - 1.0).abs() < 0.1, "{tail} {tail_expected}");
    }

    #[test]
    fn scattered_ranks_are_still_all_the_records() {
        for records in [1u64, 2, 10, 997, 1000] {
            let stride = stride(records);
            let all: HashSet<u64> = (0..records).map(|rank| rank * stride % records).collect();
            assert_eq!(all.len() as u64, records);
        }
    }

    #[test]
    fn the_latest_are_drawn_most() {
        let popularity = Popularity::new(Distribution::Latest, 1000, true);
        let mut dice = Dice::new(4);
        let mut newest = 0;
        for _ in 0..10_000 {
            match popularity.draw(&mut dice, 3) {
                Drawn::Inserted(2) => newest += 1,
                Drawn::Inserted(at) => assert!(at < 2),
                Drawn::Loaded(index) => assert!(index < 1000),
            }
        }
        assert!((1000..2000).contains(&newest), "{newest}: zipf gives the first of 1000 about 13 of 100");
        assert_eq!(Popularity::new(Distribution::Latest, 1, false).draw(&mut dice, 0), Drawn::Loaded(0));
    }
}
