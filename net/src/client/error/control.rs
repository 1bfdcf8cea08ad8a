//! Errors of the operations on tables and on the node as a whole.

use std::time::Duration;

use thiserror::Error;

use crate::client::error::{Failure, in_words, span};
use crate::wire::Status;
use crate::wire::map::PlacementError;

/// Why a table could not be created, dropped or listed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// There is no such table.
    #[error("there is no table `{0}`; check the name")]
    UnknownTable(String),
    /// The name is taken.
    #[error("table `{0}` exists already; drop it, or take another name")]
    TableExists(String),
    /// The name is empty or too long.
    #[error("a table's name has 1 to 128 bytes, `{0}` has {len}", len = .0.len())]
    NameLength(String),
    /// Records cannot live so long, or not at all.
    #[error("a table's records live from 1ms to 100y (36500d), not {}", span(*ttl_ms))]
    BadTtl {
        /// The milliseconds that were asked for.
        ttl_ms: u64,
    },
    /// A number of the quota is out of range.
    #[error("{0}")]
    BadQuota(String),
    /// The placement makes no partitions.
    #[error("the table cannot be cut so: {0}")]
    Placement(#[from] PlacementError),
    /// The node would have more partitions than it takes.
    #[error("the node would have more partitions than it takes: {0}")]
    TooManyPartitions(String),
    /// The node has as many tables as it takes.
    #[error("the node has as many tables as it takes: {0}")]
    TooManyTables(String),
    /// The drive has no room for the catalog.
    #[error("the drive is full; delete or drop something, or add a drive")]
    Full,
    /// The table is dropped; what a shard holds of it is not freed yet.
    #[error("{0}")]
    DropUnfinished(String),
    /// The drive failed a write; whether the change survives is not known.
    #[error(
        "the drive failed a write: list the tables after the node has restarted to see what became of this"
    )]
    Poisoned,
    /// It was sent and not answered.
    #[error("sent and not answered ({0}): list the tables to see what became of it")]
    Unknown(String),
    /// No answer in time. Nothing was sent, or it changes nothing.
    #[error("no answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The node cannot be reached. Nothing was sent, or it changes nothing.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The node refused, for a reason of its own.
    #[error("the node refused: {message}")]
    Refused {
        /// Its status.
        status: Status,
        /// In words.
        message: String,
    },
    /// The node's answer cannot be read.
    #[error("the node's answer cannot be read: {0}")]
    BadReply(&'static str),
}

impl TableError {
    /// The failure of an operation on the table of this name.
    pub(crate) fn of(failure: Failure, name: &str) -> TableError {
        let name = || name.to_owned();
        match failure {
            Failure::UnknownTable(table) | Failure::NoPartition(table) => TableError::UnknownTable(table),
            Failure::Timeout { timeout, maybe_sent: true, .. } => {
                TableError::Unknown(format!("no answer in {} ms", timeout.as_millis()))
            }
            Failure::Timeout { timeout, .. } => TableError::Timeout(timeout),
            Failure::Lost { reason, maybe_sent: true } => TableError::Unknown(reason),
            Failure::Lost { reason, .. } => TableError::Unreachable(reason),
            Failure::BadReply(what) => TableError::BadReply(what),
            Failure::KeyLength(len) | Failure::ValueLength { len, .. } => TableError::Refused {
                status: Status::Malformed,
                message: format!("the splits have {len} bytes, more than fit one request"),
            },
            Failure::Status { status, message, aux, .. } => match status {
                Status::BadTtl => TableError::BadTtl { ttl_ms: aux },
                Status::BadQuota => TableError::BadQuota(in_words(status, &message)),
                Status::UnknownTable => TableError::UnknownTable(name()),
                Status::TableExists => TableError::TableExists(name()),
                Status::NameLength => TableError::NameLength(name()),
                Status::TooManyPartitions => TableError::TooManyPartitions(in_words(status, &message)),
                Status::TooManyTables => TableError::TooManyTables(in_words(status, &message)),
                Status::Full => TableError::Full,
                Status::DropUnfinished => TableError::DropUnfinished(in_words(status, &message)),
                Status::Poisoned => TableError::Poisoned,
                _ => TableError::Refused { status, message: in_words(status, &message) },
            },
        }
    }
}

/// Why there are no stats.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatsError {
    /// No answer in time.
    #[error("no answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The node cannot be reached.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The node refused, for a reason of its own.
    #[error("the node refused: {message}")]
    Refused {
        /// Its status.
        status: Status,
        /// In words.
        message: String,
    },
    /// The node's answer is not the JSON it should be.
    #[error("the node's answer cannot be read: {0}")]
    BadReply(String),
}

impl From<Failure> for StatsError {
    fn from(failure: Failure) -> StatsError {
        match failure {
            Failure::Timeout { timeout, .. } => StatsError::Timeout(timeout),
            Failure::Lost { reason, .. } => StatsError::Unreachable(reason),
            Failure::Status { status, message, .. } => {
                StatsError::Refused { status, message: in_words(status, &message) }
            }
            other => StatsError::BadReply(format!("{other:?}")),
        }
    }
}

/// Why a checkpoint was not written, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// There is no room for it.
    #[error("there is no room for a checkpoint; delete or drop something")]
    NoSpace,
    /// The drive failed a write.
    #[error("the drive failed a write: the shard takes no writes until the node restarts")]
    Poisoned,
    /// No answer in time; it may still be written.
    #[error("no answer in {} ms; the checkpoint may still be written", .0.as_millis())]
    Timeout(Duration),
    /// The node cannot be reached.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The node refused, for a reason of its own.
    #[error("the node refused: {message}")]
    Refused {
        /// Its status.
        status: Status,
        /// In words.
        message: String,
    },
}

impl From<Failure> for CheckpointError {
    fn from(failure: Failure) -> CheckpointError {
        match failure {
            Failure::Timeout { timeout, .. } => CheckpointError::Timeout(timeout),
            Failure::Lost { reason, .. } => CheckpointError::Unreachable(reason),
            Failure::Status { status: Status::NoSpace, .. } => CheckpointError::NoSpace,
            Failure::Status { status: Status::Poisoned, .. } => CheckpointError::Poisoned,
            Failure::Status { status, message, .. } => {
                CheckpointError::Refused { status, message: in_words(status, &message) }
            }
            other => CheckpointError::Unreachable(format!("{other:?}")),
        }
    }
}
