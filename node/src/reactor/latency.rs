//! How long requests took, in the buckets of a native histogram of Prometheus: eight for each power of two of seconds, so
//! that what is told is within 5 % of what was.

/// The schema of native histograms that has these buckets: 2^3 for each power of two.
pub const SCHEMA: i32 = 3;
/// Buckets of each power of two.
const PER_OCTAVE: usize = 8;
/// Up to 2^-20 s, about a microsecond, nothing is told apart.
pub const FIRST_EXPONENT: i32 = -20;
/// Beyond 2^7 s, about two minutes, neither.
pub const LAST_EXPONENT: i32 = 7;
/// Buckets between the two.
const BUCKETS: usize = (LAST_EXPONENT - FIRST_EXPONENT) as usize * PER_OCTAVE;

/// The upper bits of what a double's fraction is at each eighth of a power of two: `2^(k/8)` for `k` from 0 to 7.
const EIGHTHS: [u64; PER_OCTAVE] = [
    0x0_0000_0000_0000,
    0x1_72b8_3c7d_517b,
    0x3_06fe_0a31_b715,
    0x4_bfda_d536_2a27,
    0x6_a09e_667f_3bcd,
    0x8_ace5_422a_a0db,
    0xa_e89f_995a_d3ad,
    0xd_5818_dcfb_a487,
];
const FRACTION_BITS: u32 = 52;

