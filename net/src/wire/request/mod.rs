//! Requests: decoded in place to borrowed values, encoded straight into an output buffer.

mod frame;
mod hello;
mod quota;
mod secret;
mod transaction;

use thiserror::Error;

use self::frame::{Fields, Small, append_frame};
pub use self::hello::hello_versions;
use self::hello::{decode_hello, encode_hello};
pub use self::secret::Secret;
use crate::wire::batch::BatchView;
use crate::wire::control::{CreateTable, DropTable, Hello};
use crate::wire::header::{RequestHeader, array_at, u32_at};
use crate::wire::ids::{Epoch, MapVersion, PartitionId, RequestId, Seq, TransactionId};
use crate::wire::opcode::{Opcode, flags};
use crate::wire::quota::Quota;
use crate::wire::scan::{RangeView, SCAN_PREFIX_BYTES, ScanView};
use crate::wire::status::Status;
use crate::wire::{MAGIC, limits};

/// Bytes of a Hello's body that are the same in every version: magic, oldest and newest version.
pub const HELLO_PREFIX_BYTES: usize = 8;
/// Bytes of a time to live in a body.
pub const TTL_BYTES: usize = 8;
/// Bytes of an Increment's body behind its key: what is added, and to what where there is no record.
pub const INCREMENT_BYTES: usize = 16;

/// Which partition, as the client knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch the client believes it has.
    pub epoch: Epoch,
}

/// When a write takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if there is no such record.
    IfAbsent,
    /// Only if the record is there and has this version.
    IfSeq(Seq),
}

/// How long a record is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// As its table says.
    #[default]
    Table,
    /// For ever, whatever its table says.
    Never,
    /// From the write on, so many milliseconds: 1 to [`limits::MAX_TTL_MS`].
    After {
        /// Milliseconds.
        ttl_ms: u64,
    },
}

/// What is read in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadView<'a> {
    /// One record.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// One page of records.
    Scan(ScanView<'a>),
    /// How many records there are.
    Count {
        /// From where to where.
        range: RangeView<'a>,
    },
}

/// One request, borrowing the bytes it came in (or is made of).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestView<'a> {
    /// Handshake.
    Hello(HelloView),
    /// Read one record.
    Get {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
    },
    /// Write one record, if `condition` holds.
    Put {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// When to write.
        condition: Condition,
        /// How long it is to live.
        ttl: Ttl,
    },
    /// Delete one record, if `condition` holds (`IfAbsent` cannot be said).
    Delete {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// When to delete.
        condition: Condition,
    },
    /// Add to a number, in decimal digits; where there is no record, to `initial`.
    Increment {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// What is added; may be negative.
        by: i64,
        /// What it is added to where there is no record.
        initial: i64,
    },
    /// Set anew when a record expires; where there is none, nothing is done.
    Expire {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// How long it is to live from now on.
        ttl: Ttl,
    },
    /// How long a record has still to live.
    TimeToLive {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
    },
    /// All of these writes, or none.
    Batch {
        /// Which partition.
        target: Target,
        /// The writes.
        batch: BatchView<'a>,
    },
    /// One page of records in key order.
    Scan {
        /// Which partition.
        target: Target,
        /// What of it.
        scan: ScanView<'a>,
    },
    /// The first record.
    Min {
        /// Which partition.
        target: Target,
    },
    /// The last record.
    Max {
        /// Which partition.
        target: Target,
    },
    /// How many records a range holds.
    Count {
        /// Which partition.
        target: Target,
        /// From where to where.
        range: RangeView<'a>,
    },
    /// Begin a transaction.
    Begin {
        /// Which partition.
        target: Target,
        /// It will write nothing.
        read_only: bool,
        /// How long it may live, in milliseconds; 0: as long as the node likes.
        lifetime_ms: u32,
    },
    /// All writes of a transaction, if nothing that it has read was changed.
    Commit {
        /// Which partition.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
        /// The writes; none is fine.
        batch: BatchView<'a>,
    },
    /// End a transaction without writing.
    Rollback {
        /// Which partition.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
    },
    /// Read what a transaction sees.
    Within {
        /// Which partition.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
        /// What to read.
        read: ReadView<'a>,
    },
    /// Make a table.
    CreateTable(CreateTable),
    /// Make a table whose records live so many milliseconds unless they say otherwise.
    CreateTableTtl {
        /// The table.
        table: CreateTable,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// Make a table whose partitions have a quota, and perhaps its records a time to live.
    CreateTableQuota {
        /// The table.
        table: CreateTable,
        /// Milliseconds, where they expire.
        ttl_ms: Option<u64>,
        /// The quota of each partition.
        quota: Quota,
    },
    /// Set the quota of all partitions of a table, or of one.
    SetQuota {
        /// The table.
        table: &'a str,
        /// The partition; 0: of all that have none of their own.
        partition: PartitionId,
        /// The quota; `None` takes back what was set.
        quota: Option<Quota>,
    },
    /// The quotas that were set.
    Quotas,
    /// The tables whose records expire by default.
    TableTtls,
    /// Forget a table.
    DropTable(DropTable),
    /// The tables of the node.
    ListTables,
    /// The partition map, if the client's is not current.
    Map,
    /// Counters and gauges of the node.
    Stats,
    /// Nothing; the body comes back.
    Ping {
        /// The body.
        payload: &'a [u8],
    },
    /// Write a checkpoint on every shard.
    Checkpoint,
    /// Begin a round of the scrub on every shard.
    Scrub,
    /// For whom the connection acts.
    Authenticate(Secret<'a>),
}

/// The handshake, as far as it can be read: the archive only where the versions meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloView {
    /// Oldest version the client speaks.
    pub oldest_version: u16,
    /// Newest version the client speaks.
    pub newest_version: u16,
    /// The rest.
    pub hello: Hello,
}

