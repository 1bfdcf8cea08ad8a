//! Why a transaction failed.

use bytes::Bytes;
use thiserror::Error;

use crate::client::error::{Failure, GetError, WriteError};
use crate::wire::Status;

/// Why an operation of a transaction failed. Unless it is `Write` with `Unknown`, `Poisoned` or `MayReturn`, nothing was
/// written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// Something that it has read was changed since it began. It has ended; begin it again.
    #[error("{} was changed since the transaction read it; begin it again", shown(key))]
    Conflict {
        /// The first key found changed; of an expired record, perhaps only where the range begins.
        key: Bytes,
    },
    /// It has ended. Begin it again.
    #[error(
        "the transaction has ended: it lived too long, held too much, or its connection or its table is gone; begin it again"
    )]
    Ended,
    /// The key is another partition's.
    #[error(
        "the key is not in the transaction's partition of `{table}`; a transaction is within one partition"
    )]
    OtherPartition {
        /// The table.
        table: String,
    },
    /// It was begun to read only.
    #[error("the transaction was begun to read only")]
    ReadOnly,
    /// It has read all that the node remembers of one.
    #[error(
        "the transaction has read all that it may, keys and ranges of 1 MiB; roll it back, read less, or begin one that only reads"
    )]
    ReadSetFull,
    /// As many are open as the node takes.
    #[error("as many transactions are open as the node takes; end some, or try again later")]
    TooMany,
    /// It would live too long.
    #[error("a transaction lives at most 60 s, not {lifetime_ms} ms")]
    Lifetime {
        /// What was asked for.
        lifetime_ms: u64,
    },
    /// Its writes are more than one commit takes.
    #[error(
        "a transaction has at most {max_writes} writes of {max_bytes} bytes, this one has {writes} of {bytes}"
    )]
    Size {
        /// Its writes.
        writes: usize,
        /// Their bytes as they travel.
        bytes: usize,
        /// The most writes that the node takes.
        max_writes: usize,
        /// The most bytes that the node takes.
        max_bytes: usize,
    },
    /// A read failed as any read may.
    #[error(transparent)]
    Read(GetError),
    /// The commit failed as any write may.
    #[error(transparent)]
    Write(WriteError),
}

impl TransactionError {
    /// Whether the same again may well succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, TransactionError::Conflict { .. } | TransactionError::Ended)
    }

    /// Of a read, or of a begin.
    pub(crate) fn of_read(failure: Failure) -> TransactionError {
        TransactionError::own(&failure).unwrap_or_else(|| TransactionError::Read(failure.into()))
    }

    /// Of a commit.
    pub(crate) fn of_write(failure: Failure) -> TransactionError {
        TransactionError::own(&failure).unwrap_or_else(|| TransactionError::Write(failure.into()))
    }

    fn own(failure: &Failure) -> Option<TransactionError> {
        let Failure::Status { status, aux, .. } = failure else { return None };
        Some(match status {
            Status::TransactionEnded => TransactionError::Ended,
            Status::ReadSetFull => TransactionError::ReadSetFull,
            Status::TooManyTransactions => TransactionError::TooMany,
            Status::TransactionLifetime => TransactionError::Lifetime { lifetime_ms: *aux },
            Status::ReadOnly => TransactionError::ReadOnly,
            _ => return None,
        })
    }
}

/// A key in words that a terminal can take.
fn shown(key: &Bytes) -> String {
    format!("key \"{}\"", key.escape_ascii())
}
