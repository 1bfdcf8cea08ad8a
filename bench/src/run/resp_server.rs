//! Questions to a RESP server that are not the load: how many records it has, what CPU it has used.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use super::pipeline::PipelineError;
use super::resp;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum RespServerError {
    /// The socket failed.
    #[error("the connection to {addr} failed: {error}; does a RESP server run there?")]
    Socket {
        /// The other end.
        addr: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// What came is no RESP.
    #[error(transparent)]
    Protocol(#[from] PipelineError),
    /// The answer to DBSIZE is no number.
    #[error("the server does not tell how many records it has: {0}")]
    NoNumber(String),
}

/// A connection for questions.
pub struct RespServer {
    addr: SocketAddr,
    stream: TcpStream,
}

impl RespServer {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Result<RespServer, RespServerError> {
        let socket = |error| RespServerError::Socket { addr, error };
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(socket)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(socket)?;
        Ok(RespServer { addr, stream })
    }

    /// Records of the database.
    pub fn records(&mut self) -> Result<u64, RespServerError> {
        let answer = self.ask(&[b"DBSIZE"])?;
        answer.parse().map_err(|_| RespServerError::NoNumber(answer))
    }

    /// What the server says about itself, in the shape of a node's counters as far as there are such.
    pub fn counters(&mut self) -> Result<Value, RespServerError> {
        let info = self.ask(&[b"INFO"])?;
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        let cpu_us = (number("used_cpu_sys") + number("used_cpu_user")) * 1e6;
        let node = json!({
            "process_cpu_us": cpu_us as u64,
            "resident_bytes": number("used_memory_rss") as u64,
        });
        Ok(json!({ "node": node, "totals": {} }))
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<String, RespServerError> {
        let addr = self.addr;
        let socket = |error| RespServerError::Socket { addr, error };
        let mut out = Vec::new();
        resp::command(&mut out, words);
        self.stream.write_all(&out).map_err(socket)?;
        let mut input = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some((text, _)) = resp::text(&input)? {
                return Ok(text);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(socket(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => input.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(socket(error)),
            }
        }
    }
}
