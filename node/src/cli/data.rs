//! The commands on one node and its tables: what `lode get` and the shell's `get` both do.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lode_net::client::{Batch, Condition, Counted, Lifetime, PutOptions, ScanOptions, ScanRecord, Written};
use serde_json::Value;

use super::args::{BatchArgs, DataCommand, DelArgs, IncrArgs, KeyArgs, PutArgs, RangeArgs, ScanArgs};
use super::exit::{Exit, Failure};
use super::output::{Output, Row, Style};
use super::scrub;
use super::session::Session;
use super::shell::parse::words;
use super::size::Span;
use super::table;
use lode_node::escape::unescape;

/// A place for values: standard input belongs to the command, except in the shell.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Arguments have backslash escapes.
    pub escaped: bool,
    /// `-` means standard input.
    pub stdin: bool,
}

impl Words {
    /// The bytes that an argument means.
    pub fn bytes(self, argument: &OsStr) -> Result<Vec<u8>, Failure> {
        if !self.escaped {
            return Ok(argument.as_bytes().to_vec());
        }
        unescape(argument.as_bytes()).map_err(|error| Failure::new(Exit::Usage, error))
    }
}

/// Does one command and prints its answer.
pub fn run(command: &DataCommand, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    match command {
        DataCommand::Get(args) => get(args, session, words, out),
        DataCommand::Put(args) => put(args, session, words, out),
        DataCommand::Ttl(args) => ttl(args, session, words, out),
        DataCommand::Expire(args) => {
            expire(&args.table, &args.key, Lifetime::For(args.ttl.0), session, words, out)
        }
        DataCommand::Persist(args) => expire(&args.table, &args.key, Lifetime::Forever, session, words, out),
        DataCommand::Del(args) => del(args, session, words, out),
        DataCommand::Incr(args) => incr(args, session, words, out),
        DataCommand::Scan(args) => scan(args, session, words, out),
        DataCommand::Min(args) => {
            let found = session.wait(session.client.min(&args.table))?;
            edge(found, out)
        }
        DataCommand::Max(args) => {
            let found = session.wait(session.client.max(&args.table))?;
            edge(found, out)
        }
        DataCommand::Count(args) => count(args, session, words, out),
        DataCommand::Batch(args) => batch(args, session, words, out),
        DataCommand::Table(command) => table::run(command, session, words, out),
        DataCommand::Stats(args) => stats(args.path.as_deref(), session, out),
        DataCommand::Ping => ping(session, out),
        DataCommand::Scrub => scrub::run(session, out),
        DataCommand::Checkpoint => {
            session.wait(session.client.checkpoint())?;
            out.done("OK", &serde_json::json!({ "ok": true }))
        }
    }
}

fn get(args: &KeyArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let key = words.bytes(&args.key)?;
    let found = session.wait(session.client.get(&args.table, &key))?;
    out.value(&key, found.as_ref().map(|record| (&record.value[..], record.seq, record.left)))?;
    match found {
        Some(_) => Ok(()),
        None => Err(no_such_key(&args.table)),
    }
}

fn put(args: &PutArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let key = words.bytes(&args.key)?;
    let value = match (&args.value, &args.file) {
        (Some(value), _) if words.stdin && value == "-" => {
            let mut value = Vec::new();
            io::stdin().lock().read_to_end(&mut value).map_err(|error| unreadable(Path::new("-"), &error))?;
            value
        }
        (Some(value), _) => words.bytes(value)?,
        (None, Some(file)) => fs::read(file).map_err(|error| unreadable(file, &error))?,
        (None, None) => return Err(Failure::new(Exit::Usage, "put takes a value or --file FILE")),
    };
    let condition = match args.if_seq {
        _ if args.if_absent => Condition::IfAbsent,
        Some(expected) => Condition::IfSeq(expected),
        None => Condition::Always,
    };
    let options = PutOptions { condition, lifetime: args.lifetime() };
    let written = session.wait(session.client.put_with(&args.table, &key, &value, options));
    let written = unless_refused(written, out)?;
    out.written(written.seq, written.existed)
}

fn no_such_key(table: &str) -> Failure {
    Failure::new(Exit::NotFound, format_args!("no such key in table {table:?}"))
}

fn ttl(args: &KeyArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let key = words.bytes(&args.key)?;
    let left = session.wait(session.client.time_left(&args.table, &key))?;
    out.time_left(left)?;
    left.map(drop).ok_or_else(|| no_such_key(&args.table))
}

