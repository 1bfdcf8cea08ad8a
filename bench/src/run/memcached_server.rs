//! Questions to a memcached server that are not the load: how many records it has, what CPU it has used.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum MemcachedError {
    /// The socket failed.
    #[error("the connection to {addr} failed: {error}; does memcached run there?")]
    Socket {
        /// The other end.
        addr: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// What came are no statistics.
    #[error("the server does not tell its statistics as memcached does: {0}")]
    NoStatistics(String),
}

/// A connection for questions.
pub struct MemcachedServer {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl MemcachedServer {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Result<MemcachedServer, MemcachedError> {
        let socket = |error| MemcachedError::Socket { addr, error };
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(socket)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(socket)?;
        Ok(MemcachedServer { addr, stream: BufReader::new(stream) })
    }

    /// Records that it holds.
    pub fn records(&mut self) -> Result<u64, MemcachedError> {
        Ok(number(&self.statistics()?, "curr_items")? as u64)
    }

    /// What the server says about itself, in the shape of a node's counters as far as there are such.
    pub fn counters(&mut self) -> Result<Value, MemcachedError> {
        let all = self.statistics()?;
        let cpu_us = (number(&all, "rusage_user")? + number(&all, "rusage_system")?) * 1e6;
        Ok(json!({ "node": { "process_cpu_us": cpu_us as u64 }, "totals": {} }))
    }

    fn statistics(&mut self) -> Result<HashMap<String, String>, MemcachedError> {
        let addr = self.addr;
        let socket = |error| MemcachedError::Socket { addr, error };
        self.stream.get_mut().write_all(b"stats\r\n").map_err(socket)?;
        let mut all = HashMap::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).map_err(socket)? == 0 {
                return Err(socket(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut words = line.trim_end().splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("STAT"), Some(name), Some(value)) => all.insert(name.to_owned(), value.to_owned()),
                (Some("END"), None, None) => return Ok(all),
                _ => return Err(MemcachedError::NoStatistics(line)),
            };
        }
    }
}

fn number(all: &HashMap<String, String>, name: &str) -> Result<f64, MemcachedError> {
    let number = all.get(name).and_then(|text| text.parse().ok());
    number.ok_or_else(|| MemcachedError::NoStatistics(format!("{name} is missing")))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// A server that answers one question.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 7];
            stream.read_exact(&mut question).unwrap();
            assert_eq!(&question, b"stats\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        addr
    }

    #[test]
    fn records_and_cpu_are_read_from_its_statistics() {
        let answer = "STAT version 1.6.18 x y\r\nSTAT curr_items 12\r\nEND\r\n";
        assert_eq!(MemcachedServer::connect(server(answer)).unwrap().records().unwrap(), 12);
        let answer = "STAT rusage_user 1.5\r\nSTAT rusage_system 0.25\r\nEND\r\n";
        let counters = MemcachedServer::connect(server(answer)).unwrap().counters().unwrap();
        assert_eq!(counters["node"]["process_cpu_us"], 1_750_000);
        for wrong in ["ERROR\r\n", "END\r\n", "STAT curr_items x\r\nEND\r\n", ""] {
            assert!(MemcachedServer::connect(server(wrong)).unwrap().records().is_err(), "{wrong:?}");
        }
    }
}
