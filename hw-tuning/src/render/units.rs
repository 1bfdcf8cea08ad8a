//! systemd's units: the node, its slice, the tuning at every boot, and the measurement at the first.

use std::collections::BTreeMap;
use std::path::Path;

use lode_net::io_properties::{Kind, default_path};

use crate::change::UnitLine;
use crate::checks::{self, Context, NodeDrive};
use crate::knob::Knob;
use crate::probe::absolute;

/// The node.
pub const NODE: &str = "lode.service";
/// What the node runs in.
pub const SLICE: &str = "lode.slice";
/// Who the node runs as.
pub const USER: &str = "lode";
pub(super) const TUNE: &str = "lode-tune.service";
pub(super) const MEASURE: &str = "lode-measure.service";
/// The node's drive, where none was named by a path that means the same everywhere.
const DATA: &str = "/var/lib/lode/drive.lode";

/// A node's drives, as the checks have them.
pub fn drives_of(cx: &Context) -> Vec<NodeDrive> {
    checks::node_drives(cx)
}

/// Every unit and drop-in, by its path below the root.
pub fn render(knobs: &[Knob], cx: &Context, head: &str) -> Vec<(String, String)> {
    let mut by_unit: BTreeMap<&str, Vec<&UnitLine>> = BTreeMap::new();
    for line in knobs.iter().flat_map(|knob| &knob.change.units) {
        let lines = by_unit.entry(line.unit).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let of_node: Vec<&UnitLine> = by_unit.remove(NODE).unwrap_or_default();
    let drive = DriveOfUnit::of(&drives_of(cx));
    let mut files = vec![
        (format!("etc/systemd/system/{NODE}"), node(&of_node, &drive, head)),
        (format!("etc/systemd/system/{MEASURE}"), measure(&drive, head)),
        (format!("etc/systemd/system/{TUNE}"), tune(cx, head)),
        ("usr/lib/sysusers.d/lode.conf".to_owned(), format!("# {head}\nu {USER} - \"lode node\"\n")),
    ];
    for (unit, lines) in by_unit {
        let path = match unit {
            SLICE => format!("etc/systemd/system/{SLICE}"),
            other => format!("etc/systemd/system/{other}.d/90-lode.conf"),
        };
        let mut text = format!("# {head}\n");
        if unit == SLICE {
            text += "[Unit]\nDescription=CPUs of lode's own\n\n";
        }
        // All lines of one unit are of one section.
        text += &lines.first().map_or(String::new(), |line| format!("[{}]\n", line.section));
        lines.iter().for_each(|line| text += &format!("{}\n", line.line));
        files.push((path, text));
    }
    files
}

/// The drive of the node's unit, and what a unit needs to reach it.
pub(super) struct DriveOfUnit {
    /// The drive, by a name that stays.
    data: String,
    /// Whether it is a whole disk.
    is_raw: bool,
    /// Lines of a unit's section `Service`.
    access: String,
}

impl DriveOfUnit {
    /// A whole disk by this name.
    pub(super) fn raw(name: &str) -> DriveOfUnit {
        let access = format!("DevicePolicy=closed\nDeviceAllow={name} rw\n");
        DriveOfUnit { data: name.to_owned(), is_raw: true, access }
    }

    fn of(drives: &[NodeDrive]) -> DriveOfUnit {
        let raw: Vec<String> = drives.iter().filter(|drive| drive.is_raw()).filter_map(device).collect();
        let data = raw.first().cloned().or_else(|| {
            let file = drives.first().map(|drive| drive.named.clone())?;
            file.starts_with('/').then_some(file)
        });
        let data = data.unwrap_or_else(|| DATA.to_owned());
        let mut access = "DevicePolicy=closed\n".to_owned();
        for device in &raw {
            access += &format!("DeviceAllow={device} rw\n");
        }
        let directory = Path::new(&data).parent().map(|directory| directory.display().to_string());
        if let Some(directory) = directory.filter(|directory| raw.is_empty() && directory != "/var/lib/lode")
        {
            access += &format!("ReadWritePaths={directory}\n");
        }
        // Without a raw drive there are no devices to be seen but those that every program has.
        access += if raw.is_empty() { "PrivateDevices=yes\n" } else { "" };
        DriveOfUnit { data, is_raw: !raw.is_empty(), access }
    }
}

/// The node's unit: nothing that it does not need. What it needs and others do not: io_uring, setting the CPUs of its
/// own threads, pinned memory, and its drive.
pub(super) fn node(lines: &[&UnitLine], drive: &DriveOfUnit, head: &str) -> String {
    let own: String = lines.iter().map(|line| format!("{}\n", line.line)).collect();
    let DriveOfUnit { data, is_raw, access } = drive;
    let format = if *is_raw { " --no-format" } else { "" };
    let note =
        if *is_raw { "# A raw drive is made a node's once, by hand: lode format DEVICE\n" } else { "" };
    format!(
        "# {head}\n{note}\
         [Unit]\nDescription=lode, a key-value node\nAfter=network-online.target local-fs.target {TUNE} {MEASURE}\n\
         Wants=network-online.target {TUNE} {MEASURE}\n\n\
         [Service]\nType=notify\nNotifyAccess=main\nWatchdogSec=30s\nTimeoutStartSec=infinity\nUser={USER}\nGroup={USER}\n\
         Environment=LODE_LISTEN=127.0.0.1:7411\nEnvironmentFile=-/etc/lode/environment\n\
         ExecStart=/usr/bin/lode serve --data {data}{format} --listen ${{LODE_LISTEN}}\n\
         Restart=on-failure\nRestartSec=1s\nTimeoutStopSec=60s\nOOMScoreAdjust=-900\n{own}{access}{HARDENING}{RING_HARDENING}\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// The measurement, at the first boot: where its file is not there yet, after the tuning and before the node.
pub(super) fn measure(drive: &DriveOfUnit, head: &str) -> String {
    let DriveOfUnit { data, is_raw, access } = drive;
    let kind = if *is_raw { Kind::BlockDevice } else { Kind::File };
    let output = default_path(kind, Path::new(data));
    let output = output.display();
    format!(
        "# {head}\n\
         # To measure anew, as after an upgrade of the kernel: rm {output}\n\
         # LODE_MEASURE_OPTIONS in the environment, or in /etc/lode/environment, is added: --precondition, or --point=0.2\n\
         [Unit]\nDescription=Measure lode's drive\nConditionPathExists=!{output}\n\
         After=local-fs.target {TUNE}\nWants={TUNE}\nBefore={NODE}\n\n\
         [Service]\nType=oneshot\nUser={USER}\nGroup={USER}\n\
         # A drive that holds data is not written: that is said in the journal, and the node goes by its own values.\n\
         SuccessExitStatus=2\nEnvironmentFile=-/etc/lode/environment\n\
         ExecStart=/usr/bin/lode-tune measure --drive {data} --output {output} $LODE_MEASURE_OPTIONS\n{access}{HARDENING}{RING_HARDENING}\
         IPAddressDeny=any\nRestrictAddressFamilies=none\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// The device of a drive that is a whole disk, by a name that stays.
fn device(drive: &NodeDrive) -> Option<String> {
    let disk = drive.disk.as_ref()?;
    if drive.named.starts_with("/dev/disk/by-id/") {
        return Some(drive.named.clone());
    }
    Some(
        disk.by_id
            .first()
            .map_or_else(|| format!("/dev/{}", disk.name), |name| format!("/dev/disk/by-id/{name}")),
    )
}

/// What no unit needs.
pub(super) const HARDENING: &str = "\
StateDirectoryMode=0700
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring @chown
";

/// What further nobody needs who works on a drive with a ring; and the ring.
const RING_HARDENING: &str = "\
StateDirectory=lode
CapabilityBoundingSet=
AmbientCapabilities=
PrivateUsers=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
SystemCallFilter=io_uring_setup io_uring_enter io_uring_register sched_setaffinity sched_getaffinity
";

/// What further the tuning does not need, which changes the kernel's settings and those of network interfaces.
const TUNE_HARDENING: &str = "\
StateDirectory=lode-tune
CapabilityBoundingSet=CAP_NET_ADMIN
DevicePolicy=closed
DeviceAllow=
IPAddressDeny=any
RestrictAddressFamilies=none
";

/// The tuning at boot: once, before the node, with nothing but the right to set.
fn tune(cx: &Context, head: &str) -> String {
    // A unit begins in the root directory: what was said of the directory that this runs in, is something else there.
    let stays = |drive: &str| drive.starts_with('/') || drive.starts_with("id:");
    let named = |drive: &String| if stays(drive) { drive.clone() } else { DATA.to_owned() };
    let drives: String =
        cx.drives.iter().map(|drive| format!(" --drive {}", escaped(&named(drive)))).collect();
    let file = Path::new(cx.profile_name);
    let profile = match absolute(file).filter(|_| file.extension().is_some()) {
        Some(path) => escaped(&path.to_string_lossy()),
        None => escaped(cx.profile_name),
    };
    tune_with(&format!("--profile {profile}{drives}"), head)
}

pub(super) fn tune_with(arguments: &str, head: &str) -> String {
    format!(
        "# {head}\n\
         [Unit]\nDescription=Set this machine up for lode\nAfter=local-fs.target systemd-udev-settle.service systemd-sysctl.service\n\
         Wants=systemd-udev-settle.service\nBefore={NODE}\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         # What one machine does not take is said in the journal, and keeps no node from starting.\n\
         SuccessExitStatus=1\n\
         ExecStart=/usr/bin/lode-tune tune apply {arguments}\n{HARDENING}{TUNE_HARDENING}\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// A word of a unit's command line that means itself.
fn escaped(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,#=".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
