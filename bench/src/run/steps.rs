//! What follows an answer: some requests take several steps.

use lode_net::wire::scan::split_record;

use super::ask::{Answer, Ask, Outcome, Step};
use super::routes::Routes;
use super::tally::Tally;
use crate::workload::Operation;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Done,
    /// It has failed.
    Failed,
    /// It goes on with its next step, on the same connection.
    Again,
    /// It had failed before; this was its cleaning up.
    Ignored,
}

/// Sets `ask` to its next step, if there is one.
pub fn next(ask: &mut Ask, answer: &Answer<'_>, routes: &Routes, tally: &mut Tally) -> Next {
    if let Step::Rollback(_) = ask.step {
        return Next::Ignored;
    }
    if answer.outcome != Outcome::Done {
        return Next::Failed;
    }
    let step = match ask.step {
        Step::Read if ask.operation == Operation::ReadModifyWrite => Step::Write,
        Step::Begin => Step::ReadWithin(answer.number),
        Step::ReadWithin(id) => Step::Commit(id),
        Step::Scan => return after_page(ask, answer, routes, tally),
        Step::Read | Step::Write | Step::Commit(_) | Step::Rollback(_) => return Next::Done,
    };
    ask.step = step;
    Next::Again
}

/// A scan goes on behind its page's last record, or in the next partition.
fn after_page(ask: &mut Ask, answer: &Answer<'_>, routes: &Routes, tally: &mut Tally) -> Next {
    let (mut records, mut rest, mut last) = (0, answer.body, &[][..]);
    loop {
        match split_record(rest) {
            Ok(None) => break,
            Ok(Some((record, behind))) => (records, rest, last) = (records + 1, behind, record.key),
            Err(_) => return Next::Failed,
        }
    }
    tally.scanned += u64::from(records);
    ask.left = ask.left.saturating_sub(records);
    if ask.left == 0 {
        return Next::Done;
    }
    ask.from.clear();
    if answer.has_more && records > 0 {
        ask.from.extend_from_slice(last);
        ask.from.push(0);
        return Next::Again;
    }
    match routes.next_in_order(ask.table, ask.place) {
        Some((aim, first)) => {
            (ask.target, ask.place) = (aim.target, aim.place);
            ask.from.extend_from_slice(first);
            Next::Again
        }
        None => Next::Done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lode_net::wire::scan::{RecordView, push_record};
    use lode_net::wire::{Seq, Target};

    use super::*;

    fn ask(operation: Operation, step: Step) -> Ask {
        let (target, from) = (Target::default(), Vec::new());
        Ask { at_ns: 0, index: 1, table: 0, operation, step, target, place: 0, left: 0, from }
    }

    fn done(body: &[u8], number: u64, has_more: bool) -> Answer<'_> {
        Answer { outcome: Outcome::Done, body, number, has_more, message: "" }
    }

    fn step_on(ask: &mut Ask, answer: &Answer<'_>) -> Next {
        next(ask, answer, &Routes::of_server(), &mut Tally::new(Duration::from_secs(1)))
    }

    #[test]
    fn a_transaction_begins_reads_and_commits() {
        let mut ask = ask(Operation::Transaction, Step::Begin);
        assert_eq!(step_on(&mut ask, &done(b"", 7, false)), Next::Again);
        assert_eq!(ask.step, Step::ReadWithin(7));
        assert_eq!(step_on(&mut ask, &done(b"v", 0, false)), Next::Again);
        assert_eq!(ask.step, Step::Commit(7));
        assert_eq!(step_on(&mut ask, &done(b"", 0, false)), Next::Done);
        ask.step = Step::Commit(7);
        let conflict = Answer { outcome: Outcome::Conflict, ..done(b"", 0, false) };
        assert_eq!(step_on(&mut ask, &conflict), Next::Failed);
        ask.step = Step::Rollback(7);
        assert_eq!(step_on(&mut ask, &conflict), Next::Ignored);
    }

    #[test]
    fn what_is_read_to_be_modified_is_written() {
        let mut modify = ask(Operation::ReadModifyWrite, Step::Read);
        assert_eq!(step_on(&mut modify, &done(b"v", 0, false)), Next::Again);
        assert_eq!(modify.step, Step::Write);
        assert_eq!(step_on(&mut modify, &done(b"", 0, false)), Next::Done);
        assert_eq!(step_on(&mut ask(Operation::Get, Step::Read), &done(b"v", 0, false)), Next::Done);
    }

    #[test]
    fn a_scan_goes_on_where_its_page_was_cut() {
        let mut page = Vec::new();
        for key in [b"a", b"b"] {
            push_record(&mut page, &RecordView { key, seq: Seq::default(), value: b"v", ttl_ms: None });
        }
        let mut scan = ask(Operation::Scan, Step::Scan);
        scan.left = 5;
        assert_eq!(step_on(&mut scan, &done(&page, 0, true)), Next::Again);
        assert_eq!((scan.left, scan.from.as_slice()), (3, &b"b\0"[..]));
        assert_eq!(step_on(&mut scan, &done(&page, 0, false)), Next::Done, "nothing follows this partition");
        scan.left = 2;
        assert_eq!(step_on(&mut scan, &done(&page, 0, true)), Next::Done);
        scan.left = 2;
        assert_eq!(step_on(&mut scan, &done(b"damaged", 0, true)), Next::Failed);
    }
}
