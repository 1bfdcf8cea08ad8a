//! Where quickstart's drive is: it takes room only where there is some, and starts over only with a drive that it
//! has made itself. A marker file beside the drive says so; `lode serve` takes the marker away, because from then on
//! the drive may hold what somebody wants to keep.

use std::fs;
use std::path::{Path, PathBuf};

use lode_node::drive::{Drive, OpenDriveError};

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::say;
use crate::cli::size::Size;
use crate::config::DEFAULT_DATA;

/// Where the drive goes if [`DEFAULT_DATA`] is somebody's.
const SECOND_DATA: &str = "lode-data/quickstart.lode";
const MARKER_SUFFIX: &str = ".quickstart";
/// A drive file has this behind its name until it is whole.
const UNFINISHED_SUFFIX: &str = ".unfinished";
const MARKER_TEXT: &str = "`lode quickstart` made the drive beside this file and will start over with it.\n";
/// Smallest drive: the node needs segments to work with.
const MIN_DRIVE_BYTES: u64 = 1 << 30;
/// The data may take this share of the drive.
const FULL_PERCENT: u64 = 60;
/// What the load after the data writes, and keeps.
const LOAD_ROOM_BYTES: u64 = 256 << 20;
/// Left free on the filesystem.
const SPARE_BYTES: u64 = 256 << 20;

/// The marker beside a drive.
pub fn marker_of(drive: &Path) -> PathBuf {
    let mut marker = drive.as_os_str().to_owned();
    marker.push(MARKER_SUFFIX);
    PathBuf::from(marker)
}

/// Everything that quickstart may write, resolved: an input that holds it must not take it for data.
pub fn candidates(wanted: Option<&Path>) -> Vec<PathBuf> {
    let drives = [wanted, Some(Path::new(DEFAULT_DATA)), Some(Path::new(SECOND_DATA))];
    let beside = |drive: &Path| {
        let mut unfinished = drive.as_os_str().to_owned();
        unfinished.push(UNFINISHED_SUFFIX);
        [resolved(drive), resolved(&marker_of(drive)), resolved(Path::new(&unfinished))]
    };
    drives.into_iter().flatten().flat_map(beside).collect()
}

/// The path without links and dots, as far as there is something at it.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            fs::canonicalize(parent).map_or_else(|_| absolute.clone(), |parent| parent.join(name))
        }
        _ => absolute,
    }
}

/// The drive is in use for more than quickstart: it is no longer quickstart's to remove.
pub fn adopt(drive: &Path) {
    // There is no marker on most drives, and one that cannot be removed only means a second warning.
    let _ = fs::remove_file(marker_of(drive));
}

/// Size of a drive on which this many bytes of data leave enough free.
pub fn size_for(data_bytes: u64) -> Size {
    let bytes = (data_bytes + LOAD_ROOM_BYTES) * 100 / FULL_PERCENT;
    Size(bytes.max(MIN_DRIVE_BYTES).next_multiple_of(64 << 20))
}

/// Clears the way for a new drive: gives its path, and puts the marker there.
pub fn prepare(wanted: Option<&Path>, size: Size) -> Result<PathBuf, Failure> {
    let path = choose(wanted)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refused = |doing: &str, error: std::io::Error| {
        Failure::new(
            Exit::Input,
            format_args!("cannot {doing}: {error}; choose another place with --data FILE"),
        )
    };
    fs::create_dir_all(dir).map_err(|error| refused(&format!("make {}", dir.display()), error))?;
    let old_bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
    let stat = rustix::fs::statvfs(dir)
        .map_err(|error| refused(&format!("ask for free space in {}", dir.display()), error.into()))?;
    let free = stat.f_bavail * stat.f_frsize + old_bytes;
    if free < size.0 + SPARE_BYTES {
        return Err(Failure::new(
            Exit::Input,
            format_args!(
                "the drive file takes {size} and some to spare, and {} has {} free; make room, choose another place \
                 with --data FILE, or give less with --input PATH",
                dir.display(),
                Size(free)
            ),
        ));
    }
    if path.exists() {
        say(format_args!("starting over with {}, which quickstart made before", path.display()));
        fs::remove_file(&path).map_err(|error| refused(&format!("remove {}", path.display()), error))?;
    }
    let marker = marker_of(&path);
    fs::write(&marker, MARKER_TEXT)
        .map_err(|error| refused(&format!("write {}", marker.display()), error))?;
    Ok(path)
}

fn choose(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    match wanted {
        Some(path) => match why_not(path) {
            None => Ok(path.to_owned()),
            Some(why) => {
                let message = format!("{} {why}; give another with --data FILE", path.display());
                Err(Failure::new(Exit::Input, message))
            }
        },
        None => {
            let first = Path::new(DEFAULT_DATA);
            let Some(why) = why_not(first) else { return Ok(first.to_owned()) };
            say(format_args!("{} {why}: using {SECOND_DATA}", first.display()));
            choose(Some(Path::new(SECOND_DATA)))
        }
    }
}

/// Why a drive cannot be made, or made anew, at this path.
fn why_not(path: &Path) -> Option<&'static str> {
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() {
        return Some("is no plain file");
    }
    if !marker_of(path).exists() {
        return Some("exists, and quickstart did not make it (or it has been served since)");
    }
    match Drive::open(path) {
        Err(OpenDriveError::InUse(_)) => Some("is in use by a running node"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_leaves_room() {
        assert_eq!(size_for(0), Size(1 << 30));
        assert!(size_for(10 << 30).0 >= (10 << 30) * 100 / 60);
        assert_eq!(size_for(12_345_678_901).0 % (64 << 20), 0);
    }

    #[test]
    fn only_a_drive_of_its_own_is_started_over() {
        let dir = std::env::temp_dir().join(format!("lode-place-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let path = dir.join("data/drive.lode");
        assert_eq!(prepare(Some(&path), Size(1)).unwrap(), path);
        assert!(marker_of(&path).exists());
        fs::write(&path, "a drive").unwrap();
        assert_eq!(prepare(Some(&path), Size(1)).unwrap(), path);
        assert!(!path.exists());

        fs::write(&path, "somebody's").unwrap();
        adopt(&path);
        let failure = prepare(Some(&path), Size(1)).unwrap_err();
        assert_eq!(failure.exit, Exit::Input);
        assert!(failure.message.contains("quickstart did not make it"), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn too_little_room_is_told_before_anything_is_written() {
        let path = std::env::temp_dir().join(format!("lode-room-{}.lode", std::process::id()));
        let failure = prepare(Some(&path), Size(1 << 60)).unwrap_err();
        assert!(failure.message.contains("free") && failure.message.contains("1048576 TiB"), "{failure}");
        assert!(!marker_of(&path).exists());
    }
}
