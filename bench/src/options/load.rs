//! Options of a load: where it goes, what it is made of, when requests go out.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use lode_net::client::{ClientOptions, ClientTls, ClientTlsError, Token, TokenError};
use thiserror::Error;

use super::duration;
use crate::draw::{Distribution, KeyOrder, Keys, ValueSizes};
use crate::objective::Objective;
use crate::workload::{Mix, Operation, Workload};

/// Why there is nothing to show a node.
#[derive(Debug, Error)]
pub enum ShownError {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody to trust.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
}

/// When the next request goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// When an earlier one has been answered: tells the throughput.
    Closed,
    /// When its time has come, answered or not: tells the latency at a rate. Times are drawn like those
    /// of many independent clients (Poisson), and latency counts from them.
    Open,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// lode's own.
    Lode,
    /// That of Redis, and of what passes for it. Values that were loaded are overwritten, and the records go to
    /// database 0.
    Resp,
    /// That of memcached (its meta commands, of 1.6 and later).
    Memcached,
}

/// How a table that is made spreads its keys over partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlacementKind {
    /// By a hash of the key.
    Hash,
    /// By ranges of keys, each with about as many records. A scan goes on in the next partition.
    Range,
}

/// The node and the records.
#[derive(Debug, Clone, Args)]
pub struct DataOptions {
    /// Any address of the node.
    #[arg(long, default_value = "127.0.0.1:7411")]
    pub addr: String,
    /// What it speaks.
    #[arg(long, value_enum, default_value = "lode")]
    pub protocol: Protocol,
    /// The table; made where it is missing.
    #[arg(long, default_value = "bench")]
    pub table: String,
    /// How many such tables, each with its part of the records; from the second on with its number behind the name.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub tables: u16,
    /// Records in all tables.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub records: u64,
    /// Bytes of a value, or lengths with weights: `100:50,1024:40,65536:10`.
    #[arg(long, default_value = "1024")]
    pub value_size: ValueSizes,
    /// Bytes of a key.
    #[arg(long, default_value_t = Keys::LEAST_BYTES as u16,
        value_parser = clap::value_parser!(u16).range(Keys::LEAST_BYTES as i64..=4096))]
    pub key_size: u16,
    /// Whether records that are written one after the other lie side by side.
    #[arg(long, value_enum, default_value = "hashed")]
    pub key_order: KeyOrder,
    /// Partitions of each table, where it is made.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// How keys are spread over them [default: range for a workload with scans, else hash].
    #[arg(long, value_enum)]
    pub placement: Option<PlacementKind>,
    /// Seed of everything that is drawn [default: another in each run, so that a run does not find the
    /// last one's records in the node's cache]
    #[arg(long)]
    pub seed: Option<u64>,
    /// File with the secret of the token to show a node that wants one; LODE_TOKEN may hold the secret itself.
    #[arg(long, env = "LODE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Speak TLS with a lode node, and trust the certificates of this file (PEM).
    #[arg(long, env = "LODE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// The node and the records.
    #[command(flatten)]
    pub data: DataOptions,
    /// Which requests.
    #[arg(long, value_enum, default_value = "get")]
    pub workload: Workload,
    /// Which requests, by weight, in place of a workload's: `get=50,put=40,scan=5,transaction=5`; there are get, put,
    /// insert, scan, rmw and transaction.
    #[arg(long, conflicts_with = "workload")]
    pub mix: Option<Mix>,
    /// Share of GETs in the mixed workload.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,
    /// When requests go out [default: open where a rate is given, else closed]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Requests per second of the open loop, over all connections.
    #[arg(long, required_if_eq("mode", "open"), value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Connections, spread evenly over the shards; at least one per shard is opened.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Requests in flight on each connection (in the open loop: at most).
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// How long to measure.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub duration: Duration,
    /// How long to run before measuring.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warmup: Duration,
    /// Which keys [default: the workload's own]
    #[arg(long, value_enum)]
    pub distribution: Option<Distribution>,
    /// How much more some tenants ask for than others: exponent of a zipf distribution over tables, and, where keys
    /// are ordered and placed by range, over partitions. 0: all alike.
    #[arg(long, default_value_t = 0.0, value_parser = skew)]
    pub tenant_skew: f64,
    /// Most records of a scan; how many are drawn from 1 up to it.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub scan_length: u32,
    /// All scans are of --scan-length records.
    #[arg(long)]
    pub even_scans: bool,
    /// So many overwrites for each record before it is measured, drawn as the load's are: a drive that has been in use
    /// for long.
    #[arg(long, default_value_t = 0.0, value_parser = churn)]
    pub churn: f64,
    /// Load until live records fill so many percent of what the node's drive takes, in place of `--records`.
    #[arg(long, conflicts_with = "records", value_parser = clap::value_parser!(u8).range(1..=97))]
    pub fill_percent: Option<u8>,
    /// What must hold, such as `get:p99.9<1ms`; may be given more than once [default: get:p99.9<1ms, put:p99<10ms]
    #[arg(long)]
    pub slo: Vec<Objective>,
    /// A generator that turns to one of a hundred requests later than this is said to have lagged.
    #[arg(long, default_value = "1ms", value_parser = duration)]
    pub most_lateness: Duration,
    /// Length of the slices of time of which the worst is named [default: a 60th of the duration, 1 s at least]
    #[arg(long, value_parser = duration)]
    pub slice: Option<Duration>,
    /// Directory for the report: a page, JSON, histograms and OpenSLO files. Made where it is missing.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Threads of the generator. It shares the machine with the node: one is usually enough.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Whether the generator leaves the cores to whoever else wants them.
    #[arg(skip)]
    pub yields: bool,
}

