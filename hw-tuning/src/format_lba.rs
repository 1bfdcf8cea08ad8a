//! `format-lba`: give a drive blocks of another size. That loses everything on it, so the drive is named by what it is known by, and must be
//! empty, with nothing that uses it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::Serialize;
use thiserror::Error;

use crate::image::tools::{self, NVME, ToolError};
use crate::machine::drives::{self, Drive};
use crate::measure::content::data_on;
use crate::measure::refuse::uses_of;
use crate::probe::{self, Probe};

/// How long the kernel may take to look at a drive that was formatted.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What was done.
#[derive(Debug, Serialize)]
pub struct Formatted {
    /// What the drive is known by.
    pub id: String,
    /// The kernel's name of it.
    pub name: String,
    /// Bytes of a block before.
    pub from_bytes: u64,
    /// Bytes of a block now.
    pub to_bytes: u64,
}

/// Why a drive was not formatted.
#[derive(Debug, Error)]
pub enum FormatLbaError {
    /// Named by a path.
    #[error(
        "{0:?} may be another drive after the next boot; name it as id: and its serial number (lode-tune inspect)"
    )]
    NotById(String),
    /// No such drive.
    #[error("no disk has the serial number or name {0:?}; lode-tune inspect lists them")]
    NoSuchId(String),
    /// It has no formats to choose from.
    #[error("{0} is not an NVMe drive, and has no formats of blocks to choose from")]
    NotNvme(String),
    /// Something uses it.
    #[error("{name} is in use ({uses}); nothing was formatted")]
    InUse {
        /// Which.
        name: String,
        /// By what.
        uses: String,
    },
    /// There is something on it.
    #[error(
        "{name} holds {what}, and formatting loses it; nothing was formatted: only an empty drive is (blkdiscard -z empties one)"
    )]
    HoldsData {
        /// Which.
        name: String,
        /// What.
        what: String,
    },
    /// It shares its controller.
    #[error(
        "{name} is one of several namespaces ({others}), and some drives format all of them at once; nothing was formatted"
    )]
    NotAlone {
        /// Which.
        name: String,
        /// The others.
        others: String,
    },
    /// It cannot be looked at.
    #[error("{path}: {error}; nothing was formatted: run as root")]
    Look {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The program that asks the drive.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// It says that it did, and did not.
    #[error("{name} was formatted, but has blocks of {now} bytes, not {wanted}")]
    Otherwise {
        /// Which.
        name: String,
        /// As the kernel says now.
        now: u64,
        /// As was asked.
        wanted: u64,
    },
}

/// Formats the drive, unless its blocks are of that size already.
pub fn format_lba(probe: &Probe, named: &str, block_bytes: u64) -> Result<Formatted, FormatLbaError> {
    let id = named.strip_prefix("id:").ok_or_else(|| FormatLbaError::NotById(named.to_owned()))?;
    let disks = drives::all(probe);
    let is = |disk: &&Drive| {
        disk.id.known().is_some_and(|own| own.0 == id) || disk.by_id.iter().any(|name| name == id)
    };
    let disk = disks.iter().find(is).ok_or_else(|| FormatLbaError::NoSuchId(id.to_owned()))?;
    let name = disk.name.clone();
    if !name.starts_with("nvme") {
        return Err(FormatLbaError::NotNvme(name));
    }
    let path = probe.path(&format!("/dev/{name}"));
    let from_bytes = disk.logical_block_bytes.known().copied().unwrap_or(0);
    let done = |to_bytes| Formatted { id: id.to_owned(), name: name.clone(), from_bytes, to_bytes };
    if from_bytes == block_bytes {
        return Ok(done(block_bytes));
    }
    // Held until it is formatted: a node that starts meanwhile is told that the drive is in use.
    let _held = look(probe, disk, &disks, &path)?;
    tools::require(&[NVME])?;
    let mut command = tools::command(NVME, &std::env::temp_dir());
    command.arg("format").arg(&path).arg(format!("--block-size={block_bytes}")).arg("--force");
    tools::run(&mut command, b"")?;
    match told_block(probe, disk, block_bytes) {
        now if now == block_bytes => Ok(done(now)),
        now => Err(FormatLbaError::Otherwise { name, now, wanted: block_bytes }),
    }
}

/// What the kernel says of its blocks, once it has looked at the drive anew.
fn told_block(probe: &Probe, disk: &Drive, wanted: u64) -> u64 {
    let began = Instant::now();
    loop {
        let text = probe.text_in(&disk.directory.join("queue/logical_block_size"));
        let now = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        if now == wanted || began.elapsed() > PATIENCE {
            return now;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Nothing is lost: nothing uses it, nothing is on it, nothing shares it.
fn look(
    probe: &Probe,
    disk: &Drive,
    disks: &[Drive],
    path: &std::path::Path,
) -> Result<File, FormatLbaError> {
    let name = disk.name.clone();
    let uses = uses_of(probe, &disk.directory);
    let uses =
        [uses.running, uses.partitions.iter().map(|name| format!("partition {name}")).collect()].concat();
    if !uses.is_empty() {
        return Err(FormatLbaError::InUse { name, uses: uses.join(", ") });
    }
    let controller = |name: &str| name.rsplit_once('n').map(|(controller, _)| controller.to_owned());
    let same = |other: &&Drive| other.name != name && controller(&other.name) == controller(&name);
    let others: Vec<&str> = disks.iter().filter(same).map(|other| other.name.as_str()).collect();
    if !others.is_empty() {
        return Err(FormatLbaError::NotAlone { name, others: others.join(", ") });
    }
    let failed = |error| FormatLbaError::Look { path: path.to_path_buf(), error };
    let mut file = probe::open_drive(path).map_err(failed)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(FormatLbaError::InUse {
            name,
            uses: "a node, or another program, has it open".to_owned(),
        });
    }
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    match data_on(&file, bytes).map_err(failed)? {
        Some(what) => Err(FormatLbaError::HoldsData { name, what }),
        None => Ok(file),
    }
}

impl Formatted {
    /// For people.
    pub fn to_text(&self) -> String {
        let Formatted { id, name, from_bytes, to_bytes } = self;
        if from_bytes == to_bytes {
            return format!("{id} ({name}) has blocks of {to_bytes} bytes already\n");
        }
        format!("{id} ({name}) has blocks of {to_bytes} bytes now, {from_bytes} before\n")
    }
}
