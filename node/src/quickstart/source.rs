//! What quickstart loads: what it is given, or sources that are on the machine anyhow.

use std::path::{Path, PathBuf};

use super::place;
use crate::cli::args::QuickstartArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::load::chunks::Cap;
use crate::cli::size::Size;
use lode_node::input::{self, InputKind, InputOptions, Position};

/// Most that is taken where nobody has said what to load, so that quickstart ends in about a minute.
const DEFAULT_CAP: Cap = Cap { records: 120_000, bytes: 512 << 20 };
/// A CSV row names its columns again in every value; so much more than the file it may come to.
const CSV_GROWTH: u64 = 4;
/// Bytes on the drive beyond key and value, padding included, guessed high.
const RECORD_OVERHEAD_BYTES: u64 = 64;
/// Guess of the input's bytes per record, for the overhead's share.
const SMALL_RECORD_BYTES: u64 = 256;

/// What is loaded.
#[derive(Debug, Clone)]
pub struct Source {
    /// The input.
    pub input: InputOptions,
    /// How much of it.
    pub cap: Cap,
    /// Whether what is no record is left out and counted, rather than refused.
    pub skip_bad: bool,
    /// In words.
    pub about: String,
    /// Bytes of the input that will be read, for progress.
    pub input_bytes: u64,
    /// Bytes that it may take on the drive at most, about.
    pub drive_bytes: u64,
}

/// Finds what to load, and makes sure that it can be read.
pub fn choose(args: &QuickstartArgs) -> Result<Source, Failure> {
    let (path, cap, about) = match &args.input {
        Some(path) => (path.clone(), Cap::NONE, path.display().to_string()),
        None => default_input()?,
    };
    let mut skip = place::candidates(args.data.as_deref());
    if args.input.is_none() {
        // What builds and version control keep changes meanwhile, and is no source.
        skip.extend([".git", "target"].map(|name| place::resolved(&path.join(name))));
    }
    let input = InputOptions { path, key: args.key.clone(), kind: args.format.map(Into::into), skip };
    let refused = |error| Failure::new(Exit::Input, error);
    input::open(&input, &Position::Start).map_err(refused)?;
    let total = input::total_bytes(&input).map_err(refused)?;
    let growth = match input::kind_of(&input).map_err(refused)? {
        InputKind::Csv => CSV_GROWTH,
        InputKind::Directory | InputKind::JsonLines => 1,
    };
    let input_bytes = total.min(cap.bytes);
    let overhead = (input_bytes / SMALL_RECORD_BYTES).min(cap.records) * RECORD_OVERHEAD_BYTES;
    let about = match total > cap.bytes {
        true => format!("{about} (the first {} of {})", Size(cap.bytes), Size(total)),
        false => about,
    };
    // Nobody has chosen the sources that are on the machine anyhow: what is no record there is nobody's mistake.
    let skip_bad = args.skip_bad || args.input.is_none();
    Ok(Source { input, cap, skip_bad, about, input_bytes, drive_bytes: input_bytes * growth + overhead })
}

fn default_input() -> Result<(PathBuf, Cap, String), Failure> {
    if let Some(sources) = registry_sources() {
        let about = format!("the sources under the Cargo registry, {}", sources.display());
        return Ok((sources, DEFAULT_CAP, about));
    }
    // Where cargo has left nothing, this checkout; a binary that was carried elsewhere takes where it stands.
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|dir| dir.join("node/src").is_dir());
    let dir = match workspace {
        Some(dir) => dir.to_owned(),
        None => std::env::current_dir().map_err(|error| {
            Failure::new(
                Exit::Input,
                format_args!("there is nothing to load here: {error}; give --input PATH"),
            )
        })?,
    };
    let about = format!("the files of {}", dir.display());
    Ok((dir, DEFAULT_CAP, about))
}

/// `registry/src` of Cargo's home, where something is in it.
fn registry_sources() -> Option<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cargo"),
    };
    let sources = home.join("registry/src");
    let mut entries = std::fs::read_dir(&sources).ok()?;
    entries.next().is_some().then_some(sources)
}
