//! The kernel and the limits it puts on a process.

use super::human_bytes;
use crate::knob::{Knob, Severity};
use crate::probe::Probe;

/// Pinned memory that one shard's ring and registered buffers ask for, in bytes.
const MEMLOCK_PER_SHARD_BYTES: u64 = 2 << 20;
/// Open files that a node is comfortable with: one per connection, and a few.
const WANTED_FILES: u64 = 16_384;
/// Open files below which a node cannot serve even a small client pool.
const LEAST_FILES: u64 = 256;
/// Connections that may wait to be accepted.
const WANTED_BACKLOG: u64 = 1024;
/// `CAP_SYS_ADMIN` in `/proc/self/status`.
const CAP_SYS_ADMIN: u64 = 1 << 21;

pub fn knobs(probe: &Probe) -> Vec<Knob> {
    vec![kernel(probe), io_uring(probe), memlock(probe), nofile(probe), backlog(probe)]
}

fn kernel(probe: &Probe) -> Knob {
    let Some((major, minor)) = probe.kernel_version() else {
        return Knob::not_applicable("kernel", "the kernel's version cannot be read");
    };
    let why = "5.19 brings the io_uring features a node cannot do without; 6.1 deferred task run, \
               which halves its CPU per request";
    let knob = Knob::ok("kernel", format!("{major}.{minor}"), "6.1 or later", why);
    match (major, minor) {
        version if version < (5, 19) => knob.short(Severity::Fatal, "boot a kernel from 5.19 up"),
        version if version < (6, 1) => knob.short(Severity::Warn, "boot a kernel from 6.1 up"),
        _ => knob,
    }
}

fn io_uring(probe: &Probe) -> Knob {
    let why = "every read, write, send and receive of a node goes through io_uring";
    let remedy = "sysctl kernel.io_uring_disabled=0";
    match probe.number("/proc/sys/kernel/io_uring_disabled") {
        None if probe.kernel_version() < Some((6, 6)) => {
            Knob::ok("io_uring", "on (this kernel has no switch for it)", "on", why)
        }
        None => Knob::ok("io_uring", "absent", "on", why)
            .short(Severity::Fatal, "boot a kernel built with CONFIG_IO_URING"),
        Some(0) => Knob::ok("io_uring", "on", "on", why),
        Some(1) if may_administer(probe) => {
            let current = "on for privileged processes, of which this is one";
            Knob::ok("io_uring", current, "on", why).short(Severity::Warn, remedy)
        }
        Some(1) => {
            let current = "off for unprivileged processes";
            Knob::ok("io_uring", current, "on", why).short(Severity::Fatal, remedy)
        }
        Some(_) => Knob::ok("io_uring", "off", "on", why).short(Severity::Fatal, remedy),
    }
}

fn may_administer(probe: &Probe) -> bool {
    let status = probe.text("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_SYS_ADMIN != 0)
}

fn memlock(probe: &Probe) -> Knob {
    let Some(limit) = probe.soft_limit("Max locked memory") else {
        return Knob::not_applicable("memlock", "the limit cannot be read");
    };
    let cpus = probe.online_cpus().unwrap_or(1);
    let wanted = cpus * MEMLOCK_PER_SHARD_BYTES;
    let why = "registered buffers are pinned, and the limit holds for all processes of the user together; \
               without them a read costs about 5 % more CPU";
    let wanted_text = format!("{} ({cpus} shards)", human_bytes(wanted));
    Knob::ok("memlock", human_bytes(limit), &wanted_text, why).unless(
        limit >= wanted,
        Severity::Warn,
        "ulimit -l, LimitMEMLOCK= of the unit, or memlock in /etc/security/limits.conf",
    )
}

fn nofile(probe: &Probe) -> Knob {
    let Some(limit) = probe.soft_limit("Max open files") else {
        return Knob::not_applicable("nofile", "the limit cannot be read");
    };
    let current = if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
    let why = "a connection is an open file; a node at the limit refuses new clients";
    let severity = if limit < LEAST_FILES { Severity::Fatal } else { Severity::Warn };
    Knob::ok("nofile", current, &format!("{WANTED_FILES} or more"), why).unless(
        limit >= WANTED_FILES,
        severity,
        format!("ulimit -n {WANTED_FILES}, or LimitNOFILE= of the unit"),
    )
}

fn backlog(probe: &Probe) -> Knob {
    let Some(limit) = probe.number("/proc/sys/net/core/somaxconn") else {
        return Knob::not_applicable("somaxconn", "the limit cannot be read");
    };
    let why = "when many clients reconnect at once, those beyond the backlog wait a second for a retry";
    Knob::ok("somaxconn", limit.to_string(), &format!("{WANTED_BACKLOG} or more"), why).unless(
        limit >= WANTED_BACKLOG,
        Severity::Warn,
        format!("sysctl net.core.somaxconn={WANTED_BACKLOG}"),
    )
}
