//! Lists: whoever signs one has read all of it at the same instant, so that those who did form one chain: each finds what the one
//! before has left. Two that found the same would each have missed what the other wrote: a phantom, a lost update.

use std::collections::{BTreeMap, BTreeSet};

use super::history::History;
use super::node::{is_churned, is_in_memory};
use super::work::{Ask, End, OpId};

/// What is in a list: keys, and who wrote them.
type Content = BTreeMap<Vec<u8>, OpId>;

/// Whoever read a list in full.
struct Reader<'h> {
    op: OpId,
    found: &'h Content,
    /// What a signer has left; nothing of one who only read.
    left: Option<Content>,
    /// From the first instant to the last at which it may have been, in steps.
    from: u64,
    to: u64,
    is_certain: bool,
}

/// What is wrong with lists, in words.
pub fn check(history: &History) -> Vec<String> {
    // What is in memory begins anew with each life of the node.
    let mut readers: BTreeMap<(&[u8], usize), Vec<Reader<'_>>> = BTreeMap::new();
    for (op, of) in history.ops() {
        let (list, signed) = match &of.ask {
            Ask::SignList { list, place, strike } => (list, Some((place, strike))),
            Ask::ReadList { list } => (list, None),
            _ => continue,
        };
        let Some(found) = history.list(op) else { continue };
        let is_certain = match of.end {
            End::Written { .. } | End::Listed => true,
            End::Unknown | End::Open if signed.is_some() => false,
            _ => continue,
        };
        let left = signed.map(|(place, strike)| {
            let mut left = found.clone();
            strike.as_ref().map(|key| left.remove(key));
            left.insert(place.clone(), op);
            left
        });
        let life = if is_in_memory(list) { history.life(of) } else { 0 };
        let reader = Reader { op, found, left, from: of.called, to: history.latest(of), is_certain };
        readers.entry((list, life)).or_default().push(reader);
    }
    let wrong = readers.into_iter().flat_map(|((list, _), readers)| {
        let wrong = check_list(readers, is_churned(list));
        wrong.into_iter().map(|what| format!("list {}: {what}", list.escape_ascii()))
    });
    wrong.collect()
}

/// `begins_anew`: the list may be gone with its table, and another begun.
fn check_list(mut readers: Vec<Reader<'_>>, begins_anew: bool) -> Vec<String> {
    // What was read was written.
    let seen: BTreeSet<OpId> = readers.iter().flat_map(|reader| reader.found.values().copied()).collect();
    readers.iter_mut().for_each(|reader| reader.is_certain |= seen.contains(&reader.op));
    let mut wrong = Vec::new();
    let signers: BTreeMap<&Content, usize> =
        readers.iter().enumerate().filter_map(|(at, reader)| Some((reader.left.as_ref()?, at))).collect();
    let before: Vec<Option<usize>> =
        readers.iter().map(|reader| signers.get(reader.found).copied()).collect();
    let mut next_of: BTreeMap<&Content, OpId> = BTreeMap::new();
    for (reader, before) in readers.iter().zip(&before).filter(|(reader, _)| reader.is_certain) {
        let is_first = reader.found.is_empty();
        if before.is_none() && !is_first {
            wrong.push(format!("{} found what it never was: {:?}", reader.op.0, reader.found));
        }
        if reader.left.is_none() || (is_first && begins_anew) {
            continue;
        }
        if let Some(other) = next_of.insert(reader.found, reader.op) {
            wrong.push(format!("{} and {} signed it as they both had found it", other.0, reader.op.0));
        }
    }
    if wrong.is_empty() {
        wrong = check_order(&readers, &before, begins_anew);
    }
    wrong
}

