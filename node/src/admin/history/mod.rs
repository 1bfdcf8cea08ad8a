//! What partitions and the node did in the last hour, every ten seconds, in memory.
//!
//! Ten figures of each of 10,000 partitions are 100,000 series of 360 points: 36 million points, in less than 100 MB whatever
//! they are, and in a few megabytes where most partitions rest. Five minutes at a time are packed, column by column (see [`code`]).

mod code;
mod node;

use std::collections::{HashMap, VecDeque};

pub use node::{NODE_SERIES, NodeHistory, Resolution};

use super::partitions::{Figures, SERIES};

/// Steps that are packed together.
const BLOCK_STEPS: usize = 30;
/// Packed blocks that are kept: with the open one, an hour and a little.
const BLOCKS: usize = 12;
/// Partitions whose history is kept: those that were busiest when a block began, and those that came since, while there is room.
pub const MAX_HISTORY_PARTITIONS: usize = 10_240;
/// The most memory that it all takes, in bytes; a test holds it.
pub const MAX_HISTORY_BYTES: usize = 100_000_000;

/// Five minutes, packed.
#[derive(Debug)]
struct Block {
    /// UNIX seconds of each step.
    times: Vec<u64>,
    /// Partitions, ascending, and where their columns begin.
    places: Vec<(u32, u32)>,
    bytes: Vec<u8>,
}

/// The last minutes, as codes.
#[derive(Debug, Default)]
struct Open {
    times: Vec<u64>,
    /// Rows by partition.
    rows: HashMap<u32, usize>,
    /// By row, series and step.
    codes: Vec<[[u16; BLOCK_STEPS]; SERIES.len()]>,
    left_out: u64,
}

/// The last hour of partitions.
#[derive(Debug, Default)]
pub struct History {
    blocks: VecDeque<Block>,
    open: Open,
}

/// One series of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Points {
    /// UNIX seconds at which each step ended.
    pub times: Vec<u64>,
    /// What was then, of each series that was asked for; nothing where nothing was kept.
    pub columns: Vec<Vec<Option<u64>>>,
}

impl History {
    /// One step ends at `time_s`: what each partition did, ascending by id.
    pub fn push(&mut self, time_s: u64, step: &[(u32, Figures)]) {
        if self.open.times.len() == BLOCK_STEPS {
            self.seal();
        }
        if self.open.times.is_empty() {
            self.begin(step);
        }
        let open = &mut self.open;
        let at = open.times.len();
        open.times.push(time_s);
        open.left_out = 0;
        for (partition, figures) in step {
            let row = match open.rows.get(partition) {
                Some(row) => *row,
                None if open.codes.len() < MAX_HISTORY_PARTITIONS => {
                    open.rows.insert(*partition, open.codes.len());
                    open.codes.push([[0; BLOCK_STEPS]; SERIES.len()]);
                    open.codes.len() - 1
                }
                None => {
                    open.left_out += 1;
                    continue;
                }
            };
            for (codes, figure) in open.codes[row].iter_mut().zip(figures) {
                codes[at] = code::encode(*figure);
            }
        }
    }

    /// Chooses whose history is kept in the next block: where not all have room, the busiest.
    fn begin(&mut self, step: &[(u32, Figures)]) {
        if step.len() <= MAX_HISTORY_PARTITIONS {
            return;
        }
        let requests = |(_, figures): &(u32, Figures)| figures[0] + figures[1] + figures[4] + figures[5];
        let mut busiest: Vec<(u64, u32)> = step.iter().map(|of| (requests(of), of.0)).collect();
        busiest.select_nth_unstable_by(MAX_HISTORY_PARTITIONS, |a, b| b.cmp(a));
        for (_, partition) in &busiest[..MAX_HISTORY_PARTITIONS] {
            self.open.rows.insert(*partition, self.open.codes.len());
            self.open.codes.push([[0; BLOCK_STEPS]; SERIES.len()]);
        }
    }

