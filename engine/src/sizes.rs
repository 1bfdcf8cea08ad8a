//! How large partitions are, told a few at a time: whoever observes a shard must not stop it.

use crate::ids::{PartitionId, TableId};
use crate::shard::Shard;

/// One partition and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSize {
    /// Its id.
    pub partition: PartitionId,
    /// The table it is of.
    pub table: TableId,
    /// Records in it.
    pub records: u64,
    /// Bytes of its records on the drive (or in memory), headers counted.
    pub bytes: u64,
}

impl Shard {
    /// Adds the sizes of up to `most` partitions to `into`, by id from `from` on. Gives the id to go on from; none after the
    /// last.
    pub fn partition_sizes(
        &self,
        from: PartitionId,
        most: usize,
        into: &mut Vec<PartitionSize>,
    ) -> Option<PartitionId> {
        let mut left = most;
        for partition in self.catalog.partitions_from(from) {
            if left == 0 {
                return Some(partition.spec.id);
            }
            left -= 1;
            into.push(PartitionSize {
                partition: partition.spec.id,
                table: partition.spec.table,
                records: partition.records(),
                bytes: partition.bytes,
            });
        }
        None
    }
}
