//! The kernel and the limits it puts on a process.

use super::judge::{OneFile, Rule};
use super::{Context, Facts, human_bytes};
use crate::change::{UnitLine, Write};
use crate::knob::{Knob, Severity};
use crate::probe::Probe;
use crate::profile::Want;
use crate::render::units::NODE;

/// Pinned memory that one shard's ring and registered buffers ask for, in bytes.
const MEMLOCK_PER_SHARD_BYTES: u64 = 2 << 20;
/// Open files below which a node cannot serve even a small client pool.
const LEAST_FILES: u64 = 256;
/// `CAP_SYS_ADMIN` in `/proc/self/status`.
const CAP_SYS_ADMIN: u64 = 1 << 21;

pub fn knobs(cx: &Context, facts: &Facts) -> Vec<Knob> {
    let aio = OneFile::sysctl(
        "aio_max_nr",
        "fs.aio-max-nr",
        "a node uses io_uring and none of these; tools that measure drives beside it (fio's libaio) fail without",
    );
    vec![kernel(cx.probe), io_uring(cx), memlock(cx, facts), nofile(cx), aio.number(cx, Rule::AtLeast, None)]
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

fn io_uring(cx: &Context) -> Knob {
    let probe = cx.probe;
    let file = "/proc/sys/kernel/io_uring_disabled";
    let why = "every read, write, send and receive of a node goes through io_uring";
    let remedy = "sysctl kernel.io_uring_disabled=0";
    let value = match probe.read_number(file) {
        Ok(value) => Some(value),
        Err(crate::probe::Unread::Absent) => None,
        Err(crate::probe::Unread::Refused(why)) => return Knob::not_applicable("io_uring", why),
    };
    let knob = match value {
        None if probe.kernel_version() < Some((6, 6)) => {
            return Knob::ok("io_uring", "on (this kernel has no switch for it)", "on", why);
        }
        None => {
            return Knob::ok("io_uring", "absent", "on", why)
                .short(Severity::Fatal, "boot a kernel built with CONFIG_IO_URING");
        }
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
    };
    // A node does not run without it, whatever a profile says; only the change is the profile's to ask for.
    match cx.profile.word("io_uring") {
        Some(_) => knob.written([Write::machine(file, "0")]),
        None => knob,
    }
}

fn may_administer(probe: &Probe) -> bool {
    let status = probe.text("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_SYS_ADMIN != 0)
}

/// A line of the node's unit.
fn of_node(line: String) -> UnitLine {
    UnitLine { unit: NODE, section: "Service", line }
}

/// The limit that the node has: what its unit says, or else that of this process, which may start one; and words for whose it is.
fn limit(cx: &Context, of_unit: &str, of_process: &str) -> Option<(u64, &'static str)> {
    let of_unit = cx.probe.limit_of_unit(of_unit).map(|limit| (limit, " (the node's unit)"));
    of_unit.or_else(|| Some((cx.probe.soft_limit(of_process)?, "")))
}

fn memlock(cx: &Context, facts: &Facts) -> Knob {
    let Some((limit, whose)) = limit(cx, "LimitMEMLOCK", "Max locked memory") else {
        return Knob::not_applicable("memlock", "the limit of this process cannot be read");
    };
    let cpus = facts.online.len().max(1) as u64;
    let wanted = match cx.profile.want("memlock") {
        Want::Number(bytes) => *bytes,
        Want::Auto => cpus * MEMLOCK_PER_SHARD_BYTES,
        _ => {
            return Knob::not_applicable(
                "memlock",
                format!("the profile {} leaves it as it is", cx.profile.name),
            );
        }
    };
    let why = "registered buffers are pinned, and the limit holds for all processes of the user together; \
               without them a read costs about 5 % more CPU";
    let wanted_text = format!("{} ({cpus} shards)", human_bytes(wanted));
    Knob::ok("memlock", format!("{}{whose}", human_bytes(limit)), &wanted_text, why)
        .unless(
            limit >= wanted,
            Severity::Warn,
            "ulimit -l, LimitMEMLOCK= of the unit, or memlock in /etc/security/limits.conf",
        )
        .with_units([of_node(format!("LimitMEMLOCK={wanted}"))])
}

fn nofile(cx: &Context) -> Knob {
    let Some((limit, whose)) = limit(cx, "LimitNOFILE", "Max open files") else {
        return Knob::not_applicable("nofile", "the limit of this process cannot be read");
    };
    let current = if limit == u64::MAX { format!("unlimited{whose}") } else { format!("{limit}{whose}") };
    let why = "a connection is an open file; a node at the limit refuses new clients";
    let wanted = cx.profile.number("nofile");
    let knob = Knob::ok("nofile", current, &format!("{} or more", wanted.unwrap_or(LEAST_FILES)), why);
    let Some(wanted) = wanted else {
        return knob.unless(limit >= LEAST_FILES, Severity::Fatal, format!("ulimit -n {LEAST_FILES}"));
    };
    let severity = if limit < LEAST_FILES { Severity::Fatal } else { Severity::Warn };
    knob.unless(limit >= wanted, severity, format!("ulimit -n {wanted}, or LimitNOFILE= of the unit"))
        .with_units([of_node(format!("LimitNOFILE={wanted}"))])
}
