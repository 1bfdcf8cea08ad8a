//! Tells the service manager that the node serves, that it still does, and that it stops: a datagram each to the socket
//! that `NOTIFY_SOCKET` names, as sd_notify(3) of systemd has it. Without that variable nobody is told.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use lode_net::client::blocking::Client;
use lode_net::client::{ClientOptions, Dial, Token};

/// Signs of life for each period that the manager waits, so that one may be late.
const BEATS_PER_PERIOD: u32 = 3;

/// Who started the node and wants to be told.
#[derive(Clone, Debug)]
pub struct Manager {
    socket: Arc<UnixDatagram>,
    to: UnixAddr,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names, and how long it waits for a sign of life before it ends the node.
    pub fn from_environment() -> Option<Manager> {
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let meant_for_another =
            number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
        let period_us = number("WATCHDOG_USEC").filter(|us| *us > 0 && !meant_for_another);
        Manager::new(&socket, period_us.map(Duration::from_micros)).ok()
    }

    fn new(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Manager> {
        let to = match name.as_bytes() {
            [b'@', abstract_name @ ..] => UnixAddr::from_abstract_name(abstract_name)?,
            _ => UnixAddr::from_pathname(name)?,
        };
        Ok(Manager { socket: Arc::new(UnixDatagram::unbound()?), to, watchdog })
    }

    /// That nobody hears it is no reason for a node to end.
    fn tell(&self, what: &str) {
        let _ = self.socket.send_to_addr(what.as_bytes(), &self.to);
    }

    /// The node serves; from here on the manager hears that it still does, if it asked to.
    pub fn serves(&self, addr: SocketAddr, token: Option<Token>, dial: Option<Dial>) {
        self.tell("READY=1");
        if let Some(period) = self.watchdog {
            let manager = self.clone();
            let body = move || manager.keep_telling(addr, token, dial, period);
            // Without the thread the manager will end the node, which says it plainly enough.
            let _ = std::thread::Builder::new().name("lode-watchdog".into()).spawn(body);
        }
    }

    /// The node begins to stop.
    pub fn stops(&self) {
        self.tell("STOPPING=1");
    }

    /// A sign of life for each time that the node has answered: its statistics, which every shard gives its part of. Ends
    /// with the process.
    fn keep_telling(&self, addr: SocketAddr, token: Option<Token>, dial: Option<Dial>, period: Duration) {
        let pause = period / BEATS_PER_PERIOD;
        let options = ClientOptions {
            request_timeout: pause,
            connect_timeout: pause,
            retries: 0,
            name: "watchdog".to_owned(),
            token,
            dial,
            ..ClientOptions::default()
        };
        let mut client = None;
        loop {
            if client.is_none() {
                client = Client::connect(&addr.to_string(), options.clone()).ok();
            }
            match client.as_mut().map(|client: &mut Client| client.stats()) {
                Some(Ok(_)) => self.tell("WATCHDOG=1"),
                // Anew next time: the connection may be what failed.
                _ => client = None,
            }
            std::thread::sleep(pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).expect("told before the test's patience ends");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn listener(path: &std::path::Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        socket
    }

    #[test]
    fn the_manager_hears_that_the_node_serves_lives_and_stops() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = listener(&dir.path().join("socket"));
        let config = ServeConfig {
            data: dir.path().join("drive.lode"),
            size: 64 << 20,
            shards: Some(2),
            segment_bytes: Some(1 << 20),
            max_value_bytes: 64 << 10,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            memory_bytes: 2 * MIN_MEMORY_PER_SHARD,
            pin: false,
            ..ServeConfig::default()
        };
        let node = start(config, &mut |_| {}).expect("a node");
        let name = dir.path().join("socket");
        let manager = Manager::new(name.as_os_str(), Some(Duration::from_millis(1500))).expect("a manager");
        manager.serves(node.addr, None, None);
        assert_eq!(heard(&socket), "READY=1");
        assert_eq!(heard(&socket), "WATCHDOG=1");
        assert_eq!(heard(&socket), "WATCHDOG=1");
        manager.stops();
        while heard(&socket) != "STOPPING=1" {}
        node.stop();
    }

    #[test]
    fn a_node_that_does_not_answer_gives_no_sign_of_life() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = listener(&dir.path().join("socket"));
        // It takes connections and never answers.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let name = dir.path().join("socket");
        let manager = Manager::new(name.as_os_str(), Some(Duration::from_millis(60))).expect("a manager");
        manager.serves(deaf.local_addr().expect("an address"), None, None);
        assert_eq!(heard(&socket), "READY=1");
        // It has asked, and asked again; the next that is heard is what the test says itself.
        let asked: Vec<_> = (0..2).map(|_| deaf.accept().expect("asked")).collect();
        manager.tell("the test");
        assert_eq!(heard(&socket), "the test");
        drop(asked);
    }

    #[test]
    fn names_without_a_file_are_understood() {
        let name = format!("lode-test-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        Manager::new(OsStr::new(&format!("@{name}")), None).expect("a manager").stops();
        assert_eq!(heard(&socket), "STOPPING=1");
    }
}
