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
    /// A file of a disk without serial number and id.
    Disk {
        /// The kernel's name of the disk.
        disk: String,
        /// Where it is attached; without that, the name is good until the next boot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
        /// The path below its directory in `/sys/block`.
        file: String,
    },
    /// A file of a network interface.
    Nic {
        /// The interface's hardware address; empty where another of the driver has the same.
        address: String,
        /// Its driver: a virtual function has the address of the interface that it stands behind.
        driver: String,
        /// Where it is attached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
        /// The path below its directory in `/sys/class/net`.
        file: String,
    },
    /// The CPUs that serve an interrupt of a network interface.
    Interrupt {
        /// The interface's hardware address; empty where another of the driver has the same.
        address: String,
        /// Its driver.
        driver: String,
        /// Where it is attached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
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
            Place::Disk { disk, at: None, file } => {
                probe.exists(&format!("/sys/block/{disk}")).then(|| format!("/sys/block/{disk}/{file}"))
            }
            Place::Disk { at, file, .. } => {
                let disks = drives::all(probe);
                let disk = disks.iter().find(|disk| disk.attached_at.known() == at.as_ref())?;
                Some(format!("/sys/block/{}/{file}", disk.name))
            }
            Place::Nic { address, driver, at, file } => {
                let nic = find_nic(probe, address, driver, at)?;
                Some(format!("/sys/class/net/{}/{file}", nic.name))
            }
            Place::Interrupt { address, driver, at, index } => {
                let number = *find_nic(probe, address, driver, at)?.interrupts.get(*index)?;
                Some(format!("/proc/irq/{number}/smp_affinity_list"))
            }
        }
    }

    /// Whether it is the same one after a boot.
    pub fn stays(&self) -> bool {
        !matches!(self, Place::Disk { at: None, .. })
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

/// The interface that is attached there; where nobody knew that, the one with that address. Never one of several.
fn find_nic(probe: &Probe, address: &str, driver: &str, at: &Option<String>) -> Option<nics::Nic> {
    let same = |nic: &nics::Nic| {
        let is_there = match at {
            Some(_) => nic.attached_at.known() == at.as_ref(),
            None => nic.address.known().map_or("", String::as_str) == address,
        };
        is_there && nic.driver.known().map_or("", String::as_str) == driver
    };
    let mut found = nics::all(probe).into_iter().filter(same);
    found.next().filter(|_| found.next().is_none())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Machine { file } => f.write_str(file),
            Place::Drive { drive, file } => write!(f, "{file} of drive {drive}"),
            Place::Disk { disk, file, .. } => write!(f, "{file} of disk {disk}"),
            Place::Nic { address, at, file, .. } => write!(f, "{file} of interface {}", named(address, at)),
            Place::Interrupt { address, at, index, .. } => {
                write!(f, "interrupt {index} of interface {}", named(address, at))
            }
        }
    }
}

/// An interface, for people.
fn named<'a>(address: &'a str, at: &'a Option<String>) -> &'a str {
    at.as_deref().filter(|_| address.is_empty()).unwrap_or(address)
}
