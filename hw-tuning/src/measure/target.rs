//! What is read and written: a device, a file that may be lost, or a file of its own beside the one that may not.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};

use super::content::{EDGE_BYTES, data_on};
use super::refuse::{is_read_only, uses_of, uses_of_file};
use super::{MeasureError, Options, curves};
use crate::checks::human_bytes;
use crate::probe::Probe;

/// Bytes of a file of its own, unless told otherwise.
const SCRATCH_BYTES: u64 = 1 << 30;
/// How long, and how often, a process that has just ended is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// The least that says anything: a few blocks of each length.
const LEAST_BYTES: u64 = 4 << 20;
/// Of the free space of a file system, so much is left alone: it may have other users.
const KEPT_FREE_PART: u64 = 10;

/// What is measured.
#[derive(Debug)]
pub struct Target {
    file: File,
    /// The bytes that may be read and written.
    pub area: Range<u64>,
    /// Whether the page cache is passed by.
    pub direct: bool,
}

impl Target {
    /// Opens what is at `path`, or makes a file beside it; refuses what would lose data that may not be lost.
    pub fn open(probe: &Probe, path: &Path, options: &Options) -> Result<Target, MeasureError> {
        let failed = |error| MeasureError::at(path, error);
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match metadata {
            Some(metadata) if metadata.file_type().is_block_device() => {
                Target::device(probe, path, metadata.rdev(), options)
            }
            Some(metadata) if metadata.is_file() && options.destroy_data => {
                Target::whole_file(probe, path, options)
            }
            Some(metadata) if !metadata.is_file() => {
                Err(failed(io::Error::other("it is neither a file nor a block device")))
            }
            _ => Target::scratch(path, options),
        }
    }

    /// The file again, for a ring.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Bytes that may be read and written.
    pub fn bytes(&self) -> u64 {
        self.area.end - self.area.start
    }

    fn device(probe: &Probe, path: &Path, device: u64, options: &Options) -> Result<Target, MeasureError> {
        let failed = |error| MeasureError::at(path, error);
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let uses =
            probe.link(&format!("/sys/dev/block/{number}")).map(|directory| uses_of(probe, &directory));
        let uses = uses.unwrap_or_default();
        let in_use = |uses: String| MeasureError::InUse { path: path.into(), uses };
        if !uses.running.is_empty() {
            return Err(in_use(uses.running.join(", ")));
        }
        let holds = |what: String| MeasureError::HoldsData { path: path.into(), what };
        if !options.destroy_data && !uses.partitions.is_empty() {
            return Err(holds(format!("the partitions {}", uses.partitions.join(", "))));
        }
        if is_read_only(probe, &number) {
            return Err(MeasureError::ReadOnly(path.into()));
        }
        // Of a block device this means: refuse where it is mounted or held.
        let exclusive = OFlags::EXCL.bits() as i32;
        let opened = patiently(|| open_direct(path, exclusive));
        let (file, direct) = opened.map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => {
                in_use("the kernel says so".into())
            }
            _ => failed(error),
        })?;
        lock(&file, path)?;
        let bytes =
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        if bytes < LEAST_BYTES + 2 * EDGE_BYTES {
            return Err(too_small(path, bytes, LEAST_BYTES + 2 * EDGE_BYTES));
        }
        if !options.destroy_data {
            // Through the page cache, where any buffer will do.
            let plain = File::open(path).map_err(failed)?;
            if let Some(what) = data_on(&plain, bytes).map_err(failed)? {
                return Err(holds(what));
            }
        }
        let most = bytes - 2 * EDGE_BYTES;
        let area = sized(path, options.area_bytes.unwrap_or(most), most)?;
        Ok(Target { file, area: EDGE_BYTES..EDGE_BYTES + area, direct })
    }

    /// A file whose contents may be lost.
    fn whole_file(probe: &Probe, path: &Path, options: &Options) -> Result<Target, MeasureError> {
        let failed = |error| MeasureError::at(path, error);
        let uses = uses_of_file(probe, path);
        if !uses.is_empty() {
            return Err(MeasureError::InUse { path: path.into(), uses: uses.join(", ") });
        }
        let (file, direct) = open_direct(path, 0).map_err(failed)?;
        lock(&file, path)?;
        let metadata = file.metadata().map_err(failed)?;
        let area = sized(path, options.area_bytes.unwrap_or(metadata.len()), metadata.len())?;
        let target = Target { file, area: 0..area, direct };
        // Blocks that were never written would be read from nowhere, and allocated while they are measured.
        if metadata.blocks() * 512 < metadata.len() {
            target.fill(path)?;
        }
        Ok(target)
    }

    /// A file of its own beside `path`, with no name that could be left behind.
    fn scratch(path: &Path, options: &Options) -> Result<Target, MeasureError> {
        let failed = |error: io::Error| MeasureError::at(path, error);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let space = rustix::fs::statvfs(directory).map_err(|error| failed(error.into()))?;
        let free = space.f_bavail * space.f_frsize;
        let wanted = options.area_bytes.unwrap_or(SCRATCH_BYTES);
        let bytes = sized(path, wanted, free - free / KEPT_FREE_PART)?;
        eprintln!("{}: measured in a file of its own beside it, of {}", path.display(), human_bytes(bytes));
        let name = directory.join(format!(".lode-tune-{}", std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name);
        made.and_then(|file| file.set_len(bytes)).map_err(failed)?;
        let opened = open_direct(&name, 0);
        // It lives until it is closed.
        std::fs::remove_file(&name).map_err(failed)?;
        let (file, direct) = opened.map_err(failed)?;
        let target = Target { file, area: 0..bytes, direct };
        target.fill(path)?;
        Ok(target)
    }

    /// Writes each block once, durably, as those of a drive are.
    fn fill(&self, path: &Path) -> Result<(), MeasureError> {
        curves::pass(self, 1).map_err(|error| MeasureError::Loop { path: path.into(), error })?;
        self.file.sync_all().map_err(|error| MeasureError::at(path, error))
    }
}

/// Bytes to measure: as many as wanted, in whole MiB.
fn sized(path: &Path, wanted: u64, most: u64) -> Result<u64, MeasureError> {
    let bytes = wanted >> 20 << 20;
    if wanted > most || bytes < LEAST_BYTES {
        return Err(too_small(path, most.min(wanted), wanted.max(LEAST_BYTES)));
    }
    Ok(bytes)
}

fn too_small(path: &Path, bytes: u64, least: u64) -> MeasureError {
    MeasureError::TooSmall { path: path.into(), bytes, least }
}

/// Opens with `O_DIRECT` where the file system has it; tells whether it has.
fn open_direct(path: &Path, flags: i32) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(flags | OFlags::DIRECT.bits() as i32).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            options.custom_flags(flags).open(path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    }
}

/// A node locks its drive: one that runs is not measured over.
fn lock(file: &File, path: &Path) -> Result<(), MeasureError> {
    match patiently(|| Ok(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(MeasureError::InUse { path: path.into(), uses: "a running node".into() })
        }
        Err(error) => Err(MeasureError::at(path, error)),
    }
}

/// Tries for a while what another process keeps from being done: of one that has just ended, the kernel takes the ring apart in the background,
/// and that holds what it had open.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_held(&error) && begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn is_held(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock)
}
