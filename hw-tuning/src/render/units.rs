//! systemd's units: the node, its slice, and the tuning at boot.

use std::collections::BTreeMap;
use std::path::Path;

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
const TUNE: &str = "lode-tune.service";
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
    let mut files = vec![
        (format!("etc/systemd/system/{NODE}"), node(&of_node, &drives_of(cx), head)),
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

/// The node's unit: nothing that it does not need. What it needs and others do not: io_uring, setting the CPUs of its
/// own threads, pinned memory, and its drive.
fn node(lines: &[&UnitLine], drives: &[NodeDrive], head: &str) -> String {
    let raw: Vec<String> = drives.iter().filter(|drive| drive.is_raw()).filter_map(device).collect();
    let data = raw.first().cloned().or_else(|| {
        let file = drives.first().map(|drive| drive.named.clone())?;
        file.starts_with('/').then_some(file)
    });
    let data = data.unwrap_or_else(|| DATA.to_owned());
    let mut own: String = lines.iter().map(|line| format!("{}\n", line.line)).collect();
    own += "DevicePolicy=closed\n";
    for device in &raw {
        own += &format!("DeviceAllow={device} rw\n");
    }
    let directory = std::path::Path::new(&data).parent().map(|directory| directory.display().to_string());
    if let Some(directory) = directory.filter(|directory| raw.is_empty() && directory != "/var/lib/lode") {
        own += &format!("ReadWritePaths={directory}\n");
    }
    // Without a raw drive the node sees no devices but those that every program has.
    own += if raw.is_empty() { "PrivateDevices=yes\n" } else { "" };
    let format = if raw.is_empty() { "" } else { " --no-format" };
    let note = if raw.is_empty() {
        ""
    } else {
        "# A raw drive is made a node's once, by hand: lode format DEVICE\n"
    };
    format!(
        "# {head}\n{note}\
         [Unit]\nDescription=lode, a key-value node\nAfter=network-online.target local-fs.target {TUNE}\n\
         Wants=network-online.target {TUNE}\n\n\
         [Service]\nType=notify\nNotifyAccess=main\nWatchdogSec=30s\nTimeoutStartSec=infinity\nUser={USER}\nGroup={USER}\n\
         Environment=LODE_LISTEN=127.0.0.1:7411\nEnvironmentFile=-/etc/lode/environment\n\
         ExecStart=/usr/bin/lode serve --data {data}{format} --listen ${{LODE_LISTEN}}\n\
         Restart=on-failure\nRestartSec=1s\nTimeoutStopSec=60s\nOOMScoreAdjust=-900\n{own}{HARDENING}\n\
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

const HARDENING: &str = "\
StateDirectory=lode
StateDirectoryMode=0700
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateUsers=yes
PrivateMounts=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
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
SystemCallFilter=io_uring_setup io_uring_enter io_uring_register sched_setaffinity sched_getaffinity
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
    format!(
        "# {head}\n\
         [Unit]\nDescription=Set this machine up for lode\nAfter=local-fs.target systemd-udev-settle.service systemd-sysctl.service\n\
         Wants=systemd-udev-settle.service\nBefore={NODE}\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         # What one machine does not take is said in the journal, and keeps no node from starting.\n\
         SuccessExitStatus=1\n\
         ExecStart=/usr/bin/lode-tune tune apply --profile {profile}{drives}\n{TUNE_HARDENING}\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

const TUNE_HARDENING: &str = "\
StateDirectory=lode-tune
StateDirectoryMode=0700
UMask=0077
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
PrivateIPC=yes
DevicePolicy=strict
ProtectClock=yes
DeviceAllow=
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
IPAddressDeny=any
RestrictAddressFamilies=none
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

/// A word of a unit's command line that means itself.
fn escaped(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,#=".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
