//! Each register behaves as one record that is read and written at single instants: between the call and the answer of
//! an operation, or, where it is not known how it ended, before the node's life was over or never. In a table that is kept
//! in memory the end of a life deletes it; a record that expires is there until it may be over, and gone when it must be.

use std::collections::{BTreeMap, BTreeSet};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use super::history::History;
use super::node::{CHURNED, is_churned, is_in_memory};
use super::work::{Ask, End, Keys, Op, OpId, RegisterWrite, When};

/// Of operations whose end is unknown, so many are tried in every combination of done and not done; the runs have few
/// more, for clients wait when a shard takes no writes.
const MAX_TRIED: usize = 8;
/// Spans that a piece has at least.
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
    fn may_be_there(&self, at: Span) -> bool {
        self.expires_ms.is_none_or(|(_, latest_ms)| at.earliest_ms < latest_ms)
    }

    fn may_be_over(&self, at: Span) -> bool {
        self.expires_ms.is_some_and(|(earliest_ms, _)| at.latest_ms >= earliest_ms)
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
    WriteOver { expected: Option<OpId>, value: Held, done: Option<bool> },
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
                    Some(true) => (holds, Some(value)),
                    Some(false) => (may_not_hold, *state),
                    // That it was not done is tried without it.
                    None => (true, if holds { Some(value) } else { *state }),
                }
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
    check_all(history, &all, &|key| keys.table_ttl_ms(key))
}

