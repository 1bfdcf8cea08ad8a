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
//! such reads of its partition gave lately: a large value takes the drive and the core for as long as many small ones. Reads
//! that cost more than their partition's share run all the same, or they never would, but of all partitions together no more
//! at a time than keeps a drive busy: each of many partitions might have one, and who wants little would wait for all of them.
//!
//! Requests of one partition keep their order. No work grows with the number of partitions.

mod active;
mod cost;
mod large;
pub mod quota;

use std::collections::{BTreeSet, HashMap, VecDeque};

use lode_net::wire::{Frame, PartitionId};

use super::connection::ConnectionKey;
use crate::io_limits::IoLimits;
use active::Active;
use cost::{Class, Costs, Dear, Prices};
use large::Large;

/// Bytes that a waiting request takes beside its frame.
const QUEUED_BYTES: usize = 128;
/// What waits of one partition may take this part of the memory for what waits, so that others find some.
const PARTITION_PART: usize = 2;
/// Where it takes this part, the connections that bring more of it are not read from until it is half of that.
const HOLD_PART: usize = 16;
/// Where what waits of all takes this part, connections that bring more than their partition's share are not read
/// from either: what lies in a socket need not be copied, nor looked for in the core's cache.
const HOLD_ALL_PART: usize = 8;
/// Reads that cost no more are not large, whatever their partition's share: scans of which nothing is known are not.
const LARGE_COST: u32 = cost::SCAN_COST;
/// Virtual time of a request of cost 1 and weight 1.
const TICKS: u64 = 1 << 20;

/// What a running request counts, and in whose share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The partition.
    pub partition: PartitionId,
    cost: u32,
    class: Class,
    /// Whether it is a large read that cost more than its partition may have running.
    is_large: bool,
    /// Whether its answer is expected to be so long that it needs room of which those who leave little lying need none.
    gives_much: bool,
}

impl Share {
    /// Bytes that came to be written.
    pub fn write_bytes(&self) -> u32 {
        match self.class {
            Class::Write(bytes) => bytes,
            Class::Get | Class::Scan | Class::Rewrite => 0,
        }
    }

    /// Of bytes that were written, those that did not come with the request.
    pub fn rewritten(&self, bytes: u64) -> u64 {
        if self.class == Class::Rewrite { bytes } else { 0 }
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
    /// Whether a long answer has room on its way, as the request comes.
    has_room: bool,
}

impl Ask {
    /// Of a request's frame; `has_room`: for a long answer to it, should it have one.
    pub fn of(frame: &Frame<'_>, weight: u32, has_room: bool) -> Ask {
        let bytes = frame.body().len();
        let class = Class::of(frame.header.opcode, bytes);
        Ask { partition: frame.header.partition, class, weight, bytes: bytes + QUEUED_BYTES, has_room }
    }
}

/// One partition with requests that run or wait.
#[derive(Debug)]
struct Flow<T> {
    running: u32,
    queue: VecDeque<(Ask, T)>,
    queued_bytes: usize,
    weight: u32,
    /// Its weight while anything of it waits.
    waiting_weight: u64,
    /// What it has had, by its weight: when its next request begins in virtual time.
    begins: u64,
    /// Why none of its waiting requests may run, if so.
    halted: Option<Halt>,
    costs: Costs,
    /// Connections that are not read from until less of it waits.
    held_up: VecDeque<ConnectionKey>,
}

/// Why a partition's requests wait although its turn had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    /// It has all of its share.
    Share,
    /// Its next one is large, and as many large ones run as may.
    Large,
}

impl<T> Flow<T> {
    fn new(begins: u64, costs: Costs) -> Flow<T> {
        Flow {
            running: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            weight: 1,
            waiting_weight: 0,
            begins,
            halted: None,
            costs,
            held_up: VecDeque::new(),
        }
    }

    /// What one of its requests takes, where the partition may have so much running.
    fn share_of(&self, ask: Ask, prices: Prices, may_run: u32) -> Share {
        let cost = self.costs.of(ask.class, prices);
        let is_large = ask.class.is_read() && cost > may_run.max(LARGE_COST);
        let gives_much = self.costs.gives_much(ask.class, prices);
        Share { partition: ask.partition, cost, class: ask.class, is_large, gives_much }
    }

