//! How answers look: plain for people and pipes, JSON for programs, quoted in the shell.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use lode_net::client::TimeLeft;
use lode_net::wire::Seq;
use serde_json::{Map, Value, json};

use super::exit::{Exit, Failure};
use lode_node::escape::{escape, harmless, insert_bytes, quoted};

/// Bytes of a value that the shell shows in a list; `get` shows all of it.
const SHELL_ROW_VALUE_BYTES: usize = 1024;

/// What a shell reports of a process that SIGPIPE ended.
const EXIT_BROKEN_PIPE: i32 = 141;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Values as they are, lists in lines.
    Plain,
    /// JSON, one object a line.
    Json,
    /// As redis-cli shows answers.
    Shell,
}

/// What lays out a text of ours.
const LAYOUT: &str = "\n\t";

/// Says a line on standard error: progress, warnings, failures. A reader that has gone is no reason to end.
pub fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", harmless(&text.to_string(), LAYOUT));
}

/// Prints answers to standard output.
pub struct Output {
    style: Style,
    out: io::BufWriter<io::Stdout>,
}

/// One line of a scan's answer, or all of a `min`'s.
pub struct Row<'a> {
    /// Its place in the answer, from 1.
    pub number: u64,
    /// Its key.
    pub key: &'a [u8],
    /// Its value and version, unless only keys were asked for.
    pub value: Option<(&'a [u8], Seq)>,
    /// How long it has still to live.
    pub left: TimeLeft,
}

impl Output {
    /// To standard output.
    pub fn new(style: Style) -> Output {
        Output { style, out: io::BufWriter::new(io::stdout()) }
    }