fn check_all(
    history: &History,
    keys: &[Vec<u8>],
    table_ttl_ms: &dyn Fn(&[u8]) -> Option<u64>,
) -> Vec<String> {
    let mut spans: BTreeMap<&[u8], Vec<Done>> = keys.iter().map(|key| (key.as_slice(), Vec::new())).collect();
    for (key, spans) in spans.iter_mut().filter(|(key, _)| is_in_memory(key)) {
        assert!(spans.is_empty(), "{key:?} begins");
        let gone = Deed { act: Act::Write { value: None, existed: None }, at: ALWAYS };
        let crashes = history.crashes().iter();
        spans.extend(crashes.map(|at| Done { op: OpId(0), deed: gone, from: *at, to: *at, certain: true }));
    }
    for (id, op) in history.ops() {
        for (key, act) in deeds(id, op, keys, table_ttl_ms) {
            let deed = Deed { act, at: Span { earliest_ms: op.earliest_ms, latest_ms: op.latest_ms } };
            let deed = if history.was_damaged(op) { deed.without_existed() } else { deed };
            let certain = !matches!(op.end, End::Unknown | End::Open);
            let span = Done { op: id, deed, from: op.called, to: history.latest(op), certain };
            if let Some(spans) = spans.get_mut(key) {
                spans.push(span);
            }
        }
    }
    let seen = seen(&spans);
    let mut wrong = Vec::new();
    for (key, mut spans) in spans {
        for span in &mut spans {
            // What was read was written.
            span.certain |= seen.contains(&span.op);
        }
        if !is_explained(&spans) {
            let told: Vec<String> = spans.iter().map(|span| format!("\n    {span:?}")).collect();
            wrong.push(format!("register {} is not linearisable:{}", key.escape_ascii(), told.concat()));
        }
    }
    wrong
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

/// How many spans make up the first piece: some, and on until nothing is under way.
fn piece_len(spans: &[Done]) -> usize {
    let mut busy_to = 0;
    for (i, span) in spans.iter().enumerate() {
        if i >= PIECE_SPANS && span.from > busy_to {
            return i;
        }
        busy_to = busy_to.max(span.to);
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
            Act::WriteOver { value, done, .. } if done != Some(false) => values.insert(Some(value)),
            _ => false,
        };
    }
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

/// What an operation did to which registers.
fn deeds<'k>(
    id: OpId,
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
        (Ask::Get { key }, End::Found(found)) => vec![(key, Act::Read(*found))],
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
            vec![(&write.key, Act::WriteOver { expected, value: held(write), done })]
        }
        (Ask::Delete { key }, end) => vec![(key, Act::Write { value: None, existed: existed(end) })],
        (Ask::Batch { writes }, _) => {
            let value = |write: &RegisterWrite| write.value_bytes.is_some().then(|| held(write));
            let act = |write| Act::Write { value: value(write), existed: None };
            writes.iter().map(|write| (write.key.as_slice(), act(write))).collect()
        }
        (Ask::Scan { first, beyond, reverse, .. }, End::Page(page, more)) => {
            // A page tells of its keys, and that there is nothing between them.
            let last = page.last().filter(|_| *more).map(|(key, _)| key);
            let found: BTreeMap<&[u8], OpId> = page.iter().map(|(key, id)| (key.as_slice(), *id)).collect();
            let is_told = |key: &[u8]| {
                let in_range = key >= first.as_slice() && key < beyond.as_slice();
                in_range
                    && last.is_none_or(
                        |last| if *reverse { key >= last.as_slice() } else { key <= last.as_slice() },
                    )
            };
            let told = keys.iter().map(Vec::as_slice).filter(|key| is_told(key));
            told.map(|key| (key, Act::Read(found.get(key).copied()))).collect()
        }
        (Ask::MakeTable { table: CHURNED }, end) => {
            let done = (!is_open).then_some(*end == End::Changed);
            let value = Held { op: id, expires_ms: None };
            vec![(THE_TABLE, Act::WriteOver { expected: None, value, done })]
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

fn existed(end: &End) -> Option<bool> {
    match end {
        End::Written { existed, .. } => Some(*existed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lode_net::wire::Seq;

    use super::super::work::RegisterWrite;
    use super::*;

    const KEY: &[u8] = b"k";

    fn put() -> Ask {
        Ask::Put {
            write: RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: None },
            when: When::Always,
        }
    }

    fn written(existed: bool) -> End {
        End::Written { seq: Seq::default(), existed }
    }

    fn told(history: &History) -> Vec<String> {
        check_all(history, &[KEY.to_vec()], &|_| None)
    }

    #[test]
    fn what_was_acknowledged_is_read_and_nothing_older() {
        let mut history = History::default();
        let first = history.call(put(), 0);
        history.end(first, written(false));
        let second = history.call(put(), 0);
        history.end(second, written(true));
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(Some(second)));
        assert_eq!(told(&history), Vec::<String>::new());
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(Some(first)));
        assert_eq!(told(&history).len(), 1);
    }

    #[test]
    fn a_lost_write_may_be_there_or_not_but_does_not_come_back_after_a_crash() {
        let mut history = History::default();
        let lost = history.call(put(), 0);
        history.end(lost, End::Unknown);
        history.crashed();
        let read = |history: &mut History, found| {
            let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
            history.end(read, End::Found(found));
        };
        read(&mut history, None);
        assert!(told(&history).is_empty());
        read(&mut history, Some(lost));
        assert_eq!(told(&history).len(), 1, "it was not there after the crash");
    }

    #[test]
    fn unknown_writes_explain_what_conditions_met() {
        let mut history = History::default();
        let first = history.call(put(), 0);
        history.end(first, written(false));
        let lost = history.call(Ask::Delete { key: KEY.to_vec() }, 0);
        history.end(lost, End::Unknown);
        let again = history.call(put(), 0);
        history.end(again, written(false));
        assert!(told(&history).is_empty(), "the delete was done");
        let another = history.call(put(), 0);
        history.end(another, written(false));
        assert_eq!(told(&history).len(), 1, "it was done once");
    }

    #[test]
    fn a_batch_is_done_everywhere_or_nowhere() {
        let keys = [b"a".to_vec(), b"b".to_vec()];
        let write = |key: &Vec<u8>| RegisterWrite { key: key.clone(), value_bytes: Some(20), ttl_ms: None };
        let mut history = History::default();
        let batch = history.call(Ask::Batch { writes: keys.iter().map(write).collect() }, 0);
        history.end(batch, End::Unknown);
        history.crashed();
        for (key, found) in keys.iter().zip([Some(batch), None]) {
            let read = history.call(Ask::Get { key: key.clone() }, 0);
            history.end(read, End::Found(found));
        }
        assert_eq!(check_all(&history, &keys, &|_| None).len(), 1);
    }

    #[test]
    fn a_page_tells_of_what_is_not_in_it() {
        let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut history = History::default();
        let ask = Ask::Put {
            write: RegisterWrite { key: b"b".to_vec(), value_bytes: Some(20), ttl_ms: None },
            when: When::Always,
        };
        let first = history.call(ask, 0);
        history.end(first, written(false));
        let mut scan = |page: Vec<(Vec<u8>, OpId)>, more| {
            let (first, beyond) = (b"a".to_vec(), b"z".to_vec());
            let scan = history.call(Ask::Scan { first, beyond, limit: 9, reverse: false }, 0);
            history.end(scan, End::Page(page, more));
            check_all(&history, &keys, &|_| None).len()
        };
        assert_eq!(scan(vec![(b"b".to_vec(), first)], false), 0);
        assert_eq!(scan(vec![], false), 1);
    }

    #[test]
    fn a_record_is_there_until_it_may_be_over_and_gone_when_it_must_be() {
        let read_at = |wall_ms: u64, found: bool| {
            let mut history = History::default();
            history.wall(1_000);
            let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: Some(100) };
            let put = history.call(Ask::Put { write, when: When::Always }, 0);
            history.wall(1_010);
            history.end(put, written(false));
            history.wall(wall_ms);
            let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
            history.end(read, End::Found(found.then_some(put)));
            told(&history).is_empty()
        };
        assert!(read_at(1_099, true) && !read_at(1_099, false), "it lives for 100 ms");
        assert!(read_at(1_105, true) && read_at(1_105, false), "it was put between 1,000 and 1,010");
        assert!(!read_at(1_111, true) && read_at(1_111, false), "it is over");
    }

    #[test]
    fn what_is_in_memory_is_gone_with_the_life_of_the_node() {
        let key = b"m00/k".to_vec();
        let mut history = History::default();
        let write = RegisterWrite { key: key.clone(), value_bytes: Some(20), ttl_ms: None };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.end(put, written(false));
        history.crashed();
        for (found, wrong) in [(None, 0), (Some(put), 1)] {
            let read = history.call(Ask::Get { key: key.clone() }, 0);
            history.end(read, End::Found(found));
            assert_eq!(check_all(&history, std::slice::from_ref(&key), &|_| None).len(), wrong);
        }
    }
}
