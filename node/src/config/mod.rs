//! What `lode serve` may be told: by one TOML file, by the command line, or by both. Every option is one field
//! of [`ServeOptions`], which is read from either, so that the two cannot differ.

mod address;
mod check;
mod file;
pub mod layers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

use clap::Args;
use lode_net::client::Quota;
use lode_net::wire::limits::{MAX_BURST_MS, MAX_QUOTA_PER_S, MAX_WEIGHT};
use lode_node::access::ClientLimits;
use lode_node::admin::HostNames;
use lode_node::io_limits::Wanted;
use lode_node::serve::ServeConfig;
use lode_node::tls::TlsFiles;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::address::AdminAddress;
use crate::cli::args::{PlacementName, StoreName};
use crate::cli::size::{Size, Span};
use crate::log::{LogFormat, LogLevel};

/// Where the data is unless told otherwise.
pub const DEFAULT_DATA: &str = "lode-data/drive.lode";

/// The options of `serve`. In the file their names are the same, without the two hyphens.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeOptions {
    /// Drive: a file, which is made if it is not there, or a block device [default: lode-data/drive.lode]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Size of a new drive file [default: 10GiB]; an existing drive keeps its size
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Shards of a new drive [default: one per core]; an existing drive keeps its number
    #[arg(long, value_name = "N", value_parser = |text: &str| parsed::<u16>("shards", text))]
    pub shards: Option<u16>,
    /// Address to listen at; each shard also takes a port of its own [default: 127.0.0.1:7411]
    #[arg(long, value_name = "HOST:PORT", value_parser = |text: &str| parsed::<SocketAddr>("listen", text))]
    pub listen: Option<SocketAddr>,
    /// Address for Redis clients, who speak RESP; they are served where this is given
    #[arg(long, value_name = "HOST:PORT", value_parser = |text: &str| parsed::<SocketAddr>("redis", text))]
    pub redis: Option<SocketAddr>,
    /// Address for health, metrics and the console, by HTTP; they are served where this is given. A port alone is one of
    /// 127.0.0.1
    #[arg(long, value_name = "[HOST:]PORT", value_parser = |text: &str| parsed::<AdminAddress>("admin", text))]
    pub admin: Option<AdminAddress>,
    /// Names by which the admin port may be asked where there are neither tokens nor TLS, beside addresses and its own: keeps web
    /// pages elsewhere out; * for any [default: none]
    #[arg(long, value_name = "NAME,...", value_parser = |text: &str| parsed::<HostNames>("admin-hosts", text))]
    pub admin_hosts: Option<HostNames>,
    /// Memory for cache, index, memory tables and buffers, of all shards together [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Of the memory, what the read cache has, of all shards together; index and memory tables have what is left [default: two
    /// fifths of what buffers and requests leave, of more than 1GiB a fifth]
    #[arg(long, value_name = "SIZE")]
    pub cache: Option<Size>,
    /// What a new table is like where its maker leaves it open, as store=durable,placement=hash,partitions=64
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub table_defaults: Option<TableDefaults>,
    /// What lode-tune measure has found of the drive, for depth limits, costs, commit window and spinning [default:
    /// io-properties.toml beside a drive file, /var/lib/lode/io-properties.toml for a block device; lode's own values
    /// where there is none, or one of another drive, kernel or setting]
    #[arg(long, value_name = "FILE")]
    pub io_properties: Option<PathBuf>,
    /// How long a write may wait for company while other frames are being written [default: as measured, or 500us]
    #[arg(long, value_name = "TIME")]
    pub commit_window: Option<Span>,
    /// Bytes a second that each shard reads to find damage before anybody meets it, so that 1.2 TB a
    /// shard are walked in a week; 0 for never [default: 2MiB]
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<Size>,
    /// What the node calls itself [default: lode]
    #[arg(long)]
    pub name: Option<String>,
    /// Most connections; one more is refused [default: 4096]
    #[arg(long, value_name = "N", value_parser = |text: &str| parsed::<usize>("max-connections", text))]
    pub max_connections: Option<usize>,
    /// Segments of a new drive; by the drive's size where left out
    #[arg(long, value_name = "SIZE")]
    pub segment: Option<Size>,
    /// Longest value of a new drive [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_value: Option<Size>,
    /// Fail where there is no drive, rather than make one
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_format: Option<bool>,
    /// Let the system place the shards' threads, rather than pin each to a core
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_pin: Option<bool>,
    /// How the node's log is written to standard error: for people, or one JSON object a line [default: text]
    #[arg(long, value_name = "text|json", value_parser = |text: &str| parsed::<LogFormat>("log", text))]
    pub log: Option<LogFormat>,
    /// What is logged: this and all that is more serious [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = |text: &str| parsed::<LogLevel>("log-level", text))]
    pub log_level: Option<LogLevel>,
    /// Who may do what: a file that lode token make writes, read again on SIGHUP; without it, whoever reaches the node may do
    /// everything
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Certificate, and those between it and its authority, as PEM: all ports speak TLS, and nothing else. Read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Most connections of one address (of one /64 of IPv6); one more is refused [default: any number]
    #[arg(long, value_name = "N", value_parser = |text: &str| parsed::<u32>("client-connections", text))]
    pub client_connections: Option<u32>,
    /// Most requests a second of one address; more are throttled [default: any number]
    #[arg(long, value_name = "N", value_parser = |text: &str| parsed::<u64>("client-requests-per-s", text))]
    pub client_requests_per_s: Option<u64>,
    /// Requests that take this long or longer are kept with where their time went: for the console, lode slow and the log; 0s
    /// for none [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub slow_request: Option<Span>,
}

