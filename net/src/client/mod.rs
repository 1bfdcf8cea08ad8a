//! The thick client: routes by a cached partition map, pools connections per shard, pipelines, retries
//! what is safe to retry.
//!
//! [`Client`] is for tokio, [`blocking::Client`] for everyone else; both are thin over the sans-IO
//! [`connection::Connection`], which a load generator may also drive itself.
//!
//! A write whose connection was lost after it was sent ends as `Unknown`: it may or may not have taken
//! place. Everything else that fails did nothing.

mod answer;
pub mod blocking;
mod call;
pub mod connection;
mod error;
#[cfg(test)]
mod fake;
mod link;
mod options;
mod pool;
mod retry;
mod scan_plan;
mod scanner;
mod slots;
pub mod stream;
mod tls;
mod token;
mod transaction;
mod view;

use std::sync::Arc;
use std::time::Duration;

pub use self::error::{
    BatchError, CheckpointError, ConnectError, CountError, GetError, IncrementError, ScanError, StatsError,
    TableError, TransactionError, WriteError,
};
pub use self::options::{
    Batch, ClientOptions, ClientTls, ClientTlsError, Counted, Dial, Lifetime, Placement, PlacementKind,
    PutOptions, Quota, QuotaRow, Record, ScanOptions, ScanRecord, Store, TableInfo, TableOptions, TimeLeft,
    Token, TokenError, Written,
};
pub use self::retry::{RetryAfter, patiently};
pub use self::scan_plan::{LEAST_LANE_BYTES, successor};
pub use self::scanner::Scanner;
pub use self::transaction::{Transaction, TransactionOptions, TransactionRange};
pub use crate::wire::{BatchWrite, Condition, PartitionMap, Seq};

use self::call::{Ask, Call};
use self::error::Failure;
use self::pool::Pool;
use crate::wire::control::{DropTable, PlacementKind as Kind};
use crate::wire::map::TableRoutes;
use crate::wire::{PartitionId, RangeView, RequestView};

/// Partitions asked at once by an operation over a whole table.
const FAN_OUT: usize = 64;

/// The client for tokio. Cheap to clone; clones share connections and map.
///
/// Any number of calls may run at once on one client: they are pipelined, and wait their turn beyond
/// `max_in_flight_per_connection`. Dropping a call's future abandons its answer, not its effect.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

impl Client {
    /// Connects to any port of a node, `host:port`, and learns its shards and map.
    pub async fn connect(addr: &str, options: ClientOptions) -> Result<Client, ConnectError> {
        Ok(Client { pool: Arc::new(Pool::connect(addr, options).await?) })
    }

    /// Reads one record.
    pub async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Record>, GetError> {
        let reply = self.pool.call(&Call::on_key(table, key, Ask::Get { key })).await?;
        Ok(answer::of_get(reply)?)
    }

