//! What the machine is, as its files under `/proc`, `/sys`, `/dev` and `/run` tell. Only `inspect` asks a drive, and only one that nothing uses.

pub mod cpus;
pub mod drives;
mod formats;
pub mod kernel;
pub mod memory;
pub mod nics;
pub mod platform;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::probe::Probe;

/// A fact, or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<T> {
    /// It is this.
    Is(T),
    /// The files do not tell; this is why.
    Not(&'static str),
}

impl<T> Known<T> {
    /// The fact, or that it is not known and why.
    pub fn or(value: Option<T>, why: &'static str) -> Known<T> {
        value.map_or(Known::Not(why), Known::Is)
    }

    /// The fact, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Known::Is(value) => Some(value),
            Known::Not(_) => None,
        }
    }
}

impl<T: std::fmt::Display> std::fmt::Display for Known<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Known::Is(value) => value.fmt(f),
            Known::Not(why) => write!(f, "not known ({why})"),
        }
    }
}

/// A known fact is its value; else an object with the one field `unknown`, which says why.
impl<T: Serialize> Serialize for Known<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Known::Is(value) => value.serialize(to),
            Known::Not(why) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("unknown", why)?;
                map.end()
            }
        }
    }
}

/// Where a device is attached, as its directory in `/sys` tells: the address of the PCI function nearest to it, or what Hyper-V calls it.
fn attachment(directory: &Path) -> Option<String> {
    let is_hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_pci = |name: &str| {
        let parts: Vec<&str> = name.split([':', '.']).collect();
        matches!(parts[..], [domain, bus, slot, function] if domain.len() >= 4 && is_hex(domain, domain.len())
            && is_hex(bus, 2) && is_hex(slot, 2) && is_hex(function, 1))
    };
    let is_guid = |name: &str| {
        let parts: Vec<&str> = name.split('-').collect();
        parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, digits)| is_hex(part, digits))
    };
    let names: Vec<_> = directory.iter().filter_map(|name| name.to_str()).collect();
    let nearest =
        |is: &dyn Fn(&str) -> bool| names.iter().rev().find(|name| is(name)).map(|name| (*name).to_owned());
    // On Azure, the PCI function of a drive or an interface hangs below Hyper-V's own bus.
    nearest(&is_pci).or_else(|| nearest(&is_guid))
}

/// Everything that `inspect` tells.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Whose machine it is.
    pub platform: platform::Platform,
    /// The kernel, and what its io_uring can do.
    pub kernel: kernel::Kernel,
    /// The CPUs and how they lie together.
    pub cpus: cpus::Cpus,
    /// Memory.
    pub memory: memory::Memory,
    /// Whole disks, in the order of their names.
    pub drives: Vec<drives::Drive>,
    /// Network interfaces with a device behind them, in the order of their names.
    pub nics: Vec<nics::Nic>,
}

impl Machine {
    /// Read it all.
    pub fn read(probe: &Probe) -> Machine {
        let drives = drives::all(probe);
        Machine {
            platform: platform::read(probe, &drives),
            kernel: kernel::read(probe),
            cpus: cpus::read(probe),
            memory: memory::read(probe),
            drives,
            nics: nics::all(probe),
        }
    }

    /// Asks the drives that nothing uses for what no file tells.
    pub fn ask_drives(&mut self, probe: &Probe) {
        formats::ask(probe, &mut self.drives);
    }

    /// For people: a line for each thing, what is not known at its place.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        out += &self.platform.to_text();
        out += &self.kernel.to_text();
        out += &self.cpus.to_text();
        out += &self.memory.to_text();
        self.drives.iter().for_each(|drive| out += &drive.to_text());
        if self.drives.is_empty() {
            out += "drives: none are listed under /sys/block\n";
        }
        self.nics.iter().for_each(|nic| out += &nic.to_text());
        if self.nics.is_empty() {
            out += "network: no interface under /sys/class/net has a device behind it\n";
        }
        out
    }
}
