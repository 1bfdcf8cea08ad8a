//! What a shard does for transactions: begin, commit, roll back, and end those that hold too much.

use super::history::{History, Write};
use super::{Begin, Transaction};
use crate::ids::{FrameNumber, OwnerId, RequestId, TransactionId};
use crate::io::Io;
use crate::limits::{DEFAULT_TRANSACTION_MS, MAX_TRANSACTION_MS};
use crate::log::AckKind;
use crate::owned::OwnedWrite;
use crate::partition::{Partition, Store};
use crate::reply::{BeginError, ReadError, ReplyBody, WriteError, Written};
use crate::request::{BatchWrite, Condition, RequestBody, Target, Ttl};
use crate::shard::Shard;
use crate::writes::{Checked, Outcome};

const NS_PER_MS: u64 = 1_000_000;

/// Whether what a transaction has read is still so.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// This key was changed.
    Changed(Box<[u8]>),
    /// It is known when this frame is applied.
    KnownAfter(FrameNumber),
}

/// A commit, as it was asked for.
pub(crate) struct Commit<'a> {
    pub(crate) id: RequestId,
    pub(crate) target: Target,
    pub(crate) transaction: TransactionId,
    pub(crate) writes: &'a [BatchWrite<'a>],
}

impl Shard {
    pub(crate) fn begin(
        &mut self,
        id: RequestId,
        target: &Target,
        owner: OwnerId,
        (read_only, lifetime_ms): (bool, u32),
        io: &mut Io<'_>,
    ) {
        let result = self.begin_now(target, owner, (read_only, lifetime_ms), io.now.monotonic_ns);
        match &result {
            Ok(_) => self.stats.transactions_begun += 1,
            Err(_) => self.stats.refused += 1,
        }
        io.reply(id, ReplyBody::Begin(result));
    }

    fn begin_now(
        &mut self,
        target: &Target,
        owner: OwnerId,
        (read_only, lifetime_ms): (bool, u32),
        now_ns: u64,
    ) -> Result<TransactionId, BeginError> {
        self.target(target).map_err(|error| match error {
            ReadError::StaleEpoch { current } => BeginError::StaleEpoch { current },
            _ => BeginError::UnknownPartition(target.partition),
        })?;
        let lifetime_ms = if lifetime_ms == 0 { DEFAULT_TRANSACTION_MS } else { lifetime_ms };
        if lifetime_ms > MAX_TRANSACTION_MS {
            return Err(BeginError::Lifetime { lifetime_ms });
        }
        let deadline_ns = now_ns + u64::from(lifetime_ms) * NS_PER_MS;
        let begin =
            Begin { partition: target.partition, owner, read_only, now: self.clock.now(), deadline_ns };
        self.transactions.begin(&begin, self.log.last_number())
    }

    pub(crate) fn rollback(&mut self, id: RequestId, transaction: TransactionId, io: &mut Io<'_>) {
        // One that has ended already is no error: nothing is left of it either way.
        self.stats.transactions_rolled_back += u64::from(self.transactions.end(transaction));
        io.reply(id, ReplyBody::Rollback);
    }

    pub(crate) fn end_transactions_of(&mut self, id: RequestId, owner: OwnerId, io: &mut Io<'_>) {
        self.stats.transactions_rolled_back += self.transactions.end_of(owner);
        io.reply(id, ReplyBody::Rollback);
    }

    pub(crate) fn commit(&mut self, ask: &Commit<'_>, io: &mut Io<'_>) -> Outcome {
        let Commit { id, target, transaction, writes } = *ask;
        let Some(state) = self.transactions.get(transaction, target.partition) else {
            return self.refuse_write(id, WriteError::TransactionEnded, io);
        };
        if writes.is_empty() {
            // All that it read was so at one instant.
            self.transactions.end(transaction);
            self.stats.transactions_committed += 1;
            let nothing = Written { seq: Default::default(), existed: false, number: None, bytes: 0 };
            io.reply(id, ReplyBody::Write(Ok(nothing)));
            return Outcome::Taken;
        }
        if state.read_set.is_none() {
            return self.refuse_write(id, WriteError::ReadOnly, io);
        }
        let expires = self.expiry(&target, Ttl::Table).unwrap_or_default();
        let (kind, condition, ttl) = (AckKind::Batch, Condition::Always, Ttl::Table);
        let write = Checked { id, target, kind, writes, condition, ttl, expires, number: None };
        if let Err(error) = self.admit(&write) {
            return self.refuse_write(id, error, io);
        }
        if self.log.is_poisoned() && !self.is_in_memory(&target) {
            return self.refuse_write(id, WriteError::Poisoned, io);
        }
        match self.validate(transaction, &target) {
            Verdict::Holds => {}
            Verdict::Changed(key) => {
                self.transactions.end(transaction);
                self.stats.transaction_conflicts += 1;
                return self.refuse_write(id, WriteError::Conflict { key }, io);
            }
            Verdict::KnownAfter(frame) => {
                let body = RequestBody::Commit { target, transaction, writes: writes.to_vec() };
                let owned = OwnedWrite::copy_of(id, &body).expect("commits can be copied");
                self.wait_for_frame(id, frame, owned, io);
                return Outcome::Taken;
            }
        }
        if self.is_in_memory(&target) {
            self.write_memory(&write, io);
        } else if self.append(&write, io) == Outcome::Stalled {
            // Nothing is decided yet: it is validated again when there is room.
            return Outcome::Stalled;
        }
        self.transactions.end(transaction);
        self.stats.transactions_committed += 1;
        Outcome::Taken
    }