    /// Writes one record.
    pub async fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::Always).await
    }

    /// Writes one record, with a condition, a time to live, or both.
    pub async fn put_with(
        &self,
        table: &str,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<Written, WriteError> {
        let PutOptions { condition, lifetime } = options;
        let ask = Ask::Put { key, value, condition, ttl: lifetime.to_wire() };
        let reply = self.pool.call(&Call::on_key(table, key, ask)).await?;
        Ok(answer::of_write(&reply)?)
    }

    /// Sets anew how long a record is to live, from now on, and leaves its value as it is. Where there is no
    /// such record, nothing is done, and `existed` says so.
    pub async fn expire(&self, table: &str, key: &[u8], lifetime: Lifetime) -> Result<Written, WriteError> {
        let ask = Ask::Expire { key, ttl: lifetime.to_wire() };
        let reply = self.pool.call(&Call::on_key(table, key, ask)).await?;
        Ok(answer::of_write(&reply)?)
    }

    /// Lets a record live for ever.
    pub async fn persist(&self, table: &str, key: &[u8]) -> Result<Written, WriteError> {
        self.expire(table, key, Lifetime::Forever).await
    }

    /// How long a record has still to live; `None` where there is no such record. Takes no read of the drive.
    pub async fn time_left(&self, table: &str, key: &[u8]) -> Result<Option<TimeLeft>, GetError> {
        let reply = self.pool.call(&Call::on_key(table, key, Ask::TimeToLive { key })).await?;
        Ok(answer::of_time_left(&reply)?)
    }

    /// Writes one record where there is none.
    pub async fn put_if_absent(&self, table: &str, key: &[u8], value: &[u8]) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::IfAbsent).await
    }

    /// Writes one record where the present one has this version.
    pub async fn compare_and_set(
        &self,
        table: &str,
        key: &[u8],
        value: &[u8],
        expected: Seq,
    ) -> Result<Written, WriteError> {
        self.put_if(table, key, value, Condition::IfSeq(expected)).await
    }

    async fn put_if(
        &self,
        table: &str,
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Result<Written, WriteError> {
        let lifetime = Lifetime::Table;
        self.put_with(table, key, value, PutOptions { condition, lifetime }).await
    }

    /// Deletes one record, there or not.
    pub async fn delete(&self, table: &str, key: &[u8]) -> Result<Written, WriteError> {
        let ask = Ask::Delete { key, condition: Condition::Always };
        let reply = self.pool.call(&Call::on_key(table, key, ask)).await?;
        Ok(answer::of_write(&reply)?)
    }

    /// Deletes one record where it has this version.
    pub async fn delete_if(&self, table: &str, key: &[u8], expected: Seq) -> Result<Written, WriteError> {
        let ask = Ask::Delete { key, condition: Condition::IfSeq(expected) };
        let reply = self.pool.call(&Call::on_key(table, key, ask)).await?;
        Ok(answer::of_write(&reply)?)
    }

    /// Adds to a number, kept as decimal text; where there is no record, to 0. Atomic: of any number of
    /// increments at once, each counts once. One whose answer was lost is never sent again.
    pub async fn increment(&self, table: &str, key: &[u8], by: i64) -> Result<Counted, IncrementError> {
        self.increment_from(table, key, by, 0).await
    }

    /// As [`increment`](Client::increment); where there is no record, adds to `initial`.
    pub async fn increment_from(
        &self,
        table: &str,
        key: &[u8],
        by: i64,
        initial: i64,
    ) -> Result<Counted, IncrementError> {
        let ask = Ask::Increment { key, by, initial };
        let reply = self.pool.call(&Call::on_key(table, key, ask)).await?;
        Ok(answer::of_increment(&reply)?)
    }

    /// All of these writes, or none. Their keys must fall in one partition.
    pub async fn batch(&self, table: &str, batch: Batch) -> Result<Written, BatchError> {
        call::check_batch(&batch, self.pool.view().limits())?;
        let routes = self.table(table).await.map_err(WriteError::from)?;
        let key = call::batch_key(&batch, routes.routes())?;
        let call = Call::on_key(table, key, Ask::Batch(batch.view()));
        let reply = self.pool.call(&call).await.map_err(WriteError::from)?;
        Ok(answer::of_write(&reply).map_err(WriteError::from)?)
    }

    /// The one partition that holds all of these keys; `None` where they fall in several, or there are none.
    pub async fn common_partition<'a>(
        &self,
        table: &str,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<PartitionId>, GetError> {
        let found = self.table(table).await?;
        let mut common = None;
        for key in keys {
            let home = found.home(key)?;
            if common.is_some_and(|common| common != home) {
                return Ok(None);
            }
            common = Some(home);
        }
        Ok(common)
    }

    /// Records in key order, page by page.
    pub fn scan(&self, table: &str, options: ScanOptions) -> Scanner {
        Scanner::new(self.clone(), table, options)
    }

    /// The record with the smallest key.
    pub async fn min(&self, table: &str) -> Result<Option<ScanRecord>, ScanError> {
        self.extreme(table, false).await
    }

    /// The record with the largest key.
    pub async fn max(&self, table: &str) -> Result<Option<ScanRecord>, ScanError> {
        self.extreme(table, true).await
    }

    async fn extreme(&self, table: &str, largest: bool) -> Result<Option<ScanRecord>, ScanError> {
        let routes = self.table(table).await?;
        let (ids, width) = routes.ids_for_extreme(largest);
        for some in ids.chunks(width) {
            let table: Arc<str> = table.into();
            let pages = self
                .fan_out(some, move |client, id| {
                    let table = table.clone();
                    async move {
                        let ask = if largest { Ask::Max } else { Ask::Min };
                        answer::of_page(&client.pool.call(&Call::on_partition(&table, id, ask)).await?)
                    }
                })
                .await?;
            if let Some(best) = answer::extreme_of(pages, largest) {
                return Ok(Some(best));
            }
        }
        Ok(None)
    }

    /// How many records have a key from `start` (empty: the smallest) to before `end` (`None`: the largest). Not
    /// of one instant where the range spans partitions.
    pub async fn count(&self, table: &str, start: &[u8], end: Option<&[u8]>) -> Result<u64, CountError> {
        let ids = self.table(table).await?.ids_in(start, end);
        let table: Arc<str> = table.into();
        let (start, end): (Arc<[u8]>, Option<Arc<[u8]>>) = (start.into(), end.map(Into::into));
        let counts = self.fan_out(&ids, move |client, id| {
            let (table, start, end) = (table.clone(), start.clone(), end.clone());
            async move {
                let ask = Ask::Count(RangeView { start: &start, end: end.as_deref() });
                answer::of_count(&client.pool.call(&Call::on_partition(&table, id, ask)).await?)
            }
        });
        Ok(counts.await?.into_iter().sum())
    }

    /// Makes a table; when this returns, the client's map has it.
    pub async fn create_table(&self, options: TableOptions) -> Result<TableInfo, TableError> {
        call::check_table(&options)?;
        let name = options.name.clone();
        let request = call::create_table(options);
        let of = |failure| TableError::of(failure, &name);
        let reply = self.pool.call(&Call::on_node(request)).await.map_err(of)?;
        let info = answer::of_table(&reply).map_err(of)?;
        self.pool.await_map(reply.header.map_version).await;
        Ok(info)
    }

    /// Forgets a table and its records; space comes back lazily.
    pub async fn drop_table(&self, name: &str) -> Result<(), TableError> {
        let request = RequestView::DropTable(DropTable { name: name.to_owned() });
        let of = |failure| TableError::of(failure, name);
        let reply = self.pool.call(&Call::on_node(request)).await.map_err(of)?;
        answer::of_done(&reply).map_err(of)?;
        self.pool.await_map(reply.header.map_version).await;
        Ok(())
    }

    /// The tables of the node, by name.
    pub async fn list_tables(&self) -> Result<Vec<TableInfo>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.pool.call(&Call::on_node(RequestView::ListTables)).await.map_err(of)?;
        answer::of_tables(&reply).map_err(of)
    }

    /// How long records live by default, by the ids of the tables that say so.
    pub async fn table_ttls(&self) -> Result<Vec<(u32, Duration)>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.pool.call(&Call::on_node(RequestView::TableTtls)).await.map_err(of)?;
        answer::of_table_ttls(&reply).map_err(of)
    }

    /// Sets what each partition of a table may take that has no quota of its own; `None`: as of a new table. Counts
    /// at once.
    pub async fn set_quota(&self, table: &str, quota: Option<Quota>) -> Result<(), TableError> {
        self.set_quota_of(table, PartitionId(0), quota).await
    }

    /// Sets what the one partition that holds `key` may take; `None`: as its table says.
    pub async fn set_partition_quota(
        &self,
        table: &str,
        key: &[u8],
        quota: Option<Quota>,
    ) -> Result<(), TableError> {
        let home = self.table(table).await.and_then(|found| found.home(key));
        let partition = home.map_err(|failure| TableError::of(failure, table))?;
        self.set_quota_of(table, partition, quota).await
    }

    async fn set_quota_of(
        &self,
        table: &str,
        partition: PartitionId,
        quota: Option<Quota>,
    ) -> Result<(), TableError> {
        let of = |failure| TableError::of(failure, table);
        let request = RequestView::SetQuota { table, partition, quota };
        let reply = self.pool.call(&Call::on_node(request)).await.map_err(of)?;
        answer::of_done(&reply).map_err(of)
    }

    /// The quotas that were set, of tables and of partitions.
    pub async fn quotas(&self) -> Result<Vec<QuotaRow>, TableError> {
        let of = |failure| TableError::of(failure, "");
        let reply = self.pool.call(&Call::on_node(RequestView::Quotas)).await.map_err(of)?;
        answer::of_quotas(&reply).map_err(of)
    }

    /// Counters and gauges of the node, per shard and summed.
    pub async fn stats(&self) -> Result<serde_json::Value, StatsError> {
        let reply = self.pool.call(&Call::on_node(RequestView::Stats)).await?;
        answer::of_stats(&reply)
    }

    /// Writes a checkpoint on every shard; returns when it is durable.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        let reply = self.pool.call(&Call::on_node(RequestView::Checkpoint)).await?;
        Ok(answer::of_done(&reply)?)
    }

    /// Begins a round of the scrub on every shard, from the beginning and at full rate. Returns when it has begun:
    /// in [`stats`](Client::stats), it has ended where `shards[].scrub.answered` has reached what `asked` is now.
    pub async fn scrub(&self) -> Result<(), StatsError> {
        let reply = self.pool.call(&Call::on_node(RequestView::Scrub)).await?;
        Ok(answer::of_done(&reply)?)
    }

    /// The partition map as last heard of.
    pub fn map(&self) -> Arc<PartitionMap> {
        self.pool.view().map().clone()
    }

    /// The table's routes; the map is fetched once where it does not know the table.
    async fn table(&self, name: &str) -> Result<TableOf, Failure> {
        if let Ok(found) = TableOf::find(&self.map(), name) {
            return Ok(found);
        }
        self.pool.refresh_map().await;
        TableOf::find(&self.map(), name)
    }

    /// Asks partitions, several at once, and gives their answers in the partitions' order.
    async fn fan_out<T, F, A>(&self, ids: &[PartitionId], ask: A) -> Result<Vec<T>, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
        A: Fn(Client, PartitionId) -> F,
    {
        let mut running = tokio::task::JoinSet::new();
        let mut answers: Vec<Option<T>> = ids.iter().map(|_| None).collect();
        let mut ids = ids.iter().copied().enumerate();
        loop {
            while running.len() < FAN_OUT
                && let Some((place, id)) = ids.next()
            {
                let asked = ask(self.clone(), id);
                running.spawn(async move { (place, asked.await) });
            }
            let Some(joined) = running.join_next().await else { break };
            let gone = |error: tokio::task::JoinError| Failure::Lost {
                reason: error.to_string(),
                maybe_sent: false,
            };
            let (place, answer) = joined.map_err(gone)?;
            answers[place] = Some(answer?);
        }
        Ok(answers.into_iter().map(|a| a.expect("every partition was asked")).collect())
    }
}

