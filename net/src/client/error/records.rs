//! Errors of the operations on records: common variants, and each operation's own.

use std::time::Duration;

use thiserror::Error;

use crate::client::error::{Failure, in_words, span};
use crate::client::options::Misfit;
use crate::wire::limits::MAX_REQUEST_BODY_BYTES;
use crate::wire::{Seq, Status};

/// Variants that every operation on a table's records has, and their making from a `Failure`.
macro_rules! record_error {
    (
        $(#[$doc:meta])* $name:ident,
        { $($(#[$variant_doc:meta])* $variant:ident $({ $($field:tt)* })?,)* },
        |$failure:ident| { $($pattern:pat => $made:expr,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Error)]
        pub enum $name {
            /// There is no such table.
            #[error("there is no table `{0}`; create it, or check the name")]
            UnknownTable(String),
            /// The table has no partition for the key: its map has a gap.
            #[error("table `{0}` has no partition for this key")]
            NoPartition(String),
            /// The key is empty or too long.
            #[error("a key has 1 to 4096 bytes, this one has {len}")]
            KeyLength {
                /// The key's length.
                len: usize,
            },
            /// The node was too busy for as long as the request might take. Nothing was done.
            #[error("the node was busy for all of {} ms; try later, or with fewer requests in flight", timeout.as_millis())]
            Busy {
                /// The time the request had.
                timeout: Duration,
            },
            /// The partition is above its quota. Nothing was done; see [`patiently`](crate::client::patiently).
            #[error("{message}")]
            Throttled {
                /// The same may pass after so long.
                retry_after: Duration,
                /// What the node said: which limit it is.
                message: String,
            },
            /// No answer in time. Nothing was sent, or it changes nothing.
            #[error("no answer in {} ms{}{last}", timeout.as_millis(), if last.is_empty() { "" } else { "; last: " })]
            Timeout {
                /// The time the request had.
                timeout: Duration,
                /// What the last attempt met; may be empty.
                last: String,
            },
            /// The node cannot be reached. Nothing was sent, or it changes nothing.
            #[error("the node cannot be reached: {0}")]
            Unreachable(String),
            /// The record is damaged on the drive.
            #[error("the record is damaged on the drive at byte {at}; restore it from a copy")]
            Corrupt {
                /// Where on the drive.
                at: u64,
            },
            /// The drive failed a read. Nothing was written; asked again, it may not fail.
            #[error("the drive failed a read (os error {os_error})")]
            Device {
                /// The operating system's error number.
                os_error: i32,
            },
            /// The partition is quarantined: writes up to a version may be lost to damage, and the answer would need them.
            #[error(
                "the partition is quarantined: damage was found when the node started, and what was written up to \
                 version {upto} may be lost; records written since are read, and writing a key again heals it: copy \
                 what is left to another table (get key by key) and drop this one, or restore it from a copy"
            )]
            Quarantined {
                /// The newest version that may be lost.
                upto: Seq,
            },
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
            $($(#[$variant_doc])* $variant $({ $($field)* })?,)*
        }

        impl From<Failure> for $name {
            // An operation's own arms come first, and may cover a common one.
            #[allow(unreachable_patterns)]
            fn from($failure: Failure) -> $name {
                match $failure {
                    $($pattern => $made,)*
                    Failure::UnknownTable(table) => $name::UnknownTable(table),
                    Failure::NoPartition(table) => $name::NoPartition(table),
                    Failure::KeyLength(len) => $name::KeyLength { len },
                    Failure::ValueLength { len, .. } => $name::Refused {
                        status: Status::ValueLength,
                        message: format!("a value of {len} bytes"),
                    },
                    Failure::Timeout { timeout, last, .. } => match last {
                        Some(last) if last == Status::Busy.text() => $name::Busy { timeout },
                        last => $name::Timeout { timeout, last: last.unwrap_or_default() },
                    },
                    Failure::Lost { reason, .. } => $name::Unreachable(reason),
                    Failure::BadReply(what) => $name::BadReply(what),
                    Failure::Status { status: Status::Throttled, aux, message, .. } => $name::Throttled {
                        retry_after: Duration::from_micros(aux),
                        message: in_words(Status::Throttled, &message),
                    },
                    Failure::Status { status: Status::KeyLength, aux, .. } => $name::KeyLength { len: aux as usize },
                    Failure::Status { status: Status::Corrupt, aux, .. } => $name::Corrupt { at: aux },
                    Failure::Status { status: Status::DeviceError, aux, .. } => {
                        $name::Device { os_error: aux as i32 }
                    }
                    Failure::Status { status: Status::Quarantined, seq, .. } => $name::Quarantined { upto: seq },
                    Failure::Status { status, message, .. } => {
                        $name::Refused { status, message: in_words(status, &message) }
                    }
                }
            }
        }
    };
}

record_error! {
    /// Why a get failed.
    GetError,
    {
    },
    |failure| {
    }
}

record_error! {
    /// Why a scan, a min or a max failed. Records given before are good.
    ScanError,
    {
        /// The page's limits are out of range.
        #[error("a page has 1 to 4096 records and 1 byte to 4 MiB, not {page_records} and {page_bytes}")]
        PageLimits {
            /// Most records of one page.
            page_records: u32,
            /// Most bytes of one page.
            page_bytes: u32,
        },
    },
    |failure| {
    }
}

record_error! {
    /// Why a count failed.
    CountError,
    {},
    |failure| {}
}

record_error! {
    /// Why a put or a delete failed. Unless it is `Unknown`, `Poisoned` or `MayReturn`, nothing was written.
    WriteError,
    {
        /// The value is too long.
        #[error("a value has at most {limit} bytes here, this one has {len}")]
        ValueLength {
            /// The value's length.
            len: usize,
            /// The longest value that the node takes.
            limit: usize,
        },
        /// A record cannot live so long, or not at all.
        #[error("a record lives from 1ms to 100y (36500d), not {}", span(*ttl_ms))]
        BadTtl {
            /// The milliseconds that were asked for.
            ttl_ms: u64,
        },
        /// The condition does not hold.
        #[error("the condition does not hold: {}", current.map_or("there is no such record".to_owned(), |seq| format!("the record's version is {seq}")))]
        ConditionFailed {
            /// The record's version, where there is a record.
            current: Option<Seq>,
        },
        /// The drive is full.
        #[error("the drive is full with {live_bytes} bytes of records; delete or drop something, or add a drive")]
        Full {
            /// Bytes of live records on the shard.
            live_bytes: u64,
        },
        /// Index and memory tables use all the memory they may.
        #[error("the node's memory is full with {used_bytes} bytes; delete or drop something, or raise --memory")]
        MemoryFull {
            /// Bytes of index and memory tables on the shard.
            used_bytes: u64,
        },
        /// The drive failed a write; whether this write survives is not known, and the shard takes no more.
        #[error("the drive failed a write: the shard takes no writes until the node restarts, and this one may or may not survive")]
        Poisoned,
        /// It is written, but of a table with a compact index a record that cannot be read may be one of a key that it deletes.
        #[error("the write took place, but the damaged record at byte {at} of the drive may be one of a key that was deleted: should the drive read it again, it is there again; put the key, or drop the table")]
        MayReturn {
            /// Where on the drive.
            at: u64,
        },
        /// It was sent and not answered: whether it took place is not known. Read before trying again.
        #[error("the write was sent and not answered ({reason}): whether it took place is not known; read before trying again")]
        Unknown {
            /// Why there is no answer.
            reason: String,
        },
    },
    |failure| {
        Failure::Timeout { timeout, maybe_sent: true, .. } => WriteError::Unknown {
            reason: format!("no answer in {} ms", timeout.as_millis()),
        },
        Failure::Lost { reason, maybe_sent: true } => WriteError::Unknown { reason },
        Failure::ValueLength { len, limit } => WriteError::ValueLength { len, limit },
        Failure::Status { status: Status::ConditionFailed, seq, aux, .. } => {
            WriteError::ConditionFailed { current: (aux == 1).then_some(seq) }
        },
        Failure::Status { status: Status::BadTtl, aux, .. } => WriteError::BadTtl { ttl_ms: aux },
        Failure::Status { status: Status::Full, aux, .. } => WriteError::Full { live_bytes: aux },
        Failure::Status { status: Status::MemoryFull, aux, .. } => WriteError::MemoryFull { used_bytes: aux },
        Failure::Status { status: Status::Poisoned, .. } => WriteError::Poisoned,
        Failure::Status { status: Status::MayReturn, aux, .. } => WriteError::MayReturn { at: aux },
    }
}

/// Why a batch failed. Unless it is `Unknown`, `Poisoned` or `MayReturn`, nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Its keys fall in more than one partition.
    #[error("the batch's keys fall in more than one partition of `{table}`; a batch is atomic within one")]
    SpansPartitions {
        /// The table.
        table: String,
    },
    /// It has no writes, or too many writes or bytes.
    #[error(
        "a batch has 1 to {max_writes} writes and at most {max_bytes} bytes, this one has {writes} writes and {bytes} bytes"
    )]
    Size {
        /// Its writes.
        writes: usize,
        /// Its bytes as they travel.
        bytes: usize,
        /// The most writes that the node takes.
        max_writes: usize,
        /// The most bytes that the node takes.
        max_bytes: usize,
    },
    /// It failed as a single write may.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why an increment failed. Unless it is `Unknown` or `Poisoned`, nothing was counted; then it was counted
/// once or not at all, and is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IncrementError {
    /// The present value is no number.
    #[error("the present value is no decimal number of 64 bits; overwrite it, or increment another key")]
    NotANumber,
    /// The sum does not fit.
    #[error("the number would not fit 64 bits: it is {present}")]
    Overflow {
        /// The number that stays.
        present: i64,
    },
    /// It failed as any write may.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<Failure> for IncrementError {
    fn from(failure: Failure) -> IncrementError {
        match failure {
            Failure::Status { status: Status::NotANumber, .. } => IncrementError::NotANumber,
            Failure::Status { status: Status::NumberOverflow, aux, .. } => {
                IncrementError::Overflow { present: aux.cast_signed() }
            }
            other => IncrementError::Write(other.into()),
        }
    }
}

impl From<Misfit> for Failure {
    fn from(misfit: Misfit) -> Failure {
        match misfit {
            Misfit::Key(len) => Failure::KeyLength(len),
            Misfit::Value(len) => Failure::ValueLength { len, limit: MAX_REQUEST_BODY_BYTES },
        }
    }
}
