//! Memory: how much, and what the kernel does behind a node's back.

use super::human_bytes;
use crate::knob::{Knob, Severity};
use crate::probe::Probe;

/// Drive bytes per byte of memory: 64 GiB for 1.92 TB, so that the index of 1 KiB records fits.
const DRIVE_BYTES_PER_MEMORY_BYTE: u64 = 28;
/// Memory that a node needs for buffers and cache before the first record.
const LEAST_MEMORY_BYTES: u64 = 512 << 20;
/// Swappiness above which idle parts of the index are swapped out.
const MOST_SWAPPINESS: u64 = 10;

pub fn knobs(probe: &Probe, drive_bytes: Option<u64>) -> Vec<Knob> {
    vec![memory(probe, drive_bytes), swappiness(probe), huge_pages(probe)]
}

fn memory(probe: &Probe, drive_bytes: Option<u64>) -> Knob {
    let Some(total) = probe.memory_bytes("MemTotal") else {
        return Knob::not_applicable("memory", "the size of memory cannot be read");
    };
    let for_index = drive_bytes.map(|bytes| bytes / DRIVE_BYTES_PER_MEMORY_BYTE);
    let wanted = LEAST_MEMORY_BYTES.max(for_index.unwrap_or(0));
    let why = match drive_bytes {
        Some(bytes) => format!("the index of a drive of {} is held in memory", human_bytes(bytes)),
        None => "buffers and cache; the drive is not there yet, so its index is not counted".to_owned(),
    };
    let severity = if total < LEAST_MEMORY_BYTES { Severity::Fatal } else { Severity::Warn };
    Knob::ok("memory", human_bytes(total), &format!("{} or more", human_bytes(wanted)), &why).unless(
        total >= wanted,
        severity,
        "add memory, use a smaller drive, or store larger records",
    )
}

fn swappiness(probe: &Probe) -> Knob {
    // The first line is the heading; a machine without swap has no other.
    let swaps = probe.text("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return Knob::not_applicable("swappiness", "there is no swap");
    }
    let Some(value) = probe.number("/proc/sys/vm/swappiness") else {
        return Knob::not_applicable("swappiness", "the setting cannot be read");
    };
    let why =
        "a swapped-out leaf of the index turns a memory access into a device read on the shard's thread";
    Knob::ok("swappiness", value.to_string(), &format!("{MOST_SWAPPINESS} or less"), why).unless(
        value <= MOST_SWAPPINESS,
        Severity::Warn,
        "sysctl vm.swappiness=1, or swapoff -a",
    )
}

fn huge_pages(probe: &Probe) -> Knob {
    let Some(text) = probe.text("/sys/kernel/mm/transparent_hugepage/enabled") else {
        return Knob::not_applicable("transparent_huge_pages", "this kernel has none");
    };
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    let current = chosen.unwrap_or("unknown");
    let why =
        "with `always` the kernel compacts memory while a request waits, and small allocations grow to 2 MiB";
    Knob::ok("transparent_huge_pages", current, "madvise or never", why).unless(
        current == "madvise" || current == "never",
        Severity::Warn,
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )
}
