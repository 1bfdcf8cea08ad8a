//! What is looked at, a file for each part of the machine. Each knob is described here once: how it is read, what is
//! wanted of it, why, and what changes it.

mod cpu;
mod drive;
mod isolation;
mod judge;
mod kernel;
mod memory;
mod network;
mod nic;
mod queue;
#[cfg(test)]
mod tests;

use crate::knob::Knob;
use crate::machine::cpus::{self, CpuSet};
use crate::machine::drives as disks;
use crate::machine::nics::{self, Nic};
use crate::probe::Probe;
use crate::profile::Profile;

pub use drive::NodeDrive;

/// The machine, and what is wanted of it.
#[derive(Debug)]
pub struct Context<'a> {
    /// Its files.
    pub probe: &'a Probe,
    /// What is wanted.
    pub profile: &'a Profile,
    /// What the command line calls the profile: its name, or its file.
    pub profile_name: &'a str,
    /// The drives that the command line names: paths, or `id:` and a serial number or a name under `/dev/disk/by-id`.
    pub drives: &'a [String],
}

/// What several knobs ask of the machine.
struct Facts {
    online: CpuSet,
    numa_nodes: usize,
    disks: Vec<disks::Drive>,
    nics: Vec<Nic>,
}

/// A node's drives: those of the command line, or else those that the profile knows.
pub fn node_drives(cx: &Context) -> Vec<NodeDrive> {
    drive::Found::find(cx, &disks::all(cx.probe)).drives
}

/// Every finding, in the order of the report.
pub fn all(cx: &Context) -> Vec<Knob> {
    let facts = Facts {
        online: cx.probe.online_cpus().unwrap_or_default(),
        numa_nodes: cpus::numa_nodes(cx.probe).len(),
        disks: disks::all(cx.probe),
        nics: nics::all(cx.probe),
    };
    let found = drive::Found::find(cx, &facts.disks);
    let mut knobs = kernel::knobs(cx, &facts);
    knobs.extend(cpu::knobs(cx, &facts));
    knobs.extend(isolation::knobs(cx, &facts));
    knobs.extend(memory::knobs(cx, &facts, found.bytes()));
    knobs.extend(network::knobs(cx));
    knobs.extend(nic::knobs(cx, &facts));
    knobs.extend(drive::knobs(cx, &found));
    knobs
}

/// `n` bytes in the largest binary unit that leaves at least 1.
pub fn human_bytes(n: u64) -> String {
    if n == u64::MAX {
        return "unlimited".to_owned();
    }
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| n >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / *size as f64),
        None => format!("{n} B"),
    }
}
