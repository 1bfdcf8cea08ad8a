//! Bodies of the control plane: rkyv archives, read only after validation.
//!
//! The archive is the unaligned little-endian form with 32-bit pointers, so a body may lie anywhere in a
//! receive buffer and is the same on every machine.

// The twins that rkyv derives of these types carry no documentation of their own.
#![allow(missing_docs)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::request::DecodeError;

macro_rules! archived {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The archive, as it travels.
            pub fn to_bytes(&self) -> Vec<u8> {
                rkyv::to_bytes::<rkyv::rancor::Error>(self)
                    .expect("archiving plain data into memory cannot fail")
                    .into_vec()
            }

            /// The reverse of `to_bytes`, for bytes from anywhere: validated before anything is read.
            pub fn from_bytes(bytes: &[u8]) -> Result<$name, DecodeError> {
                rkyv::from_bytes::<$name, rkyv::rancor::Error>(bytes)
                    .map_err(|_| DecodeError::Malformed($what))
            }
        }
    };
}

/// Where a table keeps its records.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Store {
    /// In the log on the drive.
    #[default]
    Durable,
    /// In memory only; empty after a restart.
    Memory,
    /// In the log on the drive; of its keys, memory holds only what tells them apart: about a third of what `Durable`
    /// takes, for which overwrites, and scans of keys, read records.
    Compact,
}

/// How a new table is cut into partitions.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Ranges over the big-endian CRC32C of the key, of equal size.
    Hash {
        /// How many; at least 1.
        partitions: u32,
    },
    /// Ranges over raw keys, one more than there are splits.
    Range {
        /// First keys of the second and later partitions, ascending.
        splits: Vec<Vec<u8>>,
    },
}

/// How a table's keys map to partitions.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlacementKind {
    /// Partition ranges are over the big-endian CRC32C of the key.
    Hash,
    /// Partition ranges are over raw keys.
    Range,
}

/// A Hello's body after its fixed first eight bytes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// What the client calls itself; for the node's logs. At most 128 bytes.
    pub client_name: String,
    /// The run of the node that the client's map is of; 0 where it has none. With the header's
    /// `map_version` it tells the node whether to send the map.
    pub incarnation: u64,
}
archived!(Hello, "not a hello");

/// A shard and where to reach it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardAddress {
    /// The shard.
    pub shard: u16,
    /// Its own TCP port, on the address that the client came by.
    pub port: u16,
}

/// What the node takes; a request beyond it gets a typed refusal.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Longest key, in bytes.
    pub key_bytes: u32,
    /// Longest value, in bytes.
    pub value_bytes: u32,
    /// Longest body of a request, in bytes.
    pub request_body_bytes: u32,
    /// Most writes in a batch.
    pub batch_writes: u32,
    /// Most bytes of a batch's body.
    pub batch_bytes: u32,
    /// Most records in a page.
    pub scan_records: u32,
    /// Most bytes of keys and values in a page.
    pub scan_bytes: u32,
    /// Most requests in flight on a connection.
    pub in_flight: u32,
}

/// The body of the answer to a Hello.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The node's name.
    pub node_name: String,
    /// This run of the node; another number after every start.
    pub incarnation: u64,
    /// The shard that this connection ends at.
    pub shard: u16,
    /// All shards, by number.
    pub shards: Vec<ShardAddress>,
    /// What the node takes.
    pub limits: NodeLimits,
    /// The partition map, unless the client has it.
    pub map: Option<MapBody>,
}
archived!(HelloReply, "not an answer to hello");

/// The partition map, as it travels.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct MapBody {
    /// Its version.
    pub version: u32,
    /// The tables, in any order.
    pub tables: Vec<MapTable>,
    /// The partitions of all tables, in any order.
    pub partitions: Vec<MapPartition>,
}
archived!(MapBody, "not a partition map");

/// Bytes of a table in a map's archive, beyond its name; a little more than it takes.
const TABLE_BYTES: usize = 24;
/// Bytes of a partition in a map's archive, beyond its bounds; a little more than it takes.
const PARTITION_BYTES: usize = 40;

impl MapBody {
    /// At most so many bytes does its archive have.
    pub fn size_bound(&self) -> usize {
        let tables: usize = self.tables.iter().map(|table| TABLE_BYTES + table.name.len()).sum();
        let bounds = |p: &MapPartition| p.start.len() + p.end.as_ref().map_or(0, Vec::len);
        let partitions: usize = self.partitions.iter().map(|p| PARTITION_BYTES + bounds(p)).sum();
        TABLE_BYTES + tables + partitions
    }
}

