//! The drives: the disks under them, and the file systems between.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Context, queue};
use crate::knob::{Knob, Severity};
use crate::machine::drives::{Drive, DriveId};
use crate::probe::{Mount, Probe, absolute};

/// File systems that take no O_DIRECT, or only pretend; asked of a fixture tree, where nothing can be tried.
const BUFFERED_FILESYSTEMS: [&str; 4] = ["ramfs", "tmpfs", "9p", "overlay"];
/// In front of a serial number or a name under `/dev/disk/by-id`.
const BY_ID: &str = "id:";

/// What is known about one of the drives.
#[derive(Debug, Clone, Default)]
pub struct NodeDrive {
    /// As it was named.
    pub named: String,
    /// Bytes of the drive, where it exists.
    pub bytes: Option<u64>,
    /// The mount that it lies on, where it is a file.
    pub mount: Option<Mount>,
    /// Whether reads and writes can go past the page cache.
    pub direct: Option<bool>,
    /// The disk under it.
    pub disk: Option<Drive>,
}

/// All that are a node's.
#[derive(Debug)]
pub struct Found {
    /// In the order in which they were named, or of the disks' names.
    pub drives: Vec<NodeDrive>,
    /// Models and ids of the profile of which there is none.
    missing: Vec<String>,
    by_profile: bool,
}

impl Found {
    /// Those of the command line, or else those that the profile knows.
    pub fn find(cx: &Context, disks: &[Drive]) -> Found {
        if !cx.drives.is_empty() {
            let drives = cx.drives.iter().map(|named| NodeDrive::find(cx.probe, named, disks)).collect();
            return Found { drives, missing: Vec::new(), by_profile: false };
        }
        let choice = &cx.profile.drives;
        let is = |disk: &Drive, id: &String| {
            disk.id.known() == Some(&DriveId(id.clone())) || disk.by_id.contains(id)
        };
        let ours =
            |disk: &&Drive| choice.models.contains(&disk.model) || choice.ids.iter().any(|id| is(disk, id));
        let drives: Vec<NodeDrive> = disks.iter().filter(ours).map(NodeDrive::whole).collect();
        let no_such = choice.ids.iter().filter(|id| !disks.iter().any(|disk| is(disk, id)));
        let mut missing: Vec<String> = no_such.cloned().collect();
        if drives.is_empty() {
            missing.extend(choice.models.iter().map(|model| format!("any {model}")));
        }
        Found { drives, missing, by_profile: true }
    }

    /// Bytes of all of them; `None` where none is there.
    pub fn bytes(&self) -> Option<u64> {
        self.drives.iter().filter_map(|drive| drive.bytes).reduce(u64::saturating_add)
    }
}

impl NodeDrive {
    /// Whether it is a whole disk that nothing else uses: one that a node may be given.
    pub fn is_raw(&self) -> bool {
        self.mount.is_none() && self.disk.as_ref().is_some_and(|disk| disk.in_use.is_empty())
    }

    fn whole(disk: &Drive) -> NodeDrive {
        let named = disk.id.known().map_or_else(|| disk.name.clone(), |id| format!("{BY_ID}{id}"));
        NodeDrive {
            named,
            bytes: disk.bytes.known().copied(),
            mount: None,
            direct: Some(true),
            disk: Some(disk.clone()),
        }
    }

    /// Find the disk and the file system under a name: `id:...`, or a path, which need not exist yet.
    fn find(probe: &Probe, named: &str, disks: &[Drive]) -> NodeDrive {
        if let Some(id) = named.strip_prefix(BY_ID) {
            let same = |disk: &&Drive| {
                disk.id.known().is_some_and(|own| own.0 == id) || disk.by_id.iter().any(|name| name == id)
            };
            let disk = disks.iter().find(same);
            let found = disk.map(NodeDrive::whole).unwrap_or_default();
            return NodeDrive { named: named.to_owned(), ..found };
        }
        let path = absolute(Path::new(named)).unwrap_or_else(|| named.into());
        let inside = probe.path(&path.to_string_lossy());
        let disk_at = |directory: &Path| disks.iter().find(|disk| disk.directory == directory).cloned();
        let named = named.to_owned();
        let metadata = std::fs::metadata(&inside).ok();
        if let Some(metadata) = metadata.as_ref().filter(|m| m.file_type().is_block_device()) {
            let device = metadata.rdev();
            let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            let sectors = probe.number(&format!("/sys/dev/block/{number}/size"));
            let bytes = sectors.and_then(|sectors| sectors.checked_mul(512));
            let disk = probe.disk_of(&number).and_then(|directory| disk_at(&directory));
            return NodeDrive { named, bytes, mount: None, direct: Some(true), disk };
        }
        if let Some(disk) = by_device_name(probe, &path, disks) {
            return NodeDrive { named, ..NodeDrive::whole(disk) };
        }
        let mount = probe.mount_of(&path);
        let disk = mount.as_ref().and_then(|mount| disk_at(&probe.disk_of(&mount.device)?));
        let direct = if probe.is_live() {
            try_direct(&inside)
        } else {
            mount.as_ref().map(|mount| !BUFFERED_FILESYSTEMS.contains(&mount.filesystem.as_str()))
        };
        NodeDrive { named, bytes: metadata.filter(|m| m.is_file()).map(|m| m.len()), mount, direct, disk }
    }
}

