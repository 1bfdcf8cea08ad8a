//! The partition map: which partition holds a key, and which shard holds a partition.

use std::sync::Arc;

use thiserror::Error;

use crate::wire::control::{MapBody, MapPartition, MapTable, Placement, PlacementKind, Store};
use crate::wire::ids::{Epoch, MapVersion, PartitionId, ShardId, TableId};
use crate::wire::limits::MAX_KEY_BYTES;
use crate::wire::request::Target;
use crate::wire::server::{EncodedHello, HelloCell, NodeInfo};

/// Bytes of a hash, as ranges of a hashed table hold it.
pub const HASH_BYTES: usize = 4;

/// A range of raw keys or of hashes: first, and first beyond (`None`: to the largest).
pub type OwnedRange = (Vec<u8>, Option<Vec<u8>>);

/// Where a hashed table places a key: its CRC32C, big-endian so that bytes sort as numbers do.
pub fn hash_of(key: &[u8]) -> [u8; HASH_BYTES] {
    crc32c::crc32c(key).to_be_bytes()
}

/// The map cannot be used: it contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// Two tables share a name or an id.
    #[error("two tables of the map are named `{0}`, or share its id")]
    DuplicateTable(String),
    /// Two partitions share an id.
    #[error("two partitions of the map have the id {0}")]
    DuplicatePartition(PartitionId),
    /// A partition of no table.
    #[error("partition {0} of the map belongs to no table")]
    NoTable(PartitionId),
    /// A range is empty, overlaps its neighbour, or is no range of hashes where it must be.
    #[error("partition {0} of the map has an empty, overlapping or malformed range")]
    BadRange(PartitionId),
}

/// The placement of a new table makes no ranges.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// No partitions, or more than there are hashes.
    #[error("a table has at least one partition")]
    NoPartitions,
    /// A split is empty, over 4096 bytes, or not above the one before it.
    #[error("split {place} is empty, over 4096 bytes, or not above the one before it")]
    BadSplit {
        /// Which split, counted from 0.
        place: usize,
    },
}

impl Placement {
    /// The kind of placement, without its numbers.
    pub fn kind(&self) -> PlacementKind {
        match self {
            Placement::Hash { .. } => PlacementKind::Hash,
            Placement::Range { .. } => PlacementKind::Range,
        }
    }

    /// How many partitions a table so placed has.
    pub fn partition_count(&self) -> usize {
        match self {
            Placement::Hash { partitions } => *partitions as usize,
            Placement::Range { splits } => splits.len() + 1,
        }
    }

    /// The ranges of the table's partitions, in order, without gaps.
    pub fn ranges(&self) -> Result<Vec<OwnedRange>, PlacementError> {
        match self {
            Placement::Hash { partitions: 0 } => Err(PlacementError::NoPartitions),
            Placement::Hash { partitions } => {
                let count = u64::from(*partitions);
                let bound = |i: u64| {
                    let first = ((i << 32).div_ceil(count)) as u32;
                    first.to_be_bytes().to_vec()
                };
                Ok(ranges_between((1..count).map(bound)))
            }
            Placement::Range { splits } => {
                for (place, split) in splits.iter().enumerate() {
                    let ascends = place == 0 || splits[place - 1] < *split;
                    if split.is_empty() || split.len() > MAX_KEY_BYTES || !ascends {
                        return Err(PlacementError::BadSplit { place });
                    }
                }
                Ok(ranges_between(splits.iter().cloned()))
            }
        }
    }
}

fn ranges_between(bounds: impl Iterator<Item = Vec<u8>>) -> Vec<OwnedRange> {
    let mut ranges = Vec::new();
    let mut start = Vec::new();
    for bound in bounds {
        ranges.push((std::mem::replace(&mut start, bound.clone()), Some(bound)));
    }
    ranges.push((start, None));
    ranges
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Partition and epoch, for the request's header.
    pub target: Target,
    /// The shard, for the choice of connection.
    pub shard: ShardId,
}