impl CreateTable {
    /// At most so many bytes does the table add to a map's archive.
    pub fn map_size_bound(&self) -> usize {
        // Each bound ends one range and begins the next.
        let bounds = match &self.placement {
            Placement::Hash { partitions } => 2 * 4 * *partitions as usize,
            Placement::Range { splits } => splits.iter().map(|split| 2 * split.len()).sum(),
        };
        TABLE_BYTES + self.name.len() + PARTITION_BYTES * self.placement.partition_count() + bounds
    }
}

/// A table of the map.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MapTable {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Where its records live.
    pub store: Store,
    /// How its keys map to partitions.
    pub placement: PlacementKind,
}

/// A partition of the map.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MapPartition {
    /// Its id.
    pub id: u32,
    /// The table it is a range of.
    pub table: u32,
    /// Its fencing number.
    pub epoch: u32,
    /// The shard it lives in.
    pub shard: u16,
    /// First key (or 4 bytes of hash) of its range; empty means from the smallest.
    pub start: Vec<u8>,
    /// First key (or 4 bytes of hash) beyond its range; `None` means to the largest.
    pub end: Option<Vec<u8>>,
}

/// The body of a CreateTable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CreateTable {
    /// Its name, 1 to 128 bytes.
    pub name: String,
    /// Where its records live.
    pub store: Store,
    /// How it is cut into partitions.
    pub placement: Placement,
}
archived!(CreateTable, "not a table to create");

/// The body of a DropTable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DropTable {
    /// Its name.
    pub name: String,
}
archived!(DropTable, "not a table to drop");

/// A table and what it holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Where its records live.
    pub store: Store,
    /// How its keys map to partitions.
    pub placement: PlacementKind,
    /// How many partitions it has.
    pub partitions: u32,
    /// Records in it.
    pub records: u64,
    /// Bytes of its records on the drive (or in memory), headers counted.
    pub bytes: u64,
}
archived!(TableInfo, "not a table");

/// The body of the answer to ListTables.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TableList {
    /// The tables, by name.
    pub tables: Vec<TableInfo>,
}
archived!(TableList, "not a list of tables");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_wherever_it_lies_and_damage_is_found_or_harmless() {
        let partition = MapPartition {
            id: 1,
            table: 2,
            epoch: 3,
            shard: 4,
            start: b"a".to_vec(),
            end: Some(b"b".to_vec()),
        };
        let table =
            MapTable { id: 2, name: "t".into(), store: Store::Memory, placement: PlacementKind::Hash };
        let body = MapBody { version: 9, tables: vec![table], partitions: vec![partition] };
        let bytes = body.to_bytes();
        for shift in 0..8 {
            let mut moved = vec![0u8; shift];
            moved.extend_from_slice(&bytes);
            assert_eq!(MapBody::from_bytes(&moved[shift..]), Ok(body.clone()));
        }
        for len in 0..bytes.len() {
            assert!(MapBody::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Checksums are the frame's affair; here only: no panic, and no runaway allocation.
            let _ = MapBody::from_bytes(&bad);
        }
    }

    #[test]
    fn a_maps_archive_is_no_larger_than_its_bound() {
        let placements = [
            Placement::Hash { partitions: 1 },
            Placement::Hash { partitions: 500 },
            Placement::Range { splits: vec![] },
            Placement::Range { splits: (1..200u8).map(|i| vec![i; 20 * usize::from(i)]).collect() },
        ];
        let mut body = MapBody { version: 1, ..MapBody::default() };
        let mut bound = body.size_bound();
        for (id, placement) in placements.into_iter().enumerate() {
            let (id, name) = (id as u32, "n".repeat(id * 30));
            let create = CreateTable { name: name.clone(), store: Store::Durable, placement };
            bound += create.map_size_bound();
            let placement = create.placement.kind();
            body.tables.push(MapTable { id, name, store: Store::Durable, placement });
            for (start, end) in create.placement.ranges().expect("good placement") {
                body.partitions.push(MapPartition { id: 0, table: id, epoch: 1, shard: 0, start, end });
            }
            assert!(body.to_bytes().len() <= body.size_bound() && body.size_bound() <= bound);
        }
    }
}
