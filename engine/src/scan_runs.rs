//! Which records of a page are read together: those that lie near each other on the drive.

use std::ops::Range;

use crate::geometry::Geometry;
use crate::ids::BufferId;
use crate::location::Location;
use crate::seam::DeviceError;

/// Longest read, if it is for more than one record.
const MOST_RUN_BYTES: u64 = 128 << 10;
/// What lies between two records is read with them up to so many bytes: a drive takes about as long for them as for one more read.
const MOST_GAP_BYTES: u64 = 16 << 10;

/// Records that are read together: a range of the order in which they lie.
#[derive(Debug, Clone)]
pub struct Run {
    range: Range<usize>,
    /// Bytes of the blocks in which they lie.
    pub len: u32,
}

/// What a read of a run has given.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    /// Holds the bytes.
    pub buffer: BufferId,
    /// Byte of the area where the buffer begins.
    pub from: u64,
    /// Whether the drive gave them.
    pub result: Result<(), DeviceError>,
}

/// The reads of a page.
#[derive(Debug, Default)]
pub struct Runs {
    /// The entries that are to be read, in the order in which they lie.
    order: Vec<usize>,
    runs: Vec<Run>,
    /// Reads that the whole page takes, whatever is in memory; and the fewest that one of so many bytes can take.
    pub places: usize,
    /// As above.
    pub fewest: usize,
    lens: Vec<u32>,
}

impl Runs {
    /// For the records at these locations, of which those are read that `is_wanted`.
    pub fn plan(locations: &[Location], geometry: &Geometry, is_wanted: impl Fn(usize) -> bool) -> Runs {
        let mut all: Vec<usize> = (0..locations.len()).collect();
        all.sort_unstable_by_key(|entry| locations[*entry].offset());
        let places = runs_of(&all, locations, geometry).len();
        let bytes: u64 = locations.iter().map(|location| u64::from(location.room())).sum();
        let fewest = bytes.div_ceil(MOST_RUN_BYTES) as usize;
        let order: Vec<usize> = all.into_iter().filter(|entry| is_wanted(*entry)).collect();
        let runs = runs_of(&order, locations, geometry);
        let lens = order.iter().map(|entry| locations[*entry].blocks().1).collect();
        Runs { order, runs, places, fewest, lens }
    }

    /// One of them.
    pub fn get(&self, run: usize) -> Option<Run> {
        self.runs.get(run).cloned()
    }

    /// The entries of one, as they lie.
    pub fn entries(&self, run: usize) -> &[usize] {
        &self.order[self.runs[run].range.clone()]
    }

    /// Has each record of a run read by itself, behind all others, if it has more than one. Says whether it has.
    pub fn split(&mut self, run: usize) -> bool {
        let range = self.runs[run].range.clone();
        if range.len() > 1 {
            self.runs.extend(range.clone().map(|at| Run { range: at..at + 1, len: self.lens[at] }));
        }
        range.len() > 1
    }
}

fn runs_of(order: &[usize], locations: &[Location], geometry: &Geometry) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut begins, mut ends) = (0, 0);
    for (at, entry) in order.iter().enumerate() {
        let location = locations[*entry];
        let (from, len) = location.blocks();
        let end = from + u64::from(len);
        let joins = |run: &&mut Run| {
            let first = locations[order[run.range.start]];
            from <= ends + MOST_GAP_BYTES
                && end - begins <= MOST_RUN_BYTES
                && geometry.segment_of(first.offset()) == geometry.segment_of(location.offset())
        };
        match runs.last_mut().filter(joins) {
            Some(run) => {
                ends = end.max(ends);
                *run = Run { range: run.range.start..at + 1, len: (ends - begins) as u32 };
            }
            None => {
                (begins, ends) = (from, end);
                runs.push(Run { range: at..at + 1, len });
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u32 = 1 << 20;

    fn plan(places: &[(u64, usize)], is_wanted: impl Fn(usize) -> bool) -> Runs {
        let locations: Vec<_> = places.iter().map(|(at, len)| Location::new(*at, *len)).collect();
        let geometry =
            Geometry::plan(64 << 20, 1, Some(SEGMENT), 8 << 10).expect("the drive is large enough");
        Runs::plan(&locations, &geometry, is_wanted)
    }

    fn shape(runs: &Runs) -> Vec<(Vec<usize>, u32)> {
        (0..runs.runs.len()).map(|run| (runs.entries(run).to_vec(), runs.runs[run].len)).collect()
    }

    #[test]
    fn what_lies_near_is_read_together_whatever_its_order() {
        let runs = plan(&[(9000, 100), (8200, 600), (1 << 19, 100), (12_000, 5000)], |_| true);
        assert_eq!(shape(&runs), [(vec![1, 0, 3], 12 << 10), (vec![2], 4096)]);
        assert_eq!((runs.places, runs.fewest), (2, 1));
    }

    #[test]
    fn a_gap_a_length_and_a_segment_end_a_run() {
        let block = 4096;
        let gap = MOST_GAP_BYTES;
        assert_eq!(shape(&plan(&[(0, 8), (block + gap, 8)], |_| true)).len(), 1, "at the limit");
        assert_eq!(shape(&plan(&[(0, 8), (2 * block + gap, 8)], |_| true)).len(), 2, "above");
        let side_by_side: Vec<_> = (0..33).map(|i| (i * block, 4000)).collect();
        let lens: Vec<_> = shape(&plan(&side_by_side, |_| true)).iter().map(|(_, len)| *len).collect();
        assert_eq!(lens, [128 << 10, 4096]);
        let border = u64::from(SEGMENT);
        assert_eq!(shape(&plan(&[(border - 4096, 8), (border, 8)], |_| true)).len(), 2);
        assert_eq!(
            shape(&plan(&[(0, 600_000)], |_| true))[0].1,
            602_112,
            "one alone may be as long as it is"
        );
    }

    #[test]
    fn what_is_in_memory_is_not_read_and_what_failed_is_read_by_itself() {
        let mut runs = plan(&[(0, 100), (200, 100), (5000, 6000), (60_000, 100)], |entry| entry != 1);
        assert_eq!(shape(&runs), [(vec![0, 2], 12 << 10), (vec![3], 4096)]);
        assert!(!runs.split(1) && runs.split(0));
        assert_eq!(shape(&runs)[2..], [(vec![0], 4096), (vec![2], 8192)]);
    }
}