fn expire(
    table: &str,
    key: &OsStr,
    lifetime: Lifetime,
    session: &Session,
    words: Words,
    out: &mut Output,
) -> Result<(), Failure> {
    let key = words.bytes(key)?;
    let written = session.wait(session.client.expire(table, &key, lifetime))?;
    if written.existed {
        return out.written(written.seq, true);
    }
    out.not_deleted()?;
    Err(no_such_key(table))
}

/// A condition that does not hold is an answer, too.
fn unless_refused(written: Result<Written, Failure>, out: &mut Output) -> Result<Written, Failure> {
    if let Err(failure) = &written
        && failure.exit == Exit::NotFound
    {
        out.not_written(&failure.message)?;
    }
    written
}

fn del(args: &DelArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let key = words.bytes(&args.key)?;
    let written = match args.if_seq {
        Some(expected) => session.wait(session.client.delete_if(&args.table, &key, expected)),
        None => session.wait(session.client.delete(&args.table, &key)),
    };
    let written = unless_refused(written, out)?;
    if written.existed {
        return out.written(written.seq, true);
    }
    out.not_deleted()?;
    Err(no_such_key(&args.table))
}

fn incr(args: &IncrArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let key = words.bytes(&args.key)?;
    let call = session.client.increment_from(&args.table, &key, args.by, args.initial);
    let Counted { seq, number } = session.wait(call)?;
    match out.style() {
        Style::Plain => out.line(&number.to_string()),
        Style::Shell => out.line(&format!("(integer) {number}")),
        Style::Json => out.json(&serde_json::json!({ "number": number, "seq": seq.to_string() })),
    }
}

/// First key, and first key beyond.
pub(super) fn range_of(args: &RangeArgs, words: Words) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
    if let Some(prefix) = &args.prefix {
        let prefix = words.bytes(prefix)?;
        let end = end_of_prefix(&prefix);
        return Ok((prefix, end));
    }
    let start = args.start.as_deref().map_or(Ok(Vec::new()), |start| words.bytes(start))?;
    let end = args.end.as_deref().map(|end| words.bytes(end)).transpose()?;
    Ok((start, end))
}

/// The first key beyond all that begin with `prefix`; `None` where there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn scan(args: &ScanArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let (start, end) = range_of(&args.range, words)?;
    let (reverse, limit, keys_only) = (args.reverse, args.limit, args.keys_only);
    let times = out.style() == Style::Json;
    let options = ScanOptions { start, end, reverse, limit, keys_only, times, ..ScanOptions::default() };
    let mut scanner = session.client.scan(&args.range.table, options);
    let mut number = 0;
    while let Some(next) = session.block_on(scanner.next()) {
        let record = next.map_err(Failure::from)?;
        number += 1;
        let value = (!keys_only).then_some((&record.value[..], record.seq));
        out.row(&Row { number, key: &record.key, value, left: record.left })?;
    }
    if number == 0 {
        out.nothing()?;
    }
    Ok(())
}

fn edge(found: Option<ScanRecord>, out: &mut Output) -> Result<(), Failure> {
    match found {
        Some(record) => {
            let value = Some((&record.value[..], record.seq));
            out.row(&Row { number: 1, key: &record.key, value, left: record.left })
        }
        None => {
            out.no_edge()?;
            Err(Failure::new(Exit::NotFound, "the table is empty"))
        }
    }
}

fn count(args: &RangeArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let (start, end) = range_of(args, words)?;
    let count = session.wait(session.client.count(&args.table, &start, end.as_deref()))?;
    out.integer("count", count)
}