/// In a copy of a machine's files there are no devices: a name under `/dev`, or a link to one, names the disk.
fn by_device_name<'a>(probe: &Probe, path: &Path, disks: &'a [Drive]) -> Option<&'a Drive> {
    path.strip_prefix("/dev").ok().filter(|_| !probe.is_live())?;
    let link = probe.link_text(&path.to_string_lossy());
    let name = link.as_deref().unwrap_or(path).file_name()?.to_str()?;
    disks.iter().find(|disk| disk.name == name)
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

pub fn knobs(cx: &Context, found: &Found) -> Vec<Knob> {
    let mut knobs = vec![drives(cx, found)];
    let mut seen: Vec<&str> = Vec::new();
    for drive in &found.drives {
        let target = drive.disk.as_ref().map_or(drive.named.as_str(), queue::target);
        // Two files on one disk: its queue is looked at once.
        let again = seen.contains(&target);
        knobs.push(direct_io(drive));
        if !again {
            seen.push(target);
            knobs.extend(queue::knobs(cx, drive));
        }
    }
    knobs
}

/// Whether the drives are there, and known by something that stays.
fn drives(cx: &Context, found: &Found) -> Knob {
    let named = |drive: &NodeDrive| {
        let disk = drive.disk.as_ref().map_or("no single disk".to_owned(), |disk| match disk.id.known() {
            Some(id) => format!("{} {id}", disk.name),
            None => format!("{} without an id", disk.name),
        });
        if drive.named.starts_with(BY_ID) { disk } else { format!("{} on {disk}", drive.named) }
    };
    let current: Vec<String> = found.drives.iter().map(named).collect();
    let why = "names of disks change between boots: what is set is set by serial number or by-id, \
               and a disk with neither is set until the next boot only";
    let wanted = "each known by a serial number or a name under /dev/disk/by-id";
    let current = if current.is_empty() { "none".to_owned() } else { current.join(", ") };
    let knob = Knob::ok("drives", current, wanted, why);
    if found.by_profile && found.drives.is_empty() && found.missing.is_empty() {
        let why = format!("the profile {} names no drives, and the command line none", cx.profile.name);
        return Knob::not_applicable("drives", why);
    }
    if !found.missing.is_empty() {
        let remedy =
            format!("there is not {}; name the node's drives by --drive", found.missing.join(", nor "));
        return knob.short(Severity::Warn, remedy);
    }
    let nameless = found.drives.iter().any(|d| d.disk.as_ref().is_some_and(|disk| disk.id.known().is_none()));
    let absent = found.drives.iter().find(|d| d.disk.is_none() && d.named.starts_with(BY_ID));
    if let Some(absent) = absent {
        let remedy = format!("no disk is known as {}; see `lode-tune inspect`", &absent.named[BY_ID.len()..]);
        return knob.short(Severity::Fatal, remedy);
    }
    let in_use =
        found.drives.iter().filter(|drive| drive.mount.is_none()).filter_map(|drive| drive.disk.as_ref());
    if let Some(disk) = in_use.into_iter().find(|disk| !disk.in_use.is_empty()) {
        let remedy = format!(
            "{} is in use ({}); name a drive that is not, or a file on it",
            disk.name,
            disk.in_use.join(", ")
        );
        return knob.short(Severity::Warn, remedy);
    }
    knob.unless(
        !nameless,
        Severity::Warn,
        "run `lode-tune tune apply` at every boot, or use a drive that says who it is",
    )
}

fn direct_io(drive: &NodeDrive) -> Knob {
    let on = drive.mount.as_ref().map_or("block device".to_owned(), |mount| {
        format!("{} on {}", mount.filesystem, mount.point.display())
    });
    let why = "without O_DIRECT every read and write is copied through the page cache, \
               which a node's memory cap does not see";
    let knob = match drive.direct {
        None => Knob::not_applicable("direct_io", format!("O_DIRECT could not be tried ({on})")),
        Some(true) => Knob::ok("direct_io", format!("yes ({on})"), "yes", why),
        Some(false) => Knob::ok("direct_io", format!("no ({on})"), "yes", why)
            .short(Severity::Warn, "put the drive on ext4 or xfs, or use a block device"),
    };
    knob.of(&drive.named)
}
