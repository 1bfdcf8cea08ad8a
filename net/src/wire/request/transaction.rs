//! Requests of transactions: the transaction's id, and then as the request of the same name without one.

use super::frame::{Fields, Small};
use super::{DecodeError, EncodeError, ReadView, RequestView, Target};
use crate::wire::batch::BatchView;
use crate::wire::header::{RequestHeader, array_at, u32_at};
use crate::wire::ids::TransactionId;
use crate::wire::opcode::{Opcode, flags};

/// Bytes of a transaction's id in a body.
const TRANSACTION_BYTES: usize = 8;
/// Bytes of a Begin's body.
const BEGIN_BYTES: usize = 4;

impl ReadView<'_> {
    /// Its opcode.
    pub fn opcode(&self) -> Opcode {
        match self {
            ReadView::Get { .. } => Opcode::TransactionGet,
            ReadView::Scan(_) => Opcode::TransactionScan,
            ReadView::Count { .. } => Opcode::TransactionCount,
        }
    }

    fn fields(&self, target: Target) -> Result<Fields, EncodeError> {
        match self {
            ReadView::Get { key } => Fields::keyed(target, key),
            ReadView::Scan(scan) => Fields::scanned(target, scan),
            ReadView::Count { range } => Fields::ranged(target, range),
        }
    }
}

/// A header's fields, and a body: what comes before the keys, then the keys.
pub(super) type Parts<'a> = (Fields, Small, [&'a [u8]; 2]);

/// A request of a transaction, as a header's fields and the three parts of a body; `None` of any other.
pub(super) fn parts<'a>(request: &RequestView<'a>) -> Result<Option<Parts<'a>>, EncodeError> {
    let of = |target| Fields { target, ..Fields::default() };
    let id = |transaction: TransactionId| Small::default().with(&transaction.0.to_le_bytes());
    Ok(Some(match *request {
        RequestView::Begin { target, read_only, lifetime_ms } => {
            let flags = if read_only { flags::READ_ONLY } else { 0 };
            (Fields { flags, ..of(target) }, Small::default().with(&lifetime_ms.to_le_bytes()), [&[], &[]])
        }
        RequestView::Commit { target, transaction, batch } => {
            (of(target), id(transaction), [batch.as_bytes(), &[]])
        }
        RequestView::Rollback { target, transaction } => (of(target), id(transaction), [&[], &[]]),
        RequestView::Within { target, transaction, read } => {
            let prefix = id(transaction);
            let (prefix, keys) = match read {
                ReadView::Get { key } => (prefix, [key, &[]]),
                ReadView::Scan(scan) => {
                    let prefix = prefix.with(&scan.limit.to_le_bytes()).with(&scan.byte_budget.to_le_bytes());
                    (prefix, [scan.range.start, scan.range.end.unwrap_or(&[])])
                }
                ReadView::Count { range } => (prefix, [range.start, range.end.unwrap_or(&[])]),
            };
            (read.fields(target)?, prefix, keys)
        }
        _ => return Ok(None),
    }))
}

fn split_id(body: &[u8]) -> Result<(TransactionId, &[u8]), DecodeError> {
    let (id, rest) = body
        .split_at_checked(TRANSACTION_BYTES)
        .ok_or(DecodeError::Malformed("the transaction's id is cut short"))?;
    Ok((TransactionId(u64::from_le_bytes(array_at(id, 0))), rest))
}

/// A Begin, a Commit or a Rollback.
pub(super) fn decode(
    opcode: Opcode,
    flag_bits: u8,
    target: Target,
    body: &[u8],
) -> Result<RequestView<'_>, DecodeError> {
    if opcode == Opcode::Begin {
        let read_only = flag_bits & flags::READ_ONLY != 0;
        return match body.len() {
            BEGIN_BYTES => Ok(RequestView::Begin { target, read_only, lifetime_ms: u32_at(body, 0) }),
            _ => Err(DecodeError::Malformed("a begin has its lifetime and nothing else")),
        };
    }
    let (transaction, rest) = split_id(body)?;
    match opcode {
        Opcode::Commit => Ok(RequestView::Commit { target, transaction, batch: BatchView::decode(rest)? }),
        _ if rest.is_empty() => Ok(RequestView::Rollback { target, transaction }),
        _ => Err(DecodeError::Malformed("bytes after the transaction of a rollback")),
    }
}

/// A read in a transaction.
pub(super) fn decode_read<'a>(
    opcode: Opcode,
    header: &RequestHeader,
    target: Target,
    body: &'a [u8],
) -> Result<RequestView<'a>, DecodeError> {
    let (transaction, rest) = split_id(body)?;
    let plain = match opcode {
        Opcode::TransactionGet => Opcode::Get,
        Opcode::TransactionScan => Opcode::Scan,
        _ => Opcode::Count,
    };
    let read = match RequestView::decode_keyed(plain, header, target, rest)? {
        RequestView::Get { key, .. } => ReadView::Get { key },
        RequestView::Scan { scan, .. } => ReadView::Scan(scan),
        RequestView::Count { range, .. } => ReadView::Count { range },
        _ => unreachable!("a request of an opcode decodes to its own kind"),
    };
    Ok(RequestView::Within { target, transaction, read })
}