/// Times of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Up to `2^FIRST_EXPONENT` seconds.
    least: u64,
    /// By eighths of powers of two; the last has all that took longer, too.
    buckets: [u64; BUCKETS],
    /// All of them together, in nanoseconds.
    sum_ns: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { least: 0, buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

/// The number of the bucket that holds a time, as Prometheus counts: bucket `i` ends at `2^(i/8)` seconds.
fn bucket_of(ns: u64) -> i32 {
    let bits = (ns as f64 * 1e-9).to_bits();
    let exponent = (bits >> FRACTION_BITS) as i32 - 1023;
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let below = EIGHTHS.iter().filter(|eighth| **eighth < fraction).count();
    exponent * PER_OCTAVE as i32 + below as i32
}

/// Where a bucket's number is in the array, were it one.
const fn place_of(bucket: i32) -> i32 {
    bucket - FIRST_EXPONENT * PER_OCTAVE as i32 - 1
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, ns: u64) {
        self.sum_ns += ns;
        match usize::try_from(place_of(bucket_of(ns))) {
            Ok(place) => self.buckets[place.min(BUCKETS - 1)] += 1,
            Err(_) => self.least += 1,
        }
    }

    /// All of others.
    pub fn merge(&mut self, other: &Latencies) {
        self.least += other.least;
        self.sum_ns += other.sum_ns;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// What came since `before`, which these were once.
    pub fn since(&self, before: &Latencies) -> Latencies {
        let mut since = self.clone();
        since.least -= before.least;
        since.sum_ns -= before.sum_ns;
        since.buckets.iter_mut().zip(&before.buckets).for_each(|(now, then)| *now -= then);
        since
    }

    /// None.
    pub fn clear(&mut self) {
        *self = Latencies::default();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.least + self.buckets.iter().sum::<u64>()
    }

    /// All of them together, in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 * 1e-9
    }

    /// The time that this part of them did not exceed, in seconds, to the bucket's upper end. Nothing of nothing.
    pub fn quantile_s(&self, part: f64) -> Option<f64> {
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = self.least;
        if seen >= rank {
            return Some(f64::from(FIRST_EXPONENT).exp2());
        }
        let full = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        full.map(|place| (f64::from(FIRST_EXPONENT) + (place + 1) as f64 / PER_OCTAVE as f64).exp2())
    }

    /// How many there are in each bucket of `2^exponent` seconds, exponents from `first` to `last`, not added up; the first has
    /// all below, and behind the last is what took longer still.
    pub fn octaves(&self, first: i32, last: i32) -> Vec<(f64, u64)> {
        assert!(FIRST_EXPONENT < first && first < last && last < LAST_EXPONENT);
        let mut counts = Vec::new();
        let mut from = 0;
        for exponent in first..=last {
            let to = (exponent - FIRST_EXPONENT) as usize * PER_OCTAVE;
            let below = if from == 0 { self.least } else { 0 };
            let count: u64 = self.buckets[from..to].iter().sum();
            counts.push((f64::from(exponent).exp2(), below + count));
            from = to;
        }
        counts.push((f64::MAX, self.buckets[from..].iter().sum()));
        counts
    }

    /// How many took `2^FIRST_EXPONENT` seconds or less.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// The buckets that are not empty, as native histograms have them: stretches, each with how many are left out before
    /// it (of the first, its number) and its length; and by how much each bucket differs from the one before.
    pub fn sparse(&self) -> (Vec<(i32, u32)>, Vec<i64>) {
        let (mut spans, mut deltas) = (Vec::<(i32, u32)>::new(), Vec::new());
        let (mut next, mut before) = (0, 0);
        for (place, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let number = place as i32 - place_of(0);
            match spans.last_mut() {
                Some((_, length)) if number == next => *length += 1,
                Some(_) => spans.push((number - next, 1)),
                None => spans.push((number, 1)),
            }
            deltas.push(*count as i64 - before);
            (next, before) = (number + 1, *count as i64);
        }
        (spans, deltas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_prometheus_says() {
        for ns in (1..6_000).map(|n: u64| n * n * 1_000 + n) {
            let (bucket, seconds) = (bucket_of(ns), ns as f64 * 1e-9);
            let (lower, upper) = (f64::from(bucket - 1) / 8.0, f64::from(bucket) / 8.0);
            assert!(lower.exp2() < seconds * (1.0 + 1e-15), "{ns} ns in {bucket}");
            assert!(seconds <= upper.exp2() * (1.0 + 1e-15), "{ns} ns in {bucket}");
        }
        assert_eq!((bucket_of(1_000_000_000), bucket_of(1_000_000_001)), (0, 1));
        for (k, eighth) in EIGHTHS.iter().enumerate() {
            let exact = (k as f64 / 8.0).exp2().to_bits() & ((1 << FRACTION_BITS) - 1);
            assert!(eighth.abs_diff(exact) <= 1, "{k}: {eighth:x} {exact:x}");
        }
    }

    #[test]
    fn quantiles_octaves_and_stretches_tell_the_same() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_s(0.5), None);
        (0..1000).for_each(|n| latencies.add(n * 10_000));
        latencies.add(u64::MAX / 2);
        assert_eq!(latencies.count(), 1001);
        let p50 = latencies.quantile_s(0.5).expect("some");
        assert!((0.0049..0.0056).contains(&p50), "{p50}");
        let octaves = latencies.octaves(-15, 2);
        assert_eq!(octaves.iter().map(|(_, count)| count).sum::<u64>(), 1001);
        assert_eq!(octaves.last(), Some(&(f64::MAX, 1)));
        let within_1ms: u64 = octaves.iter().filter(|(le, _)| *le < 0.001).map(|(_, count)| count).sum();
        assert_eq!(within_1ms, 98, "0 to 970 us are up to 2^-10 s");
        let (spans, deltas) = latencies.sparse();
        let (mut counts, mut count) = (0, 0);
        for delta in &deltas {
            count += delta;
            assert!(count > 0);
            counts += count;
        }
        assert_eq!(counts as u64 + latencies.least(), 1001);
        assert_eq!(spans.iter().map(|(_, length)| *length as usize).sum::<usize>(), deltas.len());
        let begun = latencies.clone();
        latencies.add(7);
        assert_eq!((latencies.since(&begun).count(), latencies.since(&begun).least()), (1, 1));
    }
}
