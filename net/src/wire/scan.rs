//! Bodies of Scan, Count, Min and Max: key ranges, and pages of records.

use crate::wire::header::{array_at, u16_at, u32_at};
use crate::wire::ids::Seq;
use crate::wire::request::DecodeError;

/// Bytes of a Scan's body before its start key: `limit u32, byte_budget u32`.
pub const SCAN_PREFIX_BYTES: usize = 8;
/// Bytes of a page's record before its key: `value_len u32, key_len u16, expires u16, seq 16`.
pub const SCAN_RECORD_HEADER_BYTES: usize = 24;
/// Bytes behind the header of a record that expires, where the scan asked for times to live.
pub const SCAN_RECORD_TTL_BYTES: usize = 8;
/// In the header of a record: its time to live follows.
const EXPIRES: u16 = 1;

/// A half-open range of raw keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeView<'a> {
    /// First key of the range; empty means from the smallest.
    pub start: &'a [u8],
    /// First key beyond the range; `None` means to the largest.
    pub end: Option<&'a [u8]>,
}

/// What a Scan asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanView<'a> {
    /// From where to where.
    pub range: RangeView<'a>,
    /// Descending order, from the range's end.
    pub reverse: bool,
    /// Leave out values and versions.
    pub keys_only: bool,
    /// Say how long each record has still to live.
    pub ttls: bool,
    /// Most records of the page.
    pub limit: u32,
    /// Most bytes of keys and values in the page; at least one record is given.
    pub byte_budget: u32,
}

/// One record of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its version; zero where only keys were asked for.
    pub seq: Seq,
    /// Its value; empty where only keys were asked for.
    pub value: &'a [u8],
    /// Milliseconds that it has still to live, where it expires and that was asked for.
    pub ttl_ms: Option<u64>,
}

/// The header of one record of a page; the key and the value follow, each from where it lies.
///
/// # Panics
/// Where the key is longer than 65,535 bytes or the value longer than `u32::MAX`: the engine's limits forbid it.
pub fn record_header(record: &RecordView<'_>) -> [u8; SCAN_RECORD_HEADER_BYTES] {
    let key_len = u16::try_from(record.key.len()).expect("the engine limits keys");
    let value_len = u32::try_from(record.value.len()).expect("the engine limits values");
    let mut out = [0u8; SCAN_RECORD_HEADER_BYTES];
    out[0..4].copy_from_slice(&value_len.to_le_bytes());
    out[4..6].copy_from_slice(&key_len.to_le_bytes());
    out[6..8].copy_from_slice(&(if record.ttl_ms.is_some() { EXPIRES } else { 0 }).to_le_bytes());
    out[8..24].copy_from_slice(&record.seq.to_bytes());
    out
}

/// Adds one record to a page's body.
pub fn push_record(body: &mut Vec<u8>, record: &RecordView<'_>) {
    body.extend_from_slice(&record_header(record));
    if let Some(ttl_ms) = record.ttl_ms {
        body.extend_from_slice(&ttl_ms.to_le_bytes());
    }
    body.extend_from_slice(record.key);
    body.extend_from_slice(record.value);
}

/// Takes the first record off a page's body; `None` at its end.
pub fn split_record(body: &[u8]) -> Result<Option<(RecordView<'_>, &[u8])>, DecodeError> {
    const SHORT: DecodeError = DecodeError::Malformed("a record of a page is cut short");
    if body.is_empty() {
        return Ok(None);
    }
    let (head, rest) = body.split_at_checked(SCAN_RECORD_HEADER_BYTES).ok_or(SHORT)?;
    let (ttl_ms, rest) = match u16_at(head, 6) {
        EXPIRES => {
            let (ttl, rest) = rest.split_at_checked(SCAN_RECORD_TTL_BYTES).ok_or(SHORT)?;
            (Some(u64::from_le_bytes(array_at(ttl, 0))), rest)
        }
        _ => (None, rest),
    };
    let (key, rest) = rest.split_at_checked(usize::from(u16_at(head, 4))).ok_or(SHORT)?;
    let (value, rest) = rest.split_at_checked(u32_at(head, 0) as usize).ok_or(SHORT)?;
    Ok(Some((RecordView { key, seq: Seq::from_bytes(array_at(head, 8)), value, ttl_ms }, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_record_by_record() {
        let seq = Seq { wall_ns: 5, counter: 6, node: 7 };
        let records = [
            RecordView { key: b"a", seq, value: b"one", ttl_ms: Some(1 << 40) },
            RecordView { key: b"b", seq: Seq::default(), value: b"", ttl_ms: None },
        ];
        let mut body = Vec::new();
        records.iter().for_each(|r| push_record(&mut body, r));
        let (first, rest) = split_record(&body).expect("whole").expect("two");
        let (second, rest) = split_record(rest).expect("whole").expect("one");
        assert_eq!([first, second], records);
        assert_eq!(split_record(rest), Ok(None));
        for len in 1..SCAN_RECORD_HEADER_BYTES + SCAN_RECORD_TTL_BYTES + 4 {
            assert!(split_record(&body[..len]).is_err(), "{len}");
        }
    }
}
