//! Changes of a shard's catalog: the value of a catalog record, and the catalog part of an image.

use crate::format::{ByteReader, ByteWriter};
use crate::ids::{Epoch, PartitionId, Seq, TableId};
use crate::quota::Quota;
use crate::request::{IndexKind, PartitionSpec, Placement, StoreKind, TableSpec};

/// One change. Replaying a change that has taken place already changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogChange {
    /// A partition is made. If its table is not there yet, it waits for the table's own change, and is
    /// forgotten if that never comes: so a table and its partitions appear together or not at all.
    CreatePartition(PartitionSpec),
    /// A table is made.
    CreateTable(TableSpec),
    /// A table and its partitions are gone.
    DropTable(TableId),
    /// A partition is gone.
    DropPartition(PartitionId),
    /// Writes of the partition up to this version may have been lost to damage.
    Quarantine(PartitionId, Seq),
    /// What each partition of the table may take that has no quota of its own.
    TableQuota(TableId, Quota),
    /// What the partition may take; nothing: as its table says.
    PartitionQuota(PartitionId, Option<Quota>),
}

/// Stands for "no end" where a key's length would stand.
const NO_END: u16 = u16::MAX;

impl CatalogChange {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = ByteWriter::new();
        match self {
            CatalogChange::CreatePartition(spec) => {
                out.u8(1).u32(spec.id.0).u32(spec.table.0).u32(spec.epoch.0).short(&spec.start);
                match &spec.end {
                    Some(end) => out.short(end),
                    None => out.u16(NO_END),
                };
            }
            CatalogChange::CreateTable(spec) => {
                let store = match (spec.store, spec.index) {
                    (StoreKind::Durable, IndexKind::Full) => 1,
                    (StoreKind::Memory, _) => 2,
                    (StoreKind::Durable, IndexKind::Compact) => 3,
                };
                let placement = match spec.placement {
                    Placement::Range => 1,
                    Placement::Hash => 2,
                };
                let has_quota = spec.quota != Quota::default();
                let kind = match spec.ttl_ms {
                    _ if has_quota => 7,
                    Some(_) => 6,
                    None => 2,
                };
                out.u8(kind).u32(spec.id.0).u8(store).u8(placement).short(spec.name.as_bytes());
                if has_quota {
                    out.u64(spec.ttl_ms.unwrap_or(0));
                    spec.quota.write(&mut out);
                } else if let Some(ttl_ms) = spec.ttl_ms {
                    out.u64(ttl_ms);
                }
            }
            CatalogChange::DropTable(table) => {
                out.u8(3).u32(table.0);
            }
            CatalogChange::DropPartition(partition) => {
                out.u8(4).u32(partition.0);
            }
            CatalogChange::Quarantine(partition, seq) => {
                out.u8(5).u32(partition.0).raw(&seq.to_bytes());
            }
            CatalogChange::TableQuota(table, quota) => {
                quota.write(out.u8(8).u32(table.0));
            }
            CatalogChange::PartitionQuota(partition, Some(quota)) => {
                quota.write(out.u8(9).u32(partition.0));
            }
            CatalogChange::PartitionQuota(partition, None) => {
                out.u8(10).u32(partition.0);
            }
        }
        out.into_bytes()
    }

    /// From storage; `None` for bytes that are no change, or more than one.
    pub fn decode(bytes: &[u8]) -> Option<CatalogChange> {
        let mut reader = ByteReader::new(bytes);
        let change = match reader.u8()? {
            1 => CatalogChange::CreatePartition(PartitionSpec {
                id: PartitionId(reader.u32()?),
                table: TableId(reader.u32()?),
                epoch: Epoch(reader.u32()?),
                start: reader.short()?.to_vec(),
                end: match reader.u16()? {
                    NO_END => None,
                    len => Some(reader.take(usize::from(len))?.to_vec()),
                },
            }),
            2 => CatalogChange::CreateTable(decode_table(&mut reader)?),
            6 => {
                let spec = decode_table(&mut reader)?;
                CatalogChange::CreateTable(TableSpec { ttl_ms: Some(reader.u64()?), ..spec })
            }
            7 => {
                let spec = decode_table(&mut reader)?;
                let ttl_ms = Some(reader.u64()?).filter(|ttl_ms| *ttl_ms > 0);
                CatalogChange::CreateTable(TableSpec { ttl_ms, quota: Quota::read(&mut reader)?, ..spec })
            }
            8 => CatalogChange::TableQuota(TableId(reader.u32()?), Quota::read(&mut reader)?),
            9 => CatalogChange::PartitionQuota(PartitionId(reader.u32()?), Some(Quota::read(&mut reader)?)),
            10 => CatalogChange::PartitionQuota(PartitionId(reader.u32()?), None),
            3 => CatalogChange::DropTable(TableId(reader.u32()?)),
            4 => CatalogChange::DropPartition(PartitionId(reader.u32()?)),
            5 => CatalogChange::Quarantine(PartitionId(reader.u32()?), Seq::from_bytes(reader.array()?)),
            _ => return None,
        };
        (reader.remaining() == 0).then_some(change)
    }
}

