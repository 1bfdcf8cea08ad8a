//! Reads the machine: files under a root, so that a fixture tree can stand for a machine.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use crate::machine::cpus::CpuSet;

/// Most bytes of a file that is read whole: more than the longest list of mounts, less than what hurts.
const MOST_BYTES: u64 = 16 << 20;
/// Most links that one path leads over: as many as Linux follows.
const MOST_LINKS: usize = 40;
/// Where a path ends that leads over more of them: no file is called so.
const TOO_MANY_LINKS: &str = ".lode-tune-too-many-links";
/// What starts the node.
const NODE_UNIT: &str = "/etc/systemd/system/lode.service";

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
        let root = root.into();
        // One that is not there has no files either.
        Probe { root: root.canonicalize().unwrap_or(root) }
    }

    /// Whether this is the running machine and not a copy of its files.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the machine lies under the root, with every link followed as the machine itself would: a link of a
    /// copy leads to a file of the copy, never to one of the machine that looks at it.
    pub fn path(&self, absolute: &str) -> PathBuf {
        if self.is_live() {
            return self.root.join(absolute.trim_start_matches('/'));
        }
        self.resolve(Path::new(absolute), true)
    }

    /// The same of a path that begins with the root already, as those of directories in `/sys` do.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(below) if !self.is_live() => self.resolve(below, true),
            _ => path.to_path_buf(),
        }
    }

    /// What a link holds, where it is one.
    pub fn link_text(&self, absolute: &str) -> Option<PathBuf> {
        let path = match self.is_live() {
            true => self.path(absolute),
            false => self.resolve(Path::new(absolute), false),
        };
        std::fs::read_link(path).ok()
    }

    /// The path without links, below the root; `last` says whether its end is followed, too.
    fn resolve(&self, path: &Path, last: bool) -> PathBuf {
        let names = |path: &Path| -> Vec<Option<OsString>> {
            let name = |part: Component| match part {
                Component::Normal(name) => Some(Some(name.to_owned())),
                Component::ParentDir => Some(None),
                _ => None,
            };
            path.components().filter_map(name).collect()
        };
        let mut due: VecDeque<Option<OsString>> = names(path).into();
        let mut found = self.root.clone();
        let mut links = 0;
        while let Some(name) = due.pop_front() {
            let Some(name) = name else {
                // Above the root there is nothing.
                if found != self.root {
                    found.pop();
                }
                continue;
            };
            found.push(&name);
            let Ok(target) = std::fs::read_link(&found) else { continue };
            if due.is_empty() && !last {
                return found;
            }
            links += 1;
            if links > MOST_LINKS {
                return self.root.join(TOO_MANY_LINKS);
            }
            if target.is_absolute() {
                found.clone_from(&self.root);
            } else {
                found.pop();
            }
            names(&target).into_iter().rev().for_each(|name| due.push_front(name));
        }
        found
    }

    /// Whether there is a file or directory.
    pub fn exists(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// The names in a directory, in order; none where it cannot be read.
    pub fn names(&self, absolute: &str) -> Vec<String> {
        self.names_in(&self.path(absolute))
    }

    /// The same of a directory by its path below the root.
    pub fn names_in(&self, directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(self.inside(directory)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The text of a file by its path below the root.
    pub fn text_in(&self, path: &Path) -> Option<String> {
        text_of(&self.inside(path))
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
            Err(error) => {
                let hint = unread_hint(&error);
                Err(Unread::Refused(format!("{absolute} cannot be read: {error}{hint}")))
            }
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

    /// What the unit that starts the node sets a limit to (`LimitNOFILE`), with its drop-ins; unlimited is `u64::MAX`. Of a range
    /// the soft one counts.
    pub fn limit_of_unit(&self, name: &str) -> Option<u64> {
        let drop_ins =
            self.names(&format!("{NODE_UNIT}.d")).into_iter().filter(|name| name.ends_with(".conf"));
        let files =
            std::iter::once(NODE_UNIT.to_owned()).chain(drop_ins.map(|name| format!("{NODE_UNIT}.d/{name}")));
        let texts: Vec<String> = files.filter_map(|file| self.text(&file)).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        let mut set = lines.filter_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix('='));
        let soft = set.next_back()?.trim().split(':').next()?;
        if soft == "infinity" {
            return Some(u64::MAX);
        }
        let digits = soft.trim_end_matches(['K', 'M', 'G', 'T']);
        let shift = match &soft[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
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
        let directory = self.link(&format!("/sys/dev/block/{device}"))?;
        if self.inside(&directory.join("partition")).exists() {
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
fn read_bounded_bytes(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, MOST_BYTES)
}

/// The bytes of a file that has no more than so many.
pub fn read_up_to(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_ordinary(path, OpenOptions::new().read(true))?.take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(io::Error::other(format!("longer than {} MiB", most_bytes >> 20)));
    }
    Ok(bytes)
}

/// Opens a file that is one: a pipe would be waited for, and a device never ends.
pub fn open_ordinary(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let waits_for_nobody = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = options.custom_flags(waits_for_nobody).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no ordinary file")) }
}

/// Opens a drive for reading: a block device, or a file that stands for one in a copy of a machine's files.
pub fn open_drive(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    let is_drive = kind.is_block_device() || kind.is_file();
    if is_drive { Ok(file) } else { Err(io::Error::other("it is neither a file nor a block device")) }
}

/// What to do about a file that cannot be read.
pub fn unread_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run as root, outside of a container",
        ErrorKind::InvalidData => "; it is no text, so not the kernel's: look at what wrote it",
        ErrorKind::InvalidInput | ErrorKind::Unsupported => {
            "; the driver does not tell it, and nobody need do anything"
        }
        ErrorKind::Other => "; put a file there that is one, or take it away",
        _ => "; the kernel's log (dmesg) may tell more",
    }
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
    fn links_lead_to_files_of_the_copy() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sys/a/b")).unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        let up = "../".repeat(40);
        let out = outside.path().join("secret");
        for (target, at) in [
            (out.to_str().unwrap().to_owned(), "sys/absolute"),
            (format!("{up}{}", &out.to_str().unwrap()[1..]), "sys/relative"),
            (outside.path().to_str().unwrap().to_owned(), "sys/directory"),
            ("/secret".to_owned(), "sys/fine"),
            (format!("{up}secret"), "sys/a/fine"),
            ("a/../a".to_owned(), "sys/around"),
            ("round".to_owned(), "sys/round"),
        ] {
            symlink(target, root.join(at)).unwrap();
        }
        let probe = Probe::new(&root);
        let text = |path: &str| probe.text(path);
        for path in ["/sys/absolute", "/sys/relative", "/sys/directory/secret", "/sys/round"] {
            assert_eq!(text(path), None, "{path}");
            assert!(!probe.exists(path) && probe.link(path).is_none(), "{path}");
            assert_eq!(probe.text_in(&probe.path("/").join(&path[1..])), None, "{path}");
        }
        for path in ["/sys/fine", "/sys/a/fine", "/sys/around/fine", "/sys/around/../../../secret"] {
            assert_eq!(text(path).as_deref(), Some("inside"), "{path}");
        }
        assert_eq!(probe.link("/sys/around").unwrap(), probe.path("/sys/a"));
        assert_eq!(probe.link_text("/sys/around"), Some(PathBuf::from("a/../a")));
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
        assert!(made.success());
        let probe = Probe::new(dir.path());
        let told = format!("{:?}", probe.read("/pipe"));
        assert!(told.contains("no ordinary file") && told.contains("take it away"), "{told}");
    }

    #[test]
    fn a_path_loses_its_dots() {
        assert_eq!(absolute(Path::new("/a/../b/./c")), Some(PathBuf::from("/b/c")));
    }
}
