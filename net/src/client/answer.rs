//! Replies, read in the words of their operations. Shared by both clients.

use std::time::Duration;

use bytes::Bytes;

use crate::client::connection::OwnedReply;
use crate::client::error::{Failure, StatsError};
use crate::client::options::{Counted, QuotaRow, Record, ScanRecord, TableInfo, TimeLeft, Written};
use crate::wire::control::TableList;
use crate::wire::header::array_at;
use crate::wire::quota::QUOTA_ROW_BYTES;
use crate::wire::{PartitionId, Quota, Status};

/// A page of a scan.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) records: Vec<ScanRecord>,
    pub(crate) more: bool,
}

pub(crate) fn of_get(reply: OwnedReply) -> Result<Option<Record>, Failure> {
    match reply.status() {
        Status::NotFound => Ok(None),
        _ => of_done(&reply).map(|()| {
            let left = TimeLeft::of_ms(reply.header.aux);
            Some(Record { seq: reply.header.seq, value: reply.body, left })
        }),
    }
}

pub(crate) fn of_time_left(reply: &OwnedReply) -> Result<Option<TimeLeft>, Failure> {
    match reply.status() {
        Status::NotFound => Ok(None),
        _ => of_done(reply).map(|()| Some(TimeLeft::of_ms(reply.header.aux))),
    }
}

/// Ids of tables, and the time that their records live by default.
pub(crate) fn of_table_ttls(reply: &OwnedReply) -> Result<Vec<(u32, Duration)>, Failure> {
    if reply.status() == Status::UnknownOpcode {
        // A node from before there were any.
        return Ok(Vec::new());
    }
    of_done(reply)?;
    let (ttls, rest) = reply.body.as_chunks::<12>();
    let ttls = ttls.iter().map(|bytes| {
        let ttl_ms = u64::from_le_bytes(array_at(bytes, 4));
        (u32::from_le_bytes(array_at(bytes, 0)), Duration::from_millis(ttl_ms))
    });
    if rest.is_empty() { Ok(ttls.collect()) } else { Err(Failure::BadReply("not times to live of tables")) }
}

/// Quotas that were set.
pub(crate) fn of_quotas(reply: &OwnedReply) -> Result<Vec<QuotaRow>, Failure> {
    if reply.status() == Status::UnknownOpcode {
        // A node from before there were any.
        return Ok(Vec::new());
    }
    of_done(reply)?;
    let (rows, rest) = reply.body.as_chunks::<QUOTA_ROW_BYTES>();
    let rows = rows.iter().map(|bytes| QuotaRow {
        table: u32::from_le_bytes(array_at(bytes, 0)),
        partition: Some(PartitionId(u32::from_le_bytes(array_at(bytes, 4)))).filter(|id| id.0 > 0),
        quota: Quota::from_bytes(&array_at(bytes, 8)),
    });
    if rest.is_empty() { Ok(rows.collect()) } else { Err(Failure::BadReply("not quotas")) }
}

pub(crate) fn of_write(reply: &OwnedReply) -> Result<Written, Failure> {
    of_done(reply).map(|()| Written { seq: reply.header.seq, existed: reply.header.aux == 1 })
}

pub(crate) fn of_increment(reply: &OwnedReply) -> Result<Counted, Failure> {
    of_done(reply).map(|()| Counted { seq: reply.header.seq, number: reply.header.aux.cast_signed() })
}

pub(crate) fn of_count(reply: &OwnedReply) -> Result<u64, Failure> {
    of_done(reply).map(|()| reply.header.aux)
}

pub(crate) fn of_done(reply: &OwnedReply) -> Result<(), Failure> {
    Failure::of_reply(reply).map_or(Ok(()), Err)
}

/// Of a Scan, a Min or a Max; keys and values share the reply's one buffer.
pub(crate) fn of_page(reply: &OwnedReply) -> Result<Page, Failure> {
    if reply.status() == Status::NotFound {
        return Ok(Page::default());
    }
    of_done(reply)?;
    let shared = |part: &[u8]| if part.is_empty() { Bytes::new() } else { reply.body.slice_ref(part) };
    let mut records = Vec::with_capacity(reply.header.aux.min(4096) as usize);
    for record in reply.view().records() {
        let record = record.map_err(|_| Failure::BadReply("a page of records is damaged"))?;
        let left = TimeLeft::of_ms(record.ttl_ms.unwrap_or(0));
        let (key, value) = (shared(record.key), shared(record.value));
        records.push(ScanRecord { key, seq: record.seq, value, left });
    }
    if records.len() as u64 != reply.header.aux {
        return Err(Failure::BadReply("a page holds another number of records than it says"));
    }
    Ok(Page { records, more: reply.view().has_more() })
}

pub(crate) fn of_table(reply: &OwnedReply) -> Result<TableInfo, Failure> {
    of_done(reply)?;
    TableInfo::from_bytes(&reply.body).map_err(|_| Failure::BadReply("not a table"))
}

pub(crate) fn of_tables(reply: &OwnedReply) -> Result<Vec<TableInfo>, Failure> {
    of_done(reply)?;
    let list = TableList::from_bytes(&reply.body).map_err(|_| Failure::BadReply("not a list of tables"))?;
    Ok(list.tables)
}

pub(crate) fn of_stats(reply: &OwnedReply) -> Result<serde_json::Value, StatsError> {
    of_done(reply)?;
    serde_json::from_slice(&reply.body).map_err(|error| StatsError::BadReply(error.to_string()))
}

/// The record with the smallest or largest key of the pages' records.
pub(crate) fn extreme_of(pages: impl IntoIterator<Item = Page>, largest: bool) -> Option<ScanRecord> {
    let records = pages.into_iter().flat_map(|page| page.records);
    match largest {
        true => records.max_by(|a, b| a.key.cmp(&b.key)),
        false => records.min_by(|a, b| a.key.cmp(&b.key)),
    }
}