/// A frame whose checksum holds, but whose content makes no sense. The connection survives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// No such opcode.
    #[error("there is no opcode {0}")]
    UnknownOpcode(u8),
    /// The body or a header field is not what the opcode asks for.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl DecodeError {
    /// The status that says so.
    pub fn status(&self) -> Status {
        match self {
            DecodeError::UnknownOpcode(_) => Status::UnknownOpcode,
            DecodeError::Malformed(_) => Status::Malformed,
        }
    }
}

/// A request cannot be written: it is beyond what a frame can say. Nothing was added to the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The key does not fit its length field.
    #[error("a key has 1 to 4096 bytes, this one has {len}")]
    KeyLength {
        /// The key's length.
        len: usize,
    },
    /// The body is longer than a node takes.
    #[error("a request's body has at most {limit} bytes, this one has {len}", limit = limits::MAX_REQUEST_BODY_BYTES)]
    BodyLength {
        /// The body's length.
        len: usize,
    },
}

impl<'a> RequestView<'a> {
    /// The request of a frame whose checksum holds. `body` is all of it.
    pub fn decode(header: &RequestHeader, body: &'a [u8]) -> Result<RequestView<'a>, DecodeError> {
        let opcode = Opcode::from_u8(header.opcode).ok_or(DecodeError::UnknownOpcode(header.opcode))?;
        if header.flags & !opcode.allowed_flags() != 0 {
            return Err(DecodeError::Malformed("a flag that this operation does not have"));
        }
        let target = Target { partition: header.partition, epoch: header.epoch };
        if !opcode.is_for_partition() && target != Target::default() {
            return Err(DecodeError::Malformed("a partition where the operation is for none"));
        }
        match opcode {
            Opcode::Get
            | Opcode::Put
            | Opcode::Delete
            | Opcode::Scan
            | Opcode::Count
            | Opcode::Increment
            | Opcode::Expire
            | Opcode::TimeToLive => Self::decode_keyed(opcode, header, target, body),
            Opcode::TransactionGet | Opcode::TransactionScan | Opcode::TransactionCount => {
                transaction::decode_read(opcode, header, target, body)
            }
            _ if header.key_len != 0 => Err(DecodeError::Malformed("a key where the operation has none")),
            Opcode::Hello => decode_hello(body).map(RequestView::Hello),
            Opcode::Batch => Ok(RequestView::Batch { target, batch: BatchView::decode(body)? }),
            Opcode::CreateTable => decode_create_table(header.flags, body),
            Opcode::CreateTableQuota => quota::decode_create(body),
            Opcode::SetQuota => quota::decode_set(body),
            Opcode::Begin | Opcode::Commit | Opcode::Rollback => {
                transaction::decode(opcode, header.flags, target, body)
            }
            Opcode::DropTable => {
                let drop = DropTable::from_bytes(body)?;
                check_length(&drop.to_bytes(), body)?;
                Ok(RequestView::DropTable(drop))
            }
            Opcode::Ping => Ok(RequestView::Ping { payload: body }),
            Opcode::Authenticate => Secret::decode(body).map(RequestView::Authenticate),
            _ if !body.is_empty() => Err(DecodeError::Malformed("a body where the operation has none")),
            Opcode::Min => Ok(RequestView::Min { target }),
            Opcode::Max => Ok(RequestView::Max { target }),
            Opcode::ListTables => Ok(RequestView::ListTables),
            Opcode::Map => Ok(RequestView::Map),
            Opcode::Stats => Ok(RequestView::Stats),
            Opcode::Checkpoint => Ok(RequestView::Checkpoint),
            Opcode::TableTtls => Ok(RequestView::TableTtls),
            Opcode::Scrub => Ok(RequestView::Scrub),
            Opcode::Quotas => Ok(RequestView::Quotas),
        }
    }

    fn decode_keyed(
        opcode: Opcode,
        header: &RequestHeader,
        target: Target,
        body: &'a [u8],
    ) -> Result<RequestView<'a>, DecodeError> {
        let prefix_len = if opcode == Opcode::Scan { SCAN_PREFIX_BYTES } else { 0 };
        let (prefix, rest) = body
            .split_at_checked(prefix_len)
            .ok_or(DecodeError::Malformed("a scan begins with its limits"))?;
        let (key, rest) = rest
            .split_at_checked(usize::from(header.key_len))
            .ok_or(DecodeError::Malformed("the key is longer than the body"))?;
        match opcode {
            Opcode::Get if rest.is_empty() => Ok(RequestView::Get { target, key }),
            Opcode::Put => {
                let (condition, rest) = split_condition(header.flags, rest)?;
                let (ttl, value) = split_ttl(header.flags, rest)?;
                Ok(RequestView::Put { target, key, value, condition, ttl })
            }
            Opcode::Delete => match split_condition(header.flags, rest)? {
                (condition, []) => Ok(RequestView::Delete { target, key, condition }),
                _ => Err(DecodeError::Malformed("bytes after the key of a delete")),
            },
            Opcode::Expire => match split_ttl(header.flags, rest)? {
                (ttl, []) => Ok(RequestView::Expire { target, key, ttl }),
                _ => Err(DecodeError::Malformed("bytes after the time to live")),
            },
            Opcode::TimeToLive if rest.is_empty() => Ok(RequestView::TimeToLive { target, key }),
            Opcode::Increment => match rest.len() {
                INCREMENT_BYTES => {
                    let number = |at| i64::from_le_bytes(array_at(rest, at));
                    Ok(RequestView::Increment { target, key, by: number(0), initial: number(8) })
                }
                _ => Err(DecodeError::Malformed("an increment has two numbers behind its key")),
            },
            Opcode::Scan => {
                let scan = ScanView {
                    range: decode_range(header.flags, key, rest)?,
                    reverse: header.flags & flags::REVERSE != 0,
                    keys_only: header.flags & flags::KEYS_ONLY != 0,
                    ttls: header.flags & flags::TTL != 0,
                    limit: u32_at(prefix, 0),
                    byte_budget: u32_at(prefix, 4),
                };
                Ok(RequestView::Scan { target, scan })
            }
            Opcode::Count => Ok(RequestView::Count { target, range: decode_range(header.flags, key, rest)? }),
            _ => Err(DecodeError::Malformed("bytes after the key")),
        }
    }