impl DataOptions {
    /// The same for a node that the load generator has started, which wants nothing shown, whatever the environment says.
    pub fn of_own_node(self) -> DataOptions {
        DataOptions { token_file: None, tls_ca: None, ..self }
    }

    /// What a lode node is shown, and whom the load generator trusts.
    pub fn client(&self) -> Result<ClientOptions, ShownError> {
        let token = match (&self.token_file, std::env::var("LODE_TOKEN")) {
            (Some(path), _) => Some(Token::read(path)?),
            (None, Ok(secret)) => Some(Token::new(&secret)?),
            (None, Err(_)) => None,
        };
        let tls = self.tls_ca.as_deref().map(ClientTls::trusting).transpose()?;
        let tls = tls.map(|tls| tls.of_address(&self.addr));
        Ok(ClientOptions { token, tls, ..ClientOptions::default() })
    }

    /// The seed that was given, or one from the clock.
    pub fn seed(&self) -> u64 {
        let clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        self.seed.unwrap_or_else(clock)
    }

    /// The keys.
    pub fn keys(&self) -> Keys {
        Keys::new(self.key_order, usize::from(self.key_size))
    }

    /// Name of the so-many-th table.
    pub fn table_name(&self, place: u16) -> String {
        if place == 0 { self.table.clone() } else { format!("{}-{place}", self.table) }
    }

    /// Records in each table; the last may have a few less.
    pub fn records_of_table(&self) -> u64 {
        self.records.div_ceil(u64::from(self.tables))
    }
}

impl RunOptions {
    /// A load of one second on these records with nothing said of it; for verbs that make their own.
    pub fn new(data: DataOptions, workload: Workload) -> RunOptions {
        RunOptions {
            data,
            workload,
            mix: None,
            read_percent: 0,
            mode: None,
            rate: None,
            connections: 1,
            depth: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            distribution: None,
            tenant_skew: 0.0,
            scan_length: 100,
            even_scans: false,
            churn: 0.0,
            fill_percent: None,
            slo: Vec::new(),
            most_lateness: Duration::from_millis(1),
            slice: None,
            report: None,
            threads: 1,
            yields: false,
        }
    }

    /// Shares of the kinds of requests.
    pub fn mix(&self) -> Mix {
        self.mix.clone().unwrap_or_else(|| self.workload.mix(self.read_percent))
    }

