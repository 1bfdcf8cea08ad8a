//! A real Redis to compare with.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A real Redis at a port of its own; killed when dropped.
pub struct Redis {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one that keeps nothing on a drive.
    pub fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let addr = free.expect("a port is free");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let port = addr.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]).current_dir(directory.path());
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server is installed");
        let redis = Redis { child, addr, _directory: directory };
        let from = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(from.elapsed() < Duration::from_secs(20), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    /// The version of the one that is installed.
    pub fn version() -> String {
        let told =
            Command::new("redis-server").arg("--version").output().expect("redis-server is installed").stdout;
        String::from_utf8_lossy(&told).split(' ').nth(2).unwrap_or("?").to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; all that counts is that nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
