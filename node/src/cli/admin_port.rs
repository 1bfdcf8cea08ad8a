//! A node's admin port, asked as any HTTP client would: one question, one connection, an answer of bounded length.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use lode_net::client::stream::Stream;
use lode_net::client::{ClientTls, Token};
use serde_json::Value;
use thiserror::Error;

use super::args::Global;
use super::exit::{Exit, Failure};
use super::session::{tls, token};

/// Longest answer that is taken.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens there, or does not answer in time.
    #[error("no answer from the admin port at {addr}: {error}; is the node up, and was it given --admin?")]
    Gone {
        /// Where.
        addr: String,
        /// What the system said.
        error: io::Error,
    },
    /// Whoever answers speaks no HTTP, or not as a node does.
    #[error("what answers at {addr} is no admin port of lode: {told}")]
    Other {
        /// Where.
        addr: String,
        /// What is wrong.
        told: String,
    },
    /// The node said no.
    #[error("the admin port at {addr} answered {status}: {told}")]
    Refused {
        /// Where.
        addr: String,
        /// Its status.
        status: u16,
        /// Its words.
        told: String,
    },
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        let exit = match error {
            AskError::Gone { .. } | AskError::Other { .. } => Exit::CannotConnect,
            AskError::Refused { .. } => Exit::Refused,
        };
        Failure::new(exit, error)
    }
}

/// The port.
#[derive(Clone)]
pub struct AdminPort {
    addr: String,
    timeout: Duration,
    token: Option<Token>,
    tls: Option<ClientTls>,
}

impl AdminPort {
    /// At an address of the command line; a port alone is one of this machine.
    pub fn new(addr: &str, global: &Global) -> Result<AdminPort, Failure> {
        let is_port = addr.parse::<u16>().is_ok();
        let addr = if is_port { format!("127.0.0.1:{addr}") } else { addr.to_owned() };
        let tls = tls(global)?.map(|tls| tls.of_address(&addr));
        Ok(AdminPort { addr, timeout: global.timeout.0, token: token(global)?, tls })
    }

    /// Its address.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// What it answers to a path, as JSON.
    pub fn ask(&self, path: &str) -> Result<Value, AskError> {
        let answer = self.fetch(path).map_err(|error| AskError::Gone { addr: self.addr.clone(), error })?;
        let other = |told: &str| AskError::Other { addr: self.addr.clone(), told: told.to_owned() };
        let (status, body) = parsed(&answer).map_err(other)?;
        if status != 200 {
            let told = String::from_utf8_lossy(&body).trim().chars().take(200).collect::<String>();
            return Err(AskError::Refused {
                addr: self.addr.clone(),
                status,
                told: told.escape_debug().to_string(),
            });
        }
        serde_json::from_slice(&body).map_err(|_| other("its answer is no JSON"))
    }

    fn fetch(&self, path: &str) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
        };
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        let mut stream = None;
        for addr in self.addr.to_socket_addrs()? {
            match Stream::connect(addr, left()?, self.tls.as_ref()) {
                Ok(connected) => stream = Some(connected),
                Err(error) => refused = error,
            }
            if stream.is_some() {
                break;
            }
        }
        let Some(mut stream) = stream else { return Err(refused) };
        // Far less than a socket takes at once.
        stream.write_all(self.request(path).as_bytes())?;
        stream.flush()?;
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            stream.set_read_timeout(left()?)?;
            match stream.read(&mut piece)? {
                0 => return Ok(answer),
                count => answer.extend_from_slice(&piece[..count]),
            }
            if answer.len() as u64 > MAX_ANSWER_BYTES {
                return Err(io::Error::other("its answer does not end"));
            }
        }
    }

    fn request(&self, path: &str) -> String {
        let shown = self.token.as_ref().and_then(Token::bearer);
        let shown = shown.map(|bearer| format!("Authorization: {bearer}\r\n"));
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: application/json\r\n{}\r\n",
            self.addr,
            shown.unwrap_or_default()
        )
    }
}

/// The status of an answer, and its body.
fn parsed(answer: &[u8]) -> Result<(u16, Vec<u8>), &'static str> {
    if answer.is_empty() {
        return Err("it closed the connection without a word");
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("its answer is no HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.ok_or("its answer is no HTTP")?;
    let body = &answer[end + 4..];
    let has = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if has("transfer-encoding:").is_some_and(|how| how.trim() == "chunked") {
        return joined(body).map(|body| (status, body));
    }
    let length = has("content-length:").and_then(|length| length.trim().parse::<usize>().ok());
    match length {
        Some(length) if body.len() < length => Err("its answer was cut"),
        Some(length) => Ok((status, body[..length].to_vec())),
        None => Ok((status, body.to_vec())),
    }
}

/// The chunks of a body, put together.
fn joined(mut chunks: &[u8]) -> Result<Vec<u8>, &'static str> {
    const CUT: &str = "its answer was cut";
    let mut body = Vec::new();
    loop {
        let at = chunks.windows(2).position(|two| two == b"\r\n").ok_or(CUT)?;
        let digits = std::str::from_utf8(&chunks[..at]).map_err(|_| CUT)?;
        let digits = digits.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| CUT)?;
        if length == 0 {
            return Ok(body);
        }
        let end = (at + 2).checked_add(length).ok_or(CUT)?;
        body.extend_from_slice(chunks.get(at + 2..end).ok_or(CUT)?);
        chunks = chunks.get(end + 2..).ok_or(CUT)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_whole_or_not_at_all() {
        let of = |text: &str| parsed(text.as_bytes());
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok((200, b"{}".to_vec())));
        assert_eq!(
            of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{\"\r\n3\r\na\"}\r\n0\r\n\r\n"),
            Ok((200, b"{\"a\"}".to_vec()))
        );
        assert_eq!(of("HTTP/1.0 404 Not Found\r\n\r\nno"), Ok((404, b"no".to_vec())));
        for bad in [
            "",
            "-ERR unknown command\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