    /// The request's opcode.
    pub fn opcode(&self) -> Opcode {
        match self {
            RequestView::Hello(_) => Opcode::Hello,
            RequestView::Get { .. } => Opcode::Get,
            RequestView::Put { .. } => Opcode::Put,
            RequestView::Delete { .. } => Opcode::Delete,
            RequestView::Increment { .. } => Opcode::Increment,
            RequestView::Expire { .. } => Opcode::Expire,
            RequestView::TimeToLive { .. } => Opcode::TimeToLive,
            RequestView::TableTtls => Opcode::TableTtls,
            RequestView::CreateTableQuota { .. } => Opcode::CreateTableQuota,
            RequestView::SetQuota { .. } => Opcode::SetQuota,
            RequestView::Quotas => Opcode::Quotas,
            RequestView::Batch { .. } => Opcode::Batch,
            RequestView::Scan { .. } => Opcode::Scan,
            RequestView::Min { .. } => Opcode::Min,
            RequestView::Max { .. } => Opcode::Max,
            RequestView::Count { .. } => Opcode::Count,
            RequestView::CreateTable(_) | RequestView::CreateTableTtl { .. } => Opcode::CreateTable,
            RequestView::DropTable(_) => Opcode::DropTable,
            RequestView::ListTables => Opcode::ListTables,
            RequestView::Map => Opcode::Map,
            RequestView::Stats => Opcode::Stats,
            RequestView::Ping { .. } => Opcode::Ping,
            RequestView::Checkpoint => Opcode::Checkpoint,
            RequestView::Scrub => Opcode::Scrub,
            RequestView::Authenticate(_) => Opcode::Authenticate,
            RequestView::Begin { .. } => Opcode::Begin,
            RequestView::Commit { .. } => Opcode::Commit,
            RequestView::Rollback { .. } => Opcode::Rollback,
            RequestView::Within { read, .. } => read.opcode(),
        }
    }

