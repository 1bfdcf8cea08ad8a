//! Rules of udev: settings of disks by serial number or by-id, of interfaces by address and driver; and who owns a
//! disk that is a node's drive.

use super::reason;
use super::units::{USER, drives_of};
use crate::change::{Place, Write};
use crate::checks::Context;
use crate::knob::Knob;
use crate::machine::drives::DriveId;

/// The rules; none where there are none.
pub fn render(knobs: &[Knob], cx: &Context, head: &str) -> Option<String> {
    let mut out = String::new();
    for knob in knobs {
        let rules: String = knob.change.writes.iter().filter_map(rule).collect();
        if !rules.is_empty() {
            out += &reason(knob);
            out += &rules;
        }
    }
    for drive in drives_of(cx).iter().filter(|drive| drive.is_raw()) {
        let id = drive.disk.as_ref().and_then(|disk| disk.id.known());
        if let Some(whose) = id.and_then(of_disk) {
            out += "# A node's drive is the node's.\n";
            out += &format!("{whose}, OWNER=\"{USER}\", GROUP=\"{USER}\", MODE=\"0600\"\n");
        }
    }
    (!out.is_empty()).then(|| format!("# {head}\n{out}"))
}

/// The rule that gives a drive to the node, and a link below `/dev` to it; `None` where no rule can name it.
pub fn of_node(id: &DriveId, link: &str) -> Option<String> {
    let link = link.strip_prefix("/dev/")?;
    let whose = of_disk(id)?;
    Some(format!("{whose}, OWNER=\"{USER}\", GROUP=\"{USER}\", MODE=\"0600\", SYMLINK+=\"{link}\"\n"))
}

fn rule(write: &Write) -> Option<String> {
    let value = &write.value;
    match &write.place {
        Place::Machine { .. } => None,
        Place::Drive { drive, file } => match of_disk(drive) {
            Some(whose) => Some(format!("{whose}, ATTR{{{file}}}=\"{value}\"\n")),
            None => Some(format!(
                "# {file} of {drive:?}: no rule can name this drive; lode-tune.service sets it\n"
            )),
        },
        Place::Disk { disk, file, .. } => Some(format!(
            "# {file} of {disk}: it has neither serial number nor id; lode-tune.service sets it\n"
        )),
        Place::Nic { address, driver, at, file } => {
            let driver = if driver.is_empty() { String::new() } else { format!(", DRIVERS==\"{driver}\"") };
            let whose = match at.as_deref().filter(|_| address.is_empty()) {
                Some(at) => format!("KERNELS==\"{}\"", Some(at).filter(|at| plain(at) && !at.contains(' '))?),
                None => format!("ATTR{{address}}==\"{}\"", Some(address).filter(|address| plain(address))?),
            };
            Some(format!(
                "ACTION==\"add|change\", SUBSYSTEM==\"net\", {whose}{driver}, ATTR{{{file}}}=\"{value}\"\n"
            ))
        }
        // Interrupts have no devices of their own; lode-tune.service and the script place them.
        Place::Interrupt { .. } => None,
    }
}

/// The part of a rule that says which disk; `None` where its id would not be taken literally.
fn of_disk(id: &DriveId) -> Option<String> {
    let (serial, namespace) = match id.0.rsplit_once('#') {
        Some((serial, namespace)) if namespace.bytes().all(|b| b.is_ascii_digit()) => {
            (serial, Some(namespace))
        }
        _ => (id.0.as_str(), None),
    };
    if !plain(serial) {
        return None;
    }
    let head = "ACTION==\"add|change\", SUBSYSTEM==\"block\", ENV{DEVTYPE}==\"disk\"";
    // A name under by-id begins with what kind of disk it is; udev's own rules have made the link by now.
    let by_id = ["nvme-", "scsi-", "ata-", "virtio-", "wwn-", "dm-", "md-", "usb-", "mmc-"];
    if by_id.iter().any(|kind| serial.starts_with(kind)) {
        return Some(format!("{head}, SYMLINK==\"*disk/by-id/{serial}*\""));
    }
    let worldwide = ["eui.", "naa.", "t10.", "uuid."];
    if worldwide.iter().any(|kind| serial.starts_with(kind)) {
        return Some(format!("{head}, ATTRS{{wwid}}==\"{serial}\""));
    }
    let namespace = namespace.map_or(String::new(), |number| format!(", ATTR{{nsid}}==\"{number}\""));
    Some(format!("{head}, ATTRS{{serial}}==\"{serial}\"{namespace}"))
}

/// Letters that mean themselves in a rule.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:+- ".contains(c))
}
