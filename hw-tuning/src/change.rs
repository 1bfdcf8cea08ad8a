//! What changes a knob: writes into files of the running kernel, parameters of the next boot, lines of systemd's units.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::machine::drives::{self, DriveId};
use crate::machine::nics;
use crate::probe::Probe;

/// All that makes a knob as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Writes that take effect at once, and are gone after a boot.
    pub writes: Vec<Write>,
    /// Parameters of the kernel, for the next boot.
    pub boot: Vec<String>,
    /// Lines of systemd's units, for the next start of them.
    pub units: Vec<UnitLine>,
}

/// One file and what is written into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// Which file.
    #[serde(flatten)]
    pub place: Place,
    /// What is written.
    pub value: String,
    /// What else the kernel changes when this is written: noted before, and restored with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_moves: Vec<Place>,
}

/// A file of the machine, named so that it is the same one after a boot that gave names anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Place {
    /// A file whose path stays.
    Machine {
        /// Its absolute path.
        file: String,
    },
    /// A file of a disk.
    Drive {
        /// Which disk.
        drive: DriveId,
        /// The path below its directory in `/sys/block`.
        file: String,
    },
    /// A file of a disk without serial number and id: good until the next boot.
    Disk {
        /// The kernel's name of the disk.
        disk: String,
        /// The path below its directory in `/sys/block`.
        file: String,
    },
    /// A file of a network interface.
    Nic {
        /// The interface's hardware address.
        address: String,
        /// Its driver: a virtual function has the address of the interface that it stands behind.
        driver: String,
        /// The path below its directory in `/sys/class/net`.
        file: String,
    },
    /// The CPUs that serve an interrupt of a network interface.
    Interrupt {
        /// The interface's hardware address.
        address: String,
        /// Its driver.
        driver: String,
        /// Which of the interface's interrupts, counted from 0.
        index: usize,
    },
}

/// One line of a unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnitLine {
    /// The unit.
    pub unit: &'static str,
    /// The section, without brackets.
    pub section: &'static str,
    /// `Name=value`.
    pub line: String,
}

impl Write {
    /// A write of a file whose path stays.
    pub fn machine(file: impl Into<String>, value: impl Into<String>) -> Write {
        Write::at(Place::Machine { file: file.into() }, value)
    }

    /// A write at a place.
    pub fn at(place: Place, value: impl Into<String>) -> Write {
        Write { place, value: value.into(), also_moves: Vec::new() }
    }
}

impl Place {
    /// Where it is on this machine now, as an absolute path of the machine; `None` where the disk or the interface
    /// is not there.
    pub fn locate(&self, probe: &Probe) -> Option<String> {
        match self {
            Place::Machine { file } => Some(file.clone()),
            Place::Drive { drive, file } => {
                let disks = drives::all(probe);
                let disk = disks.iter().find(|disk| disk.id.known() == Some(drive))?;
                Some(format!("/sys/block/{}/{file}", disk.name))
            }
            Place::Disk { disk, file } => {
                probe.exists(&format!("/sys/block/{disk}")).then(|| format!("/sys/block/{disk}/{file}"))
            }
            Place::Nic { address, driver, file } => {
                let nic = find_nic(probe, address, driver)?;
                Some(format!("/sys/class/net/{}/{file}", nic.name))
            }
            Place::Interrupt { address, driver, index } => {
                let number = *find_nic(probe, address, driver)?.interrupts.get(*index)?;
                Some(format!("/proc/irq/{number}/smp_affinity_list"))
            }
        }
    }

    /// The path under the probe's root.
    pub fn path(&self, probe: &Probe) -> Option<PathBuf> {
        Some(probe.path(&self.locate(probe)?))
    }

    /// The key of `sysctl`, where it is one.
    pub fn sysctl(&self) -> Option<String> {
        match self {
            Place::Machine { file } => Some(file.strip_prefix("/proc/sys/")?.replace('/', ".")),
            _ => None,
        }
    }
}

fn find_nic(probe: &Probe, address: &str, driver: &str) -> Option<nics::Nic> {
    let same = |nic: &nics::Nic| {
        nic.address.known().map_or("", String::as_str) == address
            && nic.driver.known().map_or("", String::as_str) == driver
    };
    nics::all(probe).into_iter().find(same)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Machine { file } => f.write_str(file),
            Place::Drive { drive, file } => write!(f, "{file} of drive {drive}"),
            Place::Disk { disk, file } => write!(f, "{file} of disk {disk}"),
            Place::Nic { address, file, .. } => write!(f, "{file} of interface {address}"),
            Place::Interrupt { address, index, .. } => write!(f, "interrupt {index} of interface {address}"),
        }
    }
}