    /// When requests go out.
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(if self.rate.is_some() { Mode::Open } else { Mode::Closed })
    }

    /// Which keys.
    pub fn distribution(&self) -> Distribution {
        let of_workload =
            || if self.mix.is_some() { Distribution::Uniform } else { self.workload.distribution() };
        self.distribution.unwrap_or_else(of_workload)
    }

    /// How keys are spread over partitions, where the table is made.
    pub fn placement(&self) -> PlacementKind {
        let of_mix = if self.mix().has(Operation::Scan) { PlacementKind::Range } else { PlacementKind::Hash };
        self.data.placement.unwrap_or(of_mix)
    }

    /// Length of a slice.
    pub fn slice(&self) -> Duration {
        self.slice.unwrap_or(self.duration / 60).max(if self.slice.is_some() {
            Duration::from_millis(10)
        } else {
            Duration::from_secs(1)
        })
    }

    /// What must hold.
    pub fn objectives(&self) -> Vec<Objective> {
        if self.slo.is_empty() { Objective::usual() } else { self.slo.clone() }
    }
}

fn skew(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(1.0) => Err("the exponent 1 itself has no formula: take 0.99 or 1.01".to_owned()),
        Ok(theta) if (0.0..=2.0).contains(&theta) => Ok(theta),
        _ => Err(format!("`{text}` is no exponent from 0 to 2")),
    }
}

pub(super) fn churn(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(times) if (0.0..=1000.0).contains(&times) => Ok(times),
        _ => Err(format!("`{text}` is no number of overwrites for each record, from 0 to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Arguments, Command};

    fn parse(line: &str) -> Option<RunOptions> {
        match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Run(options) => Some(options),
            _ => None,
        }
    }

    #[test]
    fn an_open_loop_needs_a_rate_and_a_rate_makes_one() {
        assert!(parse("lode-bench run --mode open").is_none());
        assert_eq!(parse("lode-bench run --mode open --rate 100").unwrap().mode(), Mode::Open);
        assert_eq!(parse("lode-bench run --rate 100").unwrap().mode(), Mode::Open);
        assert_eq!(parse("lode-bench run").unwrap().mode(), Mode::Closed);
        assert_eq!(parse("lode-bench run --mode closed").unwrap().mode(), Mode::Closed);
    }

    #[test]
    fn a_workload_brings_its_distribution_and_placement() {
        let options = parse("lode-bench run --workload ycsb-e").unwrap();
        assert_eq!(options.distribution(), Distribution::Zipfian);
        assert_eq!(options.placement(), PlacementKind::Range);
        let options = parse("lode-bench run --workload ycsb-d --placement range").unwrap();
        assert_eq!(options.distribution(), Distribution::Latest);
        assert_eq!(options.placement(), PlacementKind::Range);
        let options = parse("lode-bench run --workload ycsb-c --distribution uniform").unwrap();
        assert_eq!(options.distribution(), Distribution::Uniform);
        assert_eq!(options.placement(), PlacementKind::Hash);
        let options = parse("lode-bench run --mix get=1,scan=1").unwrap();
        assert_eq!(options.distribution(), Distribution::Uniform);
        assert_eq!(options.placement(), PlacementKind::Range);
    }

    #[test]
    fn limits_of_options_hold() {
        for wrong in [
            "--tenant-skew 1",
            "--tenant-skew 2.1",
            "--churn -1",
            "--key-size 15",
            "--key-size 4097",
            "--tables 0",
            "--mix get=1 --workload put",
            "--fill-percent 98",
            "--fill-percent 50 --records 5",
            "--slo get",
        ] {
            assert!(parse(&format!("lode-bench run {wrong}")).is_none(), "{wrong}");
        }
        assert!(parse("lode-bench run --tenant-skew 0.99 --key-size 24 --tables 3 --churn 1.5").is_some());
    }

    #[test]
    fn slices_are_of_a_second_at_least_unless_they_are_asked_for() {
        let options = parse("lode-bench run --duration 10s").unwrap();
        assert_eq!(options.slice(), Duration::from_secs(1));
        assert_eq!(parse("lode-bench run --duration 1h").unwrap().slice(), Duration::from_secs(60));
        let options = parse("lode-bench run --duration 2s --slice 100ms").unwrap();
        assert_eq!(options.slice(), Duration::from_millis(100));
    }
}