    /// One of its requests begins to run.
    fn run(&mut self, share: Share, now: &mut u64) {
        *now = (*now).max(self.begins);
        self.begins += u64::from(share.cost) * TICKS / u64::from(self.weight);
        self.running += share.cost;
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
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
    /// It would be done for nothing: its answer is expected to be long, and there is no room for such.
    NoRoom,
}

/// The running requests of a shard, and those that wait, as `T`, by partition.
#[derive(Debug)]
pub struct Fair<T> {
    flows: HashMap<PartitionId, Flow<T>, ahash::RandomState>,
    /// Partitions with waiting requests whose turn comes next, by what they have had.
    ready: BTreeSet<(u64, PartitionId)>,
    /// Those that have all of their share.
    blocked: BTreeSet<(u64, PartitionId)>,
    large: Large,
    /// What reads cost of partitions that ask for nothing now.
    dear: Dear,
    /// Virtual time: when what was last handed out began, and beyond that what each of those that wait would have had since if
    /// all were served at once.
    now: u64,
    /// What those weigh of whom anything waits.
    waiting_weight: u64,
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
            large: Large::new(limits.most_running),
            dear: Dear::default(),
            now: 0,
            waiting_weight: 0,
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
        let may_run = self.active.share(ask.weight);
        let (now, prices, dear) = (self.now, self.prices, &mut self.dear);
        let flow = self
            .flows
            .entry(ask.partition)
            .or_insert_with(|| Flow::new(now, dear.recall(ask.partition, prices)));
        flow.weight = ask.weight;
        if flow.queue.is_empty() && (self.running < self.active.free_running() || flow.running < may_run) {
            let share = flow.share_of(ask, prices, may_run);
            if share.gives_much && !ask.has_room {
                flow.costs.doubt(ask.class);
                if flow.is_idle() {
                    self.forget(ask.partition);
                }
                return Admission::NoRoom;
            }
            if self.large.has_room_at_once(share) {
                flow.begins = flow.begins.max(self.now);
                flow.run(share, &mut self.now);
                self.large.run(share);
                self.running += share.cost;
                return Admission::Now(request, share);
            }
        }
        if self.queued_bytes + ask.bytes > room || flow.queued_bytes + ask.bytes > room / PARTITION_PART {
            if flow.is_idle() {
                self.forget(ask.partition);
            }
            return Admission::Full;
        }
        if flow.queue.is_empty() {
            flow.begins = flow.begins.max(self.now);
            self.ready.insert((flow.begins, ask.partition));
        }
        self.waiting_weight = self.waiting_weight - flow.waiting_weight + u64::from(ask.weight);
        flow.waiting_weight = ask.weight.into();
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

    /// A request that ran has been answered, a read with so many bytes; none where it was not carried out.
    pub fn done(&mut self, share: Share, read_bytes: Option<u64>) {
        let Share { partition, cost, class, .. } = share;
        let flow = self.flows.get_mut(&partition).expect("a partition with a running request is known");
        flow.running -= cost;
        self.running -= cost;
        self.large.done(share);
        if let Some(read_bytes) = read_bytes {
            flow.costs.learn(class, read_bytes);
        }
        if flow.halted == Some(Halt::Share) {
            flow.halted = None;
            self.blocked.remove(&(flow.begins, partition));
            self.ready.insert((flow.begins, partition));
        }
        if flow.is_idle() {
            self.forget(partition);
        }
    }

    /// Forgets a partition that has nothing to do, but not that its reads are dear.
    fn forget(&mut self, partition: PartitionId) {
        if let Some(flow) = self.flows.remove(&partition) {
            self.dear.note(partition, flow.costs, self.prices);
        }
    }

    /// Takes out reads that wait and that `is_unwanted` says nobody wants any more. Writes take place all the same.
    pub fn give_up(&mut self, is_unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let is_given_up = |(ask, request): &(Ask, T)| ask.class.is_read() && is_unwanted(request);
        let has_such = |(_, flow): &(_, &Flow<T>)| flow.queue.iter().any(is_given_up);
        let mut partitions: Vec<_> = self.flows.iter().filter(has_such).map(|(id, _)| *id).collect();
        // The order of a map is another on another machine.
        partitions.sort_unstable();
        let mut given_up = Vec::new();
        for partition in partitions {
            let Some(flow) = self.flows.get_mut(&partition) else { continue };
            let (gone, kept): (VecDeque<_>, VecDeque<_>) = flow.queue.drain(..).partition(is_given_up);
            flow.queue = kept;
            for (ask, request) in gone {
                self.queued -= 1;
                self.queued_bytes -= ask.bytes;
                flow.queued_bytes -= ask.bytes;
                given_up.push(request);
            }
            let turn = (flow.begins, partition);
            match flow.halted.take() {
                None => self.ready.remove(&turn),
                Some(Halt::Share) => self.blocked.remove(&turn),
                Some(Halt::Large) => self.large.leave(turn),
            };
            if !flow.queue.is_empty() {
                // What comes first now is looked at anew.
                self.ready.insert(turn);
                continue;
            }
            self.waiting_weight -= std::mem::take(&mut flow.waiting_weight);
            // Whoever was held up for what is not there any more is not let on by it either.
            self.resumed.extend(flow.held_up.drain(..));
            if flow.is_idle() {
                self.forget(partition);
            }
        }
        if self.queued == 0 {
            self.resumed.extend(self.held_up.drain(..));
        }
        given_up
    }

