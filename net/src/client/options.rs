//! What a client is told: how to connect, and what to ask.

use std::time::Duration;

use bytes::Bytes;

pub use crate::client::tls::{ClientTls, ClientTlsError, Dial};
pub use crate::client::token::{Token, TokenError};

pub use crate::wire::Quota;
pub use crate::wire::control::{Placement, PlacementKind, Store, TableInfo};
use crate::wire::limits::MAX_CLIENT_NAME_BYTES;
use crate::wire::{BatchBuilder, BatchView, BatchWrite, Condition, PartitionId, Seq, Ttl};

/// How a client behaves. `Default` suits most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Connections to each shard; at least 1. More than one helps only where one core cannot drive one socket.
    pub connections_per_shard: usize,
    /// From the call to its answer, with all retries.
    pub request_timeout: Duration,
    /// For one connection, handshake and the node's recovery included.
    pub connect_timeout: Duration,
    /// How often a call is sent again after its connection was lost, where that is safe. `Busy` and a changed
    /// map are retried until `request_timeout`, whatever this says.
    pub retries: u32,
    /// Requests in flight on one connection; more wait their turn in this process. The node's own limit caps it.
    pub max_in_flight_per_connection: usize,
    /// What the client calls itself, for the node's logs. At most 128 bytes are sent.
    pub name: String,
    /// What it shows to a node that wants to know who asks.
    pub token: Option<Token>,
    /// Whom it trusts, where it speaks TLS.
    pub tls: Option<ClientTls>,
    /// How it gets its connections, where it does not dial addresses.
    pub dial: Option<Dial>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connections_per_shard: 1,
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            retries: 3,
            max_in_flight_per_connection: 128,
            name: "lode-client".to_owned(),
            token: None,
            tls: None,
            dial: None,
        }
    }
}

impl ClientOptions {
    /// Brings odd values to the nearest good ones, for a node at this address.
    pub(crate) fn normalize(&mut self, addr: &str) {
        if let Some(tls) = &mut self.tls {
            tls.name_by(addr);
        }
        self.connections_per_shard = self.connections_per_shard.max(1);
        self.max_in_flight_per_connection = self.max_in_flight_per_connection.max(1);
        let most = MAX_CLIENT_NAME_BYTES.min(self.name.len());
        let end = (0..=most).rev().find(|at| self.name.is_char_boundary(*at)).unwrap_or(0);
        self.name.truncate(end);
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its version.
    pub seq: Seq,
    /// Its value.
    pub value: Bytes,
    /// How long it has still to live.
    pub left: TimeLeft,
}

/// How long a record has still to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeLeft {
    /// It never expires (or, in a scan, that was not asked for).
    #[default]
    Forever,
    /// So long, by the node's clock, when it answered; at least a millisecond.
    For(Duration),
}

impl TimeLeft {
    /// As it travels: 0 is for ever.
    pub(crate) fn of_ms(ms: u64) -> TimeLeft {
        if ms == 0 { TimeLeft::Forever } else { TimeLeft::For(Duration::from_millis(ms)) }
    }

    /// The time, if it ends.
    pub fn duration(self) -> Option<Duration> {
        match self {
            TimeLeft::Forever => None,
            TimeLeft::For(left) => Some(left),
        }
    }
}

/// How long a record is to live. Whole milliseconds count; less than one is refused by the node, and so is
/// more than a hundred years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// As its table says.
    #[default]
    Table,
    /// For ever, whatever its table says.
    Forever,
    /// So long from the write on.
    For(Duration),
}

impl Lifetime {
    pub(crate) fn to_wire(self) -> Ttl {
        match self {
            Lifetime::Table => Ttl::Table,
            Lifetime::Forever => Ttl::Never,
            Lifetime::For(time) => Ttl::After { ttl_ms: ms_of(time) },
        }
    }
}

