//! The drive: one preallocated file, or one block device, opened for direct I/O by one process only.

mod discard;
mod flushes;
#[cfg(test)]
mod flushes_tests;
mod format;
mod queue;
mod write_cache;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lode_engine::limits::BLOCK_BYTES;
use lode_engine::{DriveHeaderError, DriveIdentity, DriveOffset, Geometry, read_drive_header};
use rustix::fs::FlockOperation;
use thiserror::Error;

pub use flushes::{Flushes, ShardFlushes};
pub use format::{FormatError, FormatOptions, FormatProgress, format};
pub use write_cache::WriteCache;

/// What flushes are made of.
mod parts {
    pub use std::sync::atomic::{AtomicU64, Ordering};
}

/// How long a drive's lock is tried for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What a drive is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveKind {
    /// A file, all of whose blocks have been written once.
    File,
    /// A whole block device or a partition of one.
    BlockDevice,
}

/// One of the two places of a drive's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCopy {
    /// The first block.
    First,
    /// The last block of what was formatted.
    Last,
}

/// An open drive. Nobody else can open it while this lives.
#[derive(Debug)]
pub struct Drive {
    /// Where it is.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: DriveKind,
    /// Whether reads and writes pass the page cache by.
    pub direct: bool,
    /// Which copy of the header is damaged, if one is.
    pub damaged_header: Option<HeaderCopy>,
    /// Whether writes must say that they are to be durable.
    pub write_cache: WriteCache,
    /// Whether freed segments are told to the device.
    pub discard: bool,
    /// How it is divided.
    pub geometry: Geometry,
    /// Which drive it is.
    pub identity: DriveIdentity,
    file: File,
    flushes: Arc<Flushes>,
}

/// Why a drive could not be opened.
#[derive(Debug, Error)]
pub enum OpenDriveError {
    /// There is nothing at the path.
    #[error("there is no drive at {0}; give another path, or make one there (lode format)")]
    Missing(PathBuf),
    /// The system refused.
    #[error("the drive {path} could not be opened: {error}{}", advice(error))]
    System {
        /// The drive.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Another process has it.
    #[error("the drive {0} is in use by another process; stop that node first, or unmount the device")]
    InUse(PathBuf),
    /// Its header is not one.
    #[error("{path}: {error}")]
    Header {
        /// The drive.
        path: PathBuf,
        /// What is wrong.
        error: DriveHeaderError,
    },
    /// It is shorter than its header says.
    #[error(
        "the drive {path} has {bytes} bytes, but was formatted with {formatted_bytes}; do not truncate it"
    )]
    TooShort {
        /// The drive.
        path: PathBuf,
        /// What there is.
        bytes: u64,
        /// What the header says.
        formatted_bytes: u64,
    },
}

/// What to do where the system refuses a drive.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; whoever runs the node must be able to read and write it: check its owner and mode"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; its filesystem is mounted read-only",
        io::ErrorKind::IsADirectory => "; give the path of a file or a block device",
        _ => "",
    }
}

impl Drive {
    /// Opens a formatted drive and locks it.
    pub fn open(path: &Path) -> Result<Drive, OpenDriveError> {
        let refused = |error| OpenDriveError::System { path: path.to_owned(), error };
        if !path.exists() {
            return Err(OpenDriveError::Missing(path.to_owned()));
        }
        let opened = open_alone(path).map_err(refused)?;
        let (file, direct) = opened.ok_or_else(|| OpenDriveError::InUse(path.to_owned()))?;
        let bytes = length(&file).map_err(refused)?;
        let ((geometry, identity), damaged_header) = read_header(&file, bytes)
            .map_err(refused)?
            .map_err(|error| OpenDriveError::Header { path: path.to_owned(), error })?;
        if bytes < geometry.drive_bytes {
            let formatted_bytes = geometry.drive_bytes;
            return Err(OpenDriveError::TooShort { path: path.to_owned(), bytes, formatted_bytes });
        }
        let kind = kind_of(&file).map_err(refused)?;
        let write_cache = WriteCache::of(&file);
        let discard = discard::takes_discard(&file);
        Ok(Drive {
            path: path.to_owned(),
            kind,
            direct,
            damaged_header,
            write_cache,
            discard,
            geometry,
            identity,
            file,
            flushes: Arc::new(Flushes::new(geometry.shards)),
        })
    }

