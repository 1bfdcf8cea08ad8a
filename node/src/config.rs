//! What `lode serve` may be told: by one TOML file, by the command line, or by both. Every option is one field
//! of [`ServeOptions`], which is read from either, so that the two cannot differ.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use lode_engine::MAX_SHARDS;
use lode_node::serve::ServeConfig;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cli::args::{PlacementName, StoreName};
use crate::cli::size::{Size, Span};

/// Where the data is unless told otherwise.
pub const DEFAULT_DATA: &str = "lode-data/drive.lode";

/// The options of `serve`. In the file their names are the same, without the two hyphens.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// Drive: a file, which is made if it is not there, or a block device [default: lode-data/drive.lode]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Size of a new drive file [default: 10GiB]; an existing drive keeps its size
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Shards of a new drive [default: one per core]; an existing drive keeps its number
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Address to listen at; each shard also takes a port of its own [default: 127.0.0.1:7411]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Memory for cache, index, memory tables and buffers, of all shards together [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// What a new table is like where its maker leaves it open, as store=durable,placement=hash,partitions=64
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub table_defaults: Option<TableDefaults>,
    /// How long a write may wait for company while other frames are being written [default: 500us]
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
    #[arg(long, value_name = "N")]
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
}

impl Default for TableDefaults {
    fn default() -> TableDefaults {
        TableDefaults { store: StoreName::Durable, placement: PlacementName::Hash, partitions: 64 }
    }
}

/// Why `--table-defaults` is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableDefaultsError {
    /// No equals sign.
    #[error("{0:?} is not NAME=VALUE; write for example store=durable,placement=hash,partitions=64")]
    NotAPair(String),
    /// Not one of the three.
    #[error("there is no table option {0:?}; there are store, placement and partitions")]
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

impl FromStr for TableDefaults {
    type Err = TableDefaultsError;