/// A table within the map it was found in.
struct TableOf {
    map: Arc<PartitionMap>,
    name: String,
}

impl TableOf {
    fn find(map: &Arc<PartitionMap>, name: &str) -> Result<TableOf, Failure> {
        match map.table(name) {
            Some(_) => Ok(TableOf { map: map.clone(), name: name.to_owned() }),
            None => Err(Failure::UnknownTable(name.to_owned())),
        }
    }

    fn routes(&self) -> &TableRoutes {
        self.map.table(&self.name).expect("it was found in this very map")
    }

    /// The partition that holds a key.
    fn home(&self, key: &[u8]) -> Result<PartitionId, Failure> {
        let home = self.routes().partition_of(key).map(|partition| partition.id);
        home.ok_or_else(|| Failure::NoPartition(self.name.clone()))
    }

    fn kind(&self) -> Kind {
        self.routes().placement
    }

    /// All partitions, in the order to ask them for the smallest or largest key, and how many to ask at once.
    /// Ranges are in key order: the first partition that has a record has the answer. Hashes are not.
    fn ids_for_extreme(&self, largest: bool) -> (Vec<PartitionId>, usize) {
        let mut ids: Vec<PartitionId> = self.routes().partitions().iter().map(|p| p.id).collect();
        if largest {
            ids.reverse();
        }
        let width = if self.kind() == Kind::Hash { ids.len().max(1) } else { 1 };
        (ids, width)
    }

    /// Partitions that may hold keys of the range.
    fn ids_in(&self, start: &[u8], end: Option<&[u8]>) -> Vec<PartitionId> {
        let all = self.routes().partitions().iter();
        let hashed = self.kind() == Kind::Hash;
        all.filter(|p| hashed || p.overlaps(start, end)).map(|p| p.id).collect()
    }
}

#[cfg(test)]
mod tests;
