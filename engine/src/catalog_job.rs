//! Changes of the catalog: checked, written to the log record by record, answered when durable.

use std::collections::VecDeque;

use crate::catalog::check_quota;
use crate::format::catalog::CatalogChange;
use crate::format::record::{Record, RecordKind, record_room};
use crate::ids::{PartitionId, RequestId};
use crate::io::Io;
use crate::location::Location;
use crate::log::{Ack, AckKind};
use crate::quota::QuotaOf;
use crate::reply::{CatalogError, ReplyBody};
use crate::request::{PartitionSpec, RequestBody, TableSpec};
use crate::shard::Shard;
use crate::space::Claim;

/// Most changes that wait; beyond, `Busy`.
const MAX_QUEUED: usize = 64;
/// Most index entries of dropped partitions that are freed in one step.
const DROPS_PER_STEP: usize = 2000;
/// And bytes of memory tables.
const DROPPED_BYTES_PER_STEP: u64 = 4 << 20;

/// One request.
#[derive(Debug)]
enum Wish {
    CreateTable(TableSpec, Vec<PartitionSpec>),
    Other(CatalogChange),
}

/// One request being written.
#[derive(Debug)]
struct Writing {
    id: RequestId,
    changes: VecDeque<Vec<u8>>,
}

/// The changes of a shard's catalog, one at a time.
#[derive(Debug, Default)]
pub struct CatalogJobs {
    queue: VecDeque<(RequestId, Wish)>,
    writing: Option<Writing>,
    /// Written to its last record, and not durable yet: the next one is checked against its effect.
    settling: Option<RequestId>,
    stalled: bool,
}

impl CatalogJobs {
    /// Whether a change waits for room in the log.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }
}

impl Shard {
    pub(crate) fn queue_catalog_job(&mut self, id: RequestId, body: &RequestBody<'_>, io: &mut Io<'_>) {
        let wish = match body {
            RequestBody::CreateTable { table, partitions } => {
                Wish::CreateTable(table.clone(), partitions.clone())
            }
            RequestBody::DropTable { table } => Wish::Other(CatalogChange::DropTable(*table)),
            RequestBody::CreatePartition { partition } => {
                Wish::Other(CatalogChange::CreatePartition(partition.clone()))
            }
            RequestBody::DropPartition { partition } => Wish::Other(CatalogChange::DropPartition(*partition)),
            RequestBody::SetQuota { of: QuotaOf::Table(table), quota } => {
                Wish::Other(CatalogChange::TableQuota(*table, quota.unwrap_or_default()))
            }
            RequestBody::SetQuota { of: QuotaOf::Partition(partition), quota } => {
                Wish::Other(CatalogChange::PartitionQuota(*partition, *quota))
            }
            _ => unreachable!("only changes of the catalog come here"),
        };
        let error = if self.log.is_poisoned() {
            Some(CatalogError::Poisoned)
        } else if self.catalog_jobs.queue.len() >= MAX_QUEUED {
            self.stats.busy += 1;
            Some(CatalogError::Busy)
        } else {
            None
        };
        match error {
            Some(error) => io.reply(id, ReplyBody::Catalog(Err(error))),
            None => self.catalog_jobs.queue.push_back((id, wish)),
        }
    }

    pub(crate) fn pump_catalog_jobs(&mut self, io: &mut Io<'_>) {
        if self.catalog_jobs.settling.is_some() {
            return;
        }
        if self.catalog_jobs.writing.is_none() && self.log.pending_writes() == 0 {
            // Of a change that found no room, when all that it wrote has been applied.
            self.catalog.forget_unfinished();
        }
        while self.catalog_jobs.writing.is_none() {
            let Some((id, wish)) = self.catalog_jobs.queue.pop_front() else { return };
            match self.checked_changes(wish) {
                Ok(changes) => self.catalog_jobs.writing = Some(Writing { id, changes }),
                Err(error) => {
                    self.stats.refused += 1;
                    io.reply(id, ReplyBody::Catalog(Err(error)));
                }
            }
        }
        self.write_changes(io);
    }

