//! `io-properties.toml`: what was measured of one drive, on one kernel, with one set of settings. `lode-tune measure` writes it,
//! `lode serve` reads it. It holds what was measured, and nothing that was concluded.

mod check;
mod identity;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use identity::{Identity, Kind, TUNABLES};

/// The version of the format.
pub const VERSION: u32 = 1;
/// What the file is called, unless told otherwise.
pub const FILE_NAME: &str = "io-properties.toml";
/// Longest file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most curves of a file.
pub const MAX_CURVES: usize = 64;
/// Most points of a curve.
pub const MAX_POINTS: usize = 64;
/// The knee is where this part of a curve's most is reached.
const KNEE_SHARE: f64 = 0.9;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoProperties {
    /// [`VERSION`].
    pub version: u32,
    /// Of which drive, and as what.
    pub drive: Identity,
    /// How it was measured; for people.
    pub measurement: Measurement,
    /// Reads and writes beside each other; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<Mixed>,
    /// One for each operation and length of block.
    #[serde(default)]
    pub curves: Vec<Curve>,
}

/// How it was measured. Nothing that a node does depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// When it began: seconds since 1970.
    pub unix_s: u64,
    /// What wrote it.
    pub by: String,
    /// Bytes that were read and written.
    pub area_bytes: u64,
    /// Whether all of them were written twice before.
    pub preconditioned: bool,
    /// Whether reads and writes passed the page cache by.
    pub direct: bool,
    /// Seconds that each point counted.
    pub point_s: f64,
    /// Points of all curves together: a file that was cut short has fewer.
    pub points: usize,
}

/// What one kind of operation did at several depths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Which.
    pub operation: Operation,
    /// Bytes of each.
    pub block_bytes: u32,
    /// The least depth at which 90 % of the most operations a second were reached.
    pub knee_depth: u32,
    /// By depth.
    pub points: Vec<Point>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Reads a block.
    Read,
    /// Writes a block.
    Write,
    /// Writes a block that survives power loss once it has ended.
    DurableWrite,
    /// Makes a block that was written before survive power loss.
    Flush,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::DurableWrite => "durable-write",
            Operation::Flush => "flush",
        })
    }
}

/// One depth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Operations in flight.
    pub depth: u32,
    /// Operations a second.
    pub iops: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// Half of the latencies are below, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 are.
    pub p99_us: f64,
    /// 999 of 1,000 are.
    pub p999_us: f64,
}

/// The most of ACT's load that keeps ACT's thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixed {
    /// How many times ACT's load: 2,000 reads of a record a second, and the large reads and writes that 1,000 writes bring.
    /// 0 where not even once.
    pub act_multiple: u32,
    /// Seconds of a trial; ACT's own are of 24 hours.
    pub trial_s: f64,
    /// Percent of the reads above 1 ms at that multiple, or at 1 where there is none.
    pub above_1_ms_percent: f64,
    /// Above 8 ms.
    pub above_8_ms_percent: f64,
    /// Above 64 ms.
    pub above_64_ms_percent: f64,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum IoPropertiesError {
    /// There is none.
    #[error("there is no {0}")]
    Missing(PathBuf),
    /// The system refused.
    #[error("{path} cannot be read: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// It is too long to be one.
    #[error(
        "{0} is longer than {MAX_FILE_BYTES} bytes, which no measurement is; measure anew (lode-tune measure)"
    )]
    TooLong(PathBuf),
    /// It is not TOML, or not in the form of its version; also where it was cut short.
    #[error("{path}{place}: {problem}; it may be cut short or edited: measure anew (lode-tune measure)")]
    Form {
        /// Which.
        path: PathBuf,
        /// The line, where it is known.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Another version.
    #[error(
        "{path} has version {found}, this program knows {VERSION}; measure anew with its own lode-tune measure"
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// The file's.
        found: u64,
    },
    /// What it says cannot be.
    #[error("{path}: {problem}, which cannot be; measure anew (lode-tune measure)")]
    Nonsense {
        /// Which.
        path: PathBuf,
        /// What.
        problem: String,
    },
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