/// One partition of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its id.
    pub id: PartitionId,
    /// Its fencing number.
    pub epoch: Epoch,
    /// The shard it lives in.
    pub shard: ShardId,
    /// First key (or hash) of its range; empty means from the smallest.
    pub start: Vec<u8>,
    /// First key (or hash) beyond its range; `None` means to the largest.
    pub end: Option<Vec<u8>>,
}

impl Partition {
    /// Where its requests go.
    pub fn route(&self) -> Route {
        Route { target: Target { partition: self.id, epoch: self.epoch }, shard: self.shard }
    }

    /// Whether its range holds this key (or hash).
    pub fn holds(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }
}

impl Partition {
    /// Whether its range and `[start, end)` have a key (or hash) in common.
    pub fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let begins_before_end = end.is_none_or(|end| self.start.as_slice() < end);
        begins_before_end && self.end.as_ref().is_none_or(|own| start < own.as_slice())
    }
}

/// One table and its partitions in order of their ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoutes {
    /// Its id.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// Where its records live.
    pub store: Store,
    /// How its keys map to partitions.
    pub placement: PlacementKind,
    partitions: Vec<Partition>,
}

impl TableRoutes {
    /// The partitions, ascending by range.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The partition that holds a raw key; `None` where the map has a gap.
    pub fn partition_of(&self, key: &[u8]) -> Option<&Partition> {
        match self.placement {
            PlacementKind::Range => self.partition_at(key),
            PlacementKind::Hash => self.partition_at(&hash_of(key)),
        }
    }

    /// Where requests for a raw key go; `None` where the map has a gap.
    pub fn route(&self, key: &[u8]) -> Option<Route> {
        self.partition_of(key).map(Partition::route)
    }

    fn partition_at(&self, point: &[u8]) -> Option<&Partition> {
        let after = self.partitions.partition_point(|p| p.start.as_slice() <= point);
        let partition = self.partitions.get(after.checked_sub(1)?)?;
        partition.holds(point).then_some(partition)
    }
}

/// The map of one node at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMap {
    version: MapVersion,
    /// Ascending by name.
    tables: Vec<TableRoutes>,
    /// Ascending by id: place of the table, place of the partition within it.
    by_id: Vec<(PartitionId, u32, u32)>,
}

impl PartitionMap {
    /// Checks a map as it travels, and makes it fit for look-ups.
    pub fn new(body: MapBody) -> Result<PartitionMap, MapError> {
        let mut tables: Vec<TableRoutes> = body.tables.into_iter().map(TableRoutes::empty).collect();
        tables.sort_by_key(|table| table.id);
        if let Some(pair) = tables.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(MapError::DuplicateTable(pair[1].name.clone()));
        }
        for partition in body.partitions {
            let id = PartitionId(partition.id);
            let place = tables
                .binary_search_by_key(&partition.table, |t| t.id.0)
                .map_err(|_| MapError::NoTable(id))?;
            tables[place].partitions.push(partition.into());
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tables.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(MapError::DuplicateTable(pair[1].name.clone()));
        }
        tables.iter_mut().try_for_each(TableRoutes::order_and_check)?;
        let by_id = index_by_id(&tables)?;
        Ok(PartitionMap { version: MapVersion(body.version), tables, by_id })
    }

    /// The map as it travels.
    pub fn to_body(&self) -> MapBody {
        let mut body = MapBody { version: self.version.0, ..MapBody::default() };
        for table in &self.tables {
            body.tables.push(MapTable {
                id: table.id.0,
                name: table.name.clone(),
                store: table.store,
                placement: table.placement,
            });
            body.partitions.extend(table.partitions.iter().map(|p| MapPartition {
                id: p.id.0,
                table: table.id.0,
                epoch: p.epoch.0,
                shard: p.shard.0,
                start: p.start.clone(),
                end: p.end.clone(),
            }));
        }
        body
    }

    /// Its version; 0 only of the map that `default` makes.
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// The tables, ascending by name.
    pub fn tables(&self) -> &[TableRoutes] {
        &self.tables
    }

    /// How many partitions the node has.
    pub fn partition_count(&self) -> usize {
        self.by_id.len()
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&TableRoutes> {
        let place = self.tables.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        Some(&self.tables[place])
    }

    /// The partition of an id, and its table.
    pub fn partition(&self, id: PartitionId) -> Option<(&TableRoutes, &Partition)> {
        let place = self.by_id.binary_search_by_key(&id, |entry| entry.0).ok()?;
        let (_, table, partition) = self.by_id[place];
        let table = &self.tables[table as usize];
        Some((table, &table.partitions[partition as usize]))
    }

    /// The shard that a partition lives in.
    pub fn shard_of(&self, id: PartitionId) -> Option<ShardId> {
        self.partition(id).map(|(_, partition)| partition.shard)
    }

    /// Where requests for a raw key of a table go.
    pub fn route(&self, table: &str, key: &[u8]) -> Option<Route> {
        self.table(table)?.route(key)
    }
}

