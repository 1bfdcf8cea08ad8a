//! The node under test: `lode serve` as a process of its own, so that it can be killed like one.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::exit::{Exit, Failure};
use crate::cli::serve::LISTENING;
use crate::cli::size::Size;
use crate::config::layers::variables;

/// Lines of the node's messages that are kept for the case that it fails.
const KEPT_LINES: usize = 20;
/// A node that recovers for longer than this is taken for hanging.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// A stop writes a checkpoint; longer than this it does not take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What the node is started with.
pub struct NodeOptions<'a> {
    /// The drive.
    pub drive: &'a Path,
    /// Memory of the node.
    pub memory: Option<Size>,
}

/// A running node. It is killed when this is dropped.
pub struct Node {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// From its start to the moment that it listened with everything recovered.
    pub ready_after: Duration,
    messages: Arc<Mutex<VecDeque<String>>>,
}

impl Node {
    /// Starts a node and waits until it listens.
    pub fn start(options: &NodeOptions<'_>) -> Result<Node, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(Exit::Node, format_args!("cannot start a node: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(options.drive).args(["--listen", "127.0.0.1:0"]);
        command.args(["--end-with-parent", "--keep-marker"]);
        if let Some(memory) = options.memory {
            command.arg("--memory").arg(memory.0.to_string());
        }
        // What somebody has told his own node is not for this one.
        command.env_remove("LODE_CONFIG");
        for variable in variables() {
            command.env_remove(variable);
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stderr = child.stderr.take().expect("standard error was piped");
        let messages = Arc::new(Mutex::new(VecDeque::new()));
        let listening = follow(stderr, Arc::clone(&messages));
        let mut node =
            Node { child, addr: ([127, 0, 0, 1], 0).into(), ready_after: Duration::ZERO, messages };
        match listening.recv_timeout(START_TIMEOUT) {
            Ok(addr) => {
                node.addr = addr;
                node.ready_after = started.elapsed();
                Ok(node)
            }
            // The channel closes when the process does; the last lines are all there then.
            Err(_) => Err(node.failure("the node did not start")),
        }
    }

    /// `kill -9`, and until it is gone.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(|_| ())
            .map_err(|error| Failure::new(Exit::Node, format_args!("cannot kill the node: {error}")))
    }

    /// Asks it to stop, as a service manager would, and waits.
    pub fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)
            .map_err(|error| Failure::new(Exit::Node, format_args!("cannot stop the node: {error}")))?;
        let asked = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.failure(&format!("the node stopped with {status}"))),
                Ok(None) if asked.elapsed() > STOP_TIMEOUT => {
                    return Err(self.failure("the node did not stop in a minute"));
                }
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(self.failure(&error.to_string())),
            }
        }
    }

    /// A failure with the node's last words.
    pub fn failure(&self, what: &str) -> Failure {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = messages.iter().map(String::as_str).collect();
        let said = if said.is_empty() { "nothing".to_owned() } else { said.join("\n  ") };
        Failure::new(Exit::Node, format_args!("{what}; it said:\n  {said}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the node's messages to their end; the address comes when the node listens.
fn follow(stderr: ChildStderr, messages: Arc<Mutex<VecDeque<String>>>) -> mpsc::Receiver<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(addr) = listening_at(&line)
                && let Some(sender) = sender.take()
            {
                // Nobody waits for a second time.
                let _ = sender.send(addr);
            }
            let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            if messages.len() == KEPT_LINES {
                messages.pop_front();
            }
            messages.push_back(line);
        }
    });
    receiver
}

/// The address in the line that says that the node listens.
fn listening_at(line: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(LISTENING)? + LISTENING.len()..];
    rest.split([' ', ',', ';']).find(|word| !word.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_line() {
        let line = format!("lode: {LISTENING}127.0.0.1:40123, shards at 40124 40125");
        assert_eq!(listening_at(&line), Some(([127, 0, 0, 1], 40123).into()));
        assert_eq!(listening_at("lode: recovering"), None);
    }
}
