//! What tables and partitions may take of the node: set while it serves, told, and given to the shards.
//!
//! A table's quota is kept by shard 0, which decides what tables there are; a partition's own by its shard.

use std::sync::Arc;

use lode_engine::{CatalogError, PartitionId, PartitionSpec, Quota, QuotaOf, RequestBody, ShardId, TableId};
use lode_net::wire;
use lode_net::wire::Status;

use super::Control;
use super::catalog::{NodeCatalog, Table, first_error};
use crate::dispatch::{Answer, AnswerBody, Asked, catalog_error_answer, failed};
use crate::mailbox::Mail;

/// As the engine has it.
pub fn to_quota(quota: wire::Quota) -> Quota {
    let wire::Quota { weight, burst_ms, requests_per_s, read_bytes_per_s, write_bytes_per_s } = quota;
    Quota { weight, burst_ms, requests_per_s, read_bytes_per_s, write_bytes_per_s }
}

/// As it travels.
fn from_quota(quota: &Quota) -> wire::Quota {
    let Quota { weight, burst_ms, requests_per_s, read_bytes_per_s, write_bytes_per_s } = *quota;
    wire::Quota { weight, burst_ms, requests_per_s, read_bytes_per_s, write_bytes_per_s }
}

/// Why a quota cannot be, if it cannot.
pub fn refusal(asked: Asked, quota: Quota) -> Option<Answer> {
    (!quota.is_sound()).then(|| catalog_error_answer(asked, &CatalogError::BadQuota { quota }))
}

/// What a client wants set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaWish {
    /// The table's name.
    pub table: String,
    /// The partition; 0: the table's own quota.
    pub partition: wire::PartitionId,
    /// The quota; `None`: what was set is taken back.
    pub quota: Option<wire::Quota>,
}

impl Control {
    /// Sets a quota: in the shard that keeps it, then for all shards.
    pub(super) fn set_quota(&mut self, asked: Asked, wish: &QuotaWish) -> Answer {
        let QuotaWish { table: name, partition, quota } = wish;
        let quota = quota.map(to_quota);
        if let Some(refused) = quota.and_then(|quota| refusal(asked, quota)) {
            return refused;
        }
        let Some((of, keeper)) = self.catalog.quota_place(name, PartitionId(partition.0)) else {
            let words = match partition.0 {
                0 => format!("there is no table `{name}`"),
                id => format!("table `{name}` has no partition {id}"),
            };
            return failed(asked, Status::UnknownTable, 0, &words);
        };
        let body = |shard: ShardId| (shard == keeper).then_some(RequestBody::SetQuota { of, quota });
        if let Err((_, error)) = first_error(self.ask_all(body)) {
            return catalog_error_answer(asked, &error);
        }
        self.catalog.set_quota(of, quota);
        self.publish_terms();
        asked.plain(Status::Ok)
    }

    /// For each quota that was set: the table, the partition (0: the table's own), the quota.
    pub(super) fn list_quotas(&self, asked: Asked) -> Answer {
        let mut body = Vec::new();
        for (table, partition, quota) in self.catalog.quotas() {
            body.extend_from_slice(&table.0.to_le_bytes());
            body.extend_from_slice(&partition.0.to_le_bytes());
            body.extend_from_slice(&from_quota(&quota).to_bytes());
        }
        Answer { head: asked.head(Status::Ok), body: AnswerBody::Bytes(body) }
    }

    /// Gives the shards the present quotas and tokens; the map that clients see stays as it is.
    pub(super) fn publish_terms(&mut self) {
        self.map = Arc::new(self.map_of(Arc::clone(&self.map.published)));
        let map = Arc::clone(&self.map);
        self.post_all(|| Mail::Map(Arc::clone(&map)));
    }
}

impl NodeCatalog {
    /// Whose quota a table's name and a partition mean, and which shard keeps it.
    fn quota_place(&self, name: &str, partition: PartitionId) -> Option<(QuotaOf, ShardId)> {
        let id = self.names.get(name)?;
        if partition == PartitionId(0) {
            return Some((QuotaOf::Table(*id), ShardId(0)));
        }
        let (_, shard) = self.tables[id].partitions.iter().find(|(spec, _)| spec.id == partition)?;
        Some((QuotaOf::Partition(partition), *shard))
    }

    fn set_quota(&mut self, of: QuotaOf, quota: Option<Quota>) {
        match of {
            QuotaOf::Table(id) => {
                let Some(table) = self.tables.get_mut(&id) else { return };
                table.spec.quota = quota.unwrap_or_default();
                self.index_quotas(id);
            }
            QuotaOf::Partition(partition) => {
                self.own_quotas.remove(&partition);
                self.own_quotas.extend(quota.map(|quota| (partition, quota)));
                let has = |table: &&Table| table.partitions.iter().any(|(spec, _)| spec.id == partition);
                let table = self.tables.values().find(has).map(|table| table.spec.id);
                table.into_iter().for_each(|id| self.index_quotas(id));
            }
        }
    }

    /// What is looked at for each partition when a map is made: only those that are not as everybody's.
    pub(super) fn index_quotas(&mut self, table: TableId) {
        let Some(table) = self.tables.get(&table) else { return };
        for (spec, _) in &table.partitions {
            let quota = *self.own_quotas.get(&spec.id).unwrap_or(&table.spec.quota);
            match quota == Quota::default() {
                true => self.effective_quotas.remove(&spec.id),
                false => self.effective_quotas.insert(spec.id, quota),
            };
        }
    }

    /// A table's partitions are gone.
    pub(super) fn forget_quotas(&mut self, table: &Table) {
        for (spec, _) in &table.partitions {
            self.own_quotas.remove(&spec.id);
            self.effective_quotas.remove(&spec.id);
        }
    }

    /// What a partition may take.
    pub(super) fn quota_of(&self, partition: wire::PartitionId) -> Quota {
        self.effective_quotas.get(&PartitionId(partition.0)).copied().unwrap_or_default()
    }

    fn quotas(&self) -> Vec<(TableId, PartitionId, Quota)> {
        let mut rows = Vec::new();
        for (id, table) in &self.tables {
            if table.spec.quota != Quota::default() {
                rows.push((*id, PartitionId(0), table.spec.quota));
            }
            let own = |(spec, _): &(PartitionSpec, ShardId)| {
                self.own_quotas.get(&spec.id).map(|quota| (*id, spec.id, *quota))
            };
            rows.extend(table.partitions.iter().filter_map(own));
        }
        rows
    }
}

// The limits that both rooms name must be the same number.
const _: () = {
    use lode_engine::limits as engine;
    use lode_net::wire::limits as net;
    assert!(engine::MAX_WEIGHT == net::MAX_WEIGHT && engine::DEFAULT_WEIGHT == net::DEFAULT_WEIGHT);
    assert!(engine::MAX_BURST_MS == net::MAX_BURST_MS && engine::DEFAULT_BURST_MS == net::DEFAULT_BURST_MS);
    assert!(engine::MAX_QUOTA_PER_S == net::MAX_QUOTA_PER_S);
};