/// What a new table is like where its maker leaves it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TableDefaults {
    /// Where it keeps its records.
    pub store: StoreName,
    /// How keys map to partitions.
    pub placement: PlacementName,
    /// Number of partitions, where keys are placed by hash.
    pub partitions: u32,
    /// What each partition may take; see the options of `table create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<u64>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_s: Option<u64>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_s: Option<u64>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_ms: Option<u32>,
}

impl Default for TableDefaults {
    fn default() -> TableDefaults {
        TableDefaults {
            store: StoreName::Durable,
            placement: PlacementName::Hash,
            partitions: 64,
            weight: None,
            requests_per_s: None,
            read_bytes_per_s: None,
            write_bytes_per_s: None,
            burst_ms: None,
        }
    }
}

/// What a rate of bytes may be.
const BYTE_RATE: &str = "a number of bytes, or a text as 10MiB; 0 for any number";
/// What `--table-defaults` may set.
const TABLE_OPTIONS: &str =
    "store, placement, partitions, weight, requests-per-s, read-bytes-per-s, write-bytes-per-s and burst";

/// Why `--table-defaults` is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableDefaultsError {
    /// No equals sign.
    #[error("{0:?} is not NAME=VALUE; write for example store=durable,placement=hash,partitions=64")]
    NotAPair(String),
    /// Not one of them.
    #[error("there is no table option {0:?}; there are {TABLE_OPTIONS}")]
    UnknownName(String),
    /// Not a value of this option.
    #[error("{name} cannot be {value:?}; it is {expected}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl TableDefaults {
    /// What each partition of a table may take.
    pub fn quota(&self) -> Quota {
        let none = Quota::default();
        Quota {
            weight: self.weight.unwrap_or(none.weight),
            burst_ms: self.burst_ms.unwrap_or(none.burst_ms),
            requests_per_s: self.requests_per_s.unwrap_or(0),
            read_bytes_per_s: self.read_bytes_per_s.unwrap_or(0),
            write_bytes_per_s: self.write_bytes_per_s.unwrap_or(0),
        }
    }

    /// Sets one of them.
    fn set(&mut self, name: &str, value: &str) -> Result<(), TableDefaultsError> {
        let bad = |name, expected| TableDefaultsError::BadValue { name, value: value.to_owned(), expected };
        match name {
            "store" => {
                self.store = match value {
                    "durable" => StoreName::Durable,
                    "memory" => StoreName::Memory,
                    "compact" => StoreName::Compact,
                    _ => return Err(bad("store", "durable, memory or compact")),
                }
            }
            "placement" => {
                self.placement = match value {
                    "hash" => PlacementName::Hash,
                    "range" => PlacementName::Range,
                    _ => return Err(bad("placement", "hash or range")),
                }
            }
            "partitions" => {
                let number = value.parse().ok().filter(|number| (1..=MAX_TABLE_PARTITIONS).contains(number));
                self.partitions =
                    number.ok_or_else(|| bad("partitions", "a whole number from 1 to 1000000"))?;
            }
            _ => return self.set_quota(name, value),
        }
        Ok(())
    }
}