impl IoProperties {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<IoProperties, IoPropertiesError> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => IoPropertiesError::Missing(path.into()),
            _ => IoPropertiesError::Io { path: path.into(), error },
        };
        let mut bytes = Vec::new();
        // A pipe would have the node wait for whoever writes into it.
        let mut options = File::options();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(refused)?;
        if !file.metadata().map_err(refused)?.is_file() {
            return Err(refused(io::Error::other("it is no ordinary file")));
        }
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(refused)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(IoPropertiesError::TooLong(path.into()));
        }
        let text = String::from_utf8(bytes).map_err(|error| IoPropertiesError::Form {
            path: path.into(),
            place: String::new(),
            problem: error.to_string(),
        })?;
        IoProperties::parse(path, &text)
    }

    /// Reads and checks a text; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<IoProperties, IoPropertiesError> {
        let form = |error: toml::de::Error| IoPropertiesError::Form {
            path: path.into(),
            place: place_of(&error, text),
            problem: error.message().to_owned(),
        };
        // The version first: another may have other keys.
        let Head { version } = toml::from_str(text).map_err(form)?;
        if version != u64::from(VERSION) {
            return Err(IoPropertiesError::Version { path: path.into(), found: version });
        }
        let properties: IoProperties = toml::from_str(text).map_err(form)?;
        let nonsense = |problem| IoPropertiesError::Nonsense { path: path.into(), problem };
        properties.check().map_err(nonsense)?;
        Ok(properties)
    }

    /// As the file has it.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("plain data is TOML");
        format!(
            "# What was measured of one drive, by lode-tune measure; read by lode serve (docs/hardware.md).\n\
             # It is for this drive, kernel and these settings; where one of them changes, measure anew.\n{body}"
        )
    }

    /// The curve of an operation and a length of block.
    pub fn curve(&self, operation: Operation, block_bytes: u32) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.operation == operation && curve.block_bytes == block_bytes)
    }

    /// The most that all curves of an operation reach: operations and bytes a second.
    pub fn most(&self, operation: Operation) -> (f64, f64) {
        let points = self.curves.iter().filter(|curve| curve.operation == operation);
        points.flat_map(|curve| &curve.points).fold((0.0, 0.0), |(iops, bytes), point| {
            (f64::max(iops, point.iops), f64::max(bytes, point.bytes_per_s))
        })
    }
}

/// Where the file of a drive is looked for and written, unless told otherwise: beside a drive that is a file, and with the
/// node's state for a block device.
pub fn default_path(kind: Kind, drive: &Path) -> PathBuf {
    match kind {
        Kind::File => drive.with_file_name(FILE_NAME),
        Kind::BlockDevice => Path::new("/var/lib/lode").join(FILE_NAME),
    }
}

impl Curve {
    /// A curve with its knee; `points` are by depth, and at least one.
    pub fn new(operation: Operation, block_bytes: u32, points: Vec<Point>) -> Curve {
        let knee_depth = knee_of(&points);
        Curve { operation, block_bytes, knee_depth, points }
    }

    /// What one operation at a time did, or the fewest that were measured.
    pub fn alone(&self) -> &Point {
        self.points.first().expect("a curve has points")
    }
}

/// The least depth with 90 % of the most operations a second.
fn knee_of(points: &[Point]) -> u32 {
    let most = points.iter().map(|point| point.iops).fold(0.0, f64::max);
    let knee = points.iter().find(|point| point.iops >= most * KNEE_SHARE);
    knee.expect("a curve has points").depth
}

fn place_of(error: &toml::de::Error, text: &str) -> String {
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!(", line {}", before.matches('\n').count() + 1),
        None => String::new(),
    }
}
