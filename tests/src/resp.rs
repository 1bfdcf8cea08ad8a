//! RESP by hand: for what no good Redis client does, and for replies as they are.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wire::socket;

/// A reply, with everything that tells it from another.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`, by that text.
    Nothing(&'static str),
    /// `*`
    Array(Vec<Value>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `,`, `#` or `=`, with what follows.
    Other(String),
}

impl Value {
    /// An array's items.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            other => panic!("{other:?} is no array"),
        }
    }

    /// As one line of text.
    pub fn shown(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        match self {
            Value::Simple(text) => format!("+{text}"),
            Value::Error(text) => format!("-{text}"),
            Value::Integer(number) => format!(":{number}"),
            Value::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            Value::Nothing(kind) => (*kind).to_owned(),
            Value::Array(items) => format!("[{}]", list(items.iter().map(Value::shown).collect())),
            Value::Map(pairs) => {
                let pair = |(key, value): &(Value, Value)| format!("{}: {}", key.shown(), value.shown());
                format!("{{{}}}", list(pairs.iter().map(pair).collect()))
            }
            Value::Other(text) => text.clone(),
        }
    }

    /// With the items of each array in order: for replies that have none.
    pub fn sorted(self) -> Value {
        match self {
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().map(Value::sorted).collect();
                // A cursor stays before its keys.
                items.sort_by_key(|item| (matches!(item, Value::Array(_)), item.shown()));
                Value::Array(items)
            }
            other => other,
        }
    }
}

/// A connection to a RESP server.
pub struct Resp {
    /// The socket.
    pub stream: TcpStream,
    input: Vec<u8>,
    at: usize,
}

impl Resp {
    /// Connects.
    pub fn open(addr: SocketAddr) -> Resp {
        Resp { stream: socket(addr), input: Vec::new(), at: 0 }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes what is sent");
    }

    /// Asks, and waits for the answer.
    pub fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Value {
        self.send(&request(words));
        self.reply()
    }

    /// Asks in words apart by spaces.
    pub fn say(&mut self, line: &str) -> Value {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }

    /// The next answer.
    pub fn reply(&mut self) -> Value {
        self.try_reply().expect("the server answers before it ends the connection")
    }

    /// The next answer; `None`: the connection has ended.
    pub fn try_reply(&mut self) -> Option<Value> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line[1..]).into_owned();
        let number = || text.parse::<i64>().unwrap_or_else(|_| panic!("{text:?} is no number"));
        Some(match line[0] {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b':' => Value::Integer(number()),
            b'$' if text == "-1" => Value::Nothing("$-1"),
            b'*' if text == "-1" => Value::Nothing("*-1"),
            b'_' => Value::Nothing("_"),
            b'$' => Value::Bulk(self.bytes(number() as usize)?),
            b'=' => {
                let bytes = self.bytes(number() as usize)?;
                Value::Other(format!("={}", bytes.escape_ascii()))
            }
            b'*' | b'~' | b'>' => {
                Value::Array((0..number()).map(|_| self.try_reply()).collect::<Option<_>>()?)
            }
            b'%' => {
                let pair = |resp: &mut Resp| Some((resp.try_reply()?, resp.try_reply()?));
                Value::Map((0..number()).map(|_| pair(self)).collect::<Option<_>>()?)
            }
            b',' | b'#' => Value::Other(format!("{}{text}", char::from(line[0]))),
            other => panic!("{other:?} begins no reply: {text:?}"),
        })
    }

    /// Whether the server has ended the connection, and said nothing more.
    pub fn has_ended(&mut self) -> bool {
        self.at == self.input.len() && !self.receive()
    }

    fn receive(&mut self) -> bool {
        if self.at > 1 << 20 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let mut buffer = [0; 64 << 10];
        // A connection that was cut is at its end.
        let count = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            count => count.expect("the server answers in time"),
        };
        self.input.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let mut searched = self.at;
        loop {
            if let Some(end) = self.input[searched..].windows(2).position(|two| two == b"\r\n") {
                let line = self.input[self.at..searched + end].to_vec();
                self.at = searched + end + 2;
                return Some(line);
            }
            searched = self.at.max(self.input.len().saturating_sub(1));
            let before = self.at;
            if !self.receive() {
                return None;
            }
            searched -= before - self.at;
        }
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.input.len() < self.at + count + 2 {
            if !self.receive() {
                return None;
            }
        }
        let bytes = self.input[self.at..self.at + count].to_vec();
        self.at += count + 2;
        Some(bytes)
    }
}

/// A request as clients send it.
pub fn request<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Requests of one line each, in words apart by spaces.
pub fn requests(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| request(&line.split(' ').collect::<Vec<_>>())).collect()
}

/// Answers as one text, a line each.
pub fn shown(values: &[Value]) -> String {
    values.iter().fold(String::new(), |mut text, value| {
        writeln!(text, "{}", value.shown()).expect("a String takes everything");
        text
    })
}
