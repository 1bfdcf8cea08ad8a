//! Fixture trees: a good machine, and one change to it at a time.

use std::fs;
use std::path::Path;

use super::*;
use crate::knob::Severity;

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// A machine with nothing to improve.
    fn good() -> Machine {
        let machine = Machine { root: tempfile::tempdir().unwrap() };
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.8.0-31-generic\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            20000                20000                files     \n\
                 Max locked memory         8388608              8388608              bytes     \n",
            ),
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n"),
            ("proc/swaps", "Filename\tType\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("proc/self/mountinfo", "22 1 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p1 rw\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/smt/active", "0\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/devices/pci/nvme0n1/nvme0n1p1/partition", "1\n"),
            ("sys/devices/pci/nvme0n1/queue/logical_block_size", "512\n"),
            ("sys/devices/pci/nvme0n1/queue/rotational", "0\n"),
            ("sys/devices/pci/nvme0n1/queue/scheduler", "[none] mq-deadline\n"),
            ("sys/devices/pci/nvme0n1/queue/write_cache", "write through\n"),
            ("sys/devices/pci/nvme0n1/queue/nr_requests", "1023\n"),
            ("sys/devices/pci/nvme0n1/queue/read_ahead_kb", "128\n"),
        ] {
            machine.set(path, text);
        }
        let links = machine.root.path().join("sys/dev/block");
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink("../../devices/pci/nvme0n1/nvme0n1p1", links.join("259:1")).unwrap();
        machine
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn with(self, path: &str, text: &str) -> Machine {
        self.set(path, text);
        self
    }

    fn without(self, path: &str) -> Machine {
        fs::remove_file(self.root.path().join(path)).unwrap();
        self
    }

    fn knobs(&self) -> Vec<Knob> {
        all(&Probe::new(self.root.path()), Path::new("/var/lib/lode/drive.lode"))
    }

    fn knob(&self, name: &str) -> Knob {
        self.knobs().into_iter().find(|knob| knob.name == name).unwrap_or_else(|| panic!("no knob {name}"))
    }

    fn severity(&self, name: &str) -> Severity {
        self.knob(name).severity
    }
}

#[test]
fn nothing_is_wrong_with_a_good_machine() {
    for knob in Machine::good().knobs() {
        let fine = matches!(knob.severity, Severity::Ok | Severity::NotApplicable);
        assert!(fine && knob.remedy.is_empty(), "{knob:?}");
        assert!(!knob.why.is_empty(), "{knob:?}");
    }
}

/// File, what to write into it, and what is then found; one change for the worse each.
const WORSE: [(&str, &str, &str, Severity); 18] = [
    ("proc/sys/kernel/osrelease", "5.15.0", "kernel", Severity::Fatal),
    ("proc/sys/kernel/osrelease", "5.19.17-x", "kernel", Severity::Warn),
    ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", Severity::Fatal),
    ("proc/sys/kernel/io_uring_disabled", "2", "io_uring", Severity::Fatal),
    ("proc/sys/net/core/somaxconn", "128", "somaxconn", Severity::Warn),
    ("proc/meminfo", "MemTotal: 262144 kB", "memory", Severity::Fatal),
    ("proc/swaps", "Filename\n/swapfile", "swappiness", Severity::Warn),
    ("sys/devices/system/cpu/online", "0", "cores", Severity::Warn),
    ("sys/fs/cgroup/cpu.max", "50000 100000", "cpu_quota", Severity::Warn),
    ("sys/devices/system/cpu/smt/active", "1", "smt", Severity::Warn),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave", "governor", Severity::Warn),
    (CLOCK, "hpet", "clocksource", Severity::Warn),
    (HUGE_PAGES, "[always] madvise never", "transparent_huge_pages", Severity::Warn),
    ("sys/devices/pci/nvme0n1/queue/logical_block_size", "16384", "block_size", Severity::Fatal),
    ("sys/devices/pci/nvme0n1/queue/rotational", "1", "rotational", Severity::Warn),
    ("sys/devices/pci/nvme0n1/queue/scheduler", "none [mq-deadline]", "scheduler", Severity::Warn),
    ("sys/devices/pci/nvme0n1/queue/write_cache", "write back", "write_cache", Severity::Warn),
    ("sys/devices/pci/nvme0n1/queue/nr_requests", "32", "nr_requests", Severity::Warn),
];
const CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";

