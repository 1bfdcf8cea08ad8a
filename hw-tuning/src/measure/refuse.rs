//! What keeps a device, or a file, from being written: uses of it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::machine::drives::in_use;
use crate::probe::Probe;

/// What uses a device, and what it is divided into.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Mounts, swap, and devices on top, of it and of its partitions.
    pub running: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<String>,
}

/// The uses of the device with this directory in `/sys`.
pub fn uses_of(probe: &Probe, directory: &Path) -> Uses {
    let mut uses = Uses::default();
    let name = |directory: &Path| directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for found in in_use(probe, directory, &name(directory)) {
        match found.strip_prefix("partition ") {
            Some(partition) => {
                let below = in_use(probe, &directory.join(partition), partition);
                uses.running.extend(below.into_iter().map(|found| format!("{partition} {found}")));
                uses.partitions.push(partition.to_owned());
            }
            None => uses.running.push(found),
        }
    }
    uses
}

/// What is made of a file: loop devices, with their own uses, and swap.
pub fn uses_of_file(probe: &Probe, path: &Path) -> Vec<String> {
    let Ok(own) = std::fs::metadata(path) else { return Vec::new() };
    let is_it = |other: &str| {
        let other = std::fs::metadata(probe.path(other));
        other.is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
    };
    let mut uses = Vec::new();
    for name in probe.names("/sys/block") {
        let backing = probe.text(&format!("/sys/block/{name}/loop/backing_file"));
        if backing.is_some_and(|backing| is_it(&backing)) {
            uses.push(format!("{name} is made of it"));
            let directory = probe.link(&format!("/sys/block/{name}"));
            uses.extend(directory.map(|directory| uses_of(probe, &directory).running).unwrap_or_default());
        }
    }
    let swaps = probe.text("/proc/swaps").unwrap_or_default();
    let of_line = |line: &str| Some(line.split_whitespace().next()?.replace("\\040", " "));
    if swaps.lines().skip(1).filter_map(of_line).any(|file| is_it(&file)) {
        uses.push("swap".to_owned());
    }
    uses
}

/// Whether the kernel lets nobody write a device.
pub fn is_read_only(probe: &Probe, number: &str) -> bool {
    probe.number(&format!("/sys/dev/block/{number}/ro")) == Some(1)
}
