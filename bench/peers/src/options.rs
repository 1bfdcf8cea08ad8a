//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lode_bench::options::duration;

use crate::peers;
use crate::points::Point;

/// lode beside what a user would pick instead.
#[derive(Debug, Parser)]
#[command(name = "lode-peers", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the peers by turns, and print the table.
    Run(RunOptions),
    /// The table of what earlier runs have measured.
    Table(TableOptions),
    /// The peers: which are there, and how each is set up.
    List,
    /// An engine in process, asked by lines; what `run` starts.
    #[command(hide = true)]
    Engine(EngineOptions),
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Directory for the peers' files, each in one of its own, and for `turns.jsonl`; what it holds is used again.
    #[arg(long)]
    pub dir: PathBuf,
    /// Which peers, in the order of their turns [default: all]
    #[arg(long, value_delimiter = ',', value_parser = peer)]
    pub peers: Vec<String>,
    /// A RESP server that runs already, as NAME=HOST:PORT; may be given more than once.
    #[arg(long, value_parser = resp)]
    pub resp: Vec<(String, String)>,
    /// What is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub points: Vec<Point>,
    /// Records.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub records: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub value_size: u32,
    /// Memory of each peer in bytes, page cache included.
    #[arg(long, default_value = "512MiB", value_parser = bytes)]
    pub memory: u64,
    /// Threads of an engine in process, and connections to a server, with one request each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub clients: u16,
    /// How long each point is measured.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// How long each point runs before it is measured.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub warmup: Duration,
    /// How often each peer has its turn; the medians count. 0 only loads.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..))]
    pub rounds: u8,
    /// Seed of what is drawn, the same for all peers of a round.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A control group below which groups with a limit may be made [default: the one that this process is in]
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// Measure without a limit on memory where none can be set.
    #[arg(long)]
    pub unlimited: bool,
    /// lode's program.
    #[arg(long, default_value = "target/release/lode")]
    pub node: PathBuf,
    /// lode's load generator.
    #[arg(long, default_value = "target/release/lode-bench")]
    pub bench: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `table`.
#[derive(Debug, Clone, Args)]
pub struct TableOptions {
    /// Files that `run` has written.
    #[arg(required = true)]
    pub turns: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `engine`.
#[derive(Debug, Clone, Args)]
pub struct EngineOptions {
    /// Which engine.
    #[arg(long)]
    pub engine: String,
    /// Where its files are.
    #[arg(long)]
    pub dir: PathBuf,
    /// Its memory, in bytes.
    #[arg(long)]
    pub memory: u64,
    /// Bytes of all records.
    #[arg(long)]
    pub data: u64,
}

fn peer(text: &str) -> Result<String, String> {
    let names = peers::names();
    let is_known = names.iter().any(|name| name == text);
    is_known.then(|| text.to_owned()).ok_or_else(|| format!("there are {}", names.join(", ")))
}

fn resp(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, addr)| !name.is_empty() && addr.contains(':'));
    let (name, addr) = parts.ok_or_else(|| format!("`{text}` is not of the form NAME=HOST:PORT"))?;
    Ok((name.to_owned(), addr.to_owned()))
}

/// `512MiB`, `2GiB`; a bare number is bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("`{unit}` is no unit of memory: use KiB, MiB or GiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is no number of bytes, such as 512MiB"))?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes >= 64 << 20);
    bytes.ok_or_else(|| format!("`{text}` is not 64 MiB or more"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn memory_has_units() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("67108864"), Ok(64 << 20));
        for wrong in ["", "MiB", "5MB", "1MiB", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(resp("a=b:1"), Ok(("a".to_owned(), "b:1".to_owned())));
        assert!(resp("a").is_err() && resp("=b:1").is_err() && resp("a=b").is_err());
    }
}
