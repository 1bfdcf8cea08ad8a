//! What a load has seen, apart by time and by partition, so that the worst of each can be named.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::MOST_NS;
use crate::workload::Operation;

/// Latencies in nanoseconds, to two digits.
pub type Coarse = Histogram<u32>;

fn coarse(digits: u8) -> Coarse {
    Histogram::new_with_bounds(1000, MOST_NS, digits).expect("the bounds are in order")
}

/// What was due, or answered, in one slice of time.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Latencies by the operation's number.
    latencies: [Option<Box<Coarse>>; Operation::ALL.len()],
    /// Requests that failed, by the operation's number.
    errors: [u64; Operation::ALL.len()],
}

impl Slice {
    /// Requests that failed.
    pub fn errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Requests of one kind, those that failed among them.
    pub fn due(&self, operation: Operation) -> u64 {
        let answered = self.latencies[operation as usize].as_ref().map_or(0, |latencies| latencies.len());
        answered + self.errors[operation as usize]
    }

    /// How many of a hundred of one kind took longer than so many microseconds; those that failed did.
    pub fn above_percent(&self, operation: Operation, us: f64) -> f64 {
        let limit_ns = (us * 1000.0) as u64;
        let in_time = |latencies: &Coarse| latencies.count_between(0, limit_ns);
        let in_time = self.latencies[operation as usize].as_deref().map_or(0, in_time);
        let due = self.due(operation);
        (due - in_time) as f64 * 100.0 / due.max(1) as f64
    }

    /// Latencies of all operations together.
    pub fn all(&self) -> Coarse {
        let mut all = coarse(2);
        for latencies in self.latencies.iter().flatten() {
            all.add(&**latencies).expect("all have the same bounds");
        }
        all
    }

    /// Requests that were answered well.
    pub fn answered(&self) -> u64 {
        self.latencies.iter().flatten().map(|latencies| latencies.len()).sum()
    }

    fn add(&mut self, other: &Slice) {
        for (mine, theirs) in self.errors.iter_mut().zip(&other.errors) {
            *mine += theirs;
        }
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            if let Some(theirs) = theirs {
                let mine = mine.get_or_insert_with(|| Box::new(coarse(2)));
                mine.add(&**theirs).expect("all have the same bounds");
            }
        }
    }
}

/// A load in slices of time.
#[derive(Debug, Clone)]
pub struct Slices {
    length: Duration,
    slices: Vec<Slice>,
}

impl Slices {
    /// Slices of this length.
    ///
    /// # Panics
    /// Of no length.
    pub fn new(length: Duration) -> Slices {
        assert!(!length.is_zero(), "slices of no length");
        Slices { length, slices: Vec::new() }
    }

    /// How long each is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// All of them, in order of time.
    pub fn iter(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter()
    }

    fn at(&mut self, since_begin_ns: u64) -> &mut Slice {
        let place = (since_begin_ns / self.length.as_nanos() as u64) as usize;
        if self.slices.len() <= place {
            self.slices.resize_with(place + 1, Slice::default);
        }
        &mut self.slices[place]
    }

    /// Count one that was answered well.
    pub fn record(&mut self, since_begin_ns: u64, operation: Operation, latency_ns: u64) {
        let latencies = &mut self.at(since_begin_ns).latencies[operation as usize];
        latencies.get_or_insert_with(|| Box::new(coarse(2))).saturating_record(latency_ns.max(1));
    }

    /// Count one that failed.
    pub fn fail(&mut self, since_begin_ns: u64, operation: Operation) {
        self.at(since_begin_ns).errors[operation as usize] += 1;
    }

    /// Count all of another's.
    pub fn add(&mut self, other: &Slices) {
        if self.slices.len() < other.slices.len() {
            self.slices.resize_with(other.slices.len(), Slice::default);
        }
        for (mine, theirs) in self.slices.iter_mut().zip(&other.slices) {
            mine.add(theirs);
        }
    }
}

/// What one partition has seen.
#[derive(Debug, Clone)]
pub struct PartitionTally {
    /// Latencies of all operations, to one digit: there may be many partitions.
    pub latencies: Coarse,
    /// Requests that failed.
    pub errors: u64,
}

/// A load by partitions, each at its place among those of all tables.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    tallies: Vec<Option<Box<PartitionTally>>>,
}

impl Partitions {
    fn at(&mut self, place: u32) -> &mut PartitionTally {
        let place = place as usize;
        if self.tallies.len() <= place {
            self.tallies.resize_with(place + 1, || None);
        }
        let new = || Box::new(PartitionTally { latencies: coarse(1), errors: 0 });
        self.tallies[place].get_or_insert_with(new)
    }

    /// Count one that was answered well.
    pub fn record(&mut self, place: u32, latency_ns: u64) {
        self.at(place).latencies.saturating_record(latency_ns.max(1));
    }

    /// Count one that failed.
    pub fn fail(&mut self, place: u32) {
        self.at(place).errors += 1;
    }

    /// Those that were asked for anything, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &PartitionTally)> {
        let places = self.tallies.iter().enumerate();
        places.filter_map(|(place, tally)| tally.as_deref().map(|tally| (place as u32, tally)))
    }

    /// Count all of another's.
    pub fn add(&mut self, other: &Partitions) {
        for (place, theirs) in other.iter() {
            let mine = self.at(place);
            mine.errors += theirs.errors;
            mine.latencies.add(&theirs.latencies).expect("all have the same bounds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_apart_and_add_up() {
        let mut one = Slices::new(Duration::from_secs(1));
        one.record(500_000_000, Operation::Get, 1_000_000);
        one.record(2_500_000_000, Operation::Put, 2_000_000);
        let mut two = Slices::new(Duration::from_secs(1));
        two.record(100, Operation::Get, 3_000_000);
        two.fail(3_999_999_999, Operation::Put);
        one.add(&two);
        let answered: Vec<_> = one.iter().map(|slice| (slice.answered(), slice.errors())).collect();
        assert_eq!(answered, [(2, 0), (0, 0), (1, 0), (0, 1)]);
        assert_eq!(one.iter().next().unwrap().all().len(), 2);
    }

    #[test]
    fn partitions_are_apart_and_add_up() {
        let (mut one, mut two) = (Partitions::default(), Partitions::default());
        one.record(7, 1_000_000);
        two.record(7, 2_000_000);
        two.fail(9);
        one.add(&two);
        let all: Vec<_> =
            one.iter().map(|(place, tally)| (place, tally.latencies.len(), tally.errors)).collect();
        assert_eq!(all, [(7, 2, 0), (9, 0, 1)]);
    }
}
