//! One request of a load: what it is, how far it is, and what was answered.

use lode_net::wire::Target;

use crate::workload::Operation;

/// What is to be sent next of a request; some take several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read the record.
    Read,
    /// Write it.
    Write,
    /// Read records in key order.
    Scan,
    /// Begin a transaction.
    Begin,
    /// Read the record in this transaction.
    ReadWithin(u64),
    /// Write the record, and commit this transaction.
    Commit(u64),
    /// End this transaction, of which something failed.
    Rollback(u64),
}

/// A request that waits to be sent, or for its answer.
#[derive(Debug, Clone)]
pub struct Ask {
    /// When it was to be sent, in nanoseconds since the load's origin.
    pub at_ns: u64,
    /// Which record.
    pub index: u64,
    /// Which table.
    pub table: u16,
    /// Which kind.
    pub operation: Operation,
    /// What of it is next.
    pub step: Step,
    /// Partition and epoch.
    pub target: Target,
    /// The partition's place among those of all tables.
    pub place: u32,
    /// Records that a scan has still to read.
    pub left: u32,
    /// Where a scan goes on; empty at its beginning, which is the record's key.
    pub from: Vec<u8>,
}

/// How a server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// There is no such record.
    NotFound,
    /// Try again.
    Busy,
    /// Above a quota.
    Throttled,
    /// Another transaction was first.
    Conflict,
    /// Refused in another way.
    Refused,
}

/// An answer, whatever the protocol.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The value, or a page of records.
    pub body: &'a [u8],
    /// A number that belongs to the answer: the id of a transaction that was begun.
    pub number: u64,
    /// Whether a scan's partition holds more than this page.
    pub has_more: bool,
    /// What the server says about a failure.
    pub message: &'a str,
}