/// Whole milliseconds; more than 64 bits of them are as good as the most.
pub(crate) fn ms_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When a put takes place, and how long its record is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// When to write.
    pub condition: Condition,
    /// How long the record is to live.
    pub lifetime: Lifetime,
}

/// A write that took place, and is durable in a durable table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version; of a batch, the last write's.
    pub seq: Seq,
    /// Whether there was such a record before; of a batch, before its first write.
    pub existed: bool,
}

/// An increment that took place, and is durable in a durable table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The record's version now.
    pub seq: Seq,
    /// Its number now.
    pub number: i64,
}

/// One record of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRecord {
    /// Its key.
    pub key: Bytes,
    /// Its version; zero where only keys were asked for.
    pub seq: Seq,
    /// Its value; empty where only keys were asked for.
    pub value: Bytes,
    /// How long it has still to live, where [`ScanOptions::times`] asked for that.
    pub left: TimeLeft,
}

/// A table to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Its name, 1 to 128 bytes.
    pub name: String,
    /// Where its records live.
    pub store: Store,
    /// How it is cut into partitions.
    pub placement: Placement,
    /// How long its records live unless they say otherwise; `None` is for ever.
    pub ttl: Option<Duration>,
    /// What each of its partitions may take of the node.
    pub quota: Quota,
}

/// A quota that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// The table.
    pub table: u32,
    /// The partition that has it for itself; `None`: all others of the table.
    pub partition: Option<PartitionId>,
    /// The quota.
    pub quota: Quota,
}

/// What a scan gives, and how it pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// First key; empty means from the smallest.
    pub start: Vec<u8>,
    /// First key beyond; `None` means to the largest.
    pub end: Option<Vec<u8>>,
    /// Descending order, from the end.
    pub reverse: bool,
    /// Most records; `None` means all.
    pub limit: Option<u64>,
    /// Leave out values and versions, and the device reads they need.
    pub keys_only: bool,
    /// Say how long each record has still to live.
    pub times: bool,
    /// Most records of one page, 1 to 4096.
    pub page_records: u32,
    /// Most bytes of one page, 1 byte to 4 MiB.
    pub page_bytes: u32,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            start: Vec::new(),
            end: None,
            reverse: false,
            limit: None,
            keys_only: false,
            times: false,
            page_records: 512,
            page_bytes: 1024 * 1024,
        }
    }
}

/// Writes that take place together or not at all. All keys must fall in one partition.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    body: BatchBuilder,
    /// A key or value beyond what a frame can say; reported when the batch is sent.
    pub(crate) misfit: Option<Misfit>,
}

/// A key or value too long even to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    Key(usize),
    Value(usize),
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a put.
    pub fn put(mut self, key: &[u8], value: &[u8]) -> Batch {
        self.push(BatchWrite::Put { key, value });
        self
    }

    /// Adds a put of a record that lives as long as is said here, and not as its table says.
    pub fn put_for(mut self, key: &[u8], value: &[u8], lifetime: Lifetime) -> Batch {
        self.push(BatchWrite::put(key, value, lifetime.to_wire()));
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: &[u8]) -> Batch {
        self.push(BatchWrite::Delete { key });
        self
    }

    /// Adds a write, for loops.
    pub fn push(&mut self, write: BatchWrite<'_>) {
        let (key, value) = write.parts();
        let value_len = value.map_or(0, <[u8]>::len);
        if key.len() > usize::from(u16::MAX) {
            self.misfit.get_or_insert(Misfit::Key(key.len()));
        } else if value_len > crate::wire::limits::MAX_REQUEST_BODY_BYTES {
            self.misfit.get_or_insert(Misfit::Value(value_len));
        } else {
            self.body.push(write);
        }
    }

    /// How many writes it has.
    pub fn len(&self) -> usize {
        self.body.count()
    }

    /// Whether it has no writes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes as they travel.
    pub fn encoded_len(&self) -> usize {
        self.view().as_bytes().len()
    }

    pub(crate) fn view(&self) -> BatchView<'_> {
        self.body.view()
    }
}
