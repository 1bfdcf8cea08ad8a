//! Each register behaves as one record that is read and written at single instants: between the call and the answer of
//! an operation, or, where it is not known how it ended, before the node's life was over or never. In a table that is kept
//! in memory the end of a life deletes it; a record that expires is there until it may be over, and gone when it must be.

mod counts;
mod deeds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use super::history::History;
use super::node::is_in_memory;
use super::work::{End, Keys, OpId};
use deeds::deeds;

/// Of operations whose end is unknown, so many are tried in every combination of done and not done; the runs have few
/// more, for clients wait when a shard takes no writes.
const MAX_TRIED: usize = 8;
/// Spans that a piece has at least, where few are of unknown end.
const PIECE_SPANS: usize = 12;
/// Stands for the table that comes and goes itself: it holds who made it.
const THE_TABLE: &[u8] = b"c";
/// Any time.
const ALWAYS: Span = Span { earliest_ms: 0, latest_ms: u64::MAX };

/// A value, by who wrote it, and when it may be over and must be, in milliseconds of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Held {
    op: OpId,
    expires_ms: Option<(u64, u64)>,
}

/// The earliest time, in milliseconds, that a shard may have taken for the present when it did something, and the latest:
/// the wall clock may be set back, and a shard's own time does not follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    earliest_ms: u64,
    latest_ms: u64,
}

impl Held {
    fn renewed(self, expires_ms: (u64, u64)) -> Held {
        Held { expires_ms: Some(expires_ms), ..self }
    }

    fn may_be_there(&self, at: Span) -> bool {
        self.expires_ms.is_none_or(|(_, latest_ms)| at.earliest_ms < latest_ms)
    }

    fn may_be_over(&self, at: Span) -> bool {
        self.expires_ms.is_some_and(|(earliest_ms, _)| at.latest_ms >= earliest_ms)
    }

    /// Of one that is there: it has a millisecond left at least.
    fn may_have_left(&self, left_ms: u64, at: Span) -> bool {
        self.expires_ms.map_or(left_ms == 0, |(earliest_ms, latest_ms)| {
            let is_soon = left_ms.saturating_add(at.earliest_ms) <= latest_ms;
            left_ms > 0 && is_soon && left_ms.saturating_add(at.latest_ms) >= earliest_ms
        })
    }
}

/// What one operation did to one register, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It held what this operation wrote, or nothing.
    Read(Option<OpId>),
    /// Whether there was something before, where that is known.
    Write { value: Option<Held>, existed: Option<bool> },
    /// Over `expected` only; whether it was done, where that is known.
    WriteOver { expected: Option<OpId>, value: Option<Held>, done: Option<bool> },
    /// What is there expires then; whether there is anything, where that is known.
    Renew { expires_ms: (u64, u64), existed: Option<bool> },
    /// What was there, written by this operation where that is known, had so many milliseconds left; 0: it never expires.
    Left { op: Option<OpId>, left_ms: u64 },
    /// What the register holds, as it stands.
    Holds(Option<Held>),
}

/// The same, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deed {
    act: Act,
    at: Span,
}

impl Deed {
    /// What an index knows of a record whose place is lost to damage is nothing.
    fn without_existed(self) -> Deed {
        let act = match self.act {
            Act::Write { value, .. } => Act::Write { value, existed: None },
            other => other,
        };
        Deed { act, ..self }
    }
}

struct Register;

impl Specification for Register {
    type State = Option<Held>;
    type Operation = Deed;

    fn init() -> Option<Held> {
        None
    }

    fn apply(Deed { act, at }: &Deed, state: &Option<Held>) -> (bool, Option<Held>) {
        let may_be_there = state.is_some_and(|held| held.may_be_there(*at));
        let may_be_gone = state.is_none_or(|held| held.may_be_over(*at));
        let may_hold = |wanted: Option<OpId>| match wanted {
            None => may_be_gone,
            Some(op) => may_be_there && state.is_some_and(|held| held.op == op),
        };
        match *act {
            Act::Read(found) => (may_hold(found), *state),
            Act::Write { value, existed } => {
                let fits = |existed| if existed { may_be_there } else { may_be_gone };
                (existed.is_none_or(fits), value)
            }
            Act::WriteOver { expected, value, done } => {
                let holds = may_hold(expected);
                let may_not_hold = match expected {
                    None => may_be_there,
                    Some(op) => may_be_gone || state.is_none_or(|held| held.op != op),
                };
                match done {
                    Some(true) => (holds, value),
                    Some(false) => (may_not_hold, *state),
                    // That it was not done is tried without it.
                    None => (true, if holds { value } else { *state }),
                }
            }
            Act::Renew { expires_ms, existed } => {
                let renewed = state.map(|held| held.renewed(expires_ms));
                match existed {
                    Some(true) => (may_be_there, renewed),
                    Some(false) => (may_be_gone, *state),
                    // As above.
                    None => (true, if may_be_there { renewed } else { *state }),
                }
            }
            Act::Left { op, left_ms } => {
                let is_it = |held: &Held| {
                    op.is_none_or(|op| held.op == op)
                        && held.may_be_there(*at)
                        && held.may_have_left(left_ms, *at)
                };
                (state.as_ref().is_some_and(is_it), *state)
            }
            Act::Holds(held) => (held == *state, *state),
        }
    }
}

