//! Fair shares of a shard: which of the requests that have come are handed to the engine now, and which wait, by
//! partition.
//!
//! While few requests run, any may. Beyond that a partition may have its share running and no more: so many as
//! keep a drive busy, divided among the partitions that asked for something lately. What is above waits
//! in its partition's own queue, and the drive's queue stays short for the others. (Start-time fair queueing to
//! a depth: W. Jin, J. Chase and J. Kaur, Interposed proportional sharing for a storage service utility,
//! 2004; here by requests that run, not by virtual time.)
//!
//! Requests of one partition keep their order. No work grows with the number of partitions.

use std::collections::{BTreeMap, HashMap, VecDeque};

use lode_net::wire::{Frame, Opcode, PartitionId};

/// While less than this runs, shares do not count: a drive with so little to do is quick for everyone.
const FREE_RUNNING: u32 = 16;
/// What may run of a partition that is alone: enough for the throughput of a drive.
const MOST_RUNNING: u32 = 128;
/// What may run of a partition however many others there are.
const LEAST_SHARE: u32 = 2;
/// A partition counts as active until this long after its last request, at least.
const WINDOW_NS: u64 = 100_000_000;
/// A request costs as much again for each so many bytes of its body.
const BYTES_PER_COST: usize = 32 * 1024;
/// A scan reads several records.
const SCAN_COST: u32 = 8;
/// Bytes that a waiting request takes beside its frame.
const QUEUED_BYTES: usize = 128;

/// What a running request counts, and in whose share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    partition: PartitionId,
    cost: u32,
}

/// What is to be known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What it counts while it runs.
    pub share: Share,
    /// What it takes of memory while it waits.
    bytes: usize,
}

impl Ask {
    /// Of a request's frame.
    pub fn of(frame: &Frame<'_>) -> Ask {
        let scans = [Opcode::Scan as u8, Opcode::TransactionScan as u8].contains(&frame.header.opcode);
        let len = frame.body().len();
        let cost = if scans { SCAN_COST } else { 1 } + (len / BYTES_PER_COST) as u32;
        Ask { share: Share { partition: frame.header.partition, cost }, bytes: len + QUEUED_BYTES }
    }
}

/// One partition with requests that run or wait.
#[derive(Debug)]
struct Flow<T> {
    running: u32,
    queue: VecDeque<(Ask, T)>,
    /// When it was found to have all of its share, as a number that rises; nothing while its turn is to come.
    blocked: Option<u64>,
}

/// What becomes of a request that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// It runs.
    Now(T),
    /// It waits.
    Queued,
    /// There is no memory for it.
    Full,
}

/// The running requests of a shard, and those that wait, as `T`, by partition.
#[derive(Debug)]
pub struct Fair<T> {
    flows: HashMap<PartitionId, Flow<T>, ahash::RandomState>,
    /// Partitions with waiting requests whose turn comes next.
    ready: VecDeque<PartitionId>,
    /// Those that have all of their share, by when they were found to.
    blocked: BTreeMap<u64, PartitionId>,
    blocks: u64,
    active: Active,
    running: u32,
    queued: usize,
    queued_bytes: usize,
}

impl<T> Default for Fair<T> {
    fn default() -> Fair<T> {
        Fair {
            // Fixed seeds: the node itself gives the ids, so nobody can choose them to collide.
            flows: HashMap::with_hasher(ahash::RandomState::with_seeds(5, 6, 7, 8)),
            ready: VecDeque::new(),
            blocked: BTreeMap::new(),
            blocks: 0,
            active: Active::default(),
            running: 0,
            queued: 0,
            queued_bytes: 0,
        }
    }
}

