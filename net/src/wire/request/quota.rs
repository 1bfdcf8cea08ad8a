//! Requests about quotas: what lies in front of an archive or a name.

use super::{DecodeError, RequestView, TTL_BYTES, check_length};
use crate::wire::control::CreateTable;
use crate::wire::header::{array_at, u16_at, u32_at};
use crate::wire::ids::PartitionId;
use crate::wire::quota::Quota;

/// Bytes of a SetQuota's body in front of the table's name.
pub const SET_QUOTA_BYTES: usize = 8 + Quota::BYTES;

/// The body of a CreateTableQuota.
pub(super) fn create_body(table: &CreateTable, ttl_ms: Option<u64>, quota: &Quota) -> Vec<u8> {
    [&ttl_ms.unwrap_or(0).to_le_bytes()[..], &quota.to_bytes(), &table.to_bytes()].concat()
}

pub(super) fn decode_create(body: &[u8]) -> Result<RequestView<'_>, DecodeError> {
    let cut = DecodeError::Malformed("a table with a quota begins with a time to live and the quota");
    let (prefix, archive) = body.split_at_checked(TTL_BYTES + Quota::BYTES).ok_or(cut)?;
    let ttl_ms = Some(u64::from_le_bytes(array_at(prefix, 0))).filter(|ttl_ms| *ttl_ms > 0);
    let quota = Quota::from_bytes(&array_at(prefix, TTL_BYTES));
    let table = CreateTable::from_bytes(archive)?;
    check_length(&table.to_bytes(), archive)?;
    Ok(RequestView::CreateTableQuota { table, ttl_ms, quota })
}

/// The body of a SetQuota, but for the table's name.
pub(super) fn set_body(table: &str, partition: PartitionId, quota: Option<&Quota>) -> Vec<u8> {
    let mut body = Vec::with_capacity(SET_QUOTA_BYTES + table.len());
    body.extend_from_slice(&partition.0.to_le_bytes());
    body.extend_from_slice(&[u8::from(quota.is_some()), 0]);
    // A longer name is refused by the node: no table has one, and this one has another length than its bytes.
    body.extend_from_slice(&u16::try_from(table.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend_from_slice(&quota.map_or([0; Quota::BYTES], Quota::to_bytes));
    body.extend_from_slice(table.as_bytes());
    body
}

pub(super) fn decode_set(body: &[u8]) -> Result<RequestView<'_>, DecodeError> {
    let malformed = |what| Err(DecodeError::Malformed(what));
    let Some((prefix, name)) = body.split_at_checked(SET_QUOTA_BYTES) else {
        return malformed("a quota to set is cut short");
    };
    let Ok(table) = std::str::from_utf8(name) else { return malformed("the table's name is no text") };
    if usize::from(u16_at(prefix, 6)) != name.len() {
        return malformed("the table's name has another length than it says");
    }
    let quota: [u8; Quota::BYTES] = array_at(prefix, 8);
    let quota = match (prefix[4], prefix[5]) {
        (1, 0) => Some(Quota::from_bytes(&quota)),
        (0, 0) if quota == [0; Quota::BYTES] => None,
        _ => return malformed("a quota is set or taken back"),
    };
    Ok(RequestView::SetQuota { table, partition: PartitionId(u32_at(prefix, 0)), quota })
}
