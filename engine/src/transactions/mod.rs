//! Transactions within a partition: optimistic and serialisable.
//!
//! A transaction sees its partition as it was when it began: while one is open, the versions that others
//! overwrite are remembered (`history`), and their segments are pinned. A commit is taken if nothing that the
//! transaction has read, records and ranges alike, was changed since; its writes then go into one frame. Both
//! are answered by the same memory of changes. What a transaction has read is remembered here, and not by
//! the client: so that its correctness rests on no client. A transaction that only reads remembers nothing and
//! cannot conflict.
//!
//! No writer ever waits for a transaction: one that holds too much, or lives too long, is ended.

pub mod history;
mod read_set;
mod serve;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::catalog::Catalog;
use crate::facts::Perhaps;
use crate::ids::{FrameNumber, OwnerId, PartitionId, TransactionId, WallMs};
use crate::limits::{MAX_OWNER_TRANSACTIONS, MAX_PARTITION_TRANSACTIONS, MAX_TRANSACTIONS};
use crate::partition::Store;
use crate::reply::BeginError;
use crate::space::Space;
use history::{Before, History, Position, Write};
use read_set::ReadSet;
pub(crate) use serve::Commit;
pub use view::{Version, View};

/// Changes that are forgotten in one step beyond twice those that came, so that no step is long.
const TRIMS_PER_STEP: usize = 1024;

/// An open transaction.
#[derive(Debug)]
pub struct Transaction {
    /// Its partition.
    pub partition: PartitionId,
    /// What it sees.
    pub position: Position,
    /// By which time it judges what has expired.
    pub now: WallMs,
    /// What it has read; `None` of one that only reads.
    pub read_set: Option<ReadSet>,
    deadline_ns: u64,
}

/// A transaction that is to begin.
#[derive(Debug)]
struct Begin {
    partition: PartitionId,
    owner: OwnerId,
    read_only: bool,
    now: WallMs,
    deadline_ns: u64,
}

/// The transactions of a shard.
#[derive(Debug)]
pub struct Transactions {
    /// By owner, so that an owner's end is a walk over its own.
    open: BTreeMap<TransactionId, Transaction>,
    histories: HashMap<PartitionId, History, ahash::RandomState>,
    /// When each ends at the latest.
    deadlines: BTreeSet<(u64, TransactionId)>,
    /// Histories of which something may be forgotten.
    trimming: VecDeque<PartitionId>,
    /// Changes noted since the last trimming.
    noted: usize,
    /// Bytes of all histories and read sets.
    bytes: usize,
    last_number: u64,
}

impl Transactions {
    /// None.
    pub fn new() -> Transactions {
        Transactions {
            open: BTreeMap::new(),
            histories: HashMap::with_hasher(ahash::RandomState::with_seeds(35, 36, 37, 38)),
            deadlines: BTreeSet::new(),
            trimming: VecDeque::new(),
            noted: 0,
            bytes: 0,
            last_number: 0,
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes of memory of what they hold, by estimate of the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the next one ends, in monotonic nanoseconds.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether something is still to be forgotten.
    pub fn has_work(&self) -> bool {
        !self.trimming.is_empty()
    }

    /// One of a partition, if it is open; its name says whose it is.
    pub fn get(&self, id: TransactionId, partition: PartitionId) -> Option<&Transaction> {
        self.open.get(&id).filter(|transaction| transaction.partition == partition)
    }

    /// Begins one. What is written to the log up to frame `known_after` may still be on its way.
    fn begin(&mut self, begin: &Begin, known_after: FrameNumber) -> Result<TransactionId, BeginError> {
        let Begin { partition, owner, read_only, now, deadline_ns } = *begin;
        let in_partition = self.histories.get(&partition).map_or(0, History::open_count);
        let is_owner_full = self.of_owner(owner).nth(MAX_OWNER_TRANSACTIONS - 1).is_some();
        let is_full = self.open.len() >= MAX_TRANSACTIONS || in_partition >= MAX_PARTITION_TRANSACTIONS;
        if is_full || is_owner_full {
            return Err(BeginError::TooMany);
        }
        let history = self.histories.entry(partition).or_insert_with(|| History::new(known_after));
        let position = history.open();
        self.last_number += 1;
        let id = TransactionId { owner, number: self.last_number };
        let read_set = (!read_only).then(ReadSet::default);
        self.deadlines.insert((deadline_ns, id));
        self.open.insert(id, Transaction { partition, position, now, read_set, deadline_ns });
        Ok(id)
    }

    /// Ends one, if it is open. Says whether it was.
    pub fn end(&mut self, id: TransactionId) -> bool {
        let Some(transaction) = self.open.remove(&id) else { return false };
        let is_listed = self.deadlines.remove(&(transaction.deadline_ns, id));
        assert!(is_listed, "every open transaction has its deadline");
        let read_bytes = transaction.read_set.map_or(0, |read_set| read_set.bytes());
        let history = self.histories.get_mut(&transaction.partition);
        let history = history.expect("the partition of an open transaction has a history");
        history.close(transaction.position);
        history.read_set_bytes -= read_bytes;
        self.bytes -= read_bytes;
        if !std::mem::replace(&mut history.is_trimming, true) {
            self.trimming.push_back(transaction.partition);
        }
        true
    }

    /// Those of an owner.
    fn of_owner(&self, owner: OwnerId) -> impl Iterator<Item = TransactionId> + '_ {
        let id = |number| TransactionId { owner, number };
        self.open.range(id(0)..=id(u64::MAX)).map(|(id, _)| *id)
    }

    /// Ends all of an owner. Gives how many.
    fn end_of(&mut self, owner: OwnerId) -> u64 {
        let ids: Vec<_> = self.of_owner(owner).collect();
        ids.into_iter().map(|id| u64::from(self.end(id))).sum()
    }

    /// Ends those whose time is over. Gives how many.
    fn end_due(&mut self, now_ns: u64) -> u64 {
        let mut ended = 0;
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now_ns) {
            ended += u64::from(self.end(id));
        }
        ended
    }