fn decode_table(reader: &mut ByteReader<'_>) -> Option<TableSpec> {
    let id = TableId(reader.u32()?);
    let (store, index) = match reader.u8()? {
        1 => (StoreKind::Durable, IndexKind::Full),
        2 => (StoreKind::Memory, IndexKind::Full),
        3 => (StoreKind::Durable, IndexKind::Compact),
        _ => return None,
    };
    let placement = match reader.u8()? {
        1 => Placement::Range,
        2 => Placement::Hash,
        _ => return None,
    };
    let name = std::str::from_utf8(reader.short()?).ok()?.to_owned();
    Some(TableSpec { id, name, store, placement, ttl_ms: None, index, quota: Quota::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        let (requests_per_s, read_bytes_per_s, write_bytes_per_s) = (3, 4, 1 << 40);
        Quota { weight: 1, burst_ms: 2, requests_per_s, read_bytes_per_s, write_bytes_per_s }
    }

    #[test]
    fn every_change_reads_back_and_every_cut_is_refused() {
        let partition = |end| PartitionSpec {
            id: PartitionId(4),
            table: TableId(2),
            epoch: Epoch(1),
            start: b"a".to_vec(),
            end,
        };
        let changes = [
            CatalogChange::CreatePartition(partition(None)),
            CatalogChange::CreatePartition(partition(Some(vec![9; 4096]))),
            CatalogChange::CreateTable(TableSpec {
                id: TableId(2),
                name: "t".into(),
                store: StoreKind::Memory,
                placement: Placement::Hash,
                ttl_ms: None,
                quota: Quota::default(),
                index: IndexKind::Full,
            }),
            CatalogChange::CreateTable(TableSpec {
                id: TableId(3),
                name: "fleeting".into(),
                store: StoreKind::Durable,
                placement: Placement::Range,
                ttl_ms: Some(1 << 40),
                quota: Quota::default(),
                index: IndexKind::Compact,
            }),
            CatalogChange::CreateTable(TableSpec {
                id: TableId(4),
                name: "bounded".into(),
                store: StoreKind::Durable,
                placement: Placement::Range,
                ttl_ms: None,
                quota: quota(),
                index: IndexKind::Compact,
            }),
            CatalogChange::TableQuota(TableId(2), quota()),
            CatalogChange::PartitionQuota(PartitionId(4), Some(quota())),
            CatalogChange::PartitionQuota(PartitionId(4), None),
            CatalogChange::DropTable(TableId(2)),
            CatalogChange::DropPartition(PartitionId(4)),
            CatalogChange::Quarantine(PartitionId(4), Seq { wall_ns: 1, ..Seq::default() }),
        ];
        for change in changes {
            let bytes = change.encode();
            assert_eq!(CatalogChange::decode(&bytes), Some(change));
            for cut in 0..bytes.len() {
                assert_eq!(CatalogChange::decode(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }
}
