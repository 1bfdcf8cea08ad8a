//! What `load` is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lode_node::input::InputKind;

use crate::cli::args::NewTableArgs;
use crate::cli::size::Size;

/// `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// A directory (path -> contents), a CSV (--key COLUMN) or a JSON-lines file
    pub input: PathBuf,
    /// Table to load into; made if it is not there and --partitions is given
    #[arg(long, short)]
    pub table: String,
    /// The key: a CSV's column, or a field of each JSON line (its line number where left out)
    #[arg(long, short, value_name = "COLUMN")]
    pub key: Option<String>,
    /// What the input is, where its name does not tell
    #[arg(long, value_enum)]
    pub format: Option<FormatName>,
    /// How the table is made, where it is not there
    #[command(flatten)]
    pub new_table: NewTableArgs,
    /// Chunks in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub parallel: u8,
    /// Bytes of one chunk; progress is saved after each
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub chunk: Size,
    /// Where progress is saved; beside the input where left out
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Load from the beginning, whatever the state says
    #[arg(long)]
    pub restart: bool,
    /// Leave out rows, lines and files that are no records, and report how many
    #[arg(long)]
    pub skip_bad: bool,
    /// When all is loaded, read every record back and compare
    #[arg(long)]
    pub verify: bool,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Relative path -> contents
    Directory,
    /// Rows with a header
    Csv,
    /// One JSON value a line
    JsonLines,
}

impl From<FormatName> for InputKind {
    fn from(name: FormatName) -> InputKind {
        match name {
            FormatName::Directory => InputKind::Directory,
            FormatName::Csv => InputKind::Csv,
            FormatName::JsonLines => InputKind::JsonLines,
        }
    }
}