    fn from_str(text: &str) -> Result<TableDefaults, TableDefaultsError> {
        let mut defaults = TableDefaults::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| TableDefaultsError::NotAPair(pair.to_owned()))?;
            let bad =
                |name, expected| TableDefaultsError::BadValue { name, value: value.to_owned(), expected };
            match name {
                "store" => {
                    defaults.store = match value {
                        "durable" => StoreName::Durable,
                        "memory" => StoreName::Memory,
                        _ => return Err(bad("store", "durable or memory")),
                    }
                }
                "placement" => {
                    defaults.placement = match value {
                        "hash" => PlacementName::Hash,
                        "range" => PlacementName::Range,
                        _ => return Err(bad("placement", "hash or range")),
                    }
                }
                "partitions" => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    defaults.partitions = number.ok_or_else(|| bad("partitions", "a number from 1"))?;
                }
                _ => return Err(TableDefaultsError::UnknownName(name.to_owned())),
            }
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
    /// A size beyond what the drive's format can say.
    #[error("--{name} cannot be {given}; it is less than 4 GiB")]
    TooLarge {
        /// The option.
        name: &'static str,
        /// What was given.
        given: Size,
    },
    /// A value that no node can run with.
    #[error("{name} cannot be {given}; it is {allowed}")]
    OutOfRange {
        /// The option, as on the command line.
        name: &'static str,
        /// What was given.
        given: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// It is not TOML, or has a key or value that is no option. The text names key and line.
    #[error("the configuration {path} is wrong: {error}")]
    Toml {
        /// The file.
        path: String,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
}

impl ServeOptions {
    /// The options of a file.
    pub fn read(path: &Path) -> Result<ServeOptions, ConfigError> {
        let shown = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError::Io { path: shown.clone(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Toml { path: shown, error: Box::new(error) })
    }

    /// These options, and where one is left out that of `other`.
    pub fn or(self, other: ServeOptions) -> ServeOptions {
        ServeOptions {
            data: self.data.or(other.data),
            size: self.size.or(other.size),
            shards: self.shards.or(other.shards),
            listen: self.listen.or(other.listen),
            memory: self.memory.or(other.memory),
            table_defaults: self.table_defaults.or(other.table_defaults),
            commit_window: self.commit_window.or(other.commit_window),
            scrub_rate: self.scrub_rate.or(other.scrub_rate),
            name: self.name.or(other.name),
            max_connections: self.max_connections.or(other.max_connections),
            segment: self.segment.or(other.segment),
            max_value: self.max_value.or(other.max_value),
            no_format: self.no_format.or(other.no_format),
            no_pin: self.no_pin.or(other.no_pin),
        }
    }

    /// What the node is told; what is left out is as the node has it.
    pub fn to_config(&self) -> Result<ServeConfig, ConfigError> {
        self.check()?;
        let narrow =
            |name, size: Size| u32::try_from(size.0).map_err(|_| ConfigError::TooLarge { name, given: size });
        let as_is = ServeConfig::default();
        let defaults = self.table_defaults.clone().unwrap_or_default();
        Ok(ServeConfig {
            data: self.data.clone().unwrap_or_else(|| DEFAULT_DATA.into()),
            size: self.size.map_or(as_is.size, |size| size.0),
            shards: self.shards,
            segment_bytes: self.segment.map(|size| narrow("segment", size)).transpose()?,
            max_value_bytes: self
                .max_value
                .map_or(Ok(as_is.max_value_bytes), |size| narrow("max-value", size))?,
            may_format: !self.no_format.unwrap_or(false),
            listen: self.listen.unwrap_or(as_is.listen),
            memory_bytes: self.memory.map_or(as_is.memory_bytes, |size| size.0),
            commit_window: self.commit_window.map_or(as_is.commit_window, |span| span.0),
            scrub_bytes_per_s: self.scrub_rate.map_or(as_is.scrub_bytes_per_s, |rate| rate.0),
            name: self.name.clone().unwrap_or(as_is.name),
            max_connections: self.max_connections.unwrap_or(as_is.max_connections),
            pin: !self.no_pin.unwrap_or(false),
            table_defaults: serde_json::to_value(defaults).expect("plain data is JSON"),
        })
    }
}

/// Most connections that may be asked for: more than one address has ports.
const MAX_CONNECTIONS: usize = 1_000_000;
/// A longer wait for company would only be felt as slowness.
const MAX_COMMIT_WINDOW: Duration = Duration::from_secs(1);
/// Longest name of a node, in bytes; it travels in every handshake.
const MAX_NODE_NAME_BYTES: usize = 128;

impl ServeOptions {
    /// Refuses what no node can run with. What depends on the drive is checked where the drive is known.
    fn check(&self) -> Result<(), ConfigError> {
        let within = |name, given: Option<String>, allowed| match given {
            Some(given) => Err(ConfigError::OutOfRange { name, given, allowed }),
            None => Ok(()),
        };
        let bad_size = |size: Option<Size>| size.filter(|size| size.0 == 0).map(|_| "0".to_owned());
        let shards = self.shards.filter(|shards| !(1..=MAX_SHARDS).contains(shards));
        let connections = self.max_connections.filter(|most| !(1..=MAX_CONNECTIONS).contains(most));
        let window = self.commit_window.filter(|window| window.0 > MAX_COMMIT_WINDOW);
        let name = self.name.as_ref().filter(|name| !(1..=MAX_NODE_NAME_BYTES).contains(&name.len()));
        let no_partitions = self.table_defaults.as_ref().filter(|defaults| defaults.partitions == 0);
        let data = self.data.as_ref().filter(|data| data.as_os_str().is_empty());
        within("--data", data.map(|_| "empty".to_owned()), "the path of a file or a block device")?;
        within("--size", bad_size(self.size), "a size as 10GiB")?;
        within("--segment", bad_size(self.segment), "a power of two of bytes as 4MiB")?;
        within("--max-value", bad_size(self.max_value), "1 byte to 1MiB")?;
        within("--memory", bad_size(self.memory), "at least 64MiB for each shard")?;
        within("--shards", shards.map(|shards| shards.to_string()), "1 to 256")?;
        within("--max-connections", connections.map(|most| most.to_string()), "1 to 1000000")?;
        within("--commit-window", window.map(|window| format!("{:?}", window.0)), "at most 1s")?;
        within("--name", name.map(|name| format!("{:?}", name)), "1 to 128 bytes of text")?;
        within("--table-defaults", no_partitions.map(|_| "partitions=0".to_owned()), "partitions from 1")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn flags(words: &[&str]) -> Result<ServeOptions, clap::Error> {
        let words = ["lode", "serve"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Serve(args) => args.options,
            other => panic!("{other:?}"),
        })
    }

    const WHOLE: &str = r#"
        data = "/data/one.lode"
        size = "20GiB"
        shards = 4
        listen = "0.0.0.0:7500"
        memory = 2147483648
        commit-window = "200us"
        scrub-rate = "1MiB"
        name = "n1"
        max-connections = 10
        segment = "8MiB"
        max-value = "64KiB"
        no-format = true
        no-pin = false
        [table-defaults]
        store = "memory"
        partitions = 8
    "#;

    #[test]
    fn file_and_flags_say_the_same() {
        let file: ServeOptions = toml::from_str(WHOLE).unwrap();
        let flags = flags(&[
            "--data=/data/one.lode",
            "--size=20GiB",
            "--shards=4",
            "--listen=0.0.0.0:7500",
            "--memory=2GiB",
            "--commit-window=200us",
            "--scrub-rate=1MiB",
            "--name=n1",
            "--max-connections=10",
            "--segment=8MiB",
            "--max-value=64KiB",
            "--no-format",
            "--no-pin=false",
            "--table-defaults=store=memory,partitions=8",
        ]);
        assert_eq!(format!("{file:?}"), format!("{:?}", flags.unwrap()));
        assert_eq!(file.table_defaults.unwrap().placement, PlacementName::Hash);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: ServeOptions = toml::from_str(WHOLE).unwrap();
        let merged = flags(&["--shards=2", "--data=here.lode"]).unwrap().or(file);
        assert_eq!(merged.shards, Some(2));
        assert_eq!(merged.data, Some("here.lode".into()));
        assert_eq!(merged.size, Some(Size(20 << 30)));
        let config = merged.to_config().unwrap();
        assert_eq!((config.data, config.shards, config.size), ("here.lode".into(), Some(2), 20 << 30));
        assert_eq!((config.may_format, config.pin, config.segment_bytes), (false, true, Some(8 << 20)));
        assert_eq!(config.table_defaults["store"], "memory");
    }

    #[test]
    fn nothing_told_is_as_the_node_has_it() {
        let config = ServeOptions::default().to_config().unwrap();
        let as_is = ServeConfig { table_defaults: config.table_defaults.clone(), ..ServeConfig::default() };
        assert_eq!(format!("{config:?}"), format!("{as_is:?}"));
        assert_eq!(config.table_defaults["partitions"], 64);
        let too_large = ServeOptions { segment: Some(Size(1 << 32)), ..ServeOptions::default() };
        assert!(matches!(too_large.to_config(), Err(ConfigError::TooLarge { name: "segment", .. })));
    }

    #[test]
    fn what_no_node_can_run_with_is_refused_in_file_and_flags() {
        for (name, text, flag) in [
            ("--data", "data = ''", "--data="),
            ("--size", "size = 0", "--size=0"),
            ("--segment", "segment = 0", "--segment=0"),
            ("--max-value", "max-value = 0", "--max-value=0"),
            ("--memory", "memory = 0", "--memory=0"),
            ("--shards", "shards = 0", "--shards=0"),
            ("--shards", "shards = 257", "--shards=257"),
            ("--max-connections", "max-connections = 0", "--max-connections=0"),
            ("--max-connections", "max-connections = 1000001", "--max-connections=1000001"),
            ("--commit-window", "commit-window = '2s'", "--commit-window=2s"),
            ("--name", "name = ''", "--name="),
            ("--table-defaults", "[table-defaults]\npartitions = 0", ""),
        ] {
            let refused = |options: ServeOptions| options.to_config().map(|_| ()).unwrap_err().to_string();
            let in_file = refused(toml::from_str(text).unwrap());
            assert!(in_file.starts_with(name) && in_file.contains(" cannot be "), "{text}: {in_file}");
            if flag.is_empty() {
                continue;
            }
            // What the grammar itself refuses names the option, too.
            let on_line = flags(&[flag]).map_or_else(|error| error.to_string(), refused);
            assert!(on_line.contains(name), "{flag}: {on_line}");
        }
        let least = "shards = 1\nmax-connections = 1\ncommit-window = '0us'\nname = 'n'\nmax-value = 1";
        assert!(toml::from_str::<ServeOptions>(least).unwrap().to_config().is_ok());
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key_and_what_may_stand_there() {
        for (text, found) in [
            ("size = true", "boolean `true`"),
            ("size = 1.5", "floating point `1.5`"),
            ("memory = [1]", "sequence"),
            ("memory = -1", "integer `-1`"),
            ("commit-window = 50", "integer `50`"),
        ] {
            let error = toml::from_str::<ServeOptions>(text).unwrap_err().to_string();
            let key = text.split(' ').next().unwrap();
            let allowed = if key == "commit-window" { "a time with its unit" } else { "a number of bytes" };
            for part in [key, found, allowed] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (text, named) in [
            ("shard = 4", "`shard`"),
            ("size = \"10PiB\"", "unknown unit"),
            ("[table-defaults]\nstor = \"memory\"", "`stor`"),
            ("listen = \"here\"", "listen"),
            ("shards = 70000", "70000"),
        ] {
            let error = toml::from_str::<ServeOptions>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn table_defaults_are_checked() {
        assert_eq!("".parse(), Ok(TableDefaults::default()));
        for (text, named) in [
            ("store", "NAME=VALUE"),
            ("stor=durable", "\"stor\""),
            ("store=disk", "durable or memory"),
            ("partitions=0", "from 1"),
        ] {
            let error = text.parse::<TableDefaults>().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
