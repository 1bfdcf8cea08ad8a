//! A client of the admin port that does what it is told, right or wrong: one connection, bytes out, an answer in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a test waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The status line and the headers, as they came.
    pub head: String,
    /// What came behind them.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// One header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Asks for a path, and reads the whole answer.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Answer {
    get_with(addr, path, "")
}

/// The same with more headers, each with its line's end.
#[track_caller]
pub fn get_with(addr: SocketAddr, path: &str, headers: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    send(addr, request.as_bytes())
}

/// Sends these bytes, and reads until the node closes.
#[track_caller]
pub fn send(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(addr);
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // An answer that was cut is seen to be.
    let _ = stream.read_to_end(&mut answer);
    parse(&answer)
}

/// Asks one for a path that does not close, though it is asked to, and reads as much as it says that there is: browsers.
#[track_caller]
pub fn get_of_browser(addr: SocketAddr, path: &str) -> Answer {
    let mut stream = connect(addr);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).expect("an answer");
        answer.extend_from_slice(&piece[..count]);
        let has_head = answer.windows(4).any(|four| four == b"\r\n\r\n");
        let told = has_head.then(|| parse(&answer));
        let length = told.as_ref().and_then(|told| told.header("content-length")?.parse::<usize>().ok());
        match (told, length) {
            (Some(told), Some(length)) if told.body.len() >= length => return told,
            _ => assert!(count > 0, "half an answer: {:?}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// A connection with a test's patience.
#[track_caller]
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

#[track_caller]
fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = &answer[end + 4..];
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body) } else { body.to_vec() };
    Answer { status, head, body }
}

/// The chunks of a body, put together.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = chunks.windows(2).position(|two| two == b"\r\n") {
        let length =
            std::str::from_utf8(&chunks[..at]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let Some(length) = length.filter(|length| at + 2 + length <= chunks.len()) else { break };
        body.extend_from_slice(&chunks[at + 2..at + 2 + length]);
        chunks = &chunks[(at + 4 + length).min(chunks.len())..];
        if length == 0 {
            break;
        }
    }
    body
}