    fn is_in_memory(&self, target: &Target) -> bool {
        let partition = self.catalog.get(target.partition);
        partition.is_some_and(|partition| matches!(partition.store, Store::Memory(_)))
    }

    /// Whether nothing that a transaction has read was changed since it began, or is about to be by a write
    /// that is ahead of it in the log. A key that had no record, and has none, was not changed.
    fn validate(&self, id: TransactionId, target: &Target) -> Verdict {
        let id = self.transactions.get(id, target.partition);
        let Some(transaction @ Transaction { read_set: Some(read_set), .. }) = id else {
            return Verdict::Holds;
        };
        let partition = self.catalog.get(target.partition).expect("the commit was admitted");
        let history = &self.transactions.histories[&target.partition];
        for key in read_set.keys() {
            let verdict = self.validate_key(transaction, history, partition, key);
            if verdict != Verdict::Holds {
                return verdict;
            }
        }
        let is_unknown = self.log.durable() < history.known_after && !self.is_in_memory(target);
        if read_set.ranges().next().is_some() && is_unknown {
            return Verdict::KnownAfter(history.known_after);
        }
        let written = read_set.ranges().flat_map(|range| history.written_in(&range, transaction.position));
        let due = partition.due_between(transaction.now, self.clock.now()).filter(|key| read_set.has(key));
        for key in written.chain(due) {
            let verdict = self.validate_key(transaction, history, partition, key);
            if verdict != Verdict::Holds {
                return verdict;
            }
        }
        Verdict::Holds
    }

    /// The same for one key.
    fn validate_key(
        &self,
        transaction: &Transaction,
        history: &History,
        partition: &Partition,
        key: &[u8],
    ) -> Verdict {
        let before = history.version_at(key, transaction.position);
        let was_there = match before {
            Some(before) => Some(before.is_there(transaction.now)),
            None => self.has_now(partition, key, transaction.now).ok(),
        };
        let pending = history.pending(key);
        let id = transaction.partition;
        let unknown = self.log.pending_frame(id, key).filter(|_| pending.is_none());
        let is_written = before.is_some() || pending.is_some() || unknown.is_some();
        let Some(was_there) = was_there else {
            // A compact index does not say: what is on its way leaves behind what it has replaced, and what is not written
            // can only have expired.
            let has_expired =
                partition.expiry_of(key).is_some_and(|at| transaction.now < at && at <= self.clock.now());
            return match self.log.pending_frame(id, key) {
                Some(_) if pending == Some(Write::Put) => Verdict::Changed(key.into()),
                Some(frame) => Verdict::KnownAfter(frame),
                None if has_expired => Verdict::Changed(key.into()),
                None => Verdict::Holds,
            };
        };
        let will_be_there = match (pending, unknown) {
            (Some(write), _) => write == Write::Put,
            // It was on its way when the history began: whether it is a delete is not known.
            (None, Some(frame)) if !was_there => return Verdict::KnownAfter(frame),
            // One that came after all, as far as a compact index can tell, is there.
            _ => self.has_now(partition, key, self.clock.now()).unwrap_or(true),
        };
        match (is_written && was_there) || was_there != will_be_there {
            true => Verdict::Changed(key.into()),
            false => Verdict::Holds,
        }
    }

    /// Ends the transactions whose time is over.
    pub(crate) fn end_due_transactions(&mut self, io: &Io<'_>) {
        self.stats.transactions_ended += self.transactions.end_due(io.now.monotonic_ns);
    }

    /// Ends those whose partition is gone, and those that hold what writers need; forgets what nobody asks
    /// about any more.
    pub(crate) fn tend_transactions(&mut self) {
        if self.transactions.histories.is_empty() {
            return;
        }
        if self.is_starved() && self.transactions.pin_segments() {
            self.stats.transactions_ended += self.transactions.end_where(|_, history| history.pinned > 0);
        }
        if self.transactions.bytes() > self.config.max_transaction_bytes && !self.transactions.has_work() {
            self.stats.transactions_ended += self.transactions.end_largest();
        }
        self.transactions.trim(&mut self.space);
        self.has_more |= self.transactions.has_work();
        self.has_more |= self.transactions.bytes() > self.config.max_transaction_bytes;
    }

    /// Partitions were dropped: their transactions end.
    pub(crate) fn end_transactions_of_dropped(&mut self) {
        let catalog = &self.catalog;
        let is_gone = |transaction: &Transaction| catalog.get(transaction.partition).is_none();
        self.stats.transactions_ended += self.transactions.end_where(|transaction, _| is_gone(transaction));
    }
}
