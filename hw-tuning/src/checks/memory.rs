//! Memory: how much, and what the kernel does behind a node's back.

use super::judge::{OneFile, Rule};
use super::{Context, Facts, human_bytes};
use crate::change::Place;
use crate::knob::{Knob, Severity};
use crate::probe::Probe;

/// Drive bytes per byte of memory: 64 GiB for 1.92 TB, so that the index of 1 KiB records fits.
const DRIVE_BYTES_PER_MEMORY_BYTE: u64 = 28;
/// Memory that a node needs for buffers and cache before the first record.
const LEAST_MEMORY_BYTES: u64 = 512 << 20;
/// The part of memory that `auto` keeps free for the kernel, with these bounds in KiB.
const FREE_PART: u64 = 200;
const LEAST_FREE_KIB: u64 = 64 << 10;
const MOST_FREE_KIB: u64 = 1 << 20;

pub fn knobs(cx: &Context, facts: &Facts, drive_bytes: Option<u64>) -> Vec<Knob> {
    vec![
        memory(cx.probe, drive_bytes),
        swappiness(cx),
        huge_pages(cx),
        defrag(cx),
        // After the pages above, which have the kernel work it out anew.
        min_free(cx),
        OneFile::sysctl(
            "huge_pages",
            "vm.nr_hugepages",
            "a node takes no pages of this reserve, so they are memory that nobody uses",
        )
        .number(cx, Rule::Exactly, None),
        of_numa(
            cx,
            facts,
            OneFile::sysctl(
                "numa_balancing",
                "kernel.numa_balancing",
                "the kernel unmaps pages to learn who uses them: faults on the shard's thread, which is pinned anyway",
            ),
        ),
        of_numa(
            cx,
            facts,
            OneFile::sysctl(
                "zone_reclaim_mode",
                "vm.zone_reclaim_mode",
                "a thread that finds its node's memory full reclaims pages there, rather than take one from the next",
            ),
        ),
    ]
}

fn of_numa(cx: &Context, facts: &Facts, knob: OneFile) -> Knob {
    if facts.numa_nodes < 2 {
        return Knob::not_applicable(knob.name, "the memory is all at one node");
    }
    knob.number(cx, Rule::Exactly, None)
}

fn memory(probe: &Probe, drive_bytes: Option<u64>) -> Knob {
    let Some(total) = probe.memory_bytes("MemTotal") else {
        return Knob::not_applicable("memory", "the size of memory cannot be read");
    };
    let for_index = drive_bytes.map(|bytes| bytes / DRIVE_BYTES_PER_MEMORY_BYTE);
    let wanted = LEAST_MEMORY_BYTES.max(for_index.unwrap_or(0));
    let why = match drive_bytes {
        Some(bytes) => format!("the index of a drive of {} is held in memory", human_bytes(bytes)),
        None => "buffers and cache; the drive is not there yet, so its index is not counted".to_owned(),
    };
    let severity = if total < LEAST_MEMORY_BYTES { Severity::Fatal } else { Severity::Warn };
    Knob::ok("memory", human_bytes(total), &format!("{} or more", human_bytes(wanted)), &why).unless(
        total >= wanted,
        severity,
        "add memory, use a smaller drive, or store larger records",
    )
}

fn swappiness(cx: &Context) -> Knob {
    // The first line is the heading; a machine without swap has no other.
    let swaps = cx.probe.text("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return Knob::not_applicable("swappiness", "there is no swap");
    }
    let why =
        "a swapped-out leaf of the index turns a memory access into a device read on the shard's thread";
    OneFile::sysctl("swappiness", "vm.swappiness", why).number(cx, Rule::AtMost, None)
}

fn min_free(cx: &Context) -> Knob {
    let total_kib = cx.probe.memory_bytes("MemTotal").map(|bytes| bytes / 1024);
    let auto = total_kib.map(|kib| (kib / FREE_PART).clamp(LEAST_FREE_KIB, MOST_FREE_KIB));
    // On a machine this small the reserve would be memory that the node needs.
    let auto = auto.filter(|kib| total_kib.is_some_and(|total| kib * 20 <= total));
    let why = "packets come in where no thread can wait for memory; without a reserve they are dropped \
               while the kernel reclaims";
    OneFile::sysctl("min_free_kbytes", "vm.min_free_kbytes", why).number(cx, Rule::AtLeast, auto)
}

fn huge_pages(cx: &Context) -> Knob {
    let why =
        "with `always` the kernel compacts memory while a request waits, and small allocations grow to 2 MiB";
    let file = "/sys/kernel/mm/transparent_hugepage/enabled";
    let knob = OneFile::machine("transparent_huge_pages", file, why, "this kernel has none");
    let others: &[&str] = match cx.profile.word("transparent_huge_pages") {
        Some("madvise") => &["never"],
        _ => &[],
    };
    let mut found = knob.word(cx, others);
    // The kernel works its reserve out anew when these pages are switched.
    for write in &mut found.change.writes {
        write.also_moves.push(Place::Machine { file: "/proc/sys/vm/min_free_kbytes".to_owned() });
    }
    let parameter = found.change.writes.first().map(|write| format!("transparent_hugepage={}", write.value));
    found.booted(parameter)
}

fn defrag(cx: &Context) -> Knob {
    let why = "how long a thread that touches new memory may be held up to make a huge page of it";
    let file = "/sys/kernel/mm/transparent_hugepage/defrag";
    let others: &[&str] = match cx.profile.word("transparent_huge_pages_defrag") {
        Some("defer+madvise") => &["madvise", "defer", "never"],
        _ => &[],
    };
    OneFile::machine("transparent_huge_pages_defrag", file, why, "this kernel has none").word(cx, others)
}