    fn seal(&mut self) {
        let open = &mut self.open;
        let len = open.times.len();
        let mut rows: Vec<(u32, usize)> = open.rows.drain().collect();
        rows.sort_unstable();
        let (mut places, mut bytes) = (Vec::with_capacity(rows.len()), Vec::new());
        for (partition, row) in rows {
            places.push((partition, bytes.len() as u32));
            for codes in &open.codes[row] {
                code::pack(codes[..len].iter().copied(), &mut bytes);
            }
        }
        bytes.shrink_to_fit();
        let times = std::mem::take(&mut open.times);
        open.codes.clear();
        self.blocks.push_back(Block { times, places, bytes });
        while self.blocks.len() > BLOCKS || self.bytes() > MAX_HISTORY_BYTES {
            self.blocks.pop_front();
        }
    }

    /// The series of a partition since a time, by their places in [`SERIES`].
    pub fn of(&self, partition: u32, series: &[usize], since_s: u64) -> Points {
        let mut points = Points { times: Vec::new(), columns: vec![Vec::new(); series.len()] };
        let mut column = Vec::new();
        for block in &self.blocks {
            let from = block.times.partition_point(|time| *time < since_s);
            if from == block.times.len() {
                continue;
            }
            points.times.extend_from_slice(&block.times[from..]);
            let Ok(place) = block.places.binary_search_by_key(&partition, |(id, _)| *id) else {
                points.columns.iter_mut().for_each(|kept| kept.resize(points.times.len(), None));
                continue;
            };
            let mut bytes = &block.bytes[block.places[place].1 as usize..];
            for number in 0..SERIES.len() {
                bytes = code::unpack(bytes, block.times.len(), &mut column);
                for (_, kept) in
                    series.iter().zip(&mut points.columns).filter(|(wanted, _)| **wanted == number)
                {
                    kept.extend(column[from..].iter().map(|code| Some(code::decode(*code))));
                }
            }
        }
        let open = &self.open;
        let from = open.times.partition_point(|time| *time < since_s);
        points.times.extend_from_slice(&open.times[from..]);
        let codes = open.rows.get(&partition).map(|row| &open.codes[*row]);
        for (number, kept) in series.iter().zip(&mut points.columns) {
            match codes {
                Some(codes) => {
                    let codes = &codes[*number][from..open.times.len()];
                    kept.extend(codes.iter().map(|code| Some(code::decode(*code))));
                }
                None => kept.resize(points.times.len(), None),
            }
        }
        points
    }

    /// Partitions that there was no room for in the last step.
    pub fn left_out(&self) -> u64 {
        self.open.left_out
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let block = |block: &Block| {
            block.bytes.capacity()
                + block.places.capacity() * size_of::<(u32, u32)>()
                + block.times.capacity() * 8
        };
        let rows = self.open.rows.capacity() * (size_of::<(u32, usize)>() + 1);
        let codes = self.open.codes.capacity() * size_of::<[[u16; BLOCK_STEPS]; SERIES.len()]>();
        self.blocks.iter().map(block).sum::<usize>() + rows + codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::limits::STEP_S;

    /// Numbers that no compression can do anything about.
    struct Wild(u64);

    impl Wild {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 20
        }
    }

    fn hour(partitions: u32, mut figure: impl FnMut(u64, u32, usize) -> u64) -> History {
        let mut history = History::default();
        for step in 0..400u64 {
            let mut figures = |id: u32| std::array::from_fn(|series| figure(step, id, series));
            let rows: Vec<_> = (0..partitions).map(|id| (id, figures(id))).collect();
            history.push(1_000_000 + step * STEP_S, &rows);
        }
        history
    }

