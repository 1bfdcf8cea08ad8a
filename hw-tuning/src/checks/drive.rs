//! The drive: the disk under it, its queue, and the file system between.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::human_bytes;
use crate::knob::{Knob, Severity};
use crate::probe::{Mount, Probe, absolute, text_of};

/// A node's unit of reading and writing.
const BLOCK_BYTES: u64 = 4096;
/// Requests that a queue should take before it blocks the submitter.
const WANTED_REQUESTS: u64 = 128;
/// Read-ahead that still makes sense where reads go through the page cache, in KiB.
const MOST_READ_AHEAD_KIB: u64 = 128;
/// File systems that take no O_DIRECT, or only pretend; asked of a fixture tree, where nothing can be tried.
const BUFFERED_FILESYSTEMS: [&str; 4] = ["ramfs", "tmpfs", "9p", "overlay"];

/// What is known about the drive.
#[derive(Debug, Default)]
pub struct Drive {
    /// Bytes of the drive, where it exists.
    pub bytes: Option<u64>,
    mount: Option<Mount>,
    direct: Option<bool>,
    disk: Option<PathBuf>,
}

impl Drive {
    /// Find the disk and the file system under `path`, which need not exist yet.
    pub fn find(probe: &Probe, path: &Path) -> Drive {
        let path = absolute(path).unwrap_or_else(|| path.to_path_buf());
        let inside = probe.path(&path.to_string_lossy());
        let metadata = std::fs::metadata(&inside).ok();
        if let Some(metadata) = metadata.as_ref().filter(|m| m.file_type().is_block_device()) {
            let device = metadata.rdev();
            let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            let sectors = probe.number(&format!("/sys/dev/block/{number}/size"));
            let bytes = sectors.map(|sectors| sectors * 512);
            return Drive { bytes, mount: None, direct: Some(true), disk: probe.disk_of(&number) };
        }
        let mount = probe.mount_of(&path);
        let disk = mount.as_ref().and_then(|mount| probe.disk_of(&mount.device));
        let direct = if probe.is_live() {
            try_direct(&inside)
        } else {
            mount.as_ref().map(|mount| !BUFFERED_FILESYSTEMS.contains(&mount.filesystem.as_str()))
        };
        Drive { bytes: metadata.filter(|m| m.is_file()).map(|m| m.len()), mount, direct, disk }
    }
}

/// Try O_DIRECT with a file that has no name, in the nearest directory above `path` that exists.
fn try_direct(path: &Path) -> Option<bool> {
    let directory = path.ancestors().find(|above| above.is_dir())?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Some(true),
        Err(rustix::io::Errno::INVAL) => Some(false),
        // No unnamed files, or no right to make one: the question stays open.
        Err(_) => None,
    }
}

pub fn knobs(drive: &Drive) -> Vec<Knob> {
    let mut knobs = vec![direct_io(drive)];
    let Some(disk) = &drive.disk else {
        let on = drive.mount.as_ref().map_or("an unknown mount".to_owned(), |m| m.filesystem.clone());
        let why = format!("no single disk lies under the drive ({on})");
        let names = ["block_size", "rotational", "scheduler", "write_cache", "nr_requests", "read_ahead"];
        knobs.extend(names.map(|name| Knob::not_applicable(name, why.clone())));
        return knobs;
    };
    let queue = Queue { disk };
    knobs.push(queue.block_size());
    knobs.push(queue.rotational());
    knobs.push(queue.scheduler());
    knobs.push(queue.write_cache());
    knobs.push(queue.nr_requests());
    knobs.push(queue.read_ahead(drive.direct.unwrap_or(true)));
    knobs
}

fn direct_io(drive: &Drive) -> Knob {
    let on = drive.mount.as_ref().map_or("block device".to_owned(), |mount| {
        format!("{} on {}", mount.filesystem, mount.point.display())
    });
    let why = "without O_DIRECT every read and write is copied through the page cache, \
               which a node's memory cap does not see";
    match drive.direct {
        None => Knob::not_applicable("direct_io", format!("O_DIRECT could not be tried ({on})")),
        Some(true) => Knob::ok("direct_io", format!("yes ({on})"), "yes", why),
        Some(false) => Knob::ok("direct_io", format!("no ({on})"), "yes", why)
            .short(Severity::Warn, "put the drive on ext4 or xfs, or use a block device"),
    }
}

