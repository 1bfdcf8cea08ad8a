//! Why a command is refused, in words that Redis clients know.

use std::fmt::Display;

use super::limits::MAX_HELD_BYTES;
use crate::access::MeterError;
use lode_net::client::{
    BatchError, CountError, GetError, IncrementError, ScanError, TableError, TransactionError, WriteError,
};
use lode_net::resp::Reply;
use lode_net::wire::Status;

/// What a command is answered with instead of what it asked for: an error's text, its word first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// An error without a word of its own.
    pub fn new(text: impl Display) -> Refusal {
        Refusal(format!("ERR {text}"))
    }

    fn with(word: &str, text: impl Display) -> Refusal {
        Refusal(format!("{word} {text}"))
    }

    /// More requests than the client may make.
    pub fn throttled(error: MeterError) -> Refusal {
        Refusal::with("THROTTLED", error)
    }

    /// More than the door may hold, for what others have not taken yet.
    pub fn short_of_memory() -> Refusal {
        Refusal::with(
            "BUSY",
            format_args!(
                "memory is short: requests and replies of all clients may hold {MAX_HELD_BYTES} bytes together; nothing was \
                 done, try again"
            ),
        )
    }

    /// Options that make no sense.
    pub fn syntax() -> Refusal {
        Refusal::new("syntax error")
    }

    /// An argument that is no whole number.
    pub fn not_an_integer() -> Refusal {
        Refusal::new("value is not an integer or out of range")
    }

    /// An argument, or a value, that is no number.
    pub fn not_a_float() -> Refusal {
        Refusal::new("value is not a valid float")
    }

    /// A time to live that no record can have.
    pub fn bad_time(command: &str) -> Refusal {
        Refusal::new(format_args!("invalid expire time in '{command}' command"))
    }

    /// More or fewer arguments than the command has.
    pub fn arity(command: &str) -> Refusal {
        Refusal::new(format_args!("wrong number of arguments for '{command}' command"))
    }

    /// A value that would be longer than any may be.
    pub fn too_long(limit: usize) -> Refusal {
        Refusal::new(format_args!("string exceeds maximum allowed size ({limit} bytes)"))
    }

    /// Keys of several partitions where only one can be.
    pub fn cross_slot(table: &str) -> Refusal {
        Refusal::with(
            "CROSSSLOT",
            format_args!(
                "Keys in request don't hash to the same slot: they fall in several partitions of table '{table}', and \
                 this is atomic within one; use a table with one partition, or keys of one range"
            ),
        )
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::Error(refusal.0)
    }
}

/// The variants that all errors of records share.
macro_rules! of_records {
    ($error:ident, $other:ident => $own:expr) => {
        impl From<$error> for Refusal {
            fn from(error: $error) -> Refusal {
                match error {
                    $error::Busy { .. } => Refusal::with("BUSY", error),
                    $error::Throttled { .. } => Refusal::with("THROTTLED", error),
                    $error::Refused { status: Status::NotReady, .. } => Refusal::with("LOADING", error),
                    $other => $own,
                }
            }
        }
    };
}

of_records!(GetError, error => Refusal::new(error));
of_records!(ScanError, error => Refusal::new(error));
of_records!(CountError, error => Refusal::new(error));
of_records!(WriteError, error => match error {
    WriteError::ValueLength { limit, .. } => Refusal::too_long(limit),
    WriteError::Full { .. } | WriteError::MemoryFull { .. } => Refusal::with("OOM", error),
    WriteError::Poisoned => Refusal::with("MISCONF", error),
    WriteError::Unknown { .. } => Refusal::with("UNKNOWN", error),
    WriteError::MayReturn { .. } => Refusal::with("MAYRETURN", error),
    error => Refusal::new(error),
});

impl From<IncrementError> for Refusal {
    fn from(error: IncrementError) -> Refusal {
        match error {
            IncrementError::NotANumber => Refusal::not_an_integer(),
            IncrementError::Overflow { .. } => Refusal::new("increment or decrement would overflow"),
            IncrementError::Write(error) => error.into(),
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Refusal {
        match error {
            BatchError::SpansPartitions { table } => Refusal::cross_slot(&table),
            BatchError::Write(error) => error.into(),
            error => Refusal::new(error),
        }
    }
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Refusal {
        match error {
            TransactionError::OtherPartition { table } => Refusal::cross_slot(&table),
            TransactionError::Read(error) => error.into(),
            TransactionError::Write(error) => error.into(),
            TransactionError::TooMany => Refusal::with("BUSY", error),
            error => Refusal::new(error),
        }
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Refusal {
        Refusal::new(error)
    }
}
