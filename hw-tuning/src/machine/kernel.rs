//! The kernel, and what the io_uring of its version can do.

use serde::Serialize;

use super::Known;
use crate::probe::Probe;

/// What a node uses of io_uring, and the first kernel that has it.
const FEATURES: [(&str, (u32, u32)); 6] = [
    ("registered_ring", (5, 18)),
    ("multishot_accept", (5, 19)),
    ("cooperative_task_run", (5, 19)),
    ("multishot_receive", (6, 0)),
    ("deferred_task_run", (6, 1)),
    ("batched_wait", (6, 12)),
];

/// The kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Its release.
    pub release: Known<String>,
    /// What it was booted with.
    pub command_line: Known<String>,
    /// io_uring.
    pub io_uring: IoUring,
}

/// What is known of io_uring without asking for a ring.
#[derive(Debug, Serialize)]
pub struct IoUring {
    /// `kernel.io_uring_disabled`: 0 for all, 1 for privileged processes only, 2 for none.
    pub disabled: Known<u64>,
    /// What a node uses of it, and whether a kernel of this version has it.
    pub features: Known<Vec<Feature>>,
}

/// One feature.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// Whether a kernel of this version has it.
    pub present: bool,
    /// The first version that has it.
    pub since: String,
}

pub fn read(probe: &Probe) -> Kernel {
    let version = probe.kernel_version();
    let features = version.map(|version| {
        let feature = |&(name, since): &(&'static str, (u32, u32))| Feature {
            name,
            present: version >= since,
            since: format!("{}.{}", since.0, since.1),
        };
        FEATURES.iter().map(feature).collect()
    });
    let release = probe.text("/proc/sys/kernel/osrelease");
    Kernel {
        release: Known::or(release, "/proc/sys/kernel/osrelease cannot be read"),
        command_line: Known::or(probe.text("/proc/cmdline"), "/proc/cmdline cannot be read"),
        io_uring: IoUring {
            disabled: Known::or(
                probe.number("/proc/sys/kernel/io_uring_disabled"),
                "no switch: a kernel before 6.6, or one without io_uring",
            ),
            features: Known::or(features, "the kernel's version cannot be read"),
        },
    }
}

impl Kernel {
    pub(super) fn to_text(&self) -> String {
        let features = match &self.io_uring.features {
            Known::Is(list) => {
                let yes = |f: &Feature| format!("{} {}", f.name, if f.present { "yes" } else { "no" });
                list.iter().map(yes).collect::<Vec<_>>().join(", ")
            }
            Known::Not(why) => format!("not known ({why})"),
        };
        format!(
            "kernel: {}; command line: {}\nio_uring: disabled {}; by its version: {features}\n",
            self.release, self.command_line, self.io_uring.disabled
        )
    }
}
