//! Requests in short words, and what they are answered.

use std::cell::Cell;

use lode_engine::{
    BatchWrite, BeginError, BufferId, Buffers, CatalogError, Change, CheckpointError, Condition, Epoch,
    IndexKind, KeyRange, OwnerId, PartitionId, PartitionSpec, Placement, Quota, ReadError, ReplyBody,
    Request, RequestBody, RequestId, ScanPage, ScanWish, StoreKind, TableId, TableSpec, Target, TimeLeft,
    TransactionId, TransactionRead, Ttl, WriteError, Written,
};

use super::Sim;

/// Bytes of its frame that a record of `len` bytes takes, as FORMAT.md has it.
pub fn room(len: u64) -> u64 {
    let mut unit = if len > 8192 { 64 } else { 8 };
    while len > 8192 && len > 256 * unit {
        unit *= 2;
    }
    len.next_multiple_of(unit)
}

pub fn target(partition: u32) -> Target {
    Target { partition: PartitionId(partition), epoch: Epoch(1) }
}

/// A partition over all keys.
pub fn partition_spec(table: u32, partition: u32) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId(partition),
        table: TableId(table),
        epoch: Epoch(1),
        start: Vec::new(),
        end: None,
    }
}

thread_local! {
    static INDEX: Cell<IndexKind> = Cell::new(match std::env::var("LODE_INDEX").as_deref() {
        Ok("compact") => IndexKind::Compact,
        _ => IndexKind::Full,
    });
}

/// Tables that this thread makes from now on have such indexes; at first, what `LODE_INDEX` says.
pub fn use_index(kind: IndexKind) {
    INDEX.set(kind);
}

/// Which indexes those are.
pub fn index_kind() -> IndexKind {
    INDEX.get()
}

pub fn table_spec(table: u32, store: StoreKind) -> TableSpec {
    TableSpec {
        id: TableId(table),
        name: format!("t{table}"),
        store,
        placement: Placement::Range,
        ttl_ms: None,
        quota: Quota::default(),
        index: index_kind(),
    }
}

impl Sim {
    pub fn create(&mut self, table: u32, store: StoreKind, partitions: &[u32]) -> Result<(), CatalogError> {
        let partitions = partitions.iter().map(|p| partition_spec(table, *p)).collect();
        self.catalog(RequestBody::CreateTable { table: table_spec(table, store), partitions })
    }

