//! Which drive, kernel and settings a measurement is of: what makes it another's.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Settings of a disk's queue that change what it gives.
pub const TUNABLES: [&str; 8] = [
    "iostats",
    "max_sectors_kb",
    "nomerges",
    "nr_requests",
    "rq_affinity",
    "scheduler",
    "wbt_lat_usec",
    "write_cache",
];

/// What a drive is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file.
    File,
    /// A block device.
    BlockDevice,
}

/// A drive on a machine. Where `/sys` does not tell something, it is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Where it is. It tells drives without a serial number apart; of one with a serial number it is for people.
    pub path: String,
    /// What it is made of.
    pub kind: Kind,
    /// Serial number of the disk below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The version of its firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Bytes of its logical block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_block_bytes: Option<u64>,
    /// The kernel's release.
    pub kernel: String,
    /// Of [`tunables`](Identity::tunables): 16 hexadecimal digits.
    pub tunables_hash: String,
    /// Settings of the disk's queue.
    #[serde(default)]
    pub tunables: BTreeMap<String, String>,
}

impl Identity {
    /// Of the file or block device at `path`, on the machine whose files lie under `sysroot`. A file need not exist, if its directory
    /// does.
    pub fn of(sysroot: &Path, path: &Path) -> io::Result<Identity> {
        let canonical = canonical(path)?;
        let metadata = std::fs::metadata(&canonical);
        let kind = match &metadata {
            Ok(metadata) if metadata.file_type().is_block_device() => Kind::BlockDevice,
            _ => Kind::File,
        };
        // Where it is not there yet, it will lie where its directory does.
        let metadata = metadata.or_else(|_| std::fs::metadata(canonical.parent().unwrap_or(&canonical)))?;
        let disk = disk_of(sysroot, &metadata);
        let text = |file: &str| disk.as_deref().and_then(|disk| text_of(&below(sysroot, &disk.join(file))?));
        let knob = |name: &&str| {
            let value = text(&format!("queue/{name}"))?;
            Some(((*name).to_owned(), chosen(&value).to_owned()))
        };
        let tunables: BTreeMap<String, String> = TUNABLES.iter().filter_map(knob).collect();
        Ok(Identity {
            path: canonical.to_string_lossy().into_owned(),
            kind,
            serial: text("serial").or_else(|| text("device/serial")),
            model: text("device/model"),
            firmware: text("device/firmware_rev").or_else(|| text("device/rev")),
            logical_block_bytes: text("queue/logical_block_size").and_then(|bytes| bytes.parse().ok()),
            kernel: below(sysroot, &sysroot.join("proc/sys/kernel/osrelease"))
                .and_then(|path| text_of(&path))
                .unwrap_or_else(|| "unknown".into()),
            tunables_hash: hash_of(&tunables),
            tunables,
        })
    }

    /// In what the drive, kernel and settings of `now` are others, in words; nothing where they are the same.
    pub fn differences(&self, now: &Identity) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, was: String, is: String| {
            if was != is {
                found.push(format!("{what} was {was}, is {is}"));
            }
        };
        let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".into());
        let kind = |kind: Kind| match kind {
            Kind::File => "a file".to_owned(),
            Kind::BlockDevice => "a block device".to_owned(),
        };
        compare("the drive", kind(self.kind), kind(now.kind));
        compare("its serial number", told(&self.serial), told(&now.serial));
        if self.serial.is_none() && now.serial.is_none() {
            compare("its path", self.path.clone(), now.path.clone());
        }
        compare("its model", told(&self.model), told(&now.model));
        compare("its firmware", told(&self.firmware), told(&now.firmware));
        let bytes = |bytes: Option<u64>| told(&bytes.map(|bytes| format!("{bytes} bytes")));
        compare("its logical block", bytes(self.logical_block_bytes), bytes(now.logical_block_bytes));
        compare("the kernel", self.kernel.clone(), now.kernel.clone());
        let names =
            self.tunables.keys().chain(now.tunables.keys().filter(|k| !self.tunables.contains_key(*k)));
        for name in names {
            compare(name, told(&self.tunables.get(name).cloned()), told(&now.tunables.get(name).cloned()));
        }
        found
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self.tunables.keys().find(|name| !TUNABLES.contains(&name.as_str())) {
            return Err(format!("there is no setting {unknown:?} among drive.tunables"));
        }
        let hash = hash_of(&self.tunables);
        if hash != self.tunables_hash {
            return Err(format!("drive.tunables have the hash {hash}, not {}", self.tunables_hash));
        }
        let texts = [Some(&self.path), Some(&self.kernel), self.serial.as_ref(), self.model.as_ref()];
        if texts.into_iter().flatten().any(String::is_empty) {
            return Err("the drive's path, kernel, serial number or model is empty".into());
        }
        Ok(())
    }
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo; RFC 9923) over `NAME=VALUE` lines in the order of the names.
fn hash_of(tunables: &BTreeMap<String, String>) -> String {
    let lines: String = tunables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", lines.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The path without links; of a file that is not there, that of its directory and its name.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(directory.unwrap_or(Path::new(".")).canonicalize()?.join(name))
        }
        found => found,
    }
}

/// The directory in `/sys` of the whole disk below; `None` where there is none, as of a file system in memory.
fn disk_of(sysroot: &Path, metadata: &Metadata) -> Option<PathBuf> {
    let is_device = metadata.file_type().is_block_device();
    let device = if is_device { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let directory = below(sysroot, &sysroot.join(format!("sys/dev/block/{major}:{minor}")))?;
    match directory.join("partition").exists() {
        true => directory.parent().map(Path::to_path_buf),
        false => Some(directory),
    }
}

/// A path without links, unless these lead out of the root: what lies there is of another machine.
fn below(sysroot: &Path, path: &Path) -> Option<PathBuf> {
    let found = path.canonicalize().ok()?;
    found.starts_with(sysroot.canonicalize().ok()?).then_some(found)
}

fn text_of(path: &Path) -> Option<String> {
    // Of a copy of a machine's files, one may be a pipe, which would be waited for.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The word in brackets of a file that lists what may be chosen; the whole text where there is none.
fn chosen(text: &str) -> &str {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    word.unwrap_or(text)
}