impl TableDefaults {
    fn set_quota(&mut self, name: &str, value: &str) -> Result<(), TableDefaultsError> {
        let bad = |name, expected| TableDefaultsError::BadValue { name, value: value.to_owned(), expected };
        let rate = || value.parse().ok().filter(|rate: &Size| rate.0 <= MAX_QUOTA_PER_S).map(|rate| rate.0);
        match name {
            "weight" => {
                let weight = value.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
                self.weight = Some(weight.ok_or_else(|| bad("weight", "a whole number from 1 to 10000"))?);
            }
            "requests-per-s" => {
                let rate = value.parse().ok().filter(|rate| *rate <= MAX_QUOTA_PER_S);
                let allowed = "a whole number; 0 for any number";
                self.requests_per_s = Some(rate.ok_or_else(|| bad("requests-per-s", allowed))?);
            }
            "read-bytes-per-s" => {
                self.read_bytes_per_s = Some(rate().ok_or_else(|| bad("read-bytes-per-s", BYTE_RATE))?);
            }
            "write-bytes-per-s" => {
                self.write_bytes_per_s = Some(rate().ok_or_else(|| bad("write-bytes-per-s", BYTE_RATE))?);
            }
            "burst" => {
                let ms = value.parse().ok().and_then(|span: Span| u32::try_from(span.0.as_millis()).ok());
                let ms = ms.filter(|ms| (1..=MAX_BURST_MS).contains(ms));
                self.burst_ms = Some(ms.ok_or_else(|| bad("burst", "a time of 1ms to 5m, as 500ms"))?);
            }
            _ => return Err(TableDefaultsError::UnknownName(name.to_owned())),
        }
        Ok(())
    }
}

/// As the command line takes it.
impl fmt::Display for TableDefaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = match self.store {
            StoreName::Durable => "durable",
            StoreName::Memory => "memory",
            StoreName::Compact => "compact",
        };
        let placement = match self.placement {
            PlacementName::Hash => "hash",
            PlacementName::Range => "range",
        };
        write!(f, "store={store},placement={placement},partitions={}", self.partitions)?;
        let rates = [
            ("weight", self.weight.map(u64::from)),
            ("requests-per-s", self.requests_per_s),
            ("read-bytes-per-s", self.read_bytes_per_s),
            ("write-bytes-per-s", self.write_bytes_per_s),
        ];
        for (name, rate) in rates {
            rate.map_or(Ok(()), |rate| write!(f, ",{name}={rate}"))?;
        }
        self.burst_ms.map_or(Ok(()), |ms| write!(f, ",burst={ms}ms"))
    }
}

impl FromStr for TableDefaults {
    type Err = TableDefaultsError;

    fn from_str(text: &str) -> Result<TableDefaults, TableDefaultsError> {
        let mut defaults = TableDefaults::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| TableDefaultsError::NotAPair(pair.to_owned()))?;
            defaults.set(name, value)?;
        }
        Ok(defaults)
    }
}