impl<T> Fair<T> {
    /// A request has come; if it has to wait, it is kept as what `own` makes of it. Those that wait may take
    /// `room` bytes.
    pub fn admit<R>(
        &mut self,
        ask: Ask,
        request: R,
        own: impl FnOnce(R) -> T,
        now_ns: u64,
        room: usize,
    ) -> Admission<R> {
        self.active.note(ask.share.partition, now_ns);
        let (share, running) = (self.active.share(), self.running);
        let none = || Flow { running: 0, queue: VecDeque::new(), blocked: None };
        let flow = self.flows.entry(ask.share.partition).or_insert_with(none);
        if flow.queue.is_empty() && (running < FREE_RUNNING || flow.running < share) {
            flow.running += ask.share.cost;
            self.running += ask.share.cost;
            return Admission::Now(request);
        }
        if self.queued_bytes + ask.bytes > room {
            return Admission::Full;
        }
        if flow.queue.is_empty() {
            self.ready.push_back(ask.share.partition);
        }
        flow.queue.push_back((ask, own(request)));
        self.queued += 1;
        self.queued_bytes += ask.bytes;
        Admission::Queued
    }

    /// A request that ran has been answered.
    pub fn done(&mut self, Share { partition, cost }: Share) {
        let flow = self.flows.get_mut(&partition).expect("a partition with a running request is known");
        flow.running -= cost;
        self.running -= cost;
        if let Some(at) = flow.blocked.take() {
            self.blocked.remove(&at);
            self.ready.push_back(partition);
        } else if flow.running == 0 && flow.queue.is_empty() {
            self.flows.remove(&partition);
        }
    }

    /// Hands those to `run` whose turn has come, one of a partition at a time.
    pub fn release(&mut self, mut run: impl FnMut(Ask, T)) {
        let share = self.active.share();
        while let Some(partition) = self.next_ready() {
            let flow = self.flows.get_mut(&partition).expect("a partition with waiting requests is known");
            if self.running >= FREE_RUNNING && flow.running >= share {
                self.blocks += 1;
                flow.blocked = Some(self.blocks);
                self.blocked.insert(self.blocks, partition);
                continue;
            }
            let (ask, request) = flow.queue.pop_front().expect("a ready partition has requests");
            flow.running += ask.share.cost;
            self.running += ask.share.cost;
            self.queued -= 1;
            self.queued_bytes -= ask.bytes;
            if !flow.queue.is_empty() {
                self.ready.push_back(partition);
            }
            run(ask, request);
        }
    }

    fn next_ready(&mut self) -> Option<PartitionId> {
        if let Some(partition) = self.ready.pop_front() {
            return Some(partition);
        }
        if self.running >= FREE_RUNNING {
            return None;
        }
        let (_, partition) = self.blocked.pop_first()?;
        self.flows.get_mut(&partition)?.blocked = None;
        Some(partition)
    }

    /// Whether [`release`](Self::release) might have something to hand out.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || (self.running < FREE_RUNNING && !self.blocked.is_empty())
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes of memory that they take.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}

/// How many partitions asked for something lately: bits of those of this window, and how many the last one had.
/// Two partitions may share a bit; beyond a few thousand the share is the least anyway.
#[derive(Debug)]
struct Active {
    seen: [u64; 64],
    count: u32,
    last: u32,
    ends_ns: u64,
}

impl Default for Active {
    fn default() -> Active {
        Active { seen: [0; 64], count: 0, last: 0, ends_ns: 0 }
    }
}

impl Active {
    fn note(&mut self, partition: PartitionId, now_ns: u64) {
        if now_ns >= self.ends_ns {
            let is_next = now_ns < self.ends_ns + WINDOW_NS;
            self.last = if is_next { self.count } else { 0 };
            self.seen = [0; 64];
            self.count = 0;
            self.ends_ns = now_ns + WINDOW_NS;
        }
        // Multiplication spreads ids that follow one another; the upper bits are the well mixed ones.
        let place = partition.0.wrapping_mul(0x9e37_79b9) >> 20;
        let (word, bit) = (&mut self.seen[place as usize / 64], 1 << (place % 64));
        self.count += u32::from(*word & bit == 0);
        *word |= bit;
    }

    fn share(&self) -> u32 {
        (MOST_RUNNING / self.count.max(self.last).max(1)).max(LEAST_SHARE)
    }
}

#[cfg(test)]
mod tests;