fn batch(args: &BatchArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let from_stdin = args.file == Path::new("-");
    if from_stdin && !words.stdin {
        return Err(Failure::new(Exit::Usage, "in the shell, batch takes a file: batch TABLE FILE"));
    }
    let lines: Box<dyn BufRead> = if from_stdin {
        Box::new(io::stdin().lock())
    } else {
        let file = fs::File::open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
        Box::new(BufReader::new(file))
    };
    let mut batch = Batch::new();
    for (number, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| unreadable(&args.file, &error))?;
        let at = format!("{} line {}", args.file.display(), number + 1);
        match batch_line(&line).map_err(|failure| failure.context(at))? {
            None => continue,
            Some(BatchLine::Put(key, value, lifetime)) => batch = batch.put_for(&key, &value, lifetime),
            Some(BatchLine::Del(key)) => batch = batch.delete(&key),
        }
    }
    let writes = batch.len();
    let written = session.wait(session.client.batch(&args.table, batch))?;
    match out.style() {
        Style::Json => out.json(&serde_json::json!({
            "ok": true, "writes": writes, "seq": written.seq.to_string()
        })),
        Style::Plain | Style::Shell => out.line(&format!("OK {writes} writes {}", written.seq)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum BatchLine {
    Put(Vec<u8>, Vec<u8>, Lifetime),
    Del(Vec<u8>),
}

/// One line of a batch; nothing on blank lines and comments.
fn batch_line(line: &str) -> Result<Option<BatchLine>, Failure> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let mut words = words(line).map_err(|error| Failure::new(Exit::Input, error))?.into_iter();
    let Some(verb) = words.next() else { return Ok(None) };
    let line = match (verb.as_slice(), words.next(), words.next()) {
        (b"put", Some(key), Some(value)) => {
            lifetime_of(words).map(|lifetime| BatchLine::Put(key, value, lifetime))
        }
        (b"del", Some(key), None) => Some(BatchLine::Del(key)),
        _ => None,
    };
    let known = "a line is `put KEY VALUE`, with `--ttl TIME` or `--no-ttl` behind it or not, or `del KEY`";
    line.map(Some).ok_or_else(|| Failure::new(Exit::Input, known))
}

/// What stands behind a put of a batch; `None` where that is nothing of ours.
fn lifetime_of(mut words: impl Iterator<Item = Vec<u8>>) -> Option<Lifetime> {
    let lifetime = match words.next().as_deref() {
        None => Lifetime::Table,
        Some(b"--no-ttl") => Lifetime::Forever,
        Some(b"--ttl") => {
            let time: Span = std::str::from_utf8(&words.next()?).ok()?.parse().ok()?;
            Lifetime::For(time.0)
        }
        Some(_) => return None,
    };
    words.next().is_none().then_some(lifetime)
}

fn stats(path: Option<&str>, session: &Session, out: &mut Output) -> Result<(), Failure> {
    let stats = session.wait(session.client.stats())?;
    let chosen = match path {
        None => &stats,
        Some(path) => path.split('.').try_fold(&stats, step_into).ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("there is no {path:?} in the stats; see `lode stats`"))
        })?,
    };
    match (out.style(), chosen) {
        (Style::Json, _) => out.json(chosen),
        (_, Value::Object(_) | Value::Array(_)) => print_tree(chosen, 0, out),
        (_, Value::String(text)) => out.line(text),
        (_, leaf) => out.line(&leaf.to_string()),
    }
}

fn step_into<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => value.get(name),
    }
}

/// Nested values as indented `name: value` lines.
fn print_tree(value: &Value, depth: usize, out: &mut Output) -> Result<(), Failure> {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in entries {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(_) if value.get("table").is_some() && value.get("at").is_some() => {
                out.line(&format!("{indent}{}", scrub::record_in_words(value)))?;
            }
            Value::Object(_) | Value::Array(_) => {
                out.line(&format!("{indent}{name}:"))?;
                print_tree(value, depth + 1, out)?;
            }
            Value::String(text) => out.line(&format!("{indent}{name}: {text}"))?,
            leaf => out.line(&format!("{indent}{name}: {leaf}"))?,
        }
    }
    Ok(())
}

fn ping(session: &Session, out: &mut Output) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    session.handshake()?;
    let us = start.elapsed().as_micros() as u64;
    out.done(&format!("PONG ({us} us)"), &serde_json::json!({ "ok": true, "round_trip_us": us }))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Input, format_args!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(end_of_prefix(b"user:"), Some(b"user;".to_vec()));
        assert_eq!(end_of_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
        assert_eq!(end_of_prefix(b""), None);
    }

    #[test]
    fn batch_lines() {
        assert_eq!(
            batch_line("put k 'two words'").unwrap(),
            Some(BatchLine::Put(b"k".into(), b"two words".into(), Lifetime::Table))
        );
        assert_eq!(batch_line(r#"del "\x00""#).unwrap(), Some(BatchLine::Del(vec![0])));
        let lifetime = |line| match batch_line(line).unwrap() {
            Some(BatchLine::Put(_, _, lifetime)) => lifetime,
            other => panic!("{other:?}"),
        };
        assert_eq!(lifetime("put k v --ttl 90s"), Lifetime::For(Duration::from_secs(90)));
        assert_eq!(lifetime("put k v --no-ttl"), Lifetime::Forever);
        assert_eq!(batch_line("  # a comment").unwrap(), None);
        assert_eq!(batch_line("").unwrap(), None);
        for wrong in [
            "put k",
            "put k v w",
            "put k v --ttl",
            "put k v --ttl soon",
            "put k v --no-ttl x",
            "del k --no-ttl",
            "del",
            "get k",
            "put \"k",
        ] {
            assert_eq!(batch_line(wrong).unwrap_err().exit, Exit::Input, "{wrong}");
        }
    }
}
