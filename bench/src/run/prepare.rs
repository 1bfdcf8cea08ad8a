//! Makes sure that the table is there, and its records in it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lode_net::client::blocking::Client;
use lode_net::client::{
    ClientOptions, ConnectError, CountError, Placement, Quota, Store, TableError, TableOptions,
};
use lode_net::wire::PartitionMap;
use lode_net::wire::map::TableRoutes;
use thiserror::Error;

use super::pool::{Pool, PoolError};
use super::worker::{Plan, Worker};
use crate::draw::Popularity;
use crate::options::{DataOptions, Distribution};

/// Connections that fill a table.
const FILL_CONNECTIONS: usize = 4;
/// Requests in flight on each of them.
const FILL_DEPTH: usize = 64;

/// Why the table could not be made ready.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The address is none.
    #[error("`{addr}` is no address: {error}; give it as host:port")]
    Address {
        /// As it was given.
        addr: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The node cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The table could not be made.
    #[error("the table could not be made: {0}")]
    Table(#[from] TableError),
    /// The records could not be counted.
    #[error("the records could not be counted: {0}")]
    Count(#[from] CountError),
    /// The connections of the load failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The table's partitions leave keys out.
    #[error("the partitions of table {0} do not hold every key; give another --table, and it is made")]
    Gap(String),
    /// The node refused records.
    #[error("the node refused {refused} records while loading: {refusal}")]
    Refused {
        /// How many.
        refused: u64,
        /// The last refusal, in words.
        refusal: String,
    },
}

/// A node whose table holds the records.
pub struct Ready {
    /// For the operations that are not the load.
    pub client: Client,
    /// Where connections go.
    pub addr: SocketAddr,
    /// Records that had to be written first.
    pub loaded: u64,
}

/// Makes the table where it is missing, and writes all records where one is missing.
pub fn prepare(data: &DataOptions) -> Result<Ready, PrepareError> {
    let addr = resolve(&data.addr)?;
    let mut client = Client::connect(&data.addr, ClientOptions::default())?;
    if !client.list_tables()?.iter().any(|table| table.name == data.table) {
        client.create_table(TableOptions {
            name: data.table.clone(),
            store: Store::Durable,
            placement: Placement::Hash { partitions: data.partitions },
            ttl: None,
            quota: Quota::default(),
        })?;
    }
    let present = client.count(&data.table, &[], None)?;
    let loaded = if present < data.records { data.records } else { 0 };
    if loaded > 0 {
        fill(data, addr)?;
    }
    Ok(Ready { client, addr, loaded })
}

fn resolve(addr: &str) -> Result<SocketAddr, PrepareError> {
    let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "it resolves to nothing");
    let resolved = addr.to_socket_addrs().and_then(|mut all| all.next().ok_or_else(none));
    resolved.map_err(|error| PrepareError::Address { addr: addr.to_owned(), error })
}

/// The table's partitions, which hold every key.
pub fn routes(map: &PartitionMap, name: &str) -> Result<TableRoutes, PrepareError> {
    let gap = || PrepareError::Gap(name.to_owned());
    let table = map.table(name).ok_or_else(gap)?;
    let partitions = table.partitions();
    let begins = partitions.first().is_some_and(|p| p.start.is_empty());
    let ends = partitions.last().is_some_and(|p| p.end.is_none());
    let meets = partitions.windows(2).all(|pair| pair[0].end.as_ref() == Some(&pair[1].start));
    if begins && ends && meets { Ok(table.clone()) } else { Err(gap()) }
}

fn fill(data: &DataOptions, addr: SocketAddr) -> Result<(), PrepareError> {
    let (pool, map) = Pool::open(addr, FILL_CONNECTIONS)?;
    let plan = Plan {
        table: routes(&map, &data.table)?,
        popularity: Popularity::new(Distribution::Uniform, data.records),
        read_percent: 0,
        depth: FILL_DEPTH,
        value_bytes: data.value_size as usize,
        origin: Instant::now(),
        from: Duration::ZERO,
        until: Duration::ZERO,
    };
    let style = ProgressStyle::with_template("loading {bar:40} {pos}/{len} records, {per_sec}, {eta} left")
        .expect("the template is sound");
    // Hidden by itself where stderr is no terminal.
    let bar = ProgressBar::new(data.records).with_style(style);
    let tally =
        Worker::new(plan, pool, data.seed()).fill(0..data.records, &|written| bar.set_position(written))?;
    bar.finish_and_clear();
    match tally.refusal {
        Some(refusal) => Err(PrepareError::Refused { refused: tally.refused, refusal }),
        None => Ok(()),
    }
}
