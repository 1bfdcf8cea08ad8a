//! The client for everyone without tokio. One per thread; it is `Send`.

mod link;
mod pipeline;
mod runner;
mod scanner;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::pipeline::{Answer, Pipeline};
use self::runner::Runner;
pub use self::scanner::Scanner;
pub use self::transaction::Transaction;
use crate::client::call::{self, Ask, Call};
use crate::client::error::Failure;
use crate::client::retry::{RetryAfter, wait_of};
use crate::client::{
    Batch, BatchError, CheckpointError, ClientOptions, Condition, ConnectError, CountError, Counted, FAN_OUT,
    GetError, IncrementError, Lifetime, PartitionMap, PutOptions, Quota, QuotaRow, Record, ScanError,
    ScanOptions, ScanRecord, Seq, StatsError, TableError, TableInfo, TableOf, TableOptions, TimeLeft,
    WriteError, Written, answer,
};
use crate::wire::control::DropTable;
use crate::wire::{PartitionId, RangeView, RequestView};

/// The blocking client: the methods of [`client::Client`](crate::client::Client), and a [`Pipeline`].
pub struct Client {
    runner: Runner,
}

impl Client {
    /// Connects to any port of a node, `host:port`, and learns its shards and map.
    pub fn connect(addr: &str, options: ClientOptions) -> Result<Client, ConnectError> {
        Ok(Client { runner: Runner::connect(addr, options)? })
    }

    /// Reads one record.
    pub fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Record>, GetError> {
        let reply = self.runner.call(&Call::on_key(table, key, Ask::Get { key }))?;
        Ok(answer::of_get(reply)?)
    }

