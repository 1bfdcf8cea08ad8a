//! What is looked at, a file for each part of the machine.

mod cpu;
mod drive;
mod kernel;
mod memory;

use std::path::Path;

use crate::knob::Knob;
use crate::probe::Probe;

/// Every finding, in the order of the report. `drive` is the drive's file or block device, there or not.
pub fn all(probe: &Probe, drive: &Path) -> Vec<Knob> {
    let mut knobs = kernel::knobs(probe);
    knobs.extend(cpu::knobs(probe));
    let found = drive::Drive::find(probe, drive);
    knobs.extend(memory::knobs(probe, found.bytes));
    knobs.extend(drive::knobs(&found));
    knobs
}

/// `n` bytes in the largest binary unit that leaves at least 1.
fn human_bytes(n: u64) -> String {
    if n == u64::MAX {
        return "unlimited".to_owned();
    }
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| n >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / *size as f64),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests;