    pub fn catalog(&mut self, body: RequestBody<'_>) -> Result<(), CatalogError> {
        match self.ask(body) {
            ReplyBody::Catalog(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn drop_table(&mut self, table: u32) -> Result<(), CatalogError> {
        self.catalog(RequestBody::DropTable { table: TableId(table) })
    }

    pub fn write(&mut self, body: RequestBody<'_>) -> Result<Written, WriteError> {
        match self.ask(body) {
            ReplyBody::Write(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn put(&mut self, partition: u32, key: &[u8], value: &[u8]) -> Result<Written, WriteError> {
        self.put_if(partition, key, value, Condition::Always)
    }

    pub fn put_if(
        &mut self,
        partition: u32,
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Result<Written, WriteError> {
        self.write(RequestBody::Put { target: target(partition), key, value, condition, ttl: Ttl::Table })
    }

    pub fn delete(&mut self, partition: u32, key: &[u8]) -> Result<Written, WriteError> {
        self.write(RequestBody::Delete { target: target(partition), key, condition: Condition::Always })
    }

    /// A put of a record that expires.
    pub fn put_ttl(
        &mut self,
        partition: u32,
        key: &[u8],
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<Written, WriteError> {
        let (target, condition, ttl) = (target(partition), Condition::Always, Ttl::After { ttl_ms });
        self.write(RequestBody::Put { target, key, value, condition, ttl })
    }

    pub fn expire(&mut self, partition: u32, key: &[u8], ttl: Ttl) -> Result<Written, WriteError> {
        let change = Change::Expire { ttl };
        self.write(RequestBody::Modify { target: target(partition), key, change })
    }

    pub fn time_left(&mut self, partition: u32, key: &[u8]) -> Result<Option<TimeLeft>, ReadError> {
        match self.ask(RequestBody::TimeToLive { target: target(partition), key }) {
            ReplyBody::TimeToLive(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn increment(&mut self, partition: u32, key: &[u8], by: i64) -> Result<Option<i64>, WriteError> {
        let change = Change::Increment { by, initial: 0 };
        let written = self.write(RequestBody::Modify { target: target(partition), key, change });
        written.map(|written| written.number)
    }

    pub fn batch(&mut self, partition: u32, writes: Vec<BatchWrite<'_>>) -> Result<Written, WriteError> {
        self.write(RequestBody::Batch { target: target(partition), writes })
    }

    pub fn get(&mut self, partition: u32, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.ask(RequestBody::Get { target: target(partition), key }) {
            ReplyBody::Get(result) => result.map(|found| found.map(|found| self.value(found.value))),
            other => panic!("{other:?}"),
        }
    }

    pub fn count(&mut self, partition: u32) -> Result<u64, ReadError> {
        match self.ask(RequestBody::Count { target: target(partition), range: KeyRange::default() }) {
            ReplyBody::Count(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn scan(&mut self, partition: u32, limit: u32, byte_budget: u32) -> Result<ScanPage, ReadError> {
        let (target, range) = (target(partition), KeyRange::default());
        let body = RequestBody::Scan { target, range, reverse: false, limit, byte_budget, keys_only: false };
        match self.ask(body) {
            ReplyBody::Scan(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn checkpoint(&mut self) -> Result<(), CheckpointError> {
        match self.ask(RequestBody::Checkpoint) {
            ReplyBody::Checkpoint(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Tables with their partitions' ids.
    pub fn tables(&mut self) -> Vec<(u32, Vec<u32>)> {
        match self.ask(RequestBody::ListTables) {
            ReplyBody::Tables(tables) => tables
                .into_iter()
                .map(|(spec, partitions)| (spec.id.0, partitions.iter().map(|p| p.spec.id.0).collect()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

impl Sim {
    pub fn begin(&mut self, partition: u32, read_only: bool) -> Result<TransactionId, BeginError> {
        self.begin_for(partition, read_only, 0)
    }

    pub fn begin_for(
        &mut self,
        partition: u32,
        read_only: bool,
        lifetime_ms: u32,
    ) -> Result<TransactionId, BeginError> {
        self.begin_as(0, partition, read_only, lifetime_ms)
    }

    pub fn begin_as(
        &mut self,
        owner: u64,
        partition: u32,
        read_only: bool,
        lifetime_ms: u32,
    ) -> Result<TransactionId, BeginError> {
        let (target, owner) = (target(partition), OwnerId(owner));
        match self.ask(RequestBody::Begin { target, owner, read_only, lifetime_ms }) {
            ReplyBody::Begin(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn end_transactions(&mut self, owner: u64) {
        let body = RequestBody::EndTransactions { owner: OwnerId(owner) };
        assert!(matches!(self.ask(body), ReplyBody::Rollback));
    }

    pub fn get_in(
        &mut self,
        partition: u32,
        transaction: TransactionId,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let read = TransactionRead::Get { key };
        match self.ask(RequestBody::Within { target: target(partition), transaction, read }) {
            ReplyBody::Get(result) => result.map(|found| found.map(|found| self.value(found.value))),
            other => panic!("{other:?}"),
        }
    }

    pub fn scan_in(
        &mut self,
        partition: u32,
        transaction: TransactionId,
        wish: ScanWish<'_>,
    ) -> Result<ScanPage, ReadError> {
        let read = TransactionRead::Scan(wish);
        match self.ask(RequestBody::Within { target: target(partition), transaction, read }) {
            ReplyBody::Scan(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn count_in(
        &mut self,
        partition: u32,
        transaction: TransactionId,
        range: KeyRange<'_>,
    ) -> Result<u64, ReadError> {
        let read = TransactionRead::Count { range };
        match self.ask(RequestBody::Within { target: target(partition), transaction, read }) {
            ReplyBody::Count(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn commit(
        &mut self,
        partition: u32,
        transaction: TransactionId,
        writes: Vec<BatchWrite<'_>>,
    ) -> Result<Written, WriteError> {
        self.write(RequestBody::Commit { target: target(partition), transaction, writes })
    }

    pub fn rollback(&mut self, partition: u32, transaction: TransactionId) {
        let body = RequestBody::Rollback { target: target(partition), transaction };
        assert!(matches!(self.ask(body), ReplyBody::Rollback));
    }
}

/// Takes all buffers away.
pub fn hold_buffers(sim: &mut Sim) -> Vec<BufferId> {
    let mut held = Vec::new();
    for len in [1 << 20, 4096] {
        while let Some(buffer) = sim.buffers.acquire(len) {
            held.push(buffer);
        }
    }
    held
}

/// Asks, and waits for nothing.
pub fn send(sim: &mut Sim, body: RequestBody<'_>) -> RequestId {
    let id = sim.next_id();
    sim.step(&mut vec![Request { id, body }]);
    id
}