    /// Writes one record.
    pub fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::Always)
    }

    /// Writes one record, with a condition, a time to live, or both.
    pub fn put_with(
        &mut self,
        table: &str,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<Written, WriteError> {
        let PutOptions { condition, lifetime } = options;
        let ask = Ask::Put { key, value, condition, ttl: lifetime.to_wire() };
        let reply = self.runner.call(&Call::on_key(table, key, ask))?;
        Ok(answer::of_write(&reply)?)
    }

    /// Sets anew how long a record is to live, from now on, and leaves its value as it is. Where there is no
    /// such record, nothing is done, and `existed` says so.
    pub fn expire(&mut self, table: &str, key: &[u8], lifetime: Lifetime) -> Result<Written, WriteError> {
        let ask = Ask::Expire { key, ttl: lifetime.to_wire() };
        let reply = self.runner.call(&Call::on_key(table, key, ask))?;
        Ok(answer::of_write(&reply)?)
    }

    /// Lets a record live for ever.
    pub fn persist(&mut self, table: &str, key: &[u8]) -> Result<Written, WriteError> {
        self.expire(table, key, Lifetime::Forever)
    }

    /// How long a record has still to live; `None` where there is no such record. Takes no read of the drive.
    pub fn time_left(&mut self, table: &str, key: &[u8]) -> Result<Option<TimeLeft>, GetError> {
        let reply = self.runner.call(&Call::on_key(table, key, Ask::TimeToLive { key }))?;
        Ok(answer::of_time_left(&reply)?)
    }

    /// Writes one record where there is none.
    pub fn put_if_absent(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::IfAbsent)
    }

    /// Writes one record where the present one has this version.
    pub fn compare_and_set(
        &mut self,
        table: &str,
        key: &[u8],
        value: &[u8],
        expected: Seq,
    ) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::IfSeq(expected))
    }

    fn put_if(
        &mut self,
        table: &str,
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Result<Written, WriteError> {
        let lifetime = Lifetime::Table;
        self.put_with(table, key, value, PutOptions { condition, lifetime })
    }

    /// Deletes one record, there or not.
    pub fn delete(&mut self, table: &str, key: &[u8]) -> Result<Written, WriteError> {
        let ask = Ask::Delete { key, condition: Condition::Always };
        let reply = self.runner.call(&Call::on_key(table, key, ask))?;
        Ok(answer::of_write(&reply)?)
    }

    /// Deletes one record where it has this version.
    pub fn delete_if(&mut self, table: &str, key: &[u8], expected: Seq) -> Result<Written, WriteError> {
        let ask = Ask::Delete { key, condition: Condition::IfSeq(expected) };
        let reply = self.runner.call(&Call::on_key(table, key, ask))?;
        Ok(answer::of_write(&reply)?)
    }

    /// Adds to a number, kept as decimal text; where there is no record, to 0. Atomic: of any number of
    /// increments at once, each counts once. One whose answer was lost is never sent again.
    pub fn increment(&mut self, table: &str, key: &[u8], by: i64) -> Result<Counted, IncrementError> {
        self.increment_from(table, key, by, 0)
    }

    /// As [`increment`](Client::increment); where there is no record, adds to `initial`.
    pub fn increment_from(
        &mut self,
        table: &str,
        key: &[u8],
        by: i64,
        initial: i64,
    ) -> Result<Counted, IncrementError> {
        let ask = Ask::Increment { key, by, initial };
        let reply = self.runner.call(&Call::on_key(table, key, ask))?;
        Ok(answer::of_increment(&reply)?)
    }

    /// All of these writes, or none. Their keys must fall in one partition.
    pub fn batch(&mut self, table: &str, batch: Batch) -> Result<Written, BatchError> {
        call::check_batch(&batch, self.runner.view.limits())?;
        let routes = self.table(table).map_err(WriteError::from)?;
        let key = call::batch_key(&batch, routes.routes())?;
        let call = Call::on_key(table, key, Ask::Batch(batch.view()));
        let reply = self.runner.call(&call).map_err(WriteError::from)?;
        Ok(answer::of_write(&reply).map_err(WriteError::from)?)
    }

    /// Records in key order, page by page.
    pub fn scan(&mut self, table: &str, options: ScanOptions) -> Scanner<'_> {
        Scanner::new(self, table, options)
    }

    /// The record with the smallest key.
    pub fn min(&mut self, table: &str) -> Result<Option<ScanRecord>, ScanError> {
        self.extreme(table, false)
    }

    /// The record with the largest key.
    pub fn max(&mut self, table: &str) -> Result<Option<ScanRecord>, ScanError> {
        self.extreme(table, true)
    }

    fn extreme(&mut self, table: &str, largest: bool) -> Result<Option<ScanRecord>, ScanError> {
        let (ids, width) = self.table(table)?.ids_for_extreme(largest);
        for some in ids.chunks(width) {
            let ask = || if largest { Ask::Max } else { Ask::Min };
            let calls: Vec<_> = some.iter().map(|id| Call::on_partition(table, *id, ask())).collect();
            let mut pages = Vec::with_capacity(calls.len());
            for reply in self.runner.run(&calls) {
                pages.push(answer::of_page(&reply?)?);
            }
            if let Some(best) = answer::extreme_of(pages, largest) {
                return Ok(Some(best));
            }
        }
        Ok(None)
    }

    /// How many records have a key from `start` (empty: the smallest) to before `end` (`None`: the largest). Not
    /// of one instant where the range spans partitions.
    pub fn count(&mut self, table: &str, start: &[u8], end: Option<&[u8]>) -> Result<u64, CountError> {
        let ids = self.table(table)?.ids_in(start, end);
        let ask = |id: &_| Call::on_partition(table, *id, Ask::Count(RangeView { start, end }));
        let mut sum = 0;
        for some in ids.chunks(FAN_OUT) {
            for reply in self.runner.run(&some.iter().map(ask).collect::<Vec<_>>()) {
                sum += answer::of_count(&reply?)?;
            }
        }
        Ok(sum)
    }

    /// Makes a table; when this returns, the client's map has it.
    pub fn create_table(&mut self, options: TableOptions) -> Result<TableInfo, TableError> {
        call::check_table(&options)?;
        let name = options.name.clone();
        let request = call::create_table(options);
        let of = |failure| TableError::of(failure, &name);
        let reply = self.runner.call(&Call::on_node(request)).map_err(of)?;
        let info = answer::of_table(&reply).map_err(of)?;
        self.runner.await_map(reply.header.map_version);
        Ok(info)
    }

    /// Forgets a table and its records; space comes back lazily.
    pub fn drop_table(&mut self, name: &str) -> Result<(), TableError> {
        let request = RequestView::DropTable(DropTable { name: name.to_owned() });
        let of = |failure| TableError::of(failure, name);
        let reply = self.runner.call(&Call::on_node(request)).map_err(of)?;
        answer::of_done(&reply).map_err(of)?;
        self.runner.await_map(reply.header.map_version);
        Ok(())
    }

    /// The tables of the node, by name.
    pub fn list_tables(&mut self) -> Result<Vec<TableInfo>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.runner.call(&Call::on_node(RequestView::ListTables)).map_err(of)?;
        answer::of_tables(&reply).map_err(of)
    }

    /// How long records live by default, by the ids of the tables that say so.
    pub fn table_ttls(&mut self) -> Result<Vec<(u32, Duration)>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.runner.call(&Call::on_node(RequestView::TableTtls)).map_err(of)?;
        answer::of_table_ttls(&reply).map_err(of)
    }

    /// Sets what each partition of a table may take that has no quota of its own; `None`: as of a new table. Counts
    /// at once.
    pub fn set_quota(&mut self, table: &str, quota: Option<Quota>) -> Result<(), TableError> {
        self.set_quota_of(table, PartitionId(0), quota)
    }

    /// Sets what the one partition that holds `key` may take; `None`: as its table says.
    pub fn set_partition_quota(
        &mut self,
        table: &str,
        key: &[u8],
        quota: Option<Quota>,
    ) -> Result<(), TableError> {
        let home = self.table(table).and_then(|found| found.home(key));
        let partition = home.map_err(|failure| TableError::of(failure, table))?;
        self.set_quota_of(table, partition, quota)
    }

    fn set_quota_of(
        &mut self,
        table: &str,
        partition: PartitionId,
        quota: Option<Quota>,
    ) -> Result<(), TableError> {
        let of = |failure| TableError::of(failure, table);
        let request = RequestView::SetQuota { table, partition, quota };
        let reply = self.runner.call(&Call::on_node(request)).map_err(of)?;
        answer::of_done(&reply).map_err(of)
    }

    /// The quotas that were set, of tables and of partitions.
    pub fn quotas(&mut self) -> Result<Vec<QuotaRow>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.runner.call(&Call::on_node(RequestView::Quotas)).map_err(of)?;
        answer::of_quotas(&reply).map_err(of)
    }

    /// Counters and gauges of the node, per shard and summed.
    pub fn stats(&mut self) -> Result<serde_json::Value, StatsError> {
        let reply = self.runner.call(&Call::on_node(RequestView::Stats))?;
        answer::of_stats(&reply)
    }

    /// Writes a checkpoint on every shard; returns when it is durable.
    pub fn checkpoint(&mut self) -> Result<(), CheckpointError> {
        let reply = self.runner.call(&Call::on_node(RequestView::Checkpoint))?;
        Ok(answer::of_done(&reply)?)
    }

    /// Begins a round of the scrub on every shard, from the beginning and at full rate. Returns when it has begun:
    /// in [`stats`](Client::stats), it has ended where `shards[].scrub.answered` has reached what `asked` is now.
    pub fn scrub(&mut self) -> Result<(), StatsError> {
        let reply = self.runner.call(&Call::on_node(RequestView::Scrub))?;
        Ok(answer::of_done(&reply)?)
    }

    /// Gets and writes to be sent together.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self)
    }

    /// The partition map as last heard of.
    pub fn map(&self) -> Arc<PartitionMap> {
        self.runner.view.map().clone()
    }

    /// The table's routes; the map is fetched once where it does not know the table.
    fn table(&mut self, name: &str) -> Result<TableOf, Failure> {
        if let Ok(found) = TableOf::find(self.runner.view.map(), name) {
            return Ok(found);
        }
        self.runner.refresh_map();
        TableOf::find(self.runner.view.map(), name)
    }
}

/// [`patiently`](crate::client::patiently), for this client.
pub fn patiently<T, E: RetryAfter>(
    client: &mut Client,
    timeout: Duration,
    mut ask: impl FnMut(&mut Client) -> Result<T, E>,
) -> Result<T, E> {
    let until = Instant::now() + timeout;
    loop {
        let answer = ask(client);
        match wait_of(&answer, until) {
            Some(wait) => std::thread::sleep(wait),
            None => return answer,
        }
    }
}

#[cfg(test)]
mod tests;