    /// Appends the whole frame to `out`.
    pub fn encode(
        &self,
        request_id: RequestId,
        map_version: MapVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if let Some((fields, small, keys)) = transaction::parts(self)? {
            let parts = [small.as_bytes(), keys[0], keys[1]];
            return append_frame(self.opcode(), fields, request_id, map_version, parts, out);
        }
        let control_body = self.control_body();
        let mut fields = Fields::default();
        // At most three parts, each copied once, from where it lies into the output.
        let small;
        let parts: [&[u8]; 3] = match self {
            RequestView::Get { target, key } | RequestView::TimeToLive { target, key } => {
                fields = Fields::keyed(*target, key)?;
                [key, &[], &[]]
            }
            RequestView::Put { target, key, value, condition, ttl } => {
                fields = Fields::keyed(*target, key)?;
                small = Small::of(*condition, *ttl, &mut fields.flags);
                [key, small.as_bytes(), value]
            }
            RequestView::Expire { target, key, ttl } => {
                fields = Fields::keyed(*target, key)?;
                small = Small::of(Condition::Always, *ttl, &mut fields.flags);
                [key, small.as_bytes(), &[]]
            }
            RequestView::CreateTableTtl { .. } => {
                fields.flags = flags::TTL;
                [&control_body, &[], &[]]
            }
            RequestView::Delete { target, key, condition } => {
                fields = Fields::keyed(*target, key)?;
                small = Small::of(*condition, Ttl::Table, &mut fields.flags);
                [key, small.as_bytes(), &[]]
            }
            RequestView::Increment { target, key, by, initial } => {
                fields = Fields::keyed(*target, key)?;
                small = Small::default().with(&by.to_le_bytes()).with(&initial.to_le_bytes());
                [key, small.as_bytes(), &[]]
            }
            RequestView::Batch { target, batch } => {
                fields.target = *target;
                [batch.as_bytes(), &[], &[]]
            }
            RequestView::Scan { target, scan } => {
                fields = Fields::scanned(*target, scan)?;
                small =
                    Small::default().with(&scan.limit.to_le_bytes()).with(&scan.byte_budget.to_le_bytes());
                [small.as_bytes(), scan.range.start, scan.range.end.unwrap_or(&[])]
            }
            RequestView::Count { target, range } => {
                fields = Fields::ranged(*target, range)?;
                [range.start, range.end.unwrap_or(&[]), &[]]
            }
            RequestView::Min { target } | RequestView::Max { target } => {
                fields.target = *target;
                [&[], &[], &[]]
            }
            RequestView::Ping { payload } | RequestView::Authenticate(Secret(payload)) => [payload, &[], &[]],
            _ => [&control_body, &[], &[]],
        };
        append_frame(self.opcode(), fields, request_id, map_version, parts, out)
    }

