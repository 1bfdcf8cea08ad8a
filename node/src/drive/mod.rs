//! The drive: one preallocated file, or one block device, opened for direct I/O by one process only.

mod format;
mod write_cache;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lode_engine::limits::BLOCK_BYTES;
use lode_engine::{DriveHeaderError, DriveIdentity, Geometry, read_drive_header};
use rustix::fs::FlockOperation;
use thiserror::Error;

pub use format::{FormatError, FormatOptions, FormatProgress, format};
pub use write_cache::WriteCache;

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

/// An open drive. Nobody else can open it while this lives.
#[derive(Debug)]
pub struct Drive {
    /// Where it is.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: DriveKind,
    /// Whether reads and writes pass the page cache by.
    pub direct: bool,
    /// Whether the header in the first block is damaged, and its copy was read.
    pub by_copy: bool,
    /// Whether writes must say that they are to be durable.
    pub write_cache: WriteCache,
    /// How it is divided.
    pub geometry: Geometry,
    /// Which drive it is.
    pub identity: DriveIdentity,
    file: File,
}

/// Why a drive could not be opened.
#[derive(Debug, Error)]
pub enum OpenDriveError {
    /// There is nothing at the path.
    #[error("there is no drive at {0}; give another path, or make one there (lode format)")]
    Missing(PathBuf),
    /// The system refused.
    #[error("the drive {path} could not be opened: {error}")]
    System {
        /// The drive.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Another process has it.
    #[error("the drive {0} is in use by another process; stop that node first")]
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

impl Drive {
    /// Opens a formatted drive and locks it.
    pub fn open(path: &Path) -> Result<Drive, OpenDriveError> {
        let refused = |error| OpenDriveError::System { path: path.to_owned(), error };
        if !path.exists() {
            return Err(OpenDriveError::Missing(path.to_owned()));
        }
        let (file, direct) = open_direct(path, false).map_err(refused)?;
        if !lock_patiently(&file).map_err(refused)? {
            return Err(OpenDriveError::InUse(path.to_owned()));
        }
        let bytes = length(&file).map_err(refused)?;
        let ((geometry, identity), by_copy) = read_header(&file, bytes)
            .map_err(refused)?
            .map_err(|error| OpenDriveError::Header { path: path.to_owned(), error })?;
        if bytes < geometry.drive_bytes {
            let formatted_bytes = geometry.drive_bytes;
            return Err(OpenDriveError::TooShort { path: path.to_owned(), bytes, formatted_bytes });
        }
        let kind = kind_of(&file).map_err(refused)?;
        let write_cache = WriteCache::of(&file);
        Ok(Drive { path: path.to_owned(), kind, direct, by_copy, write_cache, geometry, identity, file })
    }

    /// Another descriptor of the same open file, for a shard's ring.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
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

/// Opens with `O_DIRECT` where the filesystem has it; tells whether it has.
fn open_direct(path: &Path, create: bool) -> io::Result<(File, bool)> {
    let mut options = File::options();
    options.read(true).write(true).create(create).mode(0o600);
    match options.clone().custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            options.custom_flags(libc::O_CLOEXEC).open(path).map(|file| (file, false))
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

/// The same, but gives a node that has just ended (or was killed) a moment: the kernel takes its rings
/// apart in the background, and they hold the file, and so its lock.
fn lock_patiently(file: &File) -> io::Result<bool> {
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

/// What a header says, and whether its first block is damaged and its copy said so.
type FoundHeader = ((Geometry, DriveIdentity), bool);

/// The header from the first block, or, where that is damaged, its copy from the last.
fn read_header(file: &File, bytes: u64) -> io::Result<Result<FoundHeader, DriveHeaderError>> {
    if bytes < BLOCK_BYTES as u64 {
        return Ok(Err(DriveHeaderError::NotADrive));
    }
    let mut block = AlignedBytes::new(BLOCK_BYTES);
    file.read_exact_at(block.get_mut(), 0)?;
    let first = match read_drive_header(block.get()) {
        Ok(header) => return Ok(Ok((header, false))),
        Err(error) => error,
    };
    file.read_exact_at(block.get_mut(), Geometry::header_mirror_at(bytes).0)?;
    Ok(read_drive_header(block.get()).map(|header| (header, true)).map_err(|_| first))
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
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::Header { .. })));
        assert_eq!(std::fs::read(&path).expect("read"), vec![7; 100_000]);
        let too_small = format(&dir.path().join("small"), &options(1 << 20), &mut |_| {});
        assert!(matches!(too_small, Err(FormatError::Geometry(_))));
    }

    #[test]
    fn the_header_is_found_in_its_copy_and_a_short_drive_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("drive.lode");
        format(&path, &options(80 << 20), &mut |_| {}).expect("formatted");
        let file = File::options().write(true).open(&path).expect("opened");
        file.write_all_at(&[0; 4096], 0).expect("damaged");
        assert!(Drive::open(&path).expect("opened").by_copy);
        format(&path, &FormatOptions { overwrite: true, ..options(80 << 20) }, &mut |_| {}).expect("again");
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_len(40 << 20).expect("cut");
        assert!(matches!(Drive::open(&path), Err(OpenDriveError::TooShort { .. })));
    }
}
