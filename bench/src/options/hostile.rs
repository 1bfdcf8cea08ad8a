//! Options of `hostile`: what hostile clients do, how many of them, and at what rates.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{LoadOptions, duration};

/// What hostile clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileKind {
    /// Many send a handshake byte by byte.
    SlowHello,
    /// Many shake hands, and send a request byte by byte.
    SlowRequest,
    /// Some send a large request at once, but for its last bytes, which come one by one.
    Half,
    /// Random bytes, before and after the handshake.
    Garbage,
    /// Requests with one wrong byte, and with a length that is too long.
    Damaged,
    /// Connections are opened, and dropped a thousand at a time.
    Drops,
    /// Some ask for large values, again and again, and read none.
    Deaf,
}

/// Options of `hostile`.
#[derive(Debug, Clone, Args)]
pub struct HostileOptions {
    /// The load of the others; the address is the node's own.
    #[command(flatten)]
    pub load: LoadOptions,
    /// What hostile clients do, one after the other [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kinds: Vec<HostileKind>,
    /// Connections that send byte by byte; and those that garbage and damaged requests may have open.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub slow_connections: u32,
    /// How often each of them sends a byte.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub byte_interval: Duration,
    /// Connections that garbage, damaged requests and drops open a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub connections_per_s: u64,
    /// How many connections are opened before all of them are dropped.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub wave: u32,
    /// Connections that hold what they can: half a large request, or answers that they do not read.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub greedy_connections: u32,
    /// How often each of those asks again, or connects again where it was cut off.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub greedy_interval: Duration,
    /// How many times as long as without hostile clients the others' p99 may be.
    #[arg(long, default_value_t = 2.0, value_parser = ratio)]
    pub most_ratio: f64,
    /// The node's program.
    #[arg(long, default_value = "target/release/lode")]
    pub node: PathBuf,
    /// Directory for the drive, which is made and removed.
    #[arg(long)]
    pub dir: PathBuf,
    /// Size of the drive.
    #[arg(long, default_value = "1GiB")]
    pub size: String,
    /// Memory of the node, in MiB: what it has resident must stay below.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub memory_mib: u64,
    /// Shards of the node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub shards: u16,
}

impl HostileOptions {
    /// What is to be done, in order.
    pub fn kinds(&self) -> Vec<HostileKind> {
        if self.kinds.is_empty() { HostileKind::value_variants().to_vec() } else { self.kinds.clone() }
    }
}

impl HostileKind {
    /// As it is given.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (1.0..=1000.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("`{text}` is no ratio from 1 to 1000")),
    }
}