impl TableRoutes {
    fn empty(table: MapTable) -> TableRoutes {
        TableRoutes {
            id: TableId(table.id),
            name: table.name,
            store: table.store,
            placement: table.placement,
            partitions: Vec::new(),
        }
    }

    fn order_and_check(&mut self) -> Result<(), MapError> {
        self.partitions.sort_by(|a, b| a.start.cmp(&b.start));
        let hashed = self.placement == PlacementKind::Hash;
        for (place, p) in self.partitions.iter().enumerate() {
            let next = self.partitions.get(place + 1);
            let bounded = match (&p.end, next) {
                (Some(end), Some(next)) => *end > p.start && *end <= next.start,
                (Some(end), None) => *end > p.start,
                (None, next) => next.is_none(),
            };
            let start_fits = !hashed || p.start.is_empty() || p.start.len() == HASH_BYTES;
            let end_fits = !hashed || p.end.as_ref().is_none_or(|end| end.len() == HASH_BYTES);
            if !(bounded && start_fits && end_fits) {
                return Err(MapError::BadRange(p.id));
            }
        }
        Ok(())
    }
}

impl From<MapPartition> for Partition {
    fn from(p: MapPartition) -> Partition {
        Partition {
            id: PartitionId(p.id),
            epoch: Epoch(p.epoch),
            shard: ShardId(p.shard),
            start: p.start,
            end: p.end,
        }
    }
}

fn index_by_id(tables: &[TableRoutes]) -> Result<Vec<(PartitionId, u32, u32)>, MapError> {
    let mut by_id = Vec::with_capacity(tables.iter().map(|t| t.partitions.len()).sum());
    for (t, table) in tables.iter().enumerate() {
        by_id.extend(table.partitions.iter().enumerate().map(|(p, part)| (part.id, t as u32, p as u32)));
    }
    by_id.sort_unstable();
    match by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(MapError::DuplicatePartition(pair[0].0)),
        None => Ok(by_id),
    }
}

/// A map that a node serves: fit for look-ups, and encoded once for all who ask.
#[derive(Clone, Debug)]
pub struct PublishedMap {
    /// For look-ups.
    pub map: PartitionMap,
    /// As it travels.
    pub body: Arc<[u8]>,
    hello: HelloCell,
}

impl PublishedMap {
    /// Checks and encodes a map.
    pub fn new(body: MapBody) -> Result<PublishedMap, MapError> {
        let bytes = body.to_bytes().into();
        Ok(PublishedMap { map: PartitionMap::new(body)?, body: bytes, hello: HelloCell::default() })
    }

    /// The answer of a node to a Hello that wants this map; made at the first call.
    pub fn hello(&self, node: &NodeInfo) -> Arc<EncodedHello> {
        EncodedHello::in_cell(&self.hello, node, || self.map.to_body())
    }
}

#[cfg(test)]
mod tests;