#[test]
fn each_change_for_the_worse_is_found_and_no_other() {
    for (path, text, name, severity) in WORSE {
        let knobs = Machine::good().with(path, text).knobs();
        let worse: Vec<_> = knobs.iter().filter(|knob| knob.severity >= Severity::Warn).collect();
        let found: Vec<_> = worse.iter().map(|knob| (knob.name, knob.severity)).collect();
        assert_eq!(found, [(name, severity)], "after {path} = {text}");
        assert!(!worse[0].remedy.is_empty(), "{:?}", worse[0]);
    }
}

#[test]
fn a_process_below_its_limits_is_told_so() {
    let limits = |files: &str, memlock: &str| {
        let text = format!("Max open files {files} 9 files\nMax locked memory {memlock} 9 bytes\n");
        Machine::good().with("proc/self/limits", &text)
    };
    assert_eq!(limits("16384", "8388608").severity("nofile"), Severity::Ok);
    assert_eq!(limits("1024", "8388608").severity("nofile"), Severity::Warn);
    assert_eq!(limits("64", "8388608").severity("nofile"), Severity::Fatal);
    assert_eq!(limits("unlimited", "unlimited").severity("memlock"), Severity::Ok);
    assert_eq!(limits("16384", "65536").severity("memlock"), Severity::Warn);
}

#[test]
fn what_the_machine_does_not_tell_is_not_guessed() {
    let bare = Machine { root: tempfile::tempdir().unwrap() };
    for knob in bare.knobs() {
        // Without even a kernel version, the switch for io_uring counts as one from before it.
        if knob.name != "io_uring" {
            assert_eq!(knob.severity, Severity::NotApplicable, "{knob:?}");
        }
    }
    let no_switch = Machine::good().without("proc/sys/kernel/io_uring_disabled");
    assert_eq!(no_switch.severity("io_uring"), Severity::Fatal);
    let older = no_switch.with("proc/sys/kernel/osrelease", "6.1.0");
    assert_eq!(older.severity("io_uring"), Severity::Ok);
    let virtual_machine = Machine::good().without("sys/devices/system/cpu/smt/active");
    assert_eq!(virtual_machine.severity("smt"), Severity::NotApplicable);
}

#[test]
fn a_privileged_process_may_use_io_uring_where_others_may_not() {
    let machine = Machine::good()
        .with("proc/sys/kernel/io_uring_disabled", "1")
        .with("proc/self/status", "CapEff:\t000001ffffffffff\n");
    assert_eq!(machine.severity("io_uring"), Severity::Warn);
}

#[test]
fn a_drive_on_tmpfs_is_buffered_and_has_no_disk() {
    let machine = Machine::good().with(
        "proc/self/mountinfo",
        "22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n23 22 0:40 / /var rw - tmpfs tmpfs rw\n",
    );
    assert_eq!(machine.severity("direct_io"), Severity::Warn);
    let scheduler = machine.knob("scheduler");
    assert_eq!(scheduler.severity, Severity::NotApplicable);
    assert!(scheduler.why.contains("tmpfs"), "{scheduler:?}");
}

#[test]
fn read_ahead_matters_only_through_the_page_cache() {
    let queue = "sys/devices/pci/nvme0n1/queue/read_ahead_kb";
    let direct = Machine::good().with(queue, "8192");
    assert_eq!(direct.severity("read_ahead"), Severity::NotApplicable);
    let buffered = direct.with("proc/self/mountinfo", "22 1 259:1 / / rw - overlay overlay rw\n");
    assert_eq!(buffered.severity("read_ahead"), Severity::Warn);
}

#[test]
fn the_memory_wanted_grows_with_the_drive() {
    let machine = Machine::good();
    assert!(machine.knob("memory").why.contains("not there yet"));
    let drive = machine.root.path().join("var/lib/lode/drive.lode");
    fs::create_dir_all(drive.parent().unwrap()).unwrap();
    // Sparse: 1 TiB of nothing; 16 GiB of memory are too few for it.
    fs::File::create(&drive).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(machine.severity("memory"), Severity::Warn);
}

#[test]
fn names_are_unique_and_plain() {
    let knobs = Machine::good().knobs();
    let mut names: Vec<_> = knobs.iter().map(|knob| knob.name).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
    assert!(
        names
            .iter()
            .all(|n| { n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') })
    );
}