    fn control_body(&self) -> Vec<u8> {
        match self {
            RequestView::Hello(hello) => encode_hello(hello),
            RequestView::CreateTable(create) => create.to_bytes(),
            RequestView::CreateTableTtl { table, ttl_ms } => {
                [&ttl_ms.to_le_bytes()[..], &table.to_bytes()].concat()
            }
            RequestView::CreateTableQuota { table, ttl_ms, quota } => {
                quota::create_body(table, *ttl_ms, quota)
            }
            RequestView::SetQuota { table, partition, quota } => {
                quota::set_body(table, *partition, quota.as_ref())
            }
            RequestView::DropTable(drop) => drop.to_bytes(),
            _ => Vec::new(),
        }
    }
}

fn split_ttl(flag_bits: u8, rest: &[u8]) -> Result<(Ttl, &[u8]), DecodeError> {
    match (flag_bits & flags::TTL != 0, flag_bits & flags::NO_TTL != 0) {
        (false, false) => Ok((Ttl::Table, rest)),
        (false, true) => Ok((Ttl::Never, rest)),
        (true, true) => Err(DecodeError::Malformed("a time to live, and none")),
        (true, false) => match rest.split_at_checked(TTL_BYTES) {
            Some((ttl, rest)) => Ok((Ttl::After { ttl_ms: u64::from_le_bytes(array_at(ttl, 0)) }, rest)),
            None => Err(DecodeError::Malformed("the time to live is cut short")),
        },
    }
}

fn decode_create_table(flag_bits: u8, body: &[u8]) -> Result<RequestView<'_>, DecodeError> {
    let (ttl, archive) = split_ttl(flag_bits, body)?;
    let table = CreateTable::from_bytes(archive)?;
    check_length(&table.to_bytes(), archive)?;
    Ok(match ttl {
        Ttl::After { ttl_ms } => RequestView::CreateTableTtl { table, ttl_ms },
        _ => RequestView::CreateTable(table),
    })
}

fn split_condition(flag_bits: u8, rest: &[u8]) -> Result<(Condition, &[u8]), DecodeError> {
    match (flag_bits & flags::IF_ABSENT != 0, flag_bits & flags::IF_SEQ != 0) {
        (false, false) => Ok((Condition::Always, rest)),
        (true, false) => Ok((Condition::IfAbsent, rest)),
        (true, true) => Err(DecodeError::Malformed("two conditions on one write")),
        (false, true) => match rest.split_at_checked(Seq::BYTES) {
            Some((seq, value)) => Ok((Condition::IfSeq(Seq::from_bytes(array_at(seq, 0))), value)),
            None => Err(DecodeError::Malformed("the expected version is cut short")),
        },
    }
}

fn decode_range<'a>(flag_bits: u8, start: &'a [u8], end: &'a [u8]) -> Result<RangeView<'a>, DecodeError> {
    match flag_bits & flags::HAS_END != 0 {
        true => Ok(RangeView { start, end: Some(end) }),
        false if end.is_empty() => Ok(RangeView { start, end: None }),
        false => Err(DecodeError::Malformed("an end without its flag")),
    }
}

/// An archive is read from its end, so that bytes before it or behind it could pass for a part of it.
fn check_length(archive: &[u8], body: &[u8]) -> Result<(), DecodeError> {
    match archive.len() == body.len() {
        true => Ok(()),
        false => Err(DecodeError::Malformed("the archive has bytes that are not its own")),
    }
}

const _: () = assert!(HELLO_PREFIX_BYTES == MAGIC.len() + 4);

#[cfg(test)]
mod tests;