/// Why the configuration file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// A value that no node can run with.
    #[error("--{name} cannot be {given}; it is {allowed}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// What was given.
        given: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The same, or a value of the wrong kind, in the file.
    #[error("the configuration {place}: {option} cannot be {found}; it is {allowed}")]
    InFile {
        /// File and line.
        place: String,
        /// The option, as it is called in the file.
        option: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        allowed: String,
    },
    /// A key of the file that is no option.
    #[error("the configuration {place}: there is no option {key}; there are {known}")]
    UnknownOption {
        /// File and line.
        place: String,
        /// The key.
        key: String,
        /// What there is.
        known: String,
    },
    /// The same in the environment.
    #[error("the environment's {variable} cannot be {given}; it is {allowed}")]
    InEnvironment {
        /// The variable.
        variable: String,
        /// What it holds.
        given: String,
        /// What it may hold.
        allowed: &'static str,
    },
    /// A variable that nothing reads, and that is nearly one that a node does.
    #[error(
        "the environment's {variable} is read by nobody; if {meant} is meant, call it so, and else unset it"
    )]
    Misspelt {
        /// The variable.
        variable: String,
        /// What it is nearly called.
        meant: String,
    },
    /// Two options that cannot both be so.
    #[error("{0}")]
    Contradiction(String),
    /// It is not TOML.
    #[error("the configuration {place}: this is no TOML: {problem}")]
    Syntax {
        /// File, line and column.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// All that is wrong with what a node was told, so that it can be put right at once.
#[derive(Debug, Error)]
#[error("{}", listed(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Nothing is wrong where there is no error.
    pub fn none_of(errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }
}

/// One error as it is; more, each on a line of its own.
fn listed(errors: &[ConfigError]) -> String {
    match errors {
        [only] => only.to_string(),
        all => {
            let lines: String = all.iter().map(|error| format!("\n  {error}")).collect();
            format!("{} things are wrong with what this node is told:{lines}", all.len())
        }
    }
}

/// What each option may be, in the words of every message; in the order of [`ServeOptions`].
const ALLOWED: [(&str, &str); 27] = [
    ("data", "the path of a file or a block device"),
    ("size", "a number of bytes, or a text as 10GiB"),
    ("shards", "a whole number from 1 to 256"),
    ("listen", "an IP address and a port, as 127.0.0.1:7411 or [::1]:7411"),
    ("redis", "an IP address and a port, as 127.0.0.1:6379 or [::1]:6379"),
    ("admin", "a port, as 9411, or an IP address and a port, as 127.0.0.1:9411 or [::1]:9411"),
    ("admin-hosts", "names of hosts, as lode.example.com,*.lode.svc, or * for any"),
    ("memory", "a number of bytes, or a text as 1GiB; at least 64MiB for each shard"),
    ("cache", "a number of bytes, or a text as 256MiB; 0 for none"),
    (
        "table-defaults",
        "made of store, placement, partitions and the quota of a partition, as store=durable,placement=hash,partitions=64",
    ),
    ("io-properties", "the path of a file"),
    ("commit-window", "a time of at most 1s, as 500us"),
    ("scrub-rate", "a number of bytes a second, or a text as 2MiB; 0 for never"),
    ("name", "a text of 1 to 128 bytes"),
    ("max-connections", "a whole number from 1 to 1000000"),
    ("segment", "a power of two of bytes of at most 1GiB, as 4MiB"),
    ("max-value", "1 byte to 1MiB, as 64KiB"),
    ("no-format", "true or false"),
    ("no-pin", "true or false"),
    ("log", "text or json"),
    ("log-level", "error, warn, info or debug"),
    ("tokens", "the path of a file"),
    ("tls-cert", "the path of a file that has a certificate"),
    ("tls-key", "the path of a file that has a private key"),
    ("client-connections", "a whole number from 1 to 1000000"),
    ("client-requests-per-s", "a whole number from 1 to 1000000000"),
    ("slow-request", "a time of at most 1h, as 100ms; 0s for none"),
];

/// What this option may be.
fn allowed(name: &str) -> &'static str {
    let words = ALLOWED.iter().find(|(option, _)| *option == name).map(|(_, words)| *words);
    words.expect("every option has its words")
}

