//! A limit on the memory of a process and of what it has in the page cache: a control group of version 2 or 1.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// Where the kernel shows control groups.
const MOUNT: &str = "/sys/fs/cgroup";

/// Why there is no limit.
#[derive(Debug, Error)]
pub enum LimitError {
    /// The kernel shows no memory controller.
    #[error("no memory controller in {MOUNT}, neither of control groups version 2 nor of version 1")]
    NoController,
    /// A file of a group could not be written.
    #[error("{path}: {error}; give --cgroup a group that may have children with a memory limit")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Which files limit memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups are made.
#[derive(Debug, Clone)]
pub struct Groups {
    version: Version,
    parent: PathBuf,
}

/// A group with a limit; removed when dropped, which it can be once its processes have ended.
#[derive(Debug)]
pub struct MemoryLimit {
    directory: PathBuf,
}

impl Groups {
    /// Below `parent`, or else below the group that this process is in.
    pub fn find(parent: Option<&Path>) -> Result<Groups, LimitError> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mount = Path::new(MOUNT);
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let (version, own) = if controllers.split_whitespace().any(|name| name == "memory") {
            (Version::Two, mount.join(path_of(&own, "")))
        } else if mount.join("memory/memory.limit_in_bytes").exists() {
            (Version::One, mount.join("memory").join(path_of(&own, "memory")))
        } else {
            return Err(LimitError::NoController);
        };
        Ok(Groups { version, parent: parent.map_or(own, Path::to_path_buf) })
    }

    /// In words.
    pub fn name(&self) -> &'static str {
        match self.version {
            Version::One => "control groups, version 1",
            Version::Two => "control groups, version 2",
        }
    }

    /// A new group of this name, which may use so many bytes.
    pub fn limit(&self, name: &str, bytes: u64) -> Result<MemoryLimit, LimitError> {
        let directory = self.parent.join(format!("lode-peers-{}-{name}", std::process::id()));
        if self.version == Version::Two {
            let path = self.parent.join("cgroup.subtree_control");
            if !fs::read_to_string(&path).unwrap_or_default().split_whitespace().any(|c| c == "memory") {
                write(path, "+memory")?;
            }
        }
        fs::create_dir(&directory).map_err(|error| LimitError::Write { path: directory.clone(), error })?;
        let limit = MemoryLimit { directory };
        let file = |name: &str| limit.directory.join(name);
        match self.version {
            Version::One => write(file("memory.limit_in_bytes"), &bytes.to_string())?,
            Version::Two => {
                write(file("memory.max"), &bytes.to_string())?;
                // Where there is no swap there is no such file.
                let _ = write(file("memory.swap.max"), "0");
            }
        }
        Ok(limit)
    }
}

fn write(path: PathBuf, text: &str) -> Result<(), LimitError> {
    fs::write(&path, text).map_err(|error| LimitError::Write { path, error })
}

/// The group of a controller in what `/proc/self/cgroup` says, without its first slash.
fn path_of<'a>(own: &'a str, controller: &str) -> &'a str {
    let of_line = |line: &'a str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let is_it = controllers.split(',').any(|name| name == controller);
        parts.next().filter(|_| is_it)
    };
    own.lines().find_map(of_line).unwrap_or("/").trim_start_matches('/')
}

impl MemoryLimit {
    /// A command that goes into the group before it becomes `program`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.directory.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A process that has just ended may still be counted in it for a moment.
        for _ in 0..50 {
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
        eprintln!("{} could not be removed", self.directory.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_group_is_found() {
        let both = "5:cpu,memory:/a/b\n4:pids:/\n0::/c:d\n";
        assert_eq!(path_of(both, "memory"), "a/b");
        assert_eq!(path_of(both, "pids"), "");
        assert_eq!(path_of(both, ""), "c:d");
        assert_eq!(path_of("", "memory"), "");
    }

    #[test]
    fn a_process_in_a_group_gets_no_more_than_its_limit() {
        let limited = Groups::find(None).and_then(|groups| groups.limit("test", 32 << 20));
        let Ok(limit) = limited else {
            eprintln!("no group can be made here: {}", limited.unwrap_err());
            return;
        };
        let run = |bytes: u32| {
            let mut command = limit.command(Path::new("/bin/sh"));
            // What the shell reads is kept in its memory.
            let script = format!("x=$(head -c {bytes} /dev/zero | tr '\\0' a); echo ${{#x}}");
            command.args(["-c", &script]).output().expect("a shell is there").stdout
        };
        assert_eq!(run(1_000_000), b"1000000\n");
        assert_ne!(run(100_000_000), b"100000000\n", "it would have needed three times the limit");
        let directory = limit.directory.clone();
        drop(limit);
        assert!(!directory.exists());
    }
}
