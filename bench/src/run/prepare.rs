//! Makes sure that the table is there, and its records in it.

use std::net::{SocketAddr, ToSocketAddrs};

use indicatif::{ProgressBar, ProgressStyle};
use lode_net::client::StatsError;
use lode_net::client::blocking::Client;
use lode_net::client::{
    ClientOptions, ConnectError, CountError, Placement, Quota, Store, TableError, TableOptions,
};
use thiserror::Error;

use super::choice::Choice;
use super::memcached_server::{MemcachedError, MemcachedServer};
use super::pipeline::Dialect;
use super::pool::{Pool, PoolError};
use super::resp_server::{RespServer, RespServerError};
use super::routes::Routes;
use super::tally::Tally;
use super::worker::{Plan, Worker};
use crate::node_stats::NodeStats;
use crate::options::{DataOptions, PlacementKind, Protocol, RunOptions, ShownError};
use crate::workload::Operation;

/// Connections that fill a table.
const FILL_CONNECTIONS: usize = 4;
/// Requests in flight on each of them.
const FILL_DEPTH: usize = 64;
/// Bytes of a record beside its key and value (engine/FORMAT.md).
const RECORD_HEADER_BYTES: f64 = 30.0;

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
    /// There is nothing to show it.
    #[error(transparent)]
    Shown(#[from] ShownError),
    /// The server cannot be asked about itself.
    #[error(transparent)]
    Resp(#[from] RespServerError),
    /// The server cannot be asked about itself.
    #[error(transparent)]
    Memcached(#[from] MemcachedError),
    /// The node's counters could not be read.
    #[error("the node's counters could not be read: {0}")]
    Stats(#[from] StatsError),
    /// What the load asks for is not to be had of this server.
    #[error("only a lode node has tables, scans and transactions, and tells how full it is: leave out {0}")]
    OnlyInLode(&'static str),
    /// The node refused records.
    #[error("the node refused {refused} records while loading: {refusal}")]
    Refused {
        /// How many.
        refused: u64,
        /// The last refusal, in words.
        refusal: String,
    },
}

/// What answers questions that are not the load.
pub enum Server {
    /// A lode node.
    Lode(Box<Client>),
    /// A server that speaks RESP.
    Resp(RespServer),
    /// memcached.
    Memcached(MemcachedServer),
}

/// A server that holds the records.
pub struct Ready {
    /// For the operations that are not the load.
    pub server: Server,
    /// Where connections go.
    pub addr: SocketAddr,
    /// What they show a lode node.
    pub shown: ClientOptions,
    /// Records that the load asks for.
    pub records: u64,
    /// Records that had to be written first.
    pub loaded: u64,
}

impl Ready {
    /// Connections of one worker, and where the records live.
    pub fn open(&self, data: &DataOptions, connections: usize) -> Result<(Pool, Routes), PrepareError> {
        match self.server {
            Server::Lode(_) => {
                let (pool, map) = Pool::open(self.addr, &self.shown, connections)?;
                let routes = Routes::new(&map, data)?;
                Ok((pool, routes))
            }
            Server::Resp(_) => self.open_pipelines(Dialect::Resp, connections),
            Server::Memcached(_) => self.open_pipelines(Dialect::Memcached, connections),
        }
    }

    fn open_pipelines(&self, dialect: Dialect, connections: usize) -> Result<(Pool, Routes), PrepareError> {
        Ok((Pool::open_pipelines(self.addr, dialect, connections)?, Routes::of_server()))
    }

    /// What the server counts, as it says it; and the CPU time of its process in microseconds.
    pub fn counters(&mut self) -> Result<NodeStats, PrepareError> {
        match &mut self.server {
            Server::Lode(client) => Ok(NodeStats::new(client.stats()?)),
            Server::Resp(server) => Ok(NodeStats::new(server.counters()?)),
            Server::Memcached(server) => Ok(NodeStats::new(server.counters()?)),
        }
    }
}

/// Makes the tables where they are missing, and writes all records where one is missing.
pub fn prepare(options: &RunOptions) -> Result<Ready, PrepareError> {
    let data = &options.data;
    let addr = resolve(&data.addr)?;
    if data.protocol != Protocol::Lode {
        refuse_what_only_lode_has(options)?;
    }
    let shown = data.client()?;
    let server = match data.protocol {
        Protocol::Lode => Server::Lode(Box::new(Client::connect(&data.addr, shown.clone())?)),
        Protocol::Resp => Server::Resp(RespServer::connect(addr)?),
        Protocol::Memcached => Server::Memcached(MemcachedServer::connect(addr)?),
    };
    let mut ready = Ready { server, addr, shown, records: data.records, loaded: 0 };
    let mut options = options.clone();
    if let Some(percent) = options.fill_percent {
        ready.records = records_of_fill(&ready.counters()?, &options.data, percent);
        options.data.records = ready.records;
    }
    let present = match &mut ready.server {
        Server::Lode(client) => make_tables(client, &options)?,
        Server::Resp(server) => server.records()?,
        Server::Memcached(server) => server.records()?,
    };
    if present < options.data.records {
        ready.loaded = options.data.records;
        write_all(&ready, &options)?;
    }
    if options.churn > 0.0 {
        churn(&ready, &options)?;
    }
    Ok(ready)
}

fn refuse_what_only_lode_has(options: &RunOptions) -> Result<(), PrepareError> {
    let mix = options.mix();
    for (is_asked_for, what) in [
        (options.data.tables > 1, "--tables"),
        (mix.has(Operation::Scan), "scans"),
        (mix.has(Operation::Transaction), "transactions"),
        (options.fill_percent.is_some(), "--fill-percent"),
        (options.tenant_skew > 0.0, "--tenant-skew"),
    ] {
        if is_asked_for {
            return Err(PrepareError::OnlyInLode(what));
        }
    }
    Ok(())
}

/// Makes the tables where they are missing; tells how many records all of them have.
fn make_tables(client: &mut Client, options: &RunOptions) -> Result<u64, PrepareError> {
    let data = &options.data;
    let mut present = 0;
    let tables = client.list_tables()?;
    for table in 0..data.tables {
        let name = data.table_name(table);
        if !tables.iter().any(|table| table.name == name) {
            let placement = match options.placement() {
                PlacementKind::Hash => Placement::Hash { partitions: data.partitions },
                PlacementKind::Range => {
                    Placement::Range { splits: data.keys().splits(data.records, data.partitions) }
                }
            };
            client.create_table(TableOptions {
                name: name.clone(),
                store: Store::Durable,
                placement,
                ttl: None,
                quota: Quota::default(),
            })?;
        }
        // What is above is of other loads, which have inserted more.
        present += client.count(&name, &[], None)?.min(data.records_of_table());
    }
    Ok(present)
}

/// How many records fill so many percent of what a node's drive takes.
fn records_of_fill(stats: &NodeStats, data: &DataOptions, percent: u8) -> u64 {
    let bytes = RECORD_HEADER_BYTES + f64::from(data.key_size) + data.value_size.mean();
    (stats.live_limit_bytes() as f64 * f64::from(percent) / 100.0 / bytes) as u64
}

fn resolve(addr: &str) -> Result<SocketAddr, PrepareError> {
    let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "it resolves to nothing");
    let resolved = addr.to_socket_addrs().and_then(|mut all| all.next().ok_or_else(none));
    resolved.map_err(|error| PrepareError::Address { addr: addr.to_owned(), error })
}

fn worker(ready: &Ready, options: &RunOptions) -> Result<Worker, PrepareError> {
    let (pool, routes) = ready.open(&options.data, FILL_CONNECTIONS)?;
    let seed = options.data.seed();
    let plan = Plan { depth: FILL_DEPTH, ..Plan::new(options) };
    Ok(Worker::new(plan, Choice::new(options, routes, seed).of_puts(), pool, seed))
}

/// Hidden by itself where stderr is no terminal.
fn progress(what: &str, length: u64) -> ProgressBar {
    let template = format!("{what} {{bar:40}} {{pos}}/{{len}} records, {{per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is sound");
    ProgressBar::new(length).with_style(style)
}

fn write_all(ready: &Ready, options: &RunOptions) -> Result<(), PrepareError> {
    let bar = progress("loading", options.data.records);
    let records = 0..options.data.records;
    let tally = worker(ready, options)?.fill(records, &|written| bar.set_position(written))?;
    bar.finish_and_clear();
    refused(&tally)
}

/// Overwrites records as the load will, so that the drive is in the state that long use brings.
fn churn(ready: &Ready, options: &RunOptions) -> Result<(), PrepareError> {
    let writes = (options.data.records as f64 * options.churn) as u64;
    let bar = progress("overwriting", writes);
    let tally = worker(ready, options)?.overwrite(writes, &|written| bar.set_position(written))?;
    bar.finish_and_clear();
    refused(&tally)
}

fn refused(tally: &Tally) -> Result<(), PrepareError> {
    match &tally.refusal {
        Some(refusal) => Err(PrepareError::Refused { refused: tally.refused, refusal: refusal.clone() }),
        None => Ok(()),
    }
}
