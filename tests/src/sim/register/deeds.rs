//! What each operation did to which registers, as far as it is known.

use std::collections::BTreeMap;

use super::super::node::{CHURNED, is_churned};
use super::super::work::{Ask, End, Op, OpId, RegisterWrite, When};
use super::{Act, Held, THE_TABLE};

/// What an operation did to which registers.
pub(super) fn deeds<'k>(
    (id, was_damaged): (OpId, bool),
    op: &'k Op,
    keys: &'k [Vec<u8>],
    table_ttl_ms: &dyn Fn(&[u8]) -> Option<u64>,
) -> Vec<(&'k [u8], Act)> {
    let (ask, end) = (&op.ask, &op.end);
    let held = |RegisterWrite { key, ttl_ms, .. }: &RegisterWrite| {
        let ttl_ms = ttl_ms.or_else(|| table_ttl_ms(key));
        // A millisecond that has begun counts as one.
        let expires =
            |ttl_ms| (op.earliest_ms.saturating_add(ttl_ms), op.latest_ms.saturating_add(ttl_ms + 1));
        Held { op: id, expires_ms: ttl_ms.map(expires) }
    };
    let is_open = matches!(end, End::Unknown | End::Open);
    match (ask, end) {
        (_, End::Refused(_)) => Vec::new(),
        (Ask::DropTable, End::IsNot) => vec![(THE_TABLE, Act::Read(None))],
        (_, End::IsNot) => Vec::new(),
        (Ask::Get { key } | Ask::TimeToLive { key }, End::Found(found)) => vec![(key, Act::Read(*found))],
        (Ask::Put { write, when }, end) => {
            let expected = match when {
                When::Always => {
                    let existed = existed(end);
                    return vec![(&write.key, Act::Write { value: Some(held(write)), existed })];
                }
                When::Absent => None,
                When::Over(expected, _) => Some(*expected),
            };
            let done = (!is_open).then_some(matches!(end, End::Written { .. }));
            vec![(&write.key, Act::WriteOver { expected, value: Some(held(write)), done })]
        }
        (Ask::Delete { key, over: None }, end) => {
            vec![(key, Act::Write { value: None, existed: existed(end) })]
        }
        (Ask::Delete { key, over: Some((expected, _)) }, end) => {
            let done = (!is_open).then_some(matches!(end, End::Written { .. }));
            vec![(key, Act::WriteOver { expected: Some(*expected), value: None, done })]
        }
        // What an index knows of a record that is lost to damage is nothing.
        (Ask::Expire { .. }, End::Renewed { existed: false }) if was_damaged => Vec::new(),
        (Ask::Expire { key, ttl_ms }, _) => vec![(key, renewal(op, *ttl_ms))],
        (Ask::Batch { writes }, _) => {
            let value = |write: &RegisterWrite| write.value_bytes.is_some().then(|| held(write));
            let act = |write| Act::Write { value: value(write), existed: None };
            writes.iter().map(|write| (write.key.as_slice(), act(write))).collect()
        }
        (Ask::Scan { first, beyond, reverse, .. }, End::Page(page, more)) => {
            of_page((first, beyond, *reverse), page, *more, keys)
        }
        (Ask::MakeTable { table: CHURNED }, end) => {
            let done = (!is_open).then_some(*end == End::Changed);
            let value = Held { op: id, expires_ms: None };
            vec![(THE_TABLE, Act::WriteOver { expected: None, value: Some(value), done })]
        }
        (Ask::DropTable, end) => {
            // With the table go its records.
            let gone = Act::Write { value: None, existed: None };
            let records = keys.iter().filter(|key| is_churned(key) && *key != THE_TABLE);
            let table = Act::Write { value: None, existed: (*end == End::Changed).then_some(true) };
            records.map(|key| (key.as_slice(), gone)).chain([(THE_TABLE, table)]).collect()
        }
        _ => Vec::new(),
    }
}

/// A page tells of its keys, and that there is nothing between them.
fn of_page<'k>(
    (first, beyond, reverse): (&[u8], &[u8], bool),
    page: &[(Vec<u8>, OpId)],
    more: bool,
    keys: &'k [Vec<u8>],
) -> Vec<(&'k [u8], Act)> {
    let last = page.last().filter(|_| more).map(|(key, _)| key);
    let found: BTreeMap<&[u8], OpId> = page.iter().map(|(key, id)| (key.as_slice(), *id)).collect();
    let is_told = |key: &[u8]| {
        let in_range = key >= first && key < beyond;
        in_range
            && last.is_none_or(|last| if reverse { key >= last.as_slice() } else { key <= last.as_slice() })
    };
    let told = keys.iter().map(Vec::as_slice).filter(|key| is_told(key));
    told.map(|key| (key, Act::Read(found.get(key).copied()))).collect()
}

fn renewal(op: &Op, ttl_ms: u64) -> Act {
    let expires_ms = (op.earliest_ms.saturating_add(ttl_ms), op.latest_ms.saturating_add(ttl_ms + 1));
    let existed = match op.end {
        End::Renewed { existed } => Some(existed),
        _ => None,
    };
    Act::Renew { expires_ms, existed }
}

fn existed(end: &End) -> Option<bool> {
    match end {
        End::Written { existed, .. } => Some(*existed),
        _ => None,
    }
}
