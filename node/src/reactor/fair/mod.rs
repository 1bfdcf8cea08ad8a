//! Fair shares of a shard: which of the requests that have come are handed to the engine now, and which wait, by
//! partition.
//!
//! While few requests run, any may. Beyond that a partition may have its share running and no more: so many as
//! keep a drive busy, divided by weight among the partitions that asked for something lately. What is above waits
//! in its partition's own queue, and the drive's queue stays short for the others. Whoever has had least for its weight comes
//! next. (Start-time fair queueing to a depth: W. Jin, J. Chase and J. Kaur, Interposed proportional sharing for a
//! storage service utility, 2004; here the depth is shared out too.)
//!
//! A request costs one, and as much again for each so many bytes (8 KiB, unless the drive was measured) that it writes, or that
//! such reads of its partition gave lately: a large value takes the drive and the core for as long as many small ones.
//!
//! Requests of one partition keep their order. No work grows with the number of partitions.

mod active;
mod cost;
pub mod quota;

use std::collections::{BTreeSet, HashMap, VecDeque};

use lode_net::wire::{Frame, PartitionId};

use super::connection::ConnectionKey;
use crate::io_limits::IoLimits;
use active::Active;
use cost::{Class, Costs, Prices};

/// Bytes that a waiting request takes beside its frame.
const QUEUED_BYTES: usize = 128;
/// What waits of one partition may take this part of the memory for what waits, so that others find some.
const PARTITION_PART: usize = 2;
/// Where it takes this part, the connections that bring more of it are not read from until it is half of that.
const HOLD_PART: usize = 16;
/// Where what waits of all takes this part, connections that bring more than their partition's share are not read
/// from either: what lies in a socket need not be copied, nor looked for in the core's cache.
const HOLD_ALL_PART: usize = 8;
/// Virtual time of a request of cost 1 and weight 1.
const TICKS: u64 = 1 << 20;

/// What a running request counts, and in whose share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The partition.
    pub partition: PartitionId,
    cost: u32,
    class: Class,
}

impl Share {
    /// Bytes that came to be written.
    pub fn write_bytes(&self) -> u32 {
        match self.class {
            Class::Write(bytes) => bytes,
            Class::Get | Class::Scan => 0,
        }
    }
}

/// What is to be known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    partition: PartitionId,
    class: Class,
    /// Of its partition.
    weight: u32,
    /// What it takes of memory while it waits.
    bytes: usize,
}

impl Ask {
    /// Of a request's frame.
    pub fn of(frame: &Frame<'_>, weight: u32) -> Ask {
        let bytes = frame.body().len();
        let class = Class::of(frame.header.opcode, bytes);
        Ask { partition: frame.header.partition, class, weight, bytes: bytes + QUEUED_BYTES }
    }
}

/// One partition with requests that run or wait.
#[derive(Debug)]
struct Flow<T> {
    running: u32,
    queue: VecDeque<(Ask, T)>,
    queued_bytes: usize,
    weight: u32,
    /// What it has had, by its weight: when its next request begins in virtual time.
    begins: u64,
    /// Whether it was found to have all of its share.
    blocked: bool,
    costs: Costs,
    /// Connections that are not read from until less of it waits.
    held_up: VecDeque<ConnectionKey>,
}

impl<T> Flow<T> {
    fn new(begins: u64, prices: Prices) -> Flow<T> {
        Flow {
            running: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            weight: 1,
            begins,
            blocked: false,
            costs: Costs::new(prices),
            held_up: VecDeque::new(),
        }
    }

    /// One of its requests begins to run.
    fn run(&mut self, ask: Ask, prices: Prices, now: &mut u64) -> Share {
        let cost = self.costs.of(ask.class, prices);
        *now = (*now).max(self.begins);
        self.begins += u64::from(cost) * TICKS / u64::from(self.weight);
        self.running += cost;
        Share { partition: ask.partition, cost, class: ask.class }
    }
}

/// Of whom too much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Of one partition.
    Partition(PartitionId),
    /// Of all together.
    All,
}

/// What becomes of a request that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// It runs.
    Now(T, Share),
    /// It waits.
    Queued {
        /// So much waits that no more should be read.
        crowded: Option<Crowd>,
    },
    /// There is no memory for it.
    Full,
}

/// The running requests of a shard, and those that wait, as `T`, by partition.
#[derive(Debug)]
pub struct Fair<T> {
    flows: HashMap<PartitionId, Flow<T>, ahash::RandomState>,
    /// Partitions with waiting requests whose turn comes next, by what they have had.
    ready: BTreeSet<(u64, PartitionId)>,
    /// Those that have all of their share.
    blocked: BTreeSet<(u64, PartitionId)>,
    /// Virtual time: when what was last handed out began.
    now: u64,
    active: Active,
    prices: Prices,
    running: u32,
    queued: usize,
    queued_bytes: usize,
    /// Connections that are not read from until less waits of all.
    held_up: VecDeque<ConnectionKey>,
    /// Connections that may be read from again.
    resumed: Vec<ConnectionKey>,
}

