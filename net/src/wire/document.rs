//! Holds the tables of `PROTOCOL.md` against the constants.

use std::mem::offset_of;

use crate::wire::header::{REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, ReplyHeader, RequestHeader};
use crate::wire::opcode::{Opcode, flags, reply_flags};
use crate::wire::scan::SCAN_RECORD_HEADER_BYTES;
use crate::wire::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Quota, Status, batch, limits};

const DOCUMENT: &str = include_str!("../../PROTOCOL.md");

/// The first `width` cells of each row of the first table after a heading.
fn table(heading: &str, width: usize) -> Vec<Vec<String>> {
    let start = DOCUMENT.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let lines = DOCUMENT[start..].lines().skip_while(|line| !line.starts_with('|'));
    let cells = |line: &str| line.split('|').skip(1).take(width).map(|cell| cell.trim().to_owned()).collect();
    lines.take_while(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

fn row(cells: &[&dyn std::fmt::Display]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

/// Rows of offset, size and name from offsets in order and the whole size.
fn fields(offsets: &[(usize, &str)], whole: usize) -> Vec<Vec<String>> {
    let ends = offsets.iter().skip(1).map(|(at, _)| *at).chain([whole]);
    offsets.iter().zip(ends).map(|((at, name), end)| row(&[at, &(end - at), name])).collect()
}

macro_rules! offsets {
    ($header:ty: $($field:ident)*) => {
        &[$((offset_of!($header, $field), stringify!($field))),*]
    };
}

macro_rules! named {
    ($module:ident: $($name:ident)*) => {
        vec![$((stringify!($name), $module::$name as u64)),*]
    };
}

#[test]
fn headers_are_as_documented() {
    let request =
        offsets!(RequestHeader: body_len crc request_id opcode flags key_len partition epoch map_version);
    assert_eq!(table("### Request header, 32 bytes", 3), fields(request, REQUEST_HEADER_BYTES));
    let reply = offsets!(ReplyHeader: body_len crc request_id status opcode flags map_version seq aux);
    assert_eq!(table("### Reply header, 48 bytes", 3), fields(reply, REPLY_HEADER_BYTES));
}

#[test]
fn opcodes_and_statuses_are_as_documented() {
    let whom = |opcode: Opcode| if opcode.is_for_partition() { "partition" } else { "node" };
    let opcodes: Vec<_> =
        Opcode::ALL.iter().map(|o| row(&[&(*o as u8), &format!("{o:?}"), &whom(*o)])).collect();
    assert_eq!(table("## Opcodes", 3), opcodes);
    let statuses: Vec<_> = Status::ALL.iter().map(|s| row(&[&(*s as u16), &format!("{s:?}")])).collect();
    assert_eq!(table("## Statuses", 2), statuses);
}

#[test]
fn flags_are_as_documented() {
    let bits = |names: Vec<(&str, u64)>| -> Vec<_> {
        names.iter().map(|(name, bit)| row(&[&format!("{bit:#04x}"), name])).collect()
    };
    assert_eq!(
        table("### Request flags", 2),
        bits(named!(flags: IF_ABSENT IF_SEQ REVERSE KEYS_ONLY HAS_END TTL NO_TTL READ_ONLY))
    );
    assert_eq!(table("### Reply flags", 2), bits(named!(reply_flags: MORE MAP)));
    for row in table("### Request flags", 3) {
        let bit = u8::from_str_radix(row[0].trim_start_matches("0x"), 16).expect("a number");
        let of: Vec<_> = Opcode::ALL.iter().filter(|o| o.allowed_flags() & bit != 0).collect();
        let of: Vec<_> = of.iter().map(|o| format!("{o:?}")).collect();
        assert_eq!(row[2], of.join(", "), "{}", row[1]);
    }
}

#[test]
fn limits_are_as_documented() {
    let limits = named!(limits:
        MAX_KEY_BYTES MAX_VALUE_BYTES MAX_REQUEST_BODY_BYTES MAX_REPLY_BODY_BYTES MAX_MAP_BYTES MAX_BATCH_WRITES
        MAX_BATCH_BYTES MAX_SCAN_RECORDS MAX_SCAN_BYTES MAX_TTL_MS MAX_WEIGHT
        DEFAULT_WEIGHT MAX_BURST_MS DEFAULT_BURST_MS MAX_QUOTA_PER_S MAX_TABLE_NAME_BYTES MAX_CLIENT_NAME_BYTES
        MAX_SECRET_BYTES MAX_UNKNOWN_BODY_BYTES
        MAX_IN_FLIGHT MAX_QUEUED_REPLY_BYTES HELLO_TIMEOUT_MS FRAME_TIMEOUT_MS SEND_TIMEOUT_MS
    );
    let rows: Vec<_> = limits.iter().map(|(name, value)| row(&[name, value])).collect();
    assert_eq!(table("## Limits", 2), rows);
    // Every limit of the room is in the document.
    let source = include_str!("limits.rs");
    assert_eq!(source.matches("\npub const ").count(), limits.len());
}

#[test]
fn bodies_and_versions_are_as_documented() {
    let write = table("### Batch", 3);
    let [put, delete] = [batch::KIND_PUT, batch::KIND_DELETE];
    let [put_for, put_for_ever] = [batch::KIND_PUT_FOR, batch::KIND_PUT_FOR_EVER];
    let kinds = format!(
        "kind: {put} put, {delete} delete, {put_for} put with a time to live, {put_for_ever} put for ever"
    );
    assert_eq!(write[0], row(&[&0, &1, &kinds]));
    let ttl = format!("of kind {put_for}: its time to live");
    assert_eq!(write[4], row(&[&batch::BATCH_WRITE_HEADER_BYTES, &batch::BATCH_TTL_BYTES, &ttl]));
    assert_eq!(table("### Scan", 3)[4], row(&[&SCAN_RECORD_HEADER_BYTES, &"key_len", &"key"]));
    let rows = [(0, 4, "weight"), (4, 4, "burst_ms"), (8, 8, "requests_per_s"), (16, 8, "read_bytes_per_s")];
    let rows =
        rows.iter().chain(&[(24, 8, "write_bytes_per_s")]).map(|(at, len, name)| row(&[at, len, name]));
    assert_eq!(table("## Quotas", 3), rows.collect::<Vec<_>>());
    assert_eq!(24 + 8, Quota::BYTES);
    let versions = format!("speaks versions {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}.");
    assert!(DOCUMENT.contains(&versions));
    assert!(DOCUMENT.starts_with(&format!("# lode's wire protocol, version {PROTOCOL_VERSION}\n")));
}