/// A deed, from its first possible instant to its last.
#[derive(Clone, Copy, Debug)]
struct Done {
    op: OpId,
    deed: Deed,
    from: u64,
    to: u64,
    certain: bool,
}

/// What is wrong with the registers, in words: nothing, if all is well.
pub fn check(history: &History, keys: &Keys) -> Vec<String> {
    let mut all = keys.registers();
    all.push(THE_TABLE.to_vec());
    check_all(history, &all, &|key| keys.table_ttl_ms(key), keys.is_compact())
}

fn check_all(
    history: &History,
    keys: &[Vec<u8>],
    table_ttl_ms: &dyn Fn(&[u8]) -> Option<u64>,
    is_compact: bool,
) -> Vec<String> {
    let mut spans: BTreeMap<&[u8], Vec<Done>> = keys.iter().map(|key| (key.as_slice(), Vec::new())).collect();
    for (key, spans) in spans.iter_mut().filter(|(key, _)| is_in_memory(key)) {
        assert!(spans.is_empty(), "{key:?} begins");
        let gone = Deed { act: Act::Write { value: None, existed: None }, at: ALWAYS };
        let crashes = history.crashes().iter();
        spans.extend(crashes.map(|at| Done { op: OpId(0), deed: gone, from: *at, to: *at, certain: true }));
    }
    for (id, op) in history.ops() {
        let was_damaged = history.was_damaged(op);
        let mut acts = deeds((id, was_damaged), op, keys, table_ttl_ms);
        acts.extend(lefts(history, id, &acts));
        for (key, act) in acts {
            let deed = Deed { act, at: Span { earliest_ms: op.earliest_ms, latest_ms: op.latest_ms } };
            let deed = if was_damaged { deed.without_existed() } else { deed };
            let certain = !matches!(op.end, End::Unknown | End::Open);
            let span = Done { op: id, deed, from: op.called, to: history.latest(op), certain };
            if let Some(spans) = spans.get_mut(key) {
                spans.push(span);
            }
        }
    }
    let seen = seen(&spans);
    for span in spans.values_mut().flatten() {
        // What was read was written.
        span.certain |= seen.contains(&span.op);
    }
    let mut wrong = counts::check(history, &spans, is_compact);
    for (key, spans) in spans {
        if !is_explained(&spans) {
            let told: Vec<String> = spans.iter().map(|span| format!("\n    {span:?}")).collect();
            wrong.push(format!("register {} is not linearisable:{}", key.escape_ascii(), told.concat()));
        }
    }
    wrong
}

/// How long what an operation found had still to live, as it was told.
fn lefts<'h>(history: &'h History, id: OpId, acts: &[(&[u8], Act)]) -> Vec<(&'h [u8], Act)> {
    let found = |key: &[u8]| {
        acts.iter().find_map(|(of, act)| match act {
            Act::Read(found) if *of == key => *found,
            _ => None,
        })
    };
    let lefts = history.lefts(id).iter();
    lefts.map(|(key, left_ms)| (key.as_slice(), Act::Left { op: found(key), left_ms: *left_ms })).collect()
}

/// Operations whose values were read from any register: a batch that is seen in one place was done in all.
fn seen(spans: &BTreeMap<&[u8], Vec<Done>>) -> BTreeSet<OpId> {
    let values = spans.values().flatten().filter_map(|span| match span.deed.act {
        Act::Read(found) => found,
        Act::WriteOver { expected, done: Some(true), .. } => expected,
        _ => None,
    });
    values.collect()
}