    #[test]
    fn an_hour_of_100_000_series_takes_less_than_its_bound_whatever_they_are() {
        let mut wild = Wild(1);
        let worst = hour(10_000, |_, _, _| {
            let shift = wild.next() % 44;
            wild.next() >> shift
        });
        assert!(worst.bytes() < MAX_HISTORY_BYTES, "{} bytes of noise", worst.bytes());
        let points = worst.of(9_999, &[0], 0);
        assert!(points.times.len() >= 360, "an hour: {} steps", points.times.len());
        // As tenants are: a hundred requests a second, give or take, of one partition in ten; sizes that grow.
        let mut wild = Wild(2);
        let usual = hour(10_000, |step, id, series| match series {
            8 | 9 => 1_000_000 + u64::from(id) * 1000 + step * u64::from(id.is_multiple_of(10)),
            4 | 5 => 0,
            _ if id.is_multiple_of(10) => 1000 + wild.next() % 100,
            _ => 0,
        });
        assert!(usual.bytes() < 25_000_000, "{} bytes of tenants", usual.bytes());
        let busy = busy_hour();
        assert!(busy.bytes() < MAX_HISTORY_BYTES, "{} bytes of busy tenants", busy.bytes());
        assert_eq!(
            busy.of(5_000, &[0], 0).times.len(),
            370,
            "twelve blocks and the open one: no step of the hour is given up"
        );
        eprintln!(
            "an hour of 100,000 series: {} bytes of noise, {} where all are busy, {} where one of ten is",
            worst.bytes(),
            busy.bytes(),
            usual.bytes()
        );
    }

    /// Every one of 10,000 tenants at about a hundred requests a second, each step another number by chance; a few errors, sizes that
    /// grow, and times that are now and then ten times as long.
    fn busy_hour() -> History {
        let mut wild = Wild(3);
        hour(10_000, |step, id, series| {
            // The sum of eight throws lies near its middle, as counts of requests do.
            let mut about = |middle: u64, spread: u64| {
                let thrown: u64 = (0..8).map(|_| wild.next() % (spread + 1)).sum();
                (middle + thrown).saturating_sub(4 * spread)
            };
            match series {
                0 => about(800, 12),
                1 => about(200, 6),
                2 => about(800, 12) * 1010,
                3 => about(200, 6) * 1010,
                4 => u64::from(about(0, 40) > 60),
                5 => about(0, 1).saturating_sub(2),
                6 => about(180, 10) * if about(0, 40) > 50 { 10 } else { 1 },
                7 => about(900, 100),
                8 => 1_000_000 + u64::from(id) * 7 + step * about(150, 10),
                _ => 1_000_000_000 + u64::from(id) * 7000 + step * about(150_000, 10_000),
            }
        })
    }

    #[test]
    fn what_was_is_told_for_as_long_as_it_is_kept() {
        let history = hour(20, |step, id, series| step * 10 + u64::from(id) + series as u64);
        let points = history.of(7, &[3, 0], 1_000_000 + 390 * STEP_S);
        assert_eq!(points.times, (390..400).map(|step| 1_000_000 + step * STEP_S).collect::<Vec<_>>());
        for (column, series) in points.columns.iter().zip([3, 0]) {
            for (value, step) in column.iter().zip(390..400) {
                let was = step * 10 + 7 + series;
                assert!(value.is_some_and(|value| value.abs_diff(was) <= was / 256), "{value:?} of {was}");
            }
        }
        assert_eq!(history.of(99, &[0], 0).columns[0].iter().flatten().count(), 0);
        let all = history.of(7, &[0], 0);
        assert_eq!(all.times.len(), all.columns[0].len());
        assert!((360..=BLOCK_STEPS * (BLOCKS + 1)).contains(&all.times.len()), "{}", all.times.len());
    }

    #[test]
    fn where_there_is_no_room_for_all_the_busiest_are_kept() {
        let mut history = History::default();
        let many = MAX_HISTORY_PARTITIONS as u32 + 500;
        let rows: Vec<_> =
            (0..many).map(|id| (id, [u64::from(id >= 500), 0, 0, 0, 0, 0, 0, 0, 0, 0])).collect();
        for step in 0..31 {
            history.push(step, &rows);
        }
        assert_eq!(history.left_out(), 500);
        let kept = |id| history.of(id, &[0], 0).columns[0].iter().flatten().count();
        assert_eq!((kept(499), kept(500), kept(many - 1)), (0, 31, 31));
    }
}
