//! A node in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lode_net::client::blocking::Client;
use lode_net::client::{ClientOptions, ConnectError};
use thiserror::Error;

/// A node that does not listen by then will not, nor end a checkpoint, however large its index.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a node did not come up.
#[derive(Debug, Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("{program}: {error}; build it with `cargo build --release`, or give --node")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// It ended, or does not listen.
    #[error("the node does not listen; its last words: {0}")]
    Silent(String),
}

/// What a node is told.
pub struct Serve<'a> {
    /// Its drive; made where it is missing.
    pub drive: &'a Path,
    /// Size of the drive, where it is made.
    pub size: &'a str,
    /// Its memory.
    pub memory: &'a str,
    /// Its shards, where the drive is made.
    pub shards: u16,
}

/// A node in a process of its own; killed when dropped.
pub struct Node {
    child: Child,
    addr: String,
    begun: Instant,
    listening: Duration,
}

impl Node {
    /// Starts a node, and waits until it listens.
    pub fn start(program: &Path, serve: &Serve<'_>) -> Result<Node, StartError> {
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(serve.drive).args(["--listen", "127.0.0.1:0"]);
        command.args(["--size", serve.size, "--memory", serve.memory]);
        command.args(["--shards", &serve.shards.to_string(), "--end-with-parent"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let start = |error| StartError::Start { program: program.into(), error };
        let mut child = command.spawn().map_err(start)?;
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut last = String::new();
        loop {
            let mut line = String::new();
            let is_over = lines.read_line(&mut line).map_err(start)? == 0 || begun.elapsed() > PATIENCE;
            let words = line.split([' ', ',', ';', '\n']);
            let addr = words
                .filter(|_| line.contains("listening"))
                .find(|word| word.parse::<std::net::SocketAddr>().is_ok());
            if let Some(addr) = addr {
                let (addr, listening) = (addr.to_owned(), begun.elapsed());
                // Whatever else it says shall not make it wait.
                std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
                return Ok(Node { child, addr, begun, listening });
            }
            if is_over {
                let _ = child.kill();
                return Err(StartError::Silent(last));
            }
            last = line;
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Bytes of memory that it has resident; nothing where the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that it has had resident since [`forget_peak`](Node::forget_peak).
    pub fn peak_bytes(&self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Counts its peak of resident memory anew. Where the system does not let us, it goes on counting from the start.
    pub fn forget_peak(&self) {
        // 5: so says proc_pid_clear_refs(5).
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status_bytes(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// A client of it.
    pub fn client(&self) -> Result<Client, ConnectError> {
        Client::connect(&self.addr, ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() })
    }

    /// Milliseconds from its start until it said that it listens.
    pub fn listening_ms(&self) -> f64 {
        ms_of(self.listening)
    }

    /// Milliseconds since its start.
    pub fn since_start_ms(&self) -> f64 {
        ms_of(self.begun.elapsed())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SIGKILL; it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In milliseconds.
pub fn ms_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