    fn checked_changes(&self, wish: Wish) -> Result<VecDeque<Vec<u8>>, CatalogError> {
        let most = self.config.max_partitions;
        let changes = match wish {
            Wish::CreateTable(table, partitions) => {
                self.catalog.check_create(&table, &partitions, most)?;
                // First, for an earlier attempt may have left partitions that wait for this very table.
                let mut changes = vec![CatalogChange::DropTable(table.id)];
                changes.extend(partitions.into_iter().map(CatalogChange::CreatePartition));
                // Last, for it makes the others count.
                changes.push(CatalogChange::CreateTable(table));
                changes
            }
            Wish::Other(change) => {
                match &change {
                    CatalogChange::CreatePartition(spec) => {
                        self.catalog.check_create_partition(spec, most)?;
                    }
                    CatalogChange::DropTable(table) => self.catalog.check_drop(*table)?,
                    CatalogChange::DropPartition(partition) => {
                        let found = self.catalog.get(*partition).map(|_| ());
                        found.ok_or(CatalogError::UnknownPartition(*partition))?;
                    }
                    CatalogChange::TableQuota(table, quota) => {
                        self.catalog.check_drop(*table)?;
                        check_quota(quota)?;
                    }
                    CatalogChange::PartitionQuota(partition, quota) => {
                        let found = self.catalog.get(*partition).map(|_| ());
                        found.ok_or(CatalogError::UnknownPartition(*partition))?;
                        quota.iter().try_for_each(check_quota)?;
                    }
                    CatalogChange::CreateTable(_) | CatalogChange::Quarantine(..) => {}
                }
                vec![change]
            }
        };
        Ok(changes.iter().map(CatalogChange::encode).collect())
    }

    fn write_changes(&mut self, io: &mut Io<'_>) {
        let Shard { catalog_jobs, log, space, stats, config, sequencer, .. } = self;
        let Some(writing) = &mut catalog_jobs.writing else { return };
        catalog_jobs.stalled = false;
        while let Some(change) = writing.changes.front() {
            if !log.make_room(record_room(0, change.len(), false), Claim::Delete, config, space, stats, io) {
                catalog_jobs.stalled = log.lacks_segment();
                return;
            }
            let seq = sequencer.next(io.now.wall_ns);
            let partition = PartitionId(0);
            let kind = RecordKind::Catalog;
            log.append(&Record { kind, seq, partition, key: &[], value: change, expires: None }, io);
            writing.changes.pop_front();
            let kind = if writing.changes.is_empty() { AckKind::Catalog } else { AckKind::Silent };
            let (id, appended_ns) = (writing.id, io.now.monotonic_ns);
            log.acknowledge(Ack { id, records: 1, user_bytes: 0, seq, kind, number: None, appended_ns });
        }
        catalog_jobs.settling = Some(writing.id);
        catalog_jobs.writing = None;
    }

    /// The change with this id was applied and answered: the next may be checked.
    pub(crate) fn catalog_settled(&mut self, id: RequestId) {
        if self.catalog_jobs.settling == Some(id) {
            self.catalog_jobs.settling = None;
        }
    }

    pub(crate) fn fail_catalog_jobs(&mut self, error: &CatalogError, io: &mut Io<'_>) {
        let jobs = std::mem::take(&mut self.catalog_jobs);
        let writing = jobs.writing.map(|writing| writing.id);
        for id in writing.into_iter().chain(jobs.queue.into_iter().map(|(id, _)| id)) {
            io.reply(id, ReplyBody::Catalog(Err(error.clone())));
        }
    }

    /// Frees a part of what dropped partitions held.
    pub(crate) fn drain_dropped(&mut self) {
        if let Some(mut expiries) = self.catalog.dropping_expiries.pop() {
            let before = expiries.memory_bytes();
            let empty = expiries.drain_some(DROPS_PER_STEP);
            self.catalog.expiry_bytes = self.catalog.expiry_bytes + expiries.memory_bytes() - before;
            if !empty {
                self.catalog.dropping_expiries.push(expiries);
            }
        }
        if let Some(mut memory) = self.catalog.dropping_memory.pop() {
            let before = memory.memory_bytes();
            let empty = memory.drain_some(DROPS_PER_STEP, DROPPED_BYTES_PER_STEP);
            self.catalog.memory_table_bytes =
                self.catalog.memory_table_bytes + memory.memory_bytes() - before;
            if !empty {
                self.catalog.dropping_memory.push(memory);
            }
        }
        let Some(mut index) = self.catalog.dropping.pop() else { return };
        let Shard { space, cache, catalog, .. } = self;
        let mut each = |location: Location| {
            cache.remove(location, space.of(location).1.generation);
            space.remove_live(location);
        };
        let empty = index.drain_some(&mut catalog.arena, DROPS_PER_STEP, &mut each);
        if !empty {
            catalog.dropping.push(index);
        }
        self.space_may_have_changed();
    }
}