    /// Writes the whole copy of the header over the damaged one, durably; nothing where both are whole.
    pub fn repair_header(&mut self) -> io::Result<()> {
        let first = DriveOffset(0);
        let last = Geometry::header_mirror_at(self.geometry.drive_bytes);
        let (from, to) = match self.damaged_header {
            None => return Ok(()),
            Some(HeaderCopy::First) => (last, first),
            Some(HeaderCopy::Last) => (first, last),
        };
        let mut block = AlignedBytes::new(BLOCK_BYTES);
        self.file.read_exact_at(block.get_mut(), from.0)?;
        let same =
            read_drive_header(block.get()).is_ok_and(|header| header == (self.geometry, self.identity));
        assert!(same, "the copy at byte {} is the header that was read", from.0);
        self.file.write_all_at(block.get(), to.0)?;
        self.file.sync_data()?;
        self.damaged_header = None;
        Ok(())
    }

    /// Another descriptor of the same open file, for a shard's ring.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// What its shards tell each other of their flushes.
    pub fn flushes(&self) -> Arc<Flushes> {
        Arc::clone(&self.flushes)
    }

    /// Whether a durable write must say so to the device. Through the page cache it always must.
    pub fn writes_need_flush(&self) -> bool {
        self.write_cache != WriteCache::Absent || !self.direct
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Rings may hold the file for a moment longer; the lock is given up now.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens a drive for this process alone, as [`open_direct`] does; `None` where another keeps it, or a device is mounted. Gives a
/// process that has just ended (or was killed) a moment: the kernel takes its rings apart in the background, and they hold the file.
fn open_alone(path: &Path) -> io::Result<Option<(File, bool)>> {
    let begun = Instant::now();
    loop {
        match open_direct(path, false) {
            Ok(opened) => return Ok(lock_patiently(&opened.0)?.then_some(opened)),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            Err(_) if begun.elapsed() > LOCK_PATIENCE => return Ok(None),
            Err(_) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

/// Opens with `O_DIRECT` where the filesystem has it; tells whether it has. A block device that is mounted, or otherwise held, is busy.
fn open_direct(path: &Path, create: bool) -> io::Result<(File, bool)> {
    let mut options = File::options();
    options.read(true).write(true).create(create).mode(0o600);
    let is_device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    // Of a block device, and without O_CREAT, this asks to be its only user.
    let alone = if is_device && !create { libc::O_EXCL } else { 0 };
    match options.clone().custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | alone).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            options.custom_flags(libc::O_CLOEXEC | alone).open(path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    }
}

/// Locks the file against other processes; false where another has it.
fn lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Locks the file against other processes, as patiently; false where another keeps it.
pub fn lock_patiently(file: &File) -> io::Result<bool> {
    let begun = Instant::now();
    while !lock(file)? {
        if begun.elapsed() > LOCK_PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(true)
}

/// Length of a file or of a block device.
fn length(file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut &*file, io::SeekFrom::End(0))
}

fn kind_of(file: &File) -> io::Result<DriveKind> {
    let block_device = file.metadata()?.file_type().is_block_device();
    Ok(if block_device { DriveKind::BlockDevice } else { DriveKind::File })
}

/// What a header says, and which copy of it is damaged.
type FoundHeader = ((Geometry, DriveIdentity), Option<HeaderCopy>);

/// The header from the first block, or, where that is damaged, its copy from the last.
fn read_header(file: &File, bytes: u64) -> io::Result<Result<FoundHeader, DriveHeaderError>> {
    if bytes < BLOCK_BYTES as u64 {
        return Ok(Err(DriveHeaderError::NotADrive));
    }
    let mut block = AlignedBytes::new(BLOCK_BYTES);
    file.read_exact_at(block.get_mut(), 0)?;
    let first = read_drive_header(block.get());
    // A drive that is longer now than it was formatted has its copy where it ended then; a shorter one has none.
    let ends_at = first.as_ref().map_or(bytes, |(geometry, _)| geometry.drive_bytes);
    if bytes < ends_at {
        return Ok(first.map(|header| (header, None)));
    }
    file.read_exact_at(block.get_mut(), Geometry::header_mirror_at(ends_at).0)?;
    Ok(match (first, read_drive_header(block.get())) {
        (Ok(header), Ok(copy)) if copy == header => Ok((header, None)),
        (Ok(header), _) => Ok((header, Some(HeaderCopy::Last))),
        (Err(_), Ok(copy)) => Ok((copy, Some(HeaderCopy::First))),
        (Err(error), Err(_)) => Err(error),
    })
}

/// Bytes at an address that direct I/O takes.
struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn new(len: usize) -> AlignedBytes {
        let memory = vec![0u8; len + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "a block boundary lies within a block of any address");
        AlignedBytes { memory, start, len }
    }

    fn get(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bytes: u64) -> FormatOptions {
        FormatOptions {
            bytes: Some(bytes),
            shards: 1,
            segment_bytes: None,
            max_value_bytes: 4096,
            overwrite: false,
        }
    }

    #[test]
    fn a_formatted_file_opens_once_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("drive.lode");
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::Missing(_))));
        let mut last = 0;
        let bytes = 80 << 20;
        format(&path, &options(bytes), &mut |progress| {
            assert!(progress.done_bytes >= last && progress.done_bytes <= progress.total_bytes);
            last = progress.done_bytes;
        })
        .expect("formatted");
        assert_eq!(last, bytes);
        let drive = Drive::open(&path).expect("opened");
        assert_eq!(drive.geometry.drive_bytes, bytes);
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::InUse(_))));
        drop(drive);
        Drive::open(&path).expect("opened again");
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("precious");
        std::fs::write(&path, vec![7; 100_000]).expect("written");
        let refused = format(&path, &options(80 << 20), &mut |_| {});
        assert!(matches!(refused, Err(FormatError::Exists(_))), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("--force"));
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::Header { .. })));
        assert_eq!(std::fs::read(&path).expect("read"), vec![7; 100_000]);
        let too_small = format(&dir.path().join("small"), &options(1 << 20), &mut |_| {});
        assert!(matches!(too_small, Err(FormatError::Geometry(_))));
    }

    #[test]
    fn a_damaged_header_is_made_whole_again_from_its_copy_on_either_side() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("drive.lode");
        format(&path, &options(80 << 20), &mut |_| {}).expect("formatted");
        let whole = std::fs::read(&path).expect("read");
        for (copy, at) in [(HeaderCopy::First, 0), (HeaderCopy::Last, (80 << 20) - 4096)] {
            let file = File::options().write(true).open(&path).expect("opened");
            file.write_all_at(&[7; 4096], at).expect("damaged");
            let mut drive = Drive::open(&path).expect("opened");
            assert_eq!(drive.damaged_header, Some(copy));
            drive.repair_header().expect("repaired");
            assert_eq!(drive.damaged_header, None);
            drop(drive);
            assert!(std::fs::read(&path).expect("read") == whole, "{copy:?}");
        }
        assert_eq!(Drive::open(&path).expect("opened").damaged_header, None);
    }

    #[test]
    fn the_header_is_found_in_its_copy_and_a_short_drive_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("drive.lode");
        format(&path, &options(80 << 20), &mut |_| {}).expect("formatted");
        let file = File::options().write(true).open(&path).expect("opened");
        file.write_all_at(&[0; 4096], 0).expect("damaged");
        let damaged = || Drive::open(&path).expect("opened").damaged_header;
        assert_eq!((damaged(), damaged()), (Some(HeaderCopy::First), Some(HeaderCopy::First)));
        format(&path, &FormatOptions { overwrite: true, ..options(80 << 20) }, &mut |_| {}).expect("again");
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_len(40 << 20).expect("cut");
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::TooShort { .. })));
    }
}
