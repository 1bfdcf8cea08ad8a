//! The shell's transactions: begin, what may be done in one, commit, rollback.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use lode_net::client::{Transaction, TransactionOptions, TransactionRange};
use serde_json::json;

use super::Shell;
use crate::cli::args::{DataCommand, DelArgs, KeyArgs, PutArgs, RangeArgs, ScanArgs};
use crate::cli::data::{Words, range_of};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::session::Session;

impl Shell<'_> {
    pub(super) fn begin(&mut self, table: String, key: &OsStr, read_only: bool) -> Result<(), Failure> {
        if self.open.is_some() {
            return Err(Failure::new(
                Exit::Refused,
                "a transaction is open; commit it or roll it back first",
            ));
        }
        let options = TransactionOptions { read_only, ..TransactionOptions::default() };
        let begun = self.session.client.transaction(&table, key.as_bytes(), options);
        self.open = Some((self.session.wait(begun)?, table));
        self.out.done("OK", &json!({ "ok": true }))
    }

    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let written = self.session.wait(self.taken()?.commit())?;
        let seq = written.seq.to_string();
        self.out.done(&format!("OK {seq}"), &json!({ "ok": true, "seq": seq }))
    }

    pub(super) fn rollback(&mut self) -> Result<(), Failure> {
        self.session.wait(self.taken()?.rollback())?;
        self.out.done("OK", &json!({ "ok": true }))
    }

    fn taken(&mut self) -> Result<Transaction, Failure> {
        let none = || Failure::new(Exit::Refused, "no transaction is open; begin one with: begin TABLE KEY");
        self.open.take().map(|(open, _)| open).ok_or_else(none)
    }
}

/// Does a command within a transaction.
pub fn run(
    command: &DataCommand,
    open: &mut Transaction,
    table: &str,
    session: &Session,
    words: Words,
    out: &mut Output,
) -> Result<(), Failure> {
    let (of, done) = match command {
        DataCommand::Get(KeyArgs { table, key }) => (table, Does::Get(key)),
        DataCommand::Put(args) => (&args.table, Does::Put(args)),
        DataCommand::Del(args) => (&args.table, Does::Del(args)),
        DataCommand::Scan(args) => (&args.range.table, Does::Scan(args)),
        DataCommand::Count(args) => (&args.table, Does::Count(args)),
        _ => {
            let known = "a transaction is open: only get, put, del, scan and count until it is committed";
            return Err(Failure::new(Exit::Refused, known));
        }
    };
    if of != table {
        let known = format!("the open transaction is of table {table:?}, not {of:?}");
        return Err(Failure::new(Exit::Refused, known));
    }
    match done {
        Does::Get(key) => {
            let key = words.bytes(key)?;
            let found = session.wait(open.get(&key))?;
            out.seen(&key, found.as_deref())
        }
        Does::Put(args) => put(args, open, words, out),
        Does::Del(args) => del(args, open, words, out),
        Does::Scan(args) => scan(args, open, session, words, out),
        Does::Count(args) => {
            let (start, end) = range_of(args, words)?;
            let count = session.wait(open.count(&start, end.as_deref()))?;
            out.integer("count", count)
        }
    }
}

/// What may be done in a transaction.
enum Does<'a> {
    Get(&'a OsStr),
    Put(&'a PutArgs),
    Del(&'a DelArgs),
    Scan(&'a ScanArgs),
    Count(&'a RangeArgs),
}

fn plain_only() -> Failure {
    Failure::new(Exit::Usage, "in a transaction, put takes a key, a value and a time to live, and del a key")
}

fn put(args: &PutArgs, open: &mut Transaction, words: Words, out: &mut Output) -> Result<(), Failure> {
    let is_conditional = args.if_absent || args.if_seq.is_some();
    let value = args.value.as_ref().filter(|_| !is_conditional).ok_or_else(plain_only)?;
    open.put_for(&words.bytes(&args.key)?, &words.bytes(value)?, args.lifetime())?;
    out.done("OK", &json!({ "ok": true }))
}

fn del(args: &DelArgs, open: &mut Transaction, words: Words, out: &mut Output) -> Result<(), Failure> {
    if args.if_seq.is_some() {
        return Err(plain_only());
    }
    open.delete(&words.bytes(&args.key)?)?;
    out.done("OK", &json!({ "ok": true }))
}

fn scan(
    args: &ScanArgs,
    open: &Transaction,
    session: &Session,
    words: Words,
    out: &mut Output,
) -> Result<(), Failure> {
    if args.keys_only {
        return Err(Failure::new(Exit::Usage, "in a transaction, scan prints values, too"));
    }
    let (start, end) = range_of(&args.range, words)?;
    let limit = args.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let range = TransactionRange { start: &start, end: end.as_deref(), reverse: args.reverse, limit };
    let records = session.wait(open.scan(range))?;
    for (place, (key, value)) in records.iter().enumerate() {
        out.seen_row(place + 1, key, value)?;
    }
    if records.is_empty() { out.nothing() } else { Ok(()) }
}
