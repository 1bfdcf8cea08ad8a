//! The command line's grammar. What each command does lives in the file of its name.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lode_net::client::Lifetime;
use lode_net::wire::Seq;
use lode_net::wire::limits::{MAX_QUOTA_PER_S, MAX_WEIGHT};

use super::exit::EXIT_CODES_HELP;
pub use super::global::Global;
pub use super::load::args::{FormatName, LoadArgs};
use super::size::{Size, Span};
use super::slow::SlowArgs;
use super::top::TopArgs;
use crate::config::{MAX_TABLE_PARTITIONS, ServeOptions};

/// lode: a partitioned key-value storage node for local NVMe
#[derive(Debug, Parser)]
#[command(name = "lode", version, after_help = EXIT_CODES_HELP, propagate_version = true)]
pub struct Cli {
    /// Options of every command
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// A number of 64 bits.
fn whole<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "it is a whole number of at most 64 bits")
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(Box<ServeArgs>),
    /// Show in about a minute that it works: load real data, read it back, kill the node, check that nothing is lost
    Quickstart(QuickstartArgs),
    /// Store a directory, a CSV or a JSON-lines file; a killed load goes on where it was
    Load(LoadArgs),
    /// Talk to the node by hand
    Shell(ShellArgs),
    /// Read every checksum of a drive that no node uses, and report
    Check(CheckArgs),
    /// Write an empty store onto a drive, without starting a node
    Format(FormatArgs),
    /// Print what a node would be told, and where each value comes from: flag, environment, file or default
    Config(Box<ConfigArgs>),
    /// Make and list tokens: who may do what
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print a script that completes this command in a shell
    Completions(CompletionsArgs),
    /// Write the manual's pages into a directory
    Man(ManArgs),
    /// Show a node as it is now, from its admin port
    Top(TopArgs),
    /// Print the requests that took long, with where their time went, from the node's admin port
    Slow(SlowArgs),
    /// Commands for one node and its tables
    #[command(flatten)]
    Data(DataCommand),
}

/// The commands that the shell knows too.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print the value of a key, as it is
    Get(KeyArgs),
    /// Store a value
    Put(PutArgs),
    /// Print how long a key has still to live
    Ttl(KeyArgs),
    /// Set how long a key is to live from now on; its value stays
    Expire(ExpireArgs),
    /// Let a key live for ever
    Persist(KeyArgs),
    /// Delete a key
    Del(DelArgs),
    /// Add to a number and print what it is then; where there is no such key, it begins at 0
    Incr(IncrArgs),
    /// Print records in key order
    Scan(ScanArgs),
    /// Print the first record of a table
    Min(TableArgs),
    /// Print the last record of a table
    Max(TableArgs),
    /// Print how many records a table or a range of it holds
    Count(RangeArgs),
    /// Do several puts and deletes of one partition, all or none
    Batch(BatchArgs),
    /// Make, drop and list tables
    #[command(subcommand)]
    Table(TableCommand),
    /// Print the node's counters and gauges
    Stats(StatsArgs),
    /// Ask whether the node answers
    Ping,
    /// Write a checkpoint on every shard, so that the next start is quick
    Checkpoint,
    /// Read everything that lies on the drive, at full rate while the node serves, and print what is damaged
    Scrub,
}

/// A table.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The table
    pub table: String,
}

/// A table and a key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The table
    pub table: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: OsString,
}

/// `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The table
    pub table: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: OsString,
    /// The value; `-` reads it from standard input
    #[arg(allow_hyphen_values = true, required_unless_present = "file")]
    pub value: Option<OsString>,
    /// Take the value from a file
    #[arg(long, conflicts_with = "value", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Only if there is no such key
    #[arg(long, conflicts_with = "if_seq")]
    pub if_absent: bool,
    /// Only if the present record has this version (as `get --json` prints it)
    #[arg(long, value_name = "SEQ")]
    pub if_seq: Option<Seq>,
    /// Let it expire after this time: 30s, 12h, 30d, 1y
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<Span>,
    /// Let it live for ever, whatever the table's --ttl says
    #[arg(long, conflicts_with = "ttl")]
    pub no_ttl: bool,
}

impl PutArgs {
    /// How long the record is to live.
    pub fn lifetime(&self) -> Lifetime {
        match self.ttl {
            Some(ttl) => Lifetime::For(ttl.0),
            None if self.no_ttl => Lifetime::Forever,
            None => Lifetime::Table,
        }
    }
}

