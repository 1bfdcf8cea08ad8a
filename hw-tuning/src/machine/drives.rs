//! Whole disks, known by what stays: their serial number, or a name under `/dev/disk/by-id`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Known;
use crate::checks::human_bytes;
use crate::probe::Probe;

/// What a disk is known by from boot to boot: its serial number, followed by `#` and the namespace where that
/// is not the first; or, without a serial number, its name under `/dev/disk/by-id`; or its world-wide name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriveId(pub String);

impl fmt::Display for DriveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const NOT_ASKED: &str = "only the drive itself can tell (Identify Namespace), and a pending admin command may slow \
                         what it serves: `lode-tune inspect` asks one that nothing uses";
const NO_PLP: &str = "no file tells; the vendor's data sheet does";
const NO_FILE: &str = "this kernel has no such file for the disk";

/// One disk.
#[derive(Debug, Clone, Serialize)]
pub struct Drive {
    /// The kernel's name, which may be another after the next boot.
    pub name: String,
    /// What it is known by from boot to boot.
    pub id: Known<DriveId>,
    /// Serial number.
    pub serial: Known<String>,
    /// Where it is attached: the PCI function, and what tells it from others there.
    pub attached_at: Known<String>,
    /// Its names under `/dev/disk/by-id`.
    pub by_id: Vec<String>,
    /// Model; empty where the disk does not say.
    pub model: String,
    /// Version of its firmware.
    pub firmware: Known<String>,
    /// Namespace, of an NVMe drive.
    pub namespace: Known<u64>,
    /// Size in bytes.
    pub bytes: Known<u64>,
    /// Bytes of a logical block, in the LBA format that is in use.
    pub logical_block_bytes: Known<u64>,
    /// Bytes of a physical block, as the drive claims.
    pub physical_block_bytes: Known<u64>,
    /// The other LBA formats that it could be formatted with.
    pub lba_formats: Known<Vec<u64>>,
    /// Whether written data may lie in memory that loses it with the power: the kernel's view.
    pub volatile_write_cache: Known<bool>,
    /// Whether it takes writes that go past that cache.
    pub fua: Known<bool>,
    /// Whether what is in its cache survives a loss of power.
    pub power_loss_protection: Known<bool>,
    /// Most bytes that it writes whole or not at all; 0 where it promises nothing.
    pub atomic_write_unit_bytes: Known<u64>,
    /// Queues that the kernel uses.
    pub hardware_queues: Known<u64>,
    /// Queues of these that are polled, as the driver was loaded with.
    pub poll_queues: Known<u64>,
    /// Requests that a queue takes.
    pub queue_requests: Known<u64>,
    /// Whether it spins.
    pub rotational: Known<bool>,
    /// The scheduler in use.
    pub scheduler: Known<String>,
    /// The NUMA node it is attached to.
    pub numa_node: Known<u64>,
    /// What uses it: mounts, partitions, other devices on top; empty where nothing does.
    pub in_use: Vec<String>,
    /// Where it is in `/sys`.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// Every disk that is more than memory or a file, in the order of the names.
pub fn all(probe: &Probe) -> Vec<Drive> {
    let mut names = probe.names("/sys/block");
    let virtual_ones = ["loop", "ram", "zram", "sr", "fd", "nbd"];
    names.retain(|name| !virtual_ones.iter().any(|prefix| name.starts_with(prefix)));
    let disks = names.iter().filter_map(|name| read(probe, &probe.link(&format!("/sys/block/{name}"))?));
    let mut drives: Vec<Drive> = disks.collect();
    // Two of one name: neither can be told by it.
    let ids: Vec<_> = drives.iter().map(|drive| drive.id.known().cloned()).collect();
    for drive in &mut drives {
        if drive.id.known().is_some()
            && ids.iter().flatten().filter(|id| drive.id.known() == Some(id)).count() > 1
        {
            drive.id = Known::Not("another disk has the same serial number");
        }
    }
    let places: Vec<_> = drives.iter().map(|drive| drive.attached_at.known().cloned()).collect();
    for drive in &mut drives {
        if places.iter().flatten().filter(|place| drive.attached_at.known() == Some(place)).count() > 1 {
            drive.attached_at = Known::Not("another disk is attached at the same place");
        }
    }
    drives
}

/// The disk with this directory in `/sys`.
fn read(probe: &Probe, directory: &Path) -> Option<Drive> {
    let name = directory.file_name()?.to_string_lossy().into_owned();
    let text = |file: &str| probe.text_in(&directory.join(file)).filter(|text| !text.is_empty());
    let number = |file: &str| text(file)?.parse::<u64>().ok();
    let serial = text("serial").or_else(|| text("device/serial"));
    let namespace = number("nsid");
    let by_id = by_id(probe, &name);
    let id = match (&serial, namespace) {
        (Some(serial), None | Some(1)) => Some(serial.clone()),
        (Some(serial), Some(namespace)) => Some(format!("{serial}#{namespace}")),
        (None, _) => by_id.first().cloned().or_else(|| {
            // A name that the kernel has made of the serial number, which there is none of, is any drive's of the model.
            text("wwid").or_else(|| text("device/wwid")).filter(|name| !name.starts_with("nvme."))
        }),
    };
    let nvme = name.starts_with("nvme");
    let parameter = probe.number("/sys/module/nvme/parameters/poll_queues");
    let queues = probe.inside(&directory.join("mq"));
    let queues = queues.is_dir().then(|| probe.names_in(&queues).len() as u64);
    Some(Drive {
        id: Known::or(id.map(DriveId), "neither a serial number nor a name under /dev/disk/by-id"),
        attached_at: Known::or(attached_at(directory, namespace), "it hangs at no PCI function"),
        serial: Known::or(serial, "the disk does not tell"),
        by_id,
        model: text("device/model").unwrap_or_default(),
        firmware: Known::or(text("device/firmware_rev").or_else(|| text("device/rev")), NO_FILE),
        namespace: Known::or(namespace, "not an NVMe drive, or a kernel that does not tell"),
        bytes: Known::or(number("size").and_then(|sectors| sectors.checked_mul(512)), NO_FILE),
        logical_block_bytes: Known::or(number("queue/logical_block_size"), NO_FILE),
        physical_block_bytes: Known::or(number("queue/physical_block_size"), NO_FILE),
        lba_formats: Known::Not(if nvme { NOT_ASKED } else { "not an NVMe drive" }),
        volatile_write_cache: Known::or(text("queue/write_cache").map(|text| text == "write back"), NO_FILE),
        fua: Known::or(number("queue/fua").map(|value| value != 0), NO_FILE),
        power_loss_protection: Known::Not(NO_PLP),
        atomic_write_unit_bytes: Known::or(
            number("queue/atomic_write_unit_max_bytes"),
            "a kernel before 6.11, which does not tell",
        ),
        hardware_queues: Known::or(queues, "the disk has no queues of its own in /sys"),
        poll_queues: if nvme {
            Known::or(parameter, "the module nvme does not tell its parameters")
        } else {
            Known::Not("not an NVMe drive")
        },
        queue_requests: Known::or(number("queue/nr_requests"), NO_FILE),
        rotational: Known::or(number("queue/rotational").map(|value| value != 0), NO_FILE),
        scheduler: Known::or(text("queue/scheduler").map(|text| chosen(&text).to_owned()), NO_FILE),
        numa_node: Known::or(
            number("device/numa_node").or_else(|| number("device/device/numa_node")),
            "the device is at no node, or there is one",
        ),
        in_use: in_use(probe, directory, &name),
        directory: directory.to_path_buf(),
        name,
    })
}

/// The PCI function, and of several disks at one, which: SCSI's channel, target and unit, or the namespace.
fn attached_at(directory: &Path, namespace: Option<u64>) -> Option<String> {
    let function = super::attachment(directory)?;
    let is_scsi = |name: &&str| {
        name.split(':').count() == 4 && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')
    };
    // The host's number is drawn anew at each boot.
    let unit = directory.iter().filter_map(|name| name.to_str()).rev().find(is_scsi);
    let unit = unit.and_then(|unit| unit.split_once(':')).map(|(_, unit)| format!(" unit {unit}"));
    let unit =
        unit.or_else(|| namespace.filter(|number| *number != 1).map(|number| format!(" namespace {number}")));
    Some(function + &unit.unwrap_or_default())
}

/// Partitions, devices on top (LVM, RAID, encryption), and mounts of the disk as a whole; or the same of a partition, by its
/// own directory and name.
pub fn in_use(probe: &Probe, directory: &Path, name: &str) -> Vec<String> {
    let is_partition = |name: &String| probe.inside(&directory.join(name).join("partition")).exists();
    let partitions = probe.names_in(directory).into_iter().filter(is_partition);
    let mut uses: Vec<String> = partitions.map(|name| format!("partition {name}")).collect();
    let holders = probe.names_in(&directory.join("holders"));
    uses.extend(holders.iter().map(|name| format!("held by {name}")));
    let device = probe.text_in(&directory.join("dev"));
    let of_disk = |mount: &crate::probe::Mount| Some(&mount.device) == device.as_ref();
    uses.extend(
        probe.mounts().iter().filter(|m| of_disk(m)).map(|m| format!("mounted at {}", m.point.display())),
    );
    let swaps = probe.text("/proc/swaps").unwrap_or_default();
    let swap = format!("/dev/{name}");
    uses.extend(
        swaps.lines().filter(|line| line.split_whitespace().next() == Some(&swap)).map(|_| "swap".to_owned()),
    );
    uses.sort();
    uses
}

/// The word in brackets of a file that lists what may be chosen; the whole text where there is none.
pub fn chosen(text: &str) -> &str {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    word.unwrap_or(text)
}

/// The links under `/dev/disk/by-id` that lead to the disk, in order.
fn by_id(probe: &Probe, disk: &str) -> Vec<String> {
    let mut names = probe.names("/dev/disk/by-id");
    names.retain(|name| {
        let target = probe.link_text(&format!("/dev/disk/by-id/{name}"));
        target.is_some_and(|target| target.file_name().is_some_and(|file| file == disk))
    });
    names
}

impl Drive {
    pub(super) fn to_text(&self) -> String {
        let bytes = |known: &Known<u64>| match known {
            Known::Is(bytes) => human_bytes(*bytes),
            Known::Not(why) => format!("not known ({why})"),
        };
        let yes = |known: &Known<bool>| match known {
            Known::Is(true) => "yes".to_owned(),
            Known::Is(false) => "no".to_owned(),
            Known::Not(why) => format!("not known ({why})"),
        };
        let lba_formats = match &self.lba_formats {
            Known::Is(formats) => format!("{formats:?}"),
            Known::Not(why) => format!("not known ({why})"),
        };
        let lines = [
            ("model", format!("{}; firmware {}", self.model, self.firmware)),
            ("serial", format!("{}; by-id {}", self.serial, self.by_id.join(" "))),
            ("size", bytes(&self.bytes)),
            ("logical block", bytes(&self.logical_block_bytes)),
            ("physical block", bytes(&self.physical_block_bytes)),
            ("other LBA formats", lba_formats),
            ("volatile write cache", yes(&self.volatile_write_cache)),
            ("FUA", yes(&self.fua)),
            ("power-loss protection", yes(&self.power_loss_protection)),
            ("atomic write unit", bytes(&self.atomic_write_unit_bytes)),
            ("hardware queues", self.hardware_queues.to_string()),
            ("poll queues", self.poll_queues.to_string()),
            ("requests of a queue", self.queue_requests.to_string()),
            ("scheduler", self.scheduler.to_string()),
            ("rotational", yes(&self.rotational)),
            ("numa node", self.numa_node.to_string()),
            ("in use", if self.in_use.is_empty() { "no".to_owned() } else { self.in_use.join(", ") }),
        ];
        let mut out = format!("drive {} ({}):\n", self.name, self.id);
        for (what, value) in lines {
            out += &format!("  {what:<22} {value}\n");
        }
        out
    }
}