impl<T> Fair<T> {
    /// With nothing to do, for a drive with these limits.
    pub fn new(limits: &IoLimits) -> Fair<T> {
        Fair {
            // Fixed seeds: the node itself gives the ids, so nobody can choose them to collide.
            flows: HashMap::with_hasher(ahash::RandomState::with_seeds(5, 6, 7, 8)),
            ready: BTreeSet::new(),
            blocked: BTreeSet::new(),
            now: 0,
            active: Active::new(limits),
            prices: Prices::new(limits),
            running: 0,
            queued: 0,
            queued_bytes: 0,
            held_up: VecDeque::new(),
            resumed: Vec::new(),
        }
    }

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
        self.active.note(ask.partition, ask.weight, now_ns);
        let share = self.active.share(ask.weight);
        let flow = self.flows.entry(ask.partition).or_insert_with(|| Flow::new(self.now, self.prices));
        flow.weight = ask.weight;
        if flow.queue.is_empty() && (self.running < self.active.free_running() || flow.running < share) {
            flow.begins = flow.begins.max(self.now);
            let share = flow.run(ask, self.prices, &mut self.now);
            self.running += share.cost;
            return Admission::Now(request, share);
        }
        if self.queued_bytes + ask.bytes > room || flow.queued_bytes + ask.bytes > room / PARTITION_PART {
            return Admission::Full;
        }
        if flow.queue.is_empty() {
            flow.begins = flow.begins.max(self.now);
            self.ready.insert((flow.begins, ask.partition));
        }
        flow.queue.push_back((ask, own(request)));
        flow.queued_bytes += ask.bytes;
        self.queued += 1;
        self.queued_bytes += ask.bytes;
        let of_partition = flow.queued_bytes > room / HOLD_PART;
        let of_all = self.queued_bytes > room / HOLD_ALL_PART;
        Admission::Queued {
            crowded: match (of_partition, of_all) {
                (true, _) => Some(Crowd::Partition(ask.partition)),
                (false, true) => Some(Crowd::All),
                (false, false) => None,
            },
        }
    }

    /// A connection that brought too much is not read from until less of it waits.
    pub fn hold_up(&mut self, crowd: Crowd, connection: ConnectionKey) {
        let Crowd::Partition(partition) = crowd else { return self.held_up.push_back(connection) };
        let flow = self.flows.get_mut(&partition).expect("a partition with waiting requests is known");
        flow.held_up.push_back(connection);
    }

    /// A request that ran has been answered, a read with so many bytes.
    pub fn done(&mut self, share: Share, read_bytes: u64) {
        let Share { partition, cost, class } = share;
        let flow = self.flows.get_mut(&partition).expect("a partition with a running request is known");
        flow.running -= cost;
        self.running -= cost;
        flow.costs.learn(class, read_bytes);
        if std::mem::take(&mut flow.blocked) {
            self.blocked.remove(&(flow.begins, partition));
            self.ready.insert((flow.begins, partition));
        } else if flow.running == 0 && flow.queue.is_empty() {
            self.flows.remove(&partition);
        }
    }

    /// Hands those to `run` whose turn has come, one of a partition at a time.
    pub fn release(&mut self, room: usize, mut run: impl FnMut(Share, T)) {
        while let Some(partition) = self.next_ready() {
            let flow = self.flows.get_mut(&partition).expect("a partition with waiting requests is known");
            let share = self.active.share(flow.weight);
            if self.running >= self.active.free_running() && flow.running >= share {
                flow.blocked = true;
                self.blocked.insert((flow.begins, partition));
                continue;
            }
            let (ask, request) = flow.queue.pop_front().expect("a ready partition has requests");
            let share = flow.run(ask, self.prices, &mut self.now);
            self.running += share.cost;
            self.queued -= 1;
            self.queued_bytes -= ask.bytes;
            flow.queued_bytes -= ask.bytes;
            // One at a time, for each brings what it has: all at once would bring far too much. When nothing waits, all
            // of them, for nobody would be left to let the next one on.
            if flow.queue.is_empty() {
                self.resumed.extend(flow.held_up.drain(..));
            } else if flow.queued_bytes < room / HOLD_PART / 2 {
                self.resumed.extend(flow.held_up.pop_front());
            }
            if !flow.queue.is_empty() {
                self.ready.insert((flow.begins, partition));
            }
            if self.queued == 0 {
                self.resumed.extend(self.held_up.drain(..));
            } else if self.queued_bytes < room / HOLD_ALL_PART / 2 {
                self.resumed.extend(self.held_up.pop_front());
            }
            run(share, request);
        }
    }

    fn next_ready(&mut self) -> Option<PartitionId> {
        // While anybody may run, those that have their share already come by what they have had, too.
        let may_any = self.running < self.active.free_running() && !self.blocked.is_empty();
        if !may_any || self.ready.first().is_some_and(|ready| Some(ready) < self.blocked.first()) {
            return self.ready.pop_first().map(|(_, partition)| partition);
        }
        let (_, partition) = self.blocked.pop_first()?;
        self.flows.get_mut(&partition)?.blocked = false;
        Some(partition)
    }

    /// Connections that may be read from again since the last call.
    pub fn take_resumed(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.resumed)
    }

    /// Whether [`release`](Self::release) might have something to hand out.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || (self.running < self.active.free_running() && !self.blocked.is_empty())
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

#[cfg(test)]
mod tests;
