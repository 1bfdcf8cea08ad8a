//! The units of an image: those of any machine, for a drive that is only found when the image has booted.

use super::units::{DriveOfUnit, HARDENING, MEASURE, NODE, TUNE, USER, measure, node, tune_with};
use crate::claim::{FORMAT, LINK, PROFILE};

const DRIVE: &str = "lode-drive.service";
const FORMATTED: &str = "lode-format.service";

/// Every unit and drop-in, by its path below the root.
pub fn units(profile: &str, empty_drive: &str, head: &str) -> Vec<(String, String)> {
    let drive = DriveOfUnit::raw(LINK);
    let claim = format!("/usr/bin/lode-tune claim --profile {profile} --empty-drive {empty_drive}");
    let unit = |name: &str| format!("etc/systemd/system/{name}");
    // The unit of any machine, and what holds for an image only, beside it.
    let beside = |name: &str| format!("etc/systemd/system/{name}.d/10-image.conf");
    let only_with_drive = format!("ConditionPathExists={LINK}\n");
    vec![
        (unit(NODE), node(&[], &drive, head)),
        (
            beside(NODE),
            format!(
                "# {head}\n[Unit]\nAfter={DRIVE} {FORMATTED}\nWants={DRIVE} {FORMATTED}\n{only_with_drive}\n\
                 [Service]\nLimitMEMLOCK=1G\nLimitNOFILE=16384\n"
            ),
        ),
        (unit(TUNE), tune_with(&format!("--profile {PROFILE}"), head)),
        (beside(TUNE), format!("# {head}\n[Unit]\nAfter={DRIVE}\nWants={DRIVE}\n")),
        (unit(MEASURE), measure(&drive, head)),
        (beside(MEASURE), format!("# {head}\n[Unit]\nAfter={DRIVE}\nWants={DRIVE}\n{only_with_drive}")),
        (unit(DRIVE), found(&claim, head)),
        (unit(FORMATTED), formatted(&claim, head)),
        ("usr/lib/sysusers.d/lode.conf".to_owned(), format!("# {head}\nu {USER} - \"lode node\"\n")),
    ]
}

/// Looks at the machine at every boot, and finds the node's drive on it.
fn found(claim: &str, head: &str) -> String {
    format!(
        "# {head}\n\
         [Unit]\nDescription=Find lode's drive\nAfter=local-fs.target systemd-udev-settle.service systemd-udevd.service\n\
         Wants=systemd-udev-settle.service\nBefore={TUNE} {MEASURE} {FORMATTED} {NODE}\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         # A machine without a drive that may be used says so in the journal; its node does not start.\n\
         SuccessExitStatus=1\n\
         ExecStart={claim}\n\
         ExecStartPost=/usr/bin/udevadm control --reload\n\
         ExecStartPost=/usr/bin/udevadm trigger --settle --action=change --subsystem-match=block\n\
         StateDirectory=lode-tune\nRuntimeDirectory=lode\nRuntimeDirectoryMode=0755\nRuntimeDirectoryPreserve=yes\n\
         # What was measured goes with the drive that it was measured of.\n\
         ReadWritePaths=/run/udev /sys -/var/lib/lode\n\
         {HARDENING}CapabilityBoundingSet=CAP_DAC_OVERRIDE\nDevicePolicy=closed\nDeviceAllow=block-* r\n\
         IPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// Makes an empty drive a node's, after it was measured.
fn formatted(claim: &str, head: &str) -> String {
    format!(
        "# {head}\n\
         [Unit]\nDescription=Make lode's drive\nConditionPathExists={FORMAT}\nConditionPathExists={LINK}\n\
         After={DRIVE} {MEASURE}\nBefore={NODE}\n\n\
         [Service]\nType=oneshot\nUser={USER}\nGroup={USER}\n\
         ExecStart=/usr/bin/lode format {LINK}\n\
         # From now on it is a drive that has held data.\n\
         ExecStartPost=+{claim}\n\
         DevicePolicy=closed\nDeviceAllow={LINK} rw\nCapabilityBoundingSet=\nAmbientCapabilities=\n\
         ProtectKernelTunables=yes\nProtectProc=invisible\nRemoveIPC=yes\n\
         {HARDENING}IPAddressDeny=any\nRestrictAddressFamilies=none\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}
