//! What no node can run with: values out of range, and options that contradict each other. All of it is told.

use std::net::SocketAddr;
use std::time::Duration;

use lode_engine::MAX_SHARDS;
use lode_engine::limits::MAX_VALUE_BYTES;
use lode_node::serve::{MIN_MEMORY_PER_SHARD, ServeConfig};

use super::{ConfigError, ServeOptions, allowed};
use crate::cli::size::Size;

/// Largest segment, in bytes.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// Most connections that may be asked for: more than one address has ports.
const MAX_CONNECTIONS: usize = 1_000_000;
/// A longer wait for company would only be felt as slowness.
const MAX_COMMIT_WINDOW: Duration = Duration::from_secs(1);
/// Longest name of a node, in bytes; it travels in every handshake.
const MAX_NODE_NAME_BYTES: usize = 128;

/// Nothing takes longer than this.
const MAX_SLOW_REQUEST: Duration = Duration::from_secs(3600);

/// The highest rate of requests that is worth a limit.
const MAX_ADDRESS_RATE: u64 = 1_000_000_000;

impl ServeOptions {
    /// Everything that no node can run with. What depends on the drive is checked where the drive is known.
    pub(super) fn check(&self) -> Vec<ConfigError> {
        let mut wrong = self.out_of_range();
        // What is wrong by itself contradicts nothing.
        if wrong.is_empty() {
            wrong = self.contradictions();
        }
        wrong
    }

    pub(super) fn out_of_range(&self) -> Vec<ConfigError> {
        let size_unless = |size: Option<Size>, good: fn(u64) -> bool| {
            size.filter(|size| !good(size.0)).map(|size| size.to_string())
        };
        let empty = |path: &Option<std::path::PathBuf>| {
            path.as_ref().filter(|path| path.as_os_str().is_empty()).map(|_| "empty".to_owned())
        };
        let shards = self.shards.filter(|shards| !(1..=MAX_SHARDS).contains(shards));
        let connections = self.max_connections.filter(|most| !(1..=MAX_CONNECTIONS).contains(most));
        let window = self.commit_window.filter(|window| window.0 > MAX_COMMIT_WINDOW);
        let name = self.name.as_ref().filter(|name| !(1..=MAX_NODE_NAME_BYTES).contains(&name.len()));
        let segment = |bytes: u64| bytes.is_power_of_two() && bytes <= MAX_SEGMENT_BYTES;
        let max_value = |bytes: u64| (1..=MAX_VALUE_BYTES as u64).contains(&bytes);
        let address_connections =
            self.client_connections.filter(|most| !(1..=MAX_CONNECTIONS as u32).contains(most));
        let address_rate = self.client_requests_per_s.filter(|rate| !(1..=MAX_ADDRESS_RATE).contains(rate));
        let slow_request = self.slow_request.filter(|span| span.0 > MAX_SLOW_REQUEST);
        let found = [
            ("data", empty(&self.data)),
            ("io-properties", empty(&self.io_properties)),
            ("size", size_unless(self.size, |bytes| bytes > 0)),
            ("segment", size_unless(self.segment, segment)),
            ("max-value", size_unless(self.max_value, max_value)),
            ("memory", size_unless(self.memory, |bytes| bytes > 0)),
            ("shards", shards.map(|shards| shards.to_string())),
            ("max-connections", connections.map(|most| most.to_string())),
            ("commit-window", window.map(|window| window.to_string())),
            ("slow-request", slow_request.map(|span| span.to_string())),
            ("tokens", empty(&self.tokens)),
            ("tls-cert", empty(&self.tls_cert)),
            ("tls-key", empty(&self.tls_key)),
            ("client-connections", address_connections.map(|most| most.to_string())),
            ("client-requests-per-s", address_rate.map(|rate| rate.to_string())),
            ("name", name.map(|name| format!("{name:?}"))),
        ];
        let told = |(name, given): (&'static str, Option<String>)| {
            Some(ConfigError::OutOfRange { name, given: given?, allowed: allowed(name) })
        };
        found.into_iter().filter_map(told).collect()
    }

    fn contradictions(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        let mut say = |text: String| found.push(ConfigError::Contradiction(text));
        if let (Some(shards), Some(memory)) = (self.shards, self.memory)
            && memory.0 < u64::from(shards) * MIN_MEMORY_PER_SHARD
        {
            let least = Size(u64::from(shards) * MIN_MEMORY_PER_SHARD);
            say(format!(
                "--shards {shards} needs at least {least} of memory, not {memory}; raise --memory, or lower --shards"
            ));
        }
        if let (Some(segment), Some(size)) = (self.segment, self.size)
            && segment.0 >= size.0
        {
            say(format!(
                "--segment {segment} does not fit --size {size}; make the drive larger, or its segments smaller"
            ));
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => say("--tls-cert needs its private key; give --tls-key, too".to_owned()),
            (None, Some(_)) => say("--tls-key needs its certificate; give --tls-cert, too".to_owned()),
            _ => {}
        }
        let admin = self.admin.map(|admin| admin.0);
        let listen = self.listen.or_else(|| Some(ServeConfig::default().listen));
        let doors = [("--listen", listen), ("--redis", self.redis), ("--admin", admin)];
        for (at, (name, addr)) in doors.iter().enumerate() {
            for (other_name, other) in &doors[at + 1..] {
                if let (Some(addr), Some(other)) = (addr, other)
                    && collide(*addr, *other)
                {
                    say(format!(
                        "{name} {addr} and {other_name} {other} are one port; give each a port of its own"
                    ));
                }
            }
        }
        found
    }
}

/// Whether nobody can listen at both: one port of the same address, or of all addresses.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && is_same
}
