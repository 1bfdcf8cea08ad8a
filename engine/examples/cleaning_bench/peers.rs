//! What other ways of cleaning do with the same trace: records of one size, segments, and nothing else.

use crate::trace::{Trace, popularity};

/// Free segments that a peer keeps beside those that it fills.
const SPARE_SEGMENTS: usize = 3;

/// A way of choosing victims and of placing records.
#[derive(Clone, Copy, PartialEq)]
pub enum Peer {
    /// The oldest segment; one log.
    Fifo,
    /// The emptiest segment; one log.
    Greedy,
    /// Rosenblum and Ousterhout (LFS, 1992): (1 - u) * age / (1 + u); survivors apart.
    CostBenefit,
    /// Wang et al. (SepBIT, FAST 2022): users' writes by the lifespan of what they replace, survivors by
    /// where they come from and by age; victims by (1 - u) * age / u.
    SepBit,
}

impl Peer {
    pub const ALL: [(Peer, &str); 4] = [
        (Peer::Fifo, "fifo, one log"),
        (Peer::Greedy, "greedy, one log"),
        (Peer::CostBenefit, "cost-benefit, survivors apart"),
        (Peer::SepBit, "SepBIT-like, six logs"),
    ];
}

#[derive(Clone, Default)]
struct Segment {
    records: Vec<u32>,
    live: usize,
    class: usize,
    opened: u64,
    sealed: Option<u64>,
}

/// A peer under way.
pub struct Simulation {
    peer: Peer,
    segment_records: usize,
    segments: Vec<Segment>,
    free: Vec<usize>,
    open: [Option<usize>; 6],
    /// Where each record is, and when it was written.
    place: Vec<Option<usize>>,
    written: Vec<u64>,
    now: u64,
    /// SepBIT: mean lifespan of the last segments of class 0, and those that come into the next mean.
    lifespan: f64,
    lifespans: Vec<u64>,
    pub moved: u64,
}

impl Simulation {
    pub fn new(peer: Peer, segments: usize, segment_records: usize, records: u32) -> Simulation {
        Simulation {
            peer,
            segment_records,
            segments: vec![Segment::default(); segments],
            free: (0..segments).rev().collect(),
            open: [None; 6],
            place: vec![None; records as usize],
            written: vec![0; records as usize],
            now: 0,
            lifespan: f64::INFINITY,
            lifespans: Vec::new(),
            moved: 0,
        }
    }

    /// Writes a record of the trace, and cleans as much as that takes.
    pub fn write(&mut self, record: u32) {
        let known = self.place[record as usize].is_some();
        let age = (self.now - self.written[record as usize]) as f64;
        let short = known && age < self.lifespan;
        self.written[record as usize] = self.now;
        let class = usize::from(self.peer == Peer::SepBit && !short);
        self.append(record, class);
        self.now += 1;
        while self.free.len() < SPARE_SEGMENTS + self.open.iter().flatten().count() {
            self.clean();
        }
    }

    fn append(&mut self, record: u32, class: usize) {
        let id = match self.open[class] {
            Some(id) => id,
            None => {
                let id = self.free.pop().expect("cleaning keeps segments free");
                self.segments[id] = Segment { class, opened: self.now, ..Segment::default() };
                self.open[class] = Some(id);
                id
            }
        };
        if let Some(old) = self.place[record as usize].replace(id) {
            self.segments[old].live -= 1;
        }
        let segment = &mut self.segments[id];
        segment.records.push(record);
        segment.live += 1;
        if segment.records.len() == self.segment_records {
            segment.sealed = Some(self.now);
            self.open[class] = None;
        }
    }

    fn score(&self, segment: &Segment) -> f64 {
        let Some(sealed) = segment.sealed else { return -1.0 };
        let age = (self.now - sealed) as f64 + 1.0;
        let u = segment.live as f64 / self.segment_records as f64;
        match self.peer {
            _ if segment.live == self.segment_records => -1.0,
            Peer::Fifo => age,
            Peer::Greedy => 1.0 - u,
            Peer::CostBenefit => (1.0 - u) * age / (1.0 + u),
            Peer::SepBit => (1.0 - u) * age / (u + 1e-9),
        }
    }

    fn clean(&mut self) {
        let scores = self.segments.iter().map(|segment| self.score(segment)).enumerate();
        let (victim, _) = scores.max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are segments");
        let Segment { records, class, opened, .. } = std::mem::take(&mut self.segments[victim]);
        if class == 0 {
            self.lifespans.push(self.now - opened);
            if self.lifespans.len() == 16 {
                self.lifespan = self.lifespans.drain(..).sum::<u64>() as f64 / 16.0;
            }
        }
        for record in records {
            // A record that was written twice into the segment is met twice.
            if self.place[record as usize] != Some(victim) {
                continue;
            }
            self.place[record as usize] = None;
            let age = (self.now - self.written[record as usize]) as f64;
            let to = match self.peer {
                Peer::Fifo | Peer::Greedy => 0,
                Peer::CostBenefit => 1,
                Peer::SepBit if class == 0 => 2,
                Peer::SepBit if age < 4.0 * self.lifespan => 3,
                Peer::SepBit if age < 16.0 * self.lifespan => 4,
                Peer::SepBit => 5,
            };
            self.append(record, to);
            self.moved += 1;
        }
        self.free.insert(0, victim);
    }
}

/// Bytes written per byte when each record's rate is known and every rate has segments of its own, cleaned
/// in turn: the best division of the space. A group of rate p that is cleaned at utilization x writes
/// p / (1 - x), and takes -ln(x) / (1 - x) of space a record (Desnoyers, SYSTOR 2012).
pub fn separation_limit(zipf: bool, records: u32, fill: f64) -> f64 {
    let shares = if zipf { popularity(records) } else { vec![1.0 / f64::from(records); records as usize] };
    let mut groups = Vec::new();
    let mut rest = &shares[..];
    while !rest.is_empty() {
        let (group, tail) = rest.split_at((shares.len() - rest.len()).div_ceil(10).clamp(1, rest.len()));
        groups.push((group.iter().sum::<f64>(), group.len() as f64));
        rest = tail;
    }
    let space = |x: f64| -x.ln() / (1.0 - x);
    // Of each group the utilization at which more space is worth as much as everywhere else.
    let utilization = |price: f64, share: f64, len: f64| {
        let worth = |x: f64| (1.0 - x) / x + x.ln() - share / len * price;
        let (mut low, mut high) = (1e-9, 1.0 - 1e-9);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if worth(middle) > 0.0 { low = middle } else { high = middle }
        }
        low
    };
    let (mut low, mut high) = (1e-6, 1e12);
    for _ in 0..100 {
        let price = f64::sqrt(low * high);
        let taken: f64 = groups.iter().map(|&(p, n)| n * space(utilization(price, p, n))).sum();
        if taken > f64::from(records) / fill { high = price } else { low = price }
    }
    groups.iter().map(|&(p, n)| p / (1.0 - utilization(low, p, n))).sum()
}

/// Bytes written per byte by a peer: filled, overwritten, and measured over the last `measured` writes.
pub fn run(mut simulation: Simulation, mut trace: Trace, overwrites: u64, measured: u64) -> f64 {
    for record in trace.fill() {
        simulation.write(record);
    }
    for _ in measured..overwrites {
        simulation.write(trace.draw());
    }
    let before = simulation.moved;
    for _ in 0..measured {
        simulation.write(trace.draw());
    }
    1.0 + (simulation.moved - before) as f64 / measured as f64
}
