//! Transactions of the blocking client.

use bytes::Bytes;

use super::Client;
use crate::client::call::Call;
use crate::client::error::{Failure, TransactionError};
use crate::client::transaction::work::{Pages, Work, key_range, of_table};
use crate::client::transaction::{MOST_TRIES, pause};
use crate::client::{Lifetime, TransactionOptions, TransactionRange, Written, answer};
use crate::wire::{RangeView, ReadView};

/// A transaction within one partition: as [`client::Transaction`](crate::client::Transaction).
pub struct Transaction<'c> {
    client: &'c mut Client,
    work: Work,
}

impl Client {
    /// Begins a transaction on the partition that holds `key`.
    pub fn transaction(
        &mut self,
        table: &str,
        key: &[u8],
        options: TransactionOptions,
    ) -> Result<Transaction<'_>, TransactionError> {
        let found = self.table(table).map_err(of_table)?;
        let partition = found.home(key).map_err(of_table)?;
        let call = Call::on_partition(table, partition, options.ask());
        let reply = self.runner.call(&call).map_err(TransactionError::of_read)?;
        // There is one connection to each shard.
        Ok(Transaction { work: Work::begun(&found, partition, &options, 0, &reply)?, client: self })
    }

    /// Begins a transaction, does `work` in it and commits; all again where it conflicts or has ended, a bounded
    /// number of times. `work` may so be done several times.
    pub fn transact<T>(
        &mut self,
        table: &str,
        key: &[u8],
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let mut tries = 1;
        loop {
            let mut transaction = self.transaction(table, key, TransactionOptions::default())?;
            let id = transaction.work.id;
            let done = match work(&mut transaction) {
                Ok(value) => transaction.commit().map(|_| value),
                Err(error) => {
                    // Why it failed matters more than that it could not be ended: its lifetime ends it.
                    let _ = transaction.rollback();
                    Err(error)
                }
            };
            match done {
                Err(error) if error.is_transient() && tries < MOST_TRIES => {
                    std::thread::sleep(pause(tries, id));
                    tries += 1;
                }
                done => return done,
            }
        }
    }
}

impl Transaction<'_> {
    /// Reads one record.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, TransactionError> {
        self.work.check(key)?;
        if let Some(own) = self.work.own(key) {
            return Ok(own);
        }
        let reply = self.client.runner.call(&self.work.read(ReadView::Get { key })).and_then(answer::of_get);
        Ok(reply.map_err(TransactionError::of_read)?.map(|record| record.value))
    }

    /// The records of a range, keys and values, in order.
    pub fn scan(&mut self, range: TransactionRange<'_>) -> Result<Vec<(Bytes, Bytes)>, TransactionError> {
        let mut pages = Pages::new(&range);
        self.feed(&mut pages).map_err(TransactionError::of_read)?;
        Ok(pages.records)
    }

    fn feed(&mut self, pages: &mut Pages) -> Result<(), Failure> {
        while let Some(read) = pages.next() {
            let page = answer::of_page(&self.client.runner.call(&self.work.read(read))?)?;
            pages.feed(&self.work, page)?;
        }
        Ok(())
    }

    /// How many records have a key from `start` (empty: the smallest) to before `end` (`None`: the largest).
    pub fn count(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<u64, TransactionError> {
        let range = RangeView { start, end };
        let on_node = self.count_on_node(range)?;
        let mut hidden = 0;
        for key in self.work.own_keys(range) {
            let (start, end) = key_range(&key);
            hidden += self.count_on_node(RangeView { start: &start, end: end.as_deref() })?;
        }
        Ok(self.work.count(range, on_node, hidden))
    }

    fn count_on_node(&mut self, range: RangeView<'_>) -> Result<u64, TransactionError> {
        let reply = self.client.runner.call(&self.work.read(ReadView::Count { range }));
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
    pub fn commit(mut self) -> Result<Written, TransactionError> {
        let batch = self.work.batch(self.client.runner.view.limits())?;
        let reply = self.client.runner.call(&self.work.commit(&batch));
        let committed = self.work.committed(reply);
        if !self.work.has_ended {
            // The refusal is the answer; what this one fails to end, its lifetime ends.
            let _ = self.client.runner.call(&self.work.rollback());
        }
        committed
    }

    /// Ends it, and forgets its writes.
    pub fn rollback(self) -> Result<(), TransactionError> {
        let reply = self.client.runner.call(&self.work.rollback());
        reply.and_then(|reply| answer::of_done(&reply)).map_err(TransactionError::of_read)
    }
}
