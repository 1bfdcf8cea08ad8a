//! One error enum per operation. What all share is in `Failure`, which never leaves the client.

mod control;
mod records;
mod transaction;

use std::io;
use std::time::Duration;

use thiserror::Error;

pub use self::control::{CheckpointError, StatsError, TableError};
pub use self::records::{BatchError, CountError, GetError, IncrementError, ScanError, WriteError};
pub use self::transaction::TransactionError;
use crate::client::connection::{ConnectionError, OwnedReply};
use crate::wire::{Seq, Status};

/// Why a node cannot be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address names no host and port, or its host's name cannot be resolved.
    #[error("`{addr}` leads to no address ({source}): give host:port")]
    Address {
        /// The address.
        addr: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nobody answers there, or the connection broke in the handshake.
    #[error("cannot connect to {addr}: {source}; is the node running, and is this its address?")]
    Io {
        /// The address.
        addr: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The two did not come to speak TLS with each other.
    #[error("cannot speak TLS with {addr}: {reason}")]
    Tls {
        /// The address.
        addr: String,
        /// Why.
        reason: String,
    },
    /// The node did not answer, or did not finish its recovery, in time.
    #[error("{addr} did not answer in {} ms", timeout.as_millis())]
    Timeout {
        /// The address.
        addr: String,
        /// The time it had.
        timeout: Duration,
    },
    /// The node answered, and will not have us; or it is no lode node.
    #[error("{addr}: {source}")]
    Refused {
        /// The address.
        addr: String,
        /// Why.
        #[source]
        source: ConnectionError,
    },
    /// The node's partition map cannot be used.
    #[error("{addr} sent a partition map that cannot be used: {reason}")]
    BadMap {
        /// The address.
        addr: String,
        /// Why.
        reason: String,
    },
}

/// Why a call has no usable answer, before it is told in its operation's own words.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The map has no such table.
    UnknownTable(String),
    /// The map has no partition for the key.
    NoPartition(String),
    /// The time is over. `maybe_sent`: the node may still do it.
    Timeout { timeout: Duration, maybe_sent: bool, last: Option<String> },
    /// The connection was lost, and could not be had again. `maybe_sent`: the node may have done it.
    Lost { reason: String, maybe_sent: bool },
    /// The node said no.
    Status { status: Status, message: String, seq: Seq, aux: u64 },
    /// The answer cannot be read.
    BadReply(&'static str),
    /// The request is beyond what a frame can say.
    KeyLength(usize),
    /// As above.
    ValueLength { len: usize, limit: usize },
}

impl ConnectError {
    /// Of a connection that broke while it was made.
    pub(crate) fn broken(addr: &str, source: io::Error) -> ConnectError {
        let addr = addr.to_owned();
        match crate::client::tls::in_words(&source) {
            Some(reason) => ConnectError::Tls { addr, reason },
            None => ConnectError::Io { addr, source },
        }
    }
}

impl Failure {
    /// The failure that a reply tells of; `None` where its status is `Ok`.
    pub(crate) fn of_reply(reply: &OwnedReply) -> Option<Failure> {
        let status = reply.status();
        (status != Status::Ok).then(|| Failure::Status {
            status,
            message: reply.view().message().to_owned(),
            seq: reply.header.seq,
            aux: reply.header.aux,
        })
    }
}

/// A time as the command line takes it.
fn span(ms: u64) -> String {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    match ms {
        DAY_MS.. if ms.is_multiple_of(DAY_MS) => format!("{}d", ms / DAY_MS),
        _ => format!("{ms}ms"),
    }
}

fn in_words(status: Status, message: &str) -> String {
    if message.is_empty() { status.text().to_owned() } else { message.to_owned() }
}
