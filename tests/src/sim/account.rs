//! Money is neither made nor lost, and counters count every increment once.

use std::collections::BTreeMap;

use super::history::History;
use super::node::is_in_memory;
use super::work::{Ask, End, FIRST_BALANCE, OpId};

/// Who counted, and by how much.
type Increments = Vec<(OpId, u64)>;

/// What is wrong with audits and counters, in words.
pub fn check(history: &History, accounts: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let total = accounts as u64 * FIRST_BALANCE;
    for (id, op) in history.ops() {
        if let End::Total(found) = op.end
            && found != total
        {
            wrong.push(format!("audit {} found {found} in all accounts, and {total} is in them", id.0));
        }
    }
    wrong.extend(check_writers(history));
    // What is in memory begins anew with each life of the node.
    let mut counters: BTreeMap<(&[u8], usize), Increments> = BTreeMap::new();
    for (id, op) in history.ops() {
        if let Ask::Increment { key, by } = &op.ask {
            let life = if is_in_memory(key) { history.life(op) } else { 0 };
            counters.entry((key, life)).or_default().push((id, *by));
        }
    }
    for ((key, _), increments) in counters {
        if let Err(what) = check_counter(history, &increments) {
            wrong.push(format!("counter {}: {what}", key.escape_ascii()));
        }
    }
    wrong
}

/// A transfer that was acknowledged is not lost as a whole, which would leave the total as it was: what an audit finds in an
/// account was written by it, or by one that could come after it.
fn check_writers(history: &History) -> Vec<String> {
    // By account: when acknowledged changes of it ended, in that order, and the latest call of those up to there.
    let mut changes: BTreeMap<&[u8], Vec<(u64, u64)>> = BTreeMap::new();
    for (_, op) in history.ops() {
        let End::Written { .. } = op.end else { continue };
        let accounts: &[&Vec<u8>] = match &op.ask {
            Ask::Deposit { key } => &[key],
            Ask::Transfer { from, to, .. } => &[from, to],
            _ => continue,
        };
        for account in accounts {
            changes.entry(account).or_default().push((op.returned, op.called));
        }
    }
    for of_account in changes.values_mut() {
        of_account.sort_unstable();
        let mut latest = 0;
        for (_, called) in of_account {
            latest = latest.max(*called);
            *called = latest;
        }
    }
    let mut wrong = Vec::new();
    for (audit, account, writer) in history.accounts() {
        let of_account = changes.get(account.as_slice()).map_or(&[][..], Vec::as_slice);
        let before = of_account.partition_point(|(returned, _)| *returned < history.op(*audit).called);
        let latest = before.checked_sub(1).map_or(0, |last| of_account[last].1);
        if history.latest(history.op(*writer)) < latest {
            wrong.push(format!(
                "audit {} found account {} as {} had left it, though a later change was acknowledged",
                audit.0,
                account.escape_ascii(),
                writer.0
            ));
        }
    }
    wrong
}

/// Increments are positive: in the order of what they counted to, each is above the one before by itself and by some
/// whose end is unknown, and none was called after a higher one was answered.
fn check_counter(history: &History, increments: &[(OpId, u64)]) -> Result<(), String> {
    let mut counted: Vec<(u64, u64, OpId)> = Vec::new();
    let mut unknown = 0;
    for (id, by) in increments {
        match history.op(*id).end {
            End::Counted(number) => counted.push((number, *by, *id)),
            End::Unknown | End::Open => unknown += by,
            _ => {}
        }
    }
    // Who counts by nothing reads what is there.
    counted.sort_unstable_by_key(|(number, by, id)| (*number, std::cmp::Reverse(*by), *id));
    let (mut before, mut missing) = (0, 0);
    for (number, by, id) in &counted {
        let gap = number.checked_sub(before + by);
        let gap = gap.ok_or_else(|| format!("{} counted by {by} to {number}, after {before}", id.0))?;
        missing += gap;
        before = *number;
    }
    if missing > unknown {
        return Err(format!("counted {missing} that nobody did (those of unknown end come to {unknown})"));
    }
    // Of those that counted higher, the first answer.
    let mut first_answer = (u64::MAX, 0);
    for (number, _, id) in counted.iter().rev() {
        let op = history.op(*id);
        if op.called > first_answer.0 {
            return Err(format!(
                "{} counted to {number}, though {} was answered before it was asked",
                id.0, first_answer.1
            ));
        }
        if op.returned < first_answer.0 {
            first_answer = (op.returned, id.0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ends: &[End]) -> Vec<String> {
        let mut history = History::default();
        for end in ends {
            let id = history.call(Ask::Increment { key: b"c".to_vec(), by: 1 }, 0);
            history.end(id, end.clone());
        }
        check(&history, 4)
    }

    #[test]
    fn every_increment_counts_once() {
        assert!(counted(&[End::Counted(1), End::Counted(2), End::Unknown, End::Counted(4)]).is_empty());
        assert_eq!(counted(&[End::Counted(1), End::Counted(3)]).len(), 1, "nobody counted to 2");
        assert_eq!(counted(&[End::Counted(1), End::Counted(1)]).len(), 1, "one was lost");
        assert_eq!(counted(&[End::Counted(2), End::Unknown, End::Counted(1)]).len(), 1, "back in time");
    }

    #[test]
    fn a_counter_in_memory_begins_anew_with_a_life_of_the_node() {
        for (key, wrong) in [(&b"m00/counter01"[..], 0), (b"p00/counter00", 1)] {
            let mut history = History::default();
            for _ in 0..2 {
                let id = history.call(Ask::Increment { key: key.to_vec(), by: 1 }, 0);
                history.end(id, End::Counted(1));
                history.crashed();
            }
            assert_eq!(check(&history, 4).len(), wrong, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn who_counts_by_nothing_reads() {
        for (found, wrong) in [(2, 0), (1, 1), (3, 1), (0, 1)] {
            let mut history = History::default();
            for (by, number) in [(2, 2), (0, found)] {
                let id = history.call(Ask::Increment { key: b"c".to_vec(), by }, 0);
                history.end(id, End::Counted(number));
            }
            assert_eq!(check(&history, 4).len(), wrong, "{found}");
        }
    }

    #[test]
    fn a_transfer_that_vanishes_whole_is_missed() {
        let mut history = History::default();
        let written = End::Written { seq: lode_net::wire::Seq::default(), existed: true };
        let (from, to) = (b"a".to_vec(), b"b".to_vec());
        let ids: Vec<OpId> = (0..2)
            .map(|_| {
                let ask = Ask::Transfer { from: from.clone(), to: to.clone(), amount: 1 };
                let id = history.call(ask, 0);
                history.end(id, written.clone());
                id
            })
            .collect();
        for (writer, wrong) in [(ids[1], 0), (ids[0], 1)] {
            let audit = history.call(Ask::Audit, 0);
            history.end(audit, End::Total(4 * FIRST_BALANCE));
            history.saw_account(audit, &from, writer);
            assert_eq!(check(&history, 4).len(), wrong);
        }
    }

    #[test]
    fn money_stays() {
        let mut history = History::default();
        for (found, wrong) in [(4 * FIRST_BALANCE, 0), (4 * FIRST_BALANCE - 1, 1)] {
            let audit = history.call(Ask::Audit, 0);
            history.end(audit, End::Total(found));
            assert_eq!(check(&history, 4).len(), wrong);
        }
    }
}