    /// The next one whose turn has come, which runs now. Without a share, and without having had anything, one that would run for
    /// nothing: its answer is expected to be long, and `has_room` says that there is none for such.
    pub fn release(&mut self, room: usize, has_room: impl Fn(&T) -> bool) -> Option<(Option<Share>, T)> {
        while let Some(partition) = self.next_ready() {
            let flow = self.flows.get_mut(&partition).expect("a partition with waiting requests is known");
            let may_run = self.active.share(flow.weight);
            if self.running >= self.active.free_running() && flow.running >= may_run {
                flow.halted = Some(Halt::Share);
                self.blocked.insert((flow.begins, partition));
                continue;
            }
            let (ask, request) = flow.queue.front().expect("a ready partition has requests");
            let share = flow.share_of(*ask, self.prices, may_run);
            let share = (!share.gives_much || has_room(request)).then_some(share);
            if share.is_none() {
                flow.costs.doubt(ask.class);
            }
            if let Some(share) = share {
                if !self.large.has_room(share, (flow.begins, partition)) {
                    flow.halted = Some(Halt::Large);
                    self.large.wait((flow.begins, partition), share);
                    continue;
                }
                flow.run(share, &mut self.now);
                // Whoever comes now comes behind those that wait: partitions that ask again and again for one thing would
                // otherwise never let one by that waits with two.
                self.now += (u64::from(share.cost) * TICKS / self.waiting_weight.max(1)).max(1);
                self.large.run(share);
                self.running += share.cost;
            }
            return self.take_first(partition, room).map(|request| (share, request));
        }
        None
    }

    /// Takes out the first of a partition's waiting requests, and lets connections on for which there is room again.
    fn take_first(&mut self, partition: PartitionId, room: usize) -> Option<T> {
        let flow = self.flows.get_mut(&partition)?;
        let (ask, request) = flow.queue.pop_front()?;
        self.queued -= 1;
        self.queued_bytes -= ask.bytes;
        flow.queued_bytes -= ask.bytes;
        // One at a time, for each brings what it has: all at once would bring far too much. When nothing waits, all
        // of them, for nobody would be left to let the next one on.
        if flow.queue.is_empty() {
            self.waiting_weight -= std::mem::take(&mut flow.waiting_weight);
            self.resumed.extend(flow.held_up.drain(..));
        } else {
            self.ready.insert((flow.begins, partition));
            if flow.queued_bytes < room / HOLD_PART / 2 {
                self.resumed.extend(flow.held_up.pop_front());
            }
        }
        if flow.is_idle() {
            self.forget(partition);
        }
        if self.queued == 0 {
            self.resumed.extend(self.held_up.drain(..));
        } else if self.queued_bytes < room / HOLD_ALL_PART / 2 {
            self.resumed.extend(self.held_up.pop_front());
        }
        Some(request)
    }

    fn next_ready(&mut self) -> Option<PartitionId> {
        // While anybody may run, those that have their share already come by what they have had, too; and those whose next
        // one is large where there is room for it.
        let may_any = self.running < self.active.free_running();
        let blocked = self.blocked.first().filter(|_| may_any);
        let next = [self.ready.first(), blocked, self.large.next()].into_iter().flatten().min().copied()?;
        if !self.ready.remove(&next) {
            self.blocked.remove(&next);
            self.large.leave(next);
            self.flows.get_mut(&next.1)?.halted = None;
        }
        Some(next.1)
    }

    /// Connections that may be read from again since the last call.
    pub fn take_resumed(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.resumed)
    }

    /// Whether [`release`](Self::release) might have something to hand out.
    pub fn is_ready(&self) -> bool {
        let may_any = self.running < self.active.free_running() && !self.blocked.is_empty();
        !self.ready.is_empty() || may_any || self.large.next().is_some()
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