/// `expire`.
#[derive(Debug, Args)]
pub struct ExpireArgs {
    /// The table
    pub table: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: OsString,
    /// How long it is to live: 30s, 12h, 30d, 1y
    #[arg(value_name = "TIME")]
    pub ttl: Span,
}

/// `del`.
#[derive(Debug, Args)]
pub struct DelArgs {
    /// The table
    pub table: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: OsString,
    /// Only if the present record has this version
    #[arg(long, value_name = "SEQ")]
    pub if_seq: Option<Seq>,
}

/// `incr`.
#[derive(Debug, Args)]
pub struct IncrArgs {
    /// The table
    pub table: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: OsString,
    /// What is added; may be negative
    #[arg(allow_negative_numbers = true, default_value_t = 1, value_parser = whole::<i64>)]
    pub by: i64,
    /// What it is added to where there is no such key
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0, value_parser = whole::<i64>)]
    pub initial: i64,
}

/// A table and a range of keys.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// The table
    pub table: String,
    /// First key; from the smallest where left out
    #[arg(allow_hyphen_values = true)]
    pub start: Option<OsString>,
    /// First key beyond; to the largest where left out
    #[arg(allow_hyphen_values = true)]
    pub end: Option<OsString>,
    /// All keys that begin with this
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub prefix: Option<OsString>,
}

/// `scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// From where to where
    #[command(flatten)]
    pub range: RangeArgs,
    /// From the last key down
    #[arg(long, short)]
    pub reverse: bool,
    /// At most this many records
    #[arg(long, short = 'n', value_name = "N", value_parser = whole::<u64>)]
    pub limit: Option<u64>,
    /// Print no values
    #[arg(long, short)]
    pub keys_only: bool,
}

/// `batch`.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// The table
    pub table: String,
    /// Lines `put KEY VALUE` (and `--ttl TIME` or `--no-ttl`) and `del KEY`, quoted as in the shell; `-` is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

/// `table ...`.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Make a table
    Create(CreateArgs),
    /// Drop a table with everything in it
    Drop(TableArgs),
    /// Set what each partition of a table may take of the node, or one partition; it counts at once
    Set(SetArgs),
    /// Print one table, its quota, and those of single partitions
    Show(TableArgs),
    /// Print the tables and what they hold
    List,
}

/// `table create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    pub table: String,
    /// How it is kept and cut up
    #[command(flatten)]
    pub options: NewTableArgs,
    /// Let its records expire after this time unless they say otherwise: 30s, 12h, 30d, 1y
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<Span>,
    /// Cut it by key: first keys of the second and later partitions, ascending
    #[arg(long = "split", value_name = "KEY", conflicts_with = "partitions")]
    pub splits: Vec<OsString>,
    /// What each partition may take
    #[command(flatten)]
    pub quota: QuotaArgs,
}

/// What each partition of a table may take of the node. What is left out is as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct QuotaArgs {
    /// Its share of drive and core where others want them too, over theirs: 1 to 10000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WEIGHT)))]
    pub weight: Option<u32>,
    /// Requests a second; each write of a batch counts; 0 for any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MAX_QUOTA_PER_S))]
    pub requests_per_s: Option<u64>,
    /// Bytes read a second; 0 for any number
    #[arg(long, value_name = "SIZE")]
    pub read_bytes_per_s: Option<Size>,
    /// Bytes written a second; 0 for any number
    #[arg(long, value_name = "SIZE")]
    pub write_bytes_per_s: Option<Size>,
    /// How much of a rate may be saved up and spent at once: 1ms to 5m [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub burst: Option<Span>,
}

/// `table set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The table
    pub table: String,
    /// What is set
    #[command(flatten)]
    pub quota: QuotaArgs,
    /// Only of the one partition that holds this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<OsString>,
    /// Take back what was set: a partition is as its table says again, a table as a new one
    #[arg(long, conflicts_with_all = ["weight", "requests_per_s", "read_bytes_per_s", "write_bytes_per_s", "burst"])]
    pub reset: bool,
}

/// How a new table is kept and cut up. What is left out is as the node's `--table-defaults` say.
#[derive(Debug, Clone, Default, Args)]
pub struct NewTableArgs {
    /// On the drive, or in memory only
    #[arg(long, value_enum)]
    pub store: Option<StoreName>,
    /// Keys in order of their hash, or in their own order
    #[arg(long, value_enum)]
    pub placement: Option<PlacementName>,
    /// Number of partitions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TABLE_PARTITIONS)))]
    pub partitions: Option<u32>,
}

