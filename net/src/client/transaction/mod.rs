//! Transactions on tokio. What both clients share is in `work`.

pub(crate) mod work;

use std::time::Duration;

use bytes::Bytes;

use self::work::{Pages, Work, key_range, of_table};
pub use self::work::{TransactionOptions, TransactionRange};
use crate::client::call::Call;
use crate::client::error::TransactionError;
use crate::client::{Client, Lifetime, Record, TimeLeft, Written, answer};
use crate::wire::{RangeView, ReadView, Seq, TransactionId};

/// How often [`Client::transact`] begins again after a conflict.
pub(crate) const MOST_TRIES: u32 = 64;
/// After so many conflicts in a row, the pauses grow no longer: 64 ms at most.
const MOST_DOUBLINGS: u32 = 6;

/// How long to wait before the next try, after so many. What one has conflicted with may still be on its way
/// to the drive: who begins at once conflicts with it again. Longer with each try, and another time for each
/// of those that contend: their ids are neighbours.
pub(crate) fn pause(tries: u32, id: TransactionId) -> Duration {
    let most_us = 1_000u64 << tries.min(MOST_DOUBLINGS);
    // Knuth's multiplicative hash: neighbours come far apart.
    let spread = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Duration::from_micros(most_us / 4 + ((spread * most_us * 3 / 4) >> 32))
}

/// A transaction within one partition of a table: serialisable, and optimistic.
///
/// It sees the partition as it was when it began, and its own writes, which stay here until
/// [`commit`](Transaction::commit) sends them. They take place, all or none, if nothing that it has read was
/// changed meanwhile. Dropped without a commit or a rollback, it ends with its lifetime, or its connection.
pub struct Transaction {
    client: Client,
    work: Work,
}

impl Client {
    /// Begins a transaction on the partition that holds `key`.
    pub async fn transaction(
        &self,
        table: &str,
        key: &[u8],
        options: TransactionOptions,
    ) -> Result<Transaction, TransactionError> {
        let found = self.table(table).await.map_err(of_table)?;
        let partition = found.home(key).map_err(of_table)?;
        let turn = self.pool.next_turn();
        let call = Call::on_partition(table, partition, options.ask()).by_turn(turn);
        let reply = self.pool.call(&call).await.map_err(TransactionError::of_read)?;
        Ok(Transaction {
            client: self.clone(),
            work: Work::begun(&found, partition, &options, turn, &reply)?,
        })
    }

    /// Begins a transaction, does `work` in it and commits; all again where it conflicts or has ended, a bounded
    /// number of times. `work` may so be done several times.
    pub async fn transact<T>(
        &self,
        table: &str,
        key: &[u8],
        mut work: impl AsyncFnMut(&mut Transaction) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let mut tries = 1;
        loop {
            let mut transaction = self.transaction(table, key, TransactionOptions::default()).await?;
            let id = transaction.work.id;
            let done = match work(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value),
                Err(error) => {
                    // Why it failed matters more than that it could not be ended: its lifetime ends it.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            };
            match done {
                Err(error) if error.is_transient() && tries < MOST_TRIES => {
                    tokio::time::sleep(pause(tries, id)).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }
}

impl Transaction {
    /// Reads one record's value.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TransactionError> {
        Ok(self.get_record(key).await?.map(|record| record.value))
    }

    /// Reads one record. What the transaction has written itself has no version yet, and is told with
    /// [`Seq::ZERO`] and as living for ever.
    pub async fn get_record(&self, key: &[u8]) -> Result<Option<Record>, TransactionError> {
        self.work.check(key)?;
        if let Some(own) = self.work.own(key) {
            return Ok(own.map(|value| Record { seq: Seq::default(), value, left: TimeLeft::Forever }));
        }
        let call = self.work.read(ReadView::Get { key });
        let reply = self.client.pool.call(&call).await.and_then(answer::of_get);
        reply.map_err(TransactionError::of_read)
    }

    /// The records of a range, keys and values, in order.
    pub async fn scan(&self, range: TransactionRange<'_>) -> Result<Vec<(Bytes, Bytes)>, TransactionError> {
        let mut pages = Pages::new(&range);
        while let Some(read) = pages.next() {
            let reply = self.client.pool.call(&self.work.read(read)).await;
            let page = reply.and_then(|reply| answer::of_page(&reply));
            let fed = page.and_then(|page| pages.feed(&self.work, page));
            fed.map_err(TransactionError::of_read)?;
        }
        Ok(pages.records)
    }

    /// How many records have a key from `start` (empty: the smallest) to before `end` (`None`: the largest).
    pub async fn count(&self, start: &[u8], end: Option<&[u8]>) -> Result<u64, TransactionError> {
        let range = RangeView { start, end };
        let on_node = self.count_on_node(range).await?;
        let mut hidden = 0;
        for key in self.work.own_keys(range) {
            let (start, end) = key_range(&key);
            hidden += self.count_on_node(RangeView { start: &start, end: end.as_deref() }).await?;
        }
        Ok(self.work.count(range, on_node, hidden))
    }

    async fn count_on_node(&self, range: RangeView<'_>) -> Result<u64, TransactionError> {
        let reply = self.client.pool.call(&self.work.read(ReadView::Count { range })).await;
        reply.and_then(|reply| answer::of_count(&reply)).map_err(TransactionError::of_read)
    }

    /// Writes one record, at the commit.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), TransactionError> {
        self.put_for(key, value, Lifetime::Table)
    }

    /// Writes one record, at the commit, that lives from then on as long as is said here, and not as its table says. A put without
    /// that lives as its table says, whatever the record had left that it replaces.
    pub fn put_for(&mut self, key: &[u8], value: &[u8], lifetime: Lifetime) -> Result<(), TransactionError> {
        self.work.write(key, Some((value, lifetime)))
    }

    /// Deletes one record, there or not, at the commit.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), TransactionError> {
        self.work.write(key, None)
    }

    /// Sends its writes: they take place together if nothing that it has read was changed since it began. With
    /// nothing written, it just ends.
    pub async fn commit(mut self) -> Result<Written, TransactionError> {
        let batch = self.work.batch(self.client.pool.view().limits())?;
        let reply = self.client.pool.call(&self.work.commit(&batch)).await;
        let committed = self.work.committed(reply);
        if !self.work.has_ended {
            // The refusal is the answer; what this one fails to end, its lifetime ends.
            let _ = self.client.pool.call(&self.work.rollback()).await;
        }
        committed
    }

    /// Ends it, and forgets its writes.
    pub async fn rollback(self) -> Result<(), TransactionError> {
        let reply = self.client.pool.call(&self.work.rollback()).await;
        reply.and_then(|reply| answer::of_done(&reply)).map_err(TransactionError::of_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_neighbours_wait_differently() {
        for tries in 1..=MOST_TRIES {
            let most = Duration::from_millis(1 << tries.min(MOST_DOUBLINGS));
            let pauses: Vec<_> = (1..=4).map(|id| pause(tries, TransactionId(id))).collect();
            assert!(pauses.iter().all(|pause| *pause >= most / 4 && *pause <= most), "{pauses:?}");
            let mut apart = pauses.clone();
            apart.sort();
            apart.dedup();
            assert_eq!(apart.len(), 4, "{pauses:?}");
        }
    }
}