/// Whoever was answered before another asked comes before it. Chains have no rings: what a signer has left holds its name, and
/// whoever finds it was not answered before.
fn check_order(readers: &[Reader<'_>], before: &[Option<usize>], begins_anew: bool) -> Vec<String> {
    // By chain, which is named by its first signer, the place of each in it: a signer's is even, and odd that of those who only
    // read what it had left.
    let mut chains: BTreeMap<Option<usize>, Vec<(u64, usize)>> = BTreeMap::new();
    for at in (0..readers.len()).filter(|at| readers[*at].is_certain) {
        let (mut place, mut first) = (0, at);
        while let Some(signer) = before[first] {
            (place, first) = (place + 2, signer);
            if place > 2 * readers.len() as u64 {
                return vec![format!("{} and others found what each other wrote", readers[at].op.0)];
            }
        }
        let is_reader = readers[at].left.is_none();
        // Whoever found an empty list, and left it so, may have come before any chain.
        if is_reader && first == at && begins_anew {
            continue;
        }
        let chain = begins_anew.then_some(first);
        chains.entry(chain).or_default().push((place + u64::from(!is_reader), at));
    }
    let mut wrong = Vec::new();
    for chain in chains.values_mut() {
        chain.sort_unstable();
        // Of all that come later, the first that was answered.
        let (mut earliest, mut of_place) = ((u64::MAX, OpId(0)), Vec::new());
        let mut last_place = u64::MAX;
        for (place, at) in chain.iter().rev() {
            let reader = &readers[*at];
            if *place != last_place {
                earliest = of_place.drain(..).fold(earliest, Ord::min);
                last_place = *place;
            }
            if earliest.0 < reader.from {
                wrong.push(format!(
                    "{} was asked after {} had been answered, and comes before it",
                    reader.op.0, earliest.1.0
                ));
            }
            of_place.push((reader.to, reader.op));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"p00/list";

    fn place(i: u64) -> Vec<u8> {
        [LIST, format!("{i:02}").as_bytes()].concat()
    }

    fn content(of: &[(u64, OpId)]) -> Content {
        of.iter().map(|(i, op)| (place(*i), *op)).collect()
    }

    fn sign(
        history: &mut History,
        found: &[(u64, OpId)],
        (at, strike): (u64, Option<u64>),
        end: End,
    ) -> OpId {
        let ask = Ask::SignList { list: LIST.to_vec(), place: place(at), strike: strike.map(place) };
        let id = history.call(ask, 0);
        history.saw_list(id, content(found));
        history.end(id, end);
        id
    }

    fn read(history: &mut History, found: &[(u64, OpId)]) {
        let id = history.call(Ask::ReadList { list: LIST.to_vec() }, 0);
        history.saw_list(id, content(found));
        history.end(id, End::Listed);
    }

    fn written() -> End {
        End::Written { seq: lode_net::wire::Seq::default(), existed: true }
    }

    #[test]
    fn each_finds_what_the_one_before_has_left() {
        let mut history = History::default();
        let a = sign(&mut history, &[], (0, None), written());
        let b = sign(&mut history, &[(0, a)], (1, None), written());
        let c = sign(&mut history, &[(0, a), (1, b)], (2, Some(0)), written());
        read(&mut history, &[(1, b), (2, c)]);
        assert_eq!(check(&history), Vec::<String>::new());
        read(&mut history, &[(0, a), (1, b)]);
        assert_eq!(check(&history).len(), 1, "a change that was answered is gone");
    }

    #[test]
    fn two_that_find_the_same_have_missed_each_other() {
        let mut history = History::default();
        let a = sign(&mut history, &[], (0, None), written());
        sign(&mut history, &[(0, a)], (1, None), written());
        sign(&mut history, &[(0, a)], (2, None), written());
        assert_eq!(check(&history).len(), 1, "{:?}", check(&history));
    }

    #[test]
    fn what_never_was_is_not_found() {
        let mut history = History::default();
        let a = sign(&mut history, &[], (0, None), written());
        let b = sign(&mut history, &[(0, a)], (1, Some(0)), written());
        read(&mut history, &[(0, a), (1, b)]);
        assert_eq!(check(&history).len(), 1, "half of a change");
    }

    #[test]
    fn whose_end_is_unknown_was_or_was_not() {
        for found_by_next in [false, true] {
            let mut history = History::default();
            let a = sign(&mut history, &[], (0, None), written());
            let lost = sign(&mut history, &[(0, a)], (1, None), End::Unknown);
            history.crashed();
            match found_by_next {
                true => read(&mut history, &[(0, a), (1, lost)]),
                false => read(&mut history, &[(0, a)]),
            }
            assert!(check(&history).is_empty(), "{:?}", check(&history));
            read(&mut history, &[(0, a)]);
            assert_eq!(check(&history).len(), usize::from(found_by_next), "it was there, and is not");
        }
    }

    #[test]
    fn a_list_begins_once_unless_it_may_go_with_its_table() {
        for (list, wrong) in [(&b"p00/list"[..], 1), (b"c00/list", 0)] {
            let mut history = History::default();
            for i in 0..2 {
                let place = [list, &[b'0' + i]].concat();
                let id = history.call(Ask::SignList { list: list.to_vec(), place, strike: None }, 0);
                history.saw_list(id, Content::new());
                history.end(id, written());
            }
            assert_eq!(check(&history).len(), wrong, "{}", list.escape_ascii());
        }
    }
}