/// A value of the command line.
fn parsed<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("it is {}", allowed(name)))
}

impl ServeOptions {
    /// These options, and where one is left out that of `other`.
    pub fn or(self, other: ServeOptions) -> ServeOptions {
        ServeOptions {
            data: self.data.or(other.data),
            size: self.size.or(other.size),
            shards: self.shards.or(other.shards),
            listen: self.listen.or(other.listen),
            redis: self.redis.or(other.redis),
            admin: self.admin.or(other.admin),
            admin_hosts: self.admin_hosts.or(other.admin_hosts),
            memory: self.memory.or(other.memory),
            cache: self.cache.or(other.cache),
            table_defaults: self.table_defaults.or(other.table_defaults),
            io_properties: self.io_properties.or(other.io_properties),
            commit_window: self.commit_window.or(other.commit_window),
            scrub_rate: self.scrub_rate.or(other.scrub_rate),
            name: self.name.or(other.name),
            max_connections: self.max_connections.or(other.max_connections),
            segment: self.segment.or(other.segment),
            max_value: self.max_value.or(other.max_value),
            no_format: self.no_format.or(other.no_format),
            no_pin: self.no_pin.or(other.no_pin),
            log: self.log.or(other.log),
            log_level: self.log_level.or(other.log_level),
            tokens: self.tokens.or(other.tokens),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            client_connections: self.client_connections.or(other.client_connections),
            client_requests_per_s: self.client_requests_per_s.or(other.client_requests_per_s),
            slow_request: self.slow_request.or(other.slow_request),
        }
    }

    /// What the node is told; what is left out is as the node has it.
    pub fn to_config(&self) -> Result<ServeConfig, ConfigErrors> {
        ConfigErrors::none_of(self.check())?;
        let narrow = |size: Size| u32::try_from(size.0).expect("checked above");
        let as_is = ServeConfig::default();
        let defaults = self.table_defaults.clone().unwrap_or_default();
        Ok(ServeConfig {
            data: self.data.clone().unwrap_or_else(|| DEFAULT_DATA.into()),
            size: self.size.map_or(as_is.size, |size| size.0),
            shards: self.shards,
            segment_bytes: self.segment.map(narrow),
            max_value_bytes: self.max_value.map_or(as_is.max_value_bytes, narrow),
            may_format: !self.no_format.unwrap_or(false),
            listen: self.listen.unwrap_or(as_is.listen),
            redis: self.redis.or(as_is.redis),
            admin: self.admin.map(|admin| admin.0).or(as_is.admin),
            admin_hosts: self.admin_hosts.clone().unwrap_or(as_is.admin_hosts),
            memory_bytes: self.memory.map_or(as_is.memory_bytes, |size| size.0),
            cache_bytes: self.cache.map(|size| size.0),
            io: Wanted {
                file: self.io_properties.clone(),
                commit_window: self.commit_window.map(|span| span.0),
            },
            scrub_bytes_per_s: self.scrub_rate.map_or(as_is.scrub_bytes_per_s, |rate| rate.0),
            name: self.name.clone().unwrap_or(as_is.name),
            max_connections: self.max_connections.unwrap_or(as_is.max_connections),
            pin: !self.no_pin.unwrap_or(false),
            table_defaults: serde_json::to_value(defaults).expect("plain data is JSON"),
            tokens: self.tokens.clone(),
            tls: self.tls_cert.clone().zip(self.tls_key.clone()).map(|(cert, key)| TlsFiles { cert, key }),
            client: ClientLimits {
                connections: self.client_connections,
                requests_per_s: self.client_requests_per_s,
            },
            slow_request: self.slow_request.map_or(as_is.slow_request, |span| span.0),
        })
    }
}

/// Most partitions that a table may be asked to have; the node's own limit goes by its shards.
pub const MAX_TABLE_PARTITIONS: u32 = 1_000_000;
