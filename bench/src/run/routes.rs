//! Where the records of a load live: partitions of one or more tables, or a server that has none.

use lode_net::wire::control::PlacementKind;
use lode_net::wire::map::TableRoutes;
use lode_net::wire::{PartitionMap, ShardId, Target};

use super::prepare::PrepareError;
use crate::options::DataOptions;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// Partition and epoch.
    pub target: Target,
    /// Its shard.
    pub shard: ShardId,
    /// The partition's place among those of all tables.
    pub place: u32,
}

/// All partitions that a load asks.
#[derive(Debug, Clone)]
pub struct Routes {
    tables: Vec<TableRoutes>,
    /// Places of each table's first partition.
    first_places: Vec<u32>,
}

impl Routes {
    /// The tables of this load, each of which must hold every key.
    pub fn new(map: &PartitionMap, data: &DataOptions) -> Result<Routes, PrepareError> {
        let mut routes = Routes::of_server();
        let mut place = 0;
        for table in 0..data.tables {
            let table = whole_table(map, &data.table_name(table))?;
            routes.first_places.push(place);
            place += table.partitions().len() as u32;
            routes.tables.push(table);
        }
        Ok(routes)
    }

    /// A server without partitions.
    pub fn of_server() -> Routes {
        Routes { tables: Vec::new(), first_places: Vec::new() }
    }

    /// Where a key of a table goes.
    pub fn find(&self, table: u16, key: &[u8]) -> Aim {
        let Some(routes) = self.tables.get(usize::from(table)) else {
            return Aim { target: Target::default(), shard: ShardId(0), place: 0 };
        };
        let partition = routes.partition_of(key).expect("the table was found to have no gaps");
        let before = routes.partitions().partition_point(|other| other.start < partition.start);
        self.aim(table, before)
    }

    fn aim(&self, table: u16, partition: usize) -> Aim {
        let route = self.tables[usize::from(table)].partitions()[partition].route();
        let place = self.first_places[usize::from(table)] + partition as u32;
        Aim { target: route.target, shard: route.shard, place }
    }

    /// The partition whose keys follow those at `place`, and its first key; `None` at the end of the table, and where
    /// the next partition's keys do not follow.
    pub fn next_in_order(&self, table: u16, place: u32) -> Option<(Aim, &[u8])> {
        let routes = self.tables.get(usize::from(table))?;
        let next = (place - self.first_places[usize::from(table)]) as usize + 1;
        if routes.placement != PlacementKind::Range || next >= routes.partitions().len() {
            return None;
        }
        Some((self.aim(table, next), &routes.partitions()[next].start))
    }

    /// The partition at a place, in words: its table, which of the table's it is, and its id.
    pub fn name(&self, place: u32) -> String {
        let after = self.first_places.partition_point(|first| *first <= place);
        let Some(table) = after.checked_sub(1) else {
            return "the server".to_owned();
        };
        let number = place - self.first_places[table];
        let routes = &self.tables[table];
        let id = routes.partitions()[number as usize].id.0;
        format!("{} #{number} (id {id})", routes.name)
    }
}

/// The table's partitions, which hold every key.
fn whole_table(map: &PartitionMap, name: &str) -> Result<TableRoutes, PrepareError> {
    let gap = || PrepareError::Gap(name.to_owned());
    let table = map.table(name).ok_or_else(gap)?;
    let partitions = table.partitions();
    let begins = partitions.first().is_some_and(|p| p.start.is_empty());
    let ends = partitions.last().is_some_and(|p| p.end.is_none());
    let meets = partitions.windows(2).all(|pair| pair[0].end.as_ref() == Some(&pair[1].start));
    if begins && ends && meets { Ok(table.clone()) } else { Err(gap()) }
}