/// Goes through the spans in pieces, between which nothing was under way: from all that the register may have held
/// before a piece to all that it may hold after it. That is what makes long histories cheap.
fn is_explained(spans: &[Done]) -> bool {
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| span.from);
    let mut states = BTreeSet::from([None]);
    let mut rest = sorted.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(piece_len(rest));
        states = states.iter().flat_map(|before| states_after(*before, piece)).collect();
        if states.is_empty() {
            return false;
        }
        rest = after;
    }
    true
}

/// How many spans make up the first piece: some, or half as many of unknown end as are tried, and on until nothing is
/// under way.
fn piece_len(spans: &[Done]) -> usize {
    let (mut busy_to, mut unknown) = (0, 0);
    for (i, span) in spans.iter().enumerate() {
        if (i >= PIECE_SPANS || unknown >= MAX_TRIED / 2) && span.from > busy_to {
            return i;
        }
        busy_to = busy_to.max(span.to);
        unknown += usize::from(!span.certain);
    }
    spans.len()
}

/// All that the register may hold after a piece.
fn states_after(before: Option<Held>, piece: &[Done]) -> BTreeSet<Option<Held>> {
    let unknown: Vec<usize> = (0..piece.len()).filter(|i| !piece[*i].certain).collect();
    let mut states = BTreeSet::new();
    for done in combinations(unknown.len()) {
        let is_taken = |i: &usize| unknown.binary_search(i).map_or(true, |place| done.contains(&place));
        let taken: Vec<Done> = (0..piece.len()).filter(is_taken).map(|i| piece[i]).collect();
        for after in last_values(before, &taken) {
            if !states.contains(&after) && is_linearisable(before, &taken, after) {
                states.insert(after);
            }
        }
    }
    states
}

/// Which of so many operations of unknown end were done: every combination of a few; of many, at most two, for what
/// nobody has read explains hardly ever more than one answer.
fn combinations(count: usize) -> Vec<Vec<usize>> {
    if count <= MAX_TRIED {
        let places = |mask: u32| (0..count).filter(|place| mask >> place & 1 == 1).collect();
        return (0..1u32 << count).map(places).collect();
    }
    let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| vec![a, b]));
    let singles = (0..count).map(|a| vec![a]);
    std::iter::once(Vec::new()).chain(singles).chain(pairs).collect()
}

/// What may be left at the end: the value of a write that no other follows entirely.
fn last_values(before: Option<Held>, spans: &[Done]) -> BTreeSet<Option<Held>> {
    let overwrites = spans.iter().filter(|span| matches!(span.deed.act, Act::Write { .. }));
    let last_from = overwrites.map(|span| span.from).max();
    let mut values: BTreeSet<_> = last_from.is_none().then_some(before).into_iter().collect();
    for span in spans.iter().filter(|span| last_from.is_none_or(|from| span.to >= from)) {
        match span.deed.act {
            Act::Write { value, .. } => values.insert(value),
            Act::WriteOver { value, done, .. } if done != Some(false) => values.insert(value),
            _ => false,
        };
    }
    let renewed = spans.iter().filter_map(|span| match span.deed.act {
        Act::Renew { expires_ms, existed } if existed != Some(false) => Some(expires_ms),
        _ => None,
    });
    let renewed: Vec<_> =
        renewed.flat_map(|at| values.iter().map(move |held| held.map(|held| held.renewed(at)))).collect();
    values.extend(renewed);
    values
}

fn is_linearisable(before: Option<Held>, spans: &[Done], after: Option<Held>) -> bool {
    let mut actions: Vec<(u64, usize, Action<Deed>)> = Vec::with_capacity(2 * spans.len());
    for (process, span) in spans.iter().enumerate() {
        actions.push((span.from, process, Action::Call(span.deed)));
        actions.push((span.to, process, Action::Response(span.deed)));
    }
    actions.sort_by_key(|(at, process, action)| (*at, matches!(action, Action::Response(_)), *process));
    let first = Deed { act: Act::Write { value: before, existed: None }, at: ALWAYS };
    let last = Deed { act: Act::Holds(after), at: ALWAYS };
    let whole = |process, deed| [(process, Action::Call(deed)), (process, Action::Response(deed))];
    let middle = actions.into_iter().map(|(_, process, action)| (process, action));
    let all = whole(spans.len(), first).into_iter().chain(middle).chain(whole(spans.len() + 1, last));
    WGLChecker::<Register>::is_linearizable(Actions::from_actions(all.collect()))
}