/// Where a table keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreName {
    /// In the log on the drive
    Durable,
    /// In memory only; empty after a restart
    Memory,
    /// On the drive, with a third of the memory a key; overwrites and scans of keys read records
    Compact,
}

/// How keys map to partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementName {
    /// By hash: even, whatever the keys
    Hash,
    /// By key: scans run through one partition after the other
    Range,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Only this value, by its path: `totals.gets`
    pub path: Option<String>,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file with the same options; the command line wins over it
    #[arg(long, value_name = "FILE", env = "LODE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The options
    #[command(flatten)]
    pub options: ServeOptions,
    /// Stop when the process that started this one ends, however it ends
    #[arg(long)]
    pub end_with_parent: bool,
    /// Leave quickstart's marker in place: the drive stays quickstart's
    #[arg(long, hide = true)]
    pub keep_marker: bool,
}

/// `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file with options
    #[arg(long, value_name = "FILE", env = "LODE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The options, as of `serve`
    #[command(flatten)]
    pub options: ServeOptions,
}

/// `token ...`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, add it to a file for lode serve --tokens, and print its secret, once
    Make(TokenMakeArgs),
    /// Print the tokens of a file, without secrets
    List(TokenListArgs),
}

/// `token make`.
#[derive(Debug, Args)]
pub struct TokenMakeArgs {
    /// Its name, for people, for the log, and as a user's name for Redis clients
    pub name: String,
    /// The file; made if it is not there
    #[arg(long, value_name = "FILE", env = "LODE_TOKENS")]
    pub tokens: PathBuf,
    /// It may read this table; `users-*` is all that begin so, `*` all
    #[arg(long, value_name = "TABLE")]
    pub read: Vec<String>,
    /// It may write this table
    #[arg(long, value_name = "TABLE")]
    pub write: Vec<String>,
    /// It may make and drop this table and set its quotas; with `*`, also checkpoints, scrubs and statistics
    #[arg(long, value_name = "TABLE")]
    pub admin: Vec<String>,
    /// It may read the node's statistics
    #[arg(long)]
    pub stats: bool,
    /// Most requests a second of all its connections
    #[arg(long, value_name = "N")]
    pub requests_per_s: Option<u64>,
    /// Most connections at a time
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// Longest request
    #[arg(long, value_name = "SIZE")]
    pub request_bytes: Option<Size>,
}

/// `token list`.
#[derive(Debug, Args)]
pub struct TokenListArgs {
    /// The file
    #[arg(long, value_name = "FILE", env = "LODE_TOKENS")]
    pub tokens: PathBuf,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory; made if it is not there
    pub directory: PathBuf,
}

/// `shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// Start with `use TABLE`
    #[arg(long, short)]
    pub table: Option<String>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The drive: a file or a block device
    pub drive: PathBuf,
}

/// `format`.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// The drive: a file, which is made, or a block device, whose contents are lost
    pub drive: PathBuf,
    /// Its size; of a block device all of it where left out
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Number of shards; one per core where left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Format it although there is something on it
    #[arg(long)]
    pub force: bool,
}

/// `quickstart`.
#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// What to load: a directory, a CSV or a JSON-lines file; the Cargo registry's sources where left out
    #[arg(long, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// The key, for a CSV (a column) or JSON lines (a field)
    #[arg(long, value_name = "COLUMN")]
    pub key: Option<String>,
    /// What the input is, where its name does not tell
    #[arg(long, value_enum)]
    pub format: Option<FormatName>,
    /// Leave out rows, lines and files that are no records, and report how many
    #[arg(long)]
    pub skip_bad: bool,
    /// Where to put the drive file [default: lode-data/drive.lode]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Size of the drive file; what the data needs where left out
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// How long the open-loop load runs
    #[arg(long, value_name = "TIME", default_value = "8s")]
    pub duration: Span,
    /// Partitions to load into
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub partitions: u32,
    /// Number of shards; one per core where left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Memory of the node
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_and_values_may_begin_with_a_hyphen() {
        let cli = Cli::try_parse_from(["lode", "put", "t", "-k", "-5", "--json"]).unwrap();
        let Command::Data(DataCommand::Put(put)) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((put.key, put.value), ("-k".into(), Some("-5".into())));
    }
}