    /// How it prints.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Prints one line of text.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(format_args!("{}\n", harmless(text, LAYOUT)))
    }

    /// Prints a JSON object on one line.
    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.write(format_args!("{value}\n"))
    }

    /// Prints the one JSON object of a command; how the command failed, if it did, stands in it as `error`.
    pub fn answer(&mut self, mut object: Value, failure: Option<&mut Failure>) -> Result<(), Failure> {
        if let Some(failure) = failure {
            object["error"] = failure.to_json();
            failure.in_answer = true;
        }
        self.json(&object)
    }

    /// The value that a `get` found, or that there is none.
    pub fn value(&mut self, key: &[u8], found: Option<(&[u8], Seq, TimeLeft)>) -> Result<(), Failure> {
        match (self.style, found) {
            (Style::Plain, Some((value, ..))) => {
                self.bytes(value)?;
                // A prompt behind the value's last line helps nobody; a pipe gets the bytes and no more.
                if io::stdout().is_terminal() && value.last() != Some(&b'\n') {
                    self.line("")?;
                }
                Ok(())
            }
            (Style::Plain, None) => Ok(()),
            (Style::Shell, Some((value, ..))) => self.line(&quoted(value)),
            (Style::Shell, None) => self.line("(nil)"),
            (Style::Json, found) => {
                let mut object = Map::new();
                object.insert("found".into(), found.is_some().into());
                insert_bytes(&mut object, "key", key);
                if let Some((value, seq, left)) = found {
                    insert_bytes(&mut object, "value", value);
                    object.insert("seq".into(), seq.to_string().into());
                    insert_ttl(&mut object, left);
                }
                self.json(&object.into())
            }
        }
    }

    /// What a transaction sees of a key: it has values, and no versions.
    pub fn seen(&mut self, key: &[u8], found: Option<&[u8]>) -> Result<(), Failure> {
        if self.style != Style::Json {
            return self.line(&found.map_or("(nil)".to_owned(), quoted));
        }
        let mut object = Map::new();
        object.insert("found".into(), found.is_some().into());
        insert_bytes(&mut object, "key", key);
        if let Some(value) = found {
            insert_bytes(&mut object, "value", value);
        }
        self.json(&object.into())
    }

    /// One record of a transaction's scan.
    pub fn seen_row(&mut self, number: usize, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        if self.style != Style::Json {
            return self.line(&format!("{number}) {} => {}", quoted(key), shortened(value)));
        }
        let mut object = Map::new();
        insert_bytes(&mut object, "key", key);
        insert_bytes(&mut object, "value", value);
        self.json(&object.into())
    }

    /// One record of a scan.
    pub fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        match self.style {
            Style::Plain => match row.value {
                Some((value, _)) => self.line(&format!("{}\t{}", escape(row.key, None), escape(value, None))),
                None => self.line(&escape(row.key, None)),
            },
            Style::Shell => match row.value {
                Some((value, _)) => {
                    self.line(&format!("{}) {} => {}", row.number, quoted(row.key), shortened(value)))
                }
                None => self.line(&format!("{}) {}", row.number, quoted(row.key))),
            },
            Style::Json => {
                let mut object = Map::new();
                insert_bytes(&mut object, "key", row.key);
                if let Some((value, seq)) = row.value {
                    insert_bytes(&mut object, "value", value);
                    object.insert("seq".into(), seq.to_string().into());
                }
                insert_ttl(&mut object, row.left);
                self.json(&object.into())
            }
        }
    }

    /// How long a key has still to live, or that there is no such key.
    pub fn time_left(&mut self, left: Option<TimeLeft>) -> Result<(), Failure> {
        match (self.style, left) {
            (Style::Json, left) => {
                let mut object = Map::new();
                object.insert("found".into(), left.is_some().into());
                if let Some(left) = left {
                    let ttl_ms = left.duration().map(|left| left.as_millis() as u64);
                    object.insert("ttl_ms".into(), ttl_ms.into());
                }
                self.json(&object.into())
            }
            (Style::Plain, None) => Ok(()),
            (Style::Shell, None) => self.line("(nil)"),
            (_, Some(TimeLeft::Forever)) => self.line("forever"),
            (_, Some(TimeLeft::For(left))) => self.line(&format!("{} ms", left.as_millis())),
        }
    }

    /// A scan that found nothing; in JSON and in lines, no records are no lines.
    pub fn nothing(&mut self) -> Result<(), Failure> {
        match self.style {
            Style::Plain | Style::Json => Ok(()),
            Style::Shell => self.line("(empty)"),
        }
    }

    /// A `min` or `max` of an empty table.
    pub fn no_edge(&mut self) -> Result<(), Failure> {
        match self.style {
            Style::Plain => Ok(()),
            Style::Shell => self.line("(empty)"),
            Style::Json => self.json(&json!({ "found": false })),
        }
    }

    /// A delete of a key that was not there.
    pub fn not_deleted(&mut self) -> Result<(), Failure> {
        match self.style {
            Style::Plain => Ok(()),
            Style::Shell => self.line("(nil)"),
            Style::Json => self.json(&json!({ "ok": true, "existed": false })),
        }
    }

    /// A write that took place.
    pub fn written(&mut self, seq: Seq, existed: bool) -> Result<(), Failure> {
        match self.style {
            Style::Plain | Style::Shell => {
                self.line(&format!("OK {seq}{}", if existed { " (was there)" } else { "" }))
            }
            Style::Json => self.json(&json!({ "ok": true, "seq": seq.to_string(), "existed": existed })),
        }
    }

    /// A write whose condition does not hold; people read of it on standard error.
    pub fn not_written(&mut self, why: &str) -> Result<(), Failure> {
        match self.style {
            Style::Plain | Style::Shell => Ok(()),
            Style::Json => self.json(&json!({ "ok": false, "message": why })),
        }
    }

    /// A number under a name.
    pub fn integer(&mut self, name: &str, number: u64) -> Result<(), Failure> {
        match self.style {
            Style::Plain => self.line(&number.to_string()),
            Style::Shell => self.line(&format!("(integer) {number}")),
            Style::Json => self.json(&json!({ name: number })),
        }
    }

    /// Something that was done; in JSON with what to add.
    pub fn done(&mut self, text: &str, json: &Value) -> Result<(), Failure> {
        match self.style {
            Style::Plain | Style::Shell => self.line(text),
            Style::Json => self.json(json),
        }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(cannot_print)
    }

    /// Gives everything to the terminal, file or pipe.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(cannot_print)
    }

    fn write(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.out.write_fmt(text).map_err(cannot_print)
    }
}

/// The time left, of a record that expires.
fn insert_ttl(object: &mut Map<String, Value>, left: TimeLeft) {
    if let Some(left) = left.duration() {
        object.insert("ttl_ms".into(), (left.as_millis() as u64).into());
    }
}

/// A value among many: a long one would drown the others.
fn shortened(value: &[u8]) -> String {
    match value.len() > SHELL_ROW_VALUE_BYTES {
        true => format!("{}... ({} bytes)", quoted(&value[..SHELL_ROW_VALUE_BYTES]), value.len()),
        false => quoted(value),
    }
}

fn cannot_print(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // `lode scan t | head`: the reader has what it wanted. End as if by the signal, without a word.
        std::process::exit(EXIT_BROKEN_PIPE);
    }
    Failure::new(Exit::Input, format_args!("cannot write to standard output: {error}"))
}
