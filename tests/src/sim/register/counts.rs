//! A count tells of an instant: it is no less than the records that were there all the while, and no more than those that may
//! have been there.

use std::collections::BTreeMap;

use super::super::history::History;
use super::super::work::{Ask, End};
use super::{Act, Done, Held, Span};

/// Counts that no instant explains, in words. Whose keys a compact index would have to read, and cannot for damage, it goes on
/// counting when they are written anew.
pub(super) fn check(history: &History, spans: &BTreeMap<&[u8], Vec<Done>>, is_compact: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, op) in history.ops() {
        let (Ask::Count { first, beyond }, End::Counted(counted)) = (&op.ask, &op.end) else { continue };
        let at = Span { earliest_ms: op.earliest_ms, latest_ms: op.latest_ms };
        let (mut least, mut most) = (0, 0);
        for (_, spans) in spans.range(first.as_slice()..beyond.as_slice()) {
            let (may_be_there, may_be_gone) = possible(spans, (op.called, op.returned), at);
            most += u64::from(may_be_there);
            least += u64::from(!may_be_gone);
        }
        let is_too_many = *counted > most && !(is_compact && history.was_damaged(op));
        if *counted < least || is_too_many {
            let range = (first.escape_ascii(), beyond.escape_ascii());
            wrong.push(format!(
                "operation {} counted {counted} records from {} to {}, where {least} were and {most} may have been",
                id.0, range.0, range.1
            ));
        }
    }
    wrong
}

/// Whether a register may have held something in a span of steps and of time, and whether it may have held nothing.
fn possible(spans: &[Done], (from, to): (u64, u64), at: Span) -> (bool, bool) {
    let written = |done: &Done| match done.deed.act {
        Act::Write { value, .. } => Some(value),
        Act::WriteOver { value, done, .. } if done != Some(false) => Some(value),
        _ => None,
    };
    let has_replaced = |done: &&Done| {
        let is_done = match done.deed.act {
            Act::Write { .. } => done.certain,
            Act::WriteOver { done, .. } => done == Some(true),
            _ => false,
        };
        is_done && done.to < from
    };
    // What was over when this began was replaced by then.
    let replaced = spans.iter().filter(has_replaced).map(|done| done.from).max().unwrap_or(0);
    let renewals = spans.iter().filter(|done| done.from <= to).filter_map(|done| match done.deed.act {
        Act::Renew { expires_ms, existed } if existed != Some(false) => Some(expires_ms),
        _ => None,
    });
    let renewals: Vec<_> = renewals.collect();
    let (mut may_be_there, mut may_be_gone) = (false, replaced == 0);
    for done in spans.iter().filter(|done| done.from <= to && done.to >= replaced) {
        let Some(value) = written(done) else { continue };
        let Some(held) = value else {
            may_be_gone = true;
            continue;
        };
        let lives: Vec<Held> =
            renewals.iter().map(|expires_ms| held.renewed(*expires_ms)).chain([held]).collect();
        may_be_there |= lives.iter().any(|held| held.may_be_there(at));
        may_be_gone |= lives.iter().any(|held| held.may_be_over(at));
    }
    (may_be_there, may_be_gone)
}