    /// Ends those that `is_to_end`. Gives how many.
    fn end_where(&mut self, is_to_end: impl Fn(&Transaction, &History) -> bool) -> u64 {
        let histories = &self.histories;
        let of = |transaction: &Transaction| &histories[&transaction.partition];
        let to_end = self.open.iter().filter(|(_, transaction)| is_to_end(transaction, of(transaction)));
        let ids: Vec<_> = to_end.map(|(id, _)| *id).collect();
        ids.into_iter().map(|id| u64::from(self.end(id))).sum()
    }

    /// Ends the oldest of the partition whose transactions hold most. Gives how many.
    fn end_largest(&mut self) -> u64 {
        let held = |history: &History| history.bytes + history.read_set_bytes;
        let live = self.histories.iter().filter(|(_, history)| history.open_count() > 0);
        let largest = live.max_by_key(|(id, history)| (held(history), **id)).map(|(id, _)| *id);
        let of_largest = self.open.iter().filter(|(_, transaction)| Some(transaction.partition) == largest);
        let oldest = of_largest.map(|(id, transaction)| (transaction.position, *id)).min();
        oldest.map_or(0, |(_, id)| u64::from(self.end(id)))
    }

    /// A key is about to be written or deleted (`locate` says where its record is): remembers what it has for those who do not know of a change yet. A key
    /// that may be one that cannot be read has no known past: they are told of the damage, as before.
    pub fn before_change(
        &mut self,
        catalog: &Catalog,
        space: &mut Space,
        (id, key): (PartitionId, &[u8]),
        write: Write,
        locate: impl FnOnce(&Catalog, &Space) -> Perhaps,
    ) {
        let Some(history) = self.histories.get_mut(&id) else { return };
        let Some(partition) = catalog.get(id).filter(|_| history.wants(key)) else { return };
        let expires = partition.expiry_of(key);
        let before = match &partition.store {
            Store::Durable(_) => match locate(catalog, space) {
                Perhaps::Nothing => Before::Absent,
                Perhaps::At(location) => Before::Stored { location, expires },
                Perhaps::Damaged(location) => Before::Damaged(location),
            },
            Store::Memory(memory) => match memory.get(key) {
                None => Before::Absent,
                Some((seq, value)) => Before::Held { seq: *seq, value: value.clone(), expires },
            },
        };
        if before == Before::Absent && write == Write::Delete {
            // Nothing becomes nothing.
            return;
        }
        if let Some(location) = before.location() {
            space.pin(space.of(location).0);
        }
        self.bytes += history.push(key, before);
        self.noted += 1;
    }

    /// A record of the key was appended to a frame of the log.
    pub fn appended(&mut self, partition: PartitionId, key: &[u8], frame: FrameNumber, write: Write) {
        if let Some(history) = self.histories.get_mut(&partition) {
            history.appended(key, frame, write);
        }
    }

    /// A record of the key was applied.
    pub fn applied(&mut self, partition: PartitionId, key: &[u8], frame: FrameNumber) {
        if let Some(history) = self.histories.get_mut(&partition) {
            history.applied(key, frame);
        }
    }

    /// Forgets some of what nobody needs any more.
    fn trim(&mut self, space: &mut Space) {
        let mut left = TRIMS_PER_STEP + 2 * std::mem::take(&mut self.noted);
        while let Some(partition) = self.trimming.front() {
            let history = self.histories.get_mut(partition).expect("a history is trimmed while it is there");
            while let Some((before, bytes)) = if left > 0 { history.trim_one() } else { None } {
                self.bytes -= bytes;
                left -= 1;
                if let Some(location) = before.location() {
                    space.unpin(space.of(location).0);
                }
            }
            if left == 0 {
                return;
            }
            history.is_trimming = false;
            if history.is_over() {
                self.histories.remove(partition);
            }
            self.trimming.pop_front();
        }
    }

    /// What a transaction reads is remembered: `add` adds to its read set, and says whether there was room.
    pub fn saw(&mut self, id: TransactionId, add: impl FnOnce(&mut ReadSet) -> bool) -> bool {
        let Some(transaction) = self.open.get_mut(&id) else { return true };
        let Some(read_set) = &mut transaction.read_set else { return true };
        let before = read_set.bytes();
        let has_room = add(read_set);
        let after = read_set.bytes();
        self.bytes = self.bytes - before + after;
        let history = self.histories.get_mut(&transaction.partition);
        let history = history.expect("the partition of an open transaction has a history");
        history.read_set_bytes = history.read_set_bytes - before + after;
        has_room
    }

    /// Whether some of what they hold pins segments.
    fn pin_segments(&self) -> bool {
        self.histories.values().any(|history| history.pinned > 0)
    }
}