/// The queue directory of a disk in `/sys`.
struct Queue<'a> {
    disk: &'a Path,
}

impl Queue<'_> {
    fn text(&self, name: &str) -> Option<String> {
        text_of(&self.disk.join("queue").join(name))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn set(&self, name: &str, value: &str) -> String {
        let disk = self.disk.file_name().unwrap_or_default().to_string_lossy();
        format!("echo {value} > /sys/block/{disk}/queue/{name}")
    }

    fn block_size(&self) -> Knob {
        let Some(bytes) = self.number("logical_block_size") else {
            return Knob::not_applicable("block_size", "the disk does not tell its block size");
        };
        let why = "a node reads and writes blocks of 4 KiB; a disk with larger ones refuses them";
        let remedy = "format the namespace with blocks of 512 B or 4 KiB";
        Knob::ok("block_size", human_bytes(bytes), "4 KiB or less", why).unless(
            bytes <= BLOCK_BYTES,
            Severity::Fatal,
            remedy,
        )
    }

    fn rotational(&self) -> Knob {
        let Some(value) = self.number("rotational") else {
            return Knob::not_applicable("rotational", "the disk does not tell its kind");
        };
        let current = if value == 0 { "no" } else { "yes" };
        let why = "a GET that misses memory is one random read: 100 us on flash, 10 ms on a spinning disk \
                   (a virtual disk may claim to spin)";
        Knob::ok("rotational", current, "no", why).unless(
            value == 0,
            Severity::Warn,
            "put the drive on flash",
        )
    }

    fn scheduler(&self) -> Knob {
        let Some(text) = self.text("scheduler") else {
            return Knob::not_applicable("scheduler", "the disk has no scheduler");
        };
        let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let current = chosen.unwrap_or(&text).to_owned();
        let why = "a node orders and bounds its own requests; a scheduler adds a lock and a queue to each";
        let fine = current == "none";
        Knob::ok("scheduler", current, "none", why).unless(
            fine,
            Severity::Warn,
            self.set("scheduler", "none"),
        )
    }

    fn write_cache(&self) -> Knob {
        let Some(current) = self.text("write_cache") else {
            return Knob::not_applicable(
                "write_cache",
                "the disk does not tell; a node takes it as volatile",
            );
        };
        let why = "with a volatile cache every durable write waits for the medium; a drive with power-loss \
                   protection reports `write through`, and does not";
        let fine = current == "write through";
        let remedy =
            "use a drive with power-loss protection; never override the kernel's answer on one without";
        Knob::ok("write_cache", current, "write through", why).unless(fine, Severity::Warn, remedy)
    }

    fn nr_requests(&self) -> Knob {
        let Some(value) = self.number("nr_requests") else {
            return Knob::not_applicable("nr_requests", "the disk has no queue of requests");
        };
        let why = "a shard's thread must not sleep in the kernel for a free slot of the queue";
        Knob::ok("nr_requests", value.to_string(), &format!("{WANTED_REQUESTS} or more"), why).unless(
            value >= WANTED_REQUESTS,
            Severity::Warn,
            self.set("nr_requests", &WANTED_REQUESTS.to_string()),
        )
    }

    fn read_ahead(&self, direct: bool) -> Knob {
        if direct {
            return Knob::not_applicable("read_ahead", "reads with O_DIRECT do not read ahead");
        }
        let Some(kib) = self.number("read_ahead_kb") else {
            return Knob::not_applicable("read_ahead", "the disk does not tell");
        };
        let why = "through the page cache, a random read of 4 KiB may pull in this much";
        Knob::ok("read_ahead", human_bytes(kib * 1024), &format!("{MOST_READ_AHEAD_KIB} KiB or less"), why)
            .unless(kib <= MOST_READ_AHEAD_KIB, Severity::Warn, self.set("read_ahead_kb", "16"))
    }
}
