//! Reads the machine: files under a root, so that a fixture tree can stand for a machine.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use crate::machine::cpus::CpuSet;

/// Most bytes of a file that is read whole: more than the longest list of mounts, less than what hurts.
const MOST_BYTES: u64 = 16 << 20;

/// Why a file's text is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// There is no such file.
    Absent,
    /// There is one that cannot be read or understood; says which and why.
    Refused(String),
}

/// The machine, seen through the files under one root.
#[derive(Debug, Clone)]
pub struct Probe {
    root: PathBuf,
}

/// The mount that a path lies on, as `/proc/self/mountinfo` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `MAJOR:MINOR` of the device.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the file system.
    pub filesystem: String,
}

impl Probe {
    /// A probe of the files under `root`; `/` is this machine.
    pub fn new(root: impl Into<PathBuf>) -> Probe {
        Probe { root: root.into() }
    }

    /// Whether this is the running machine and not a copy of its files.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the machine lies under the root.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Whether there is a file or directory.
    pub fn exists(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// The names in a directory, in order; none where it cannot be read.
    pub fn names(&self, absolute: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Where a link leads to in the end.
    pub fn link(&self, absolute: &str) -> Option<PathBuf> {
        self.path(absolute).canonicalize().ok()
    }

    /// The file's text without the space around it, or why there is none.
    pub fn read(&self, absolute: &str) -> Result<String, Unread> {
        match read_bounded(&self.path(absolute)) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Unread::Absent),
            Err(error) => Err(Unread::Refused(format!("{absolute} cannot be read: {error}"))),
        }
    }

    /// The file's text as a number, or why there is none.
    pub fn read_number(&self, absolute: &str) -> Result<u64, Unread> {
        let text = self.read(absolute)?;
        let garbage = |_| Unread::Refused(format!("{absolute} holds {text:?}, which is not a number"));
        text.parse().map_err(garbage)
    }

    /// The file's text without the space around it; `None` where it cannot be read.
    pub fn text(&self, absolute: &str) -> Option<String> {
        text_of(&self.path(absolute))
    }

    /// The file's text as a number.
    pub fn number(&self, absolute: &str) -> Option<u64> {
        self.text(absolute)?.parse().ok()
    }

    /// `major.minor` of the running kernel.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let release = self.text("/proc/sys/kernel/osrelease")?;
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// The soft limit of this process that `/proc/self/limits` calls `name`; unlimited is `u64::MAX`.
    pub fn soft_limit(&self, name: &str) -> Option<u64> {
        let limits = self.text("/proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// The CPUs that are online.
    pub fn online_cpus(&self) -> Option<CpuSet> {
        CpuSet::from_list(&self.text("/sys/devices/system/cpu/online")?).filter(|set| !set.is_empty())
    }

    /// What tells this boot of the machine from any other.
    pub fn boot_id(&self) -> Option<String> {
        self.text("/proc/sys/kernel/random/boot_id")
    }

    /// One line of `/proc/meminfo`, in bytes.
    pub fn memory_bytes(&self, name: &str) -> Option<u64> {
        let info = self.text("/proc/meminfo")?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// The mount that holds `path`: the one with the longest mount point above it, the last of equals.
    pub fn mount_of(&self, path: &Path) -> Option<Mount> {
        let mounts = self.mounts().into_iter();
        mounts.filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.components().count())
    }

    /// Everything that is mounted, in the order of mounting.
    pub fn mounts(&self) -> Vec<Mount> {
        let table = self.text("/proc/self/mountinfo").unwrap_or_default();
        table.lines().filter_map(parse_mount).collect()
    }

    /// The directory in `/sys` of the whole disk behind device `MAJOR:MINOR`, going up from a partition.
    pub fn disk_of(&self, device: &str) -> Option<PathBuf> {
        let link = self.path(&format!("/sys/dev/block/{device}"));
        let directory = link.canonicalize().ok()?;
        if directory.join("partition").exists() {
            return directory.parent().map(Path::to_path_buf);
        }
        Some(directory)
    }
}

/// The text of a file without the space around it.
pub fn text_of(path: &Path) -> Option<String> {
    Some(read_bounded(path).ok()?.trim().to_owned())
}

/// The text of a file that ends within [`MOST_BYTES`].
pub fn read_bounded(path: &Path) -> io::Result<String> {
    let bytes = read_bounded_bytes(path)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// The bytes of such a file.
pub fn read_bounded_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("longer than 16 MiB"));
    }
    Ok(bytes)
}

/// An absolute path without `.` and `..`, whether or not it exists.
pub fn absolute(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in std::path::absolute(path).ok()?.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sda1 rw`: the tags before the dash vary in number.
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let point = PathBuf::from(fields.nth(1)?.replace("\\040", " "));
    let filesystem = right.split(' ').next()?.to_owned();
    Some(Mount { device, point, filesystem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     23 22 8:2 / /var/lib rw master:1 shared:2 - xfs /dev/sda2 rw\n\
                     24 22 0:9 / /var/lib\\040x rw - tmpfs none rw\n";
        std::fs::write(dir.path().join("proc/self/mountinfo"), table).unwrap();
        let probe = Probe::new(dir.path());
        let mount = probe.mount_of(Path::new("/var/lib/lode/drive")).unwrap();
        assert_eq!((mount.device.as_str(), mount.filesystem.as_str()), ("8:2", "xfs"));
        assert_eq!(probe.mount_of(Path::new("/var/libx")).unwrap().device, "8:1");
        assert_eq!(probe.mount_of(Path::new("/var/lib x/y")).unwrap().device, "0:9");
    }

    #[test]
    fn a_path_loses_its_dots() {
        assert_eq!(absolute(Path::new("/a/../b/./c")), Some(PathBuf::from("/b/c")));
    }
}
