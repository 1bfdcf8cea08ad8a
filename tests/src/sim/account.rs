//! Money is neither made nor lost, and counters count every increment once.

use std::collections::BTreeMap;

use super::history::History;
use super::work::{Ask, End, FIRST_BALANCE, OpId};

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
    let mut counters: BTreeMap<&[u8], Vec<(OpId, u64)>> = BTreeMap::new();
    for (id, op) in history.ops() {
        if let Ask::Increment { key, by } = &op.ask {
            counters.entry(key).or_default().push((id, *by));
        }
    }
    for (key, increments) in counters {
        if let Err(what) = check_counter(history, &increments) {
            wrong.push(format!("counter {}: {what}", key.escape_ascii()));
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
    counted.sort_unstable();
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
    fn money_stays() {
        let mut history = History::default();
        for (found, wrong) in [(4 * FIRST_BALANCE, 0), (4 * FIRST_BALANCE - 1, 1)] {
            let audit = history.call(Ask::Audit, 0);
            history.end(audit, End::Total(found));
            assert_eq!(check(&history, 4).len(), wrong);
        }
    }
}
