//! Fixture trees: a good machine, and one change to it at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::knob::Severity;
use crate::tests::fixture::{CLOCK, Fixture};

#[test]
fn nothing_is_wrong_with_a_good_machine() {
    for knob in Fixture::good().knobs() {
        let fine = matches!(knob.severity, Severity::Ok | Severity::NotApplicable);
        assert!(fine && knob.remedy.is_empty(), "{knob:?}");
        assert!(!knob.why.is_empty(), "{knob:?}");
    }
}

const QUEUE: &str = "sys/block/nvme0n1/queue";
const NIC: &str = "sys/class/net/ens5";

/// File, what to write into it, and what is then found; one change for the worse each.
const WORSE: [(&str, &str, &str, Severity); 43] = [
    ("proc/sys/kernel/osrelease", "5.15.0", "kernel", Severity::Fatal),
    ("proc/sys/kernel/osrelease", "5.19.17-x", "kernel", Severity::Warn),
    ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", Severity::Fatal),
    ("proc/sys/kernel/io_uring_disabled", "2", "io_uring", Severity::Fatal),
    ("proc/sys/net/core/somaxconn", "128", "somaxconn", Severity::Warn),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512", "syn_backlog", Severity::Warn),
    ("proc/sys/net/core/netdev_max_backlog", "1000", "netdev_max_backlog", Severity::Warn),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1", "slow_start_after_idle", Severity::Warn),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295", "notsent_lowat", Severity::Warn),
    ("proc/sys/net/core/busy_poll", "50", "busy_poll", Severity::Warn),
    ("proc/sys/net/core/busy_read", "50", "busy_read", Severity::Warn),
    ("proc/meminfo", "MemTotal: 262144 kB", "memory", Severity::Fatal),
    ("proc/sys/vm/swappiness", "60", "swappiness", Severity::Warn),
    ("proc/sys/vm/min_free_kbytes", "45056", "min_free_kbytes", Severity::Warn),
    ("proc/sys/vm/nr_hugepages", "512", "huge_pages", Severity::Warn),
    ("proc/sys/vm/zone_reclaim_mode", "1", "zone_reclaim_mode", Severity::Warn),
    ("proc/sys/vm/stat_interval", "1", "stat_interval", Severity::Warn),
    ("proc/sys/kernel/numa_balancing", "1", "numa_balancing", Severity::Warn),
    ("proc/sys/kernel/timer_migration", "1", "timer_migration", Severity::Warn),
    ("proc/sys/fs/aio-max-nr", "1024", "aio_max_nr", Severity::Warn),
    ("proc/77/comm", "irqbalance", "irqbalance", Severity::Warn),
    ("proc/irq/40/smp_affinity_list", "0-3", "nic_interrupts", Severity::Warn),
    ("sys/class/net/ens5/queues/rx-0/rps_cpus", "f", "rps", Severity::Warn),
    ("sys/class/net/ens5/queues/tx-1/xps_cpus", "1", "xps", Severity::Warn),
    ("sys/fs/cgroup/cpu.max", "50000 100000", "cpu_quota", Severity::Warn),
    ("sys/devices/system/cpu/smt/active", "1", "smt", Severity::Warn),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave", "governor", Severity::Warn),
    ("sys/devices/system/cpu/cpufreq/boost", "0", "boost", Severity::Warn),
    ("sys/devices/system/cpu/cpu2/cpuidle/state2/disable", "0", "c_states", Severity::Warn),
    (CURRENT_CLOCK, "hpet", "clocksource", Severity::Warn),
    (HUGE_PAGES, "[always] madvise never", "transparent_huge_pages", Severity::Warn),
    (DEFRAG, "[always] defer+madvise never", "transparent_huge_pages_defrag", Severity::Warn),
    ("sys/block/nvme0n1/queue/rotational", "1", "rotational", Severity::Warn),
    ("sys/block/nvme0n1/queue/scheduler", "none [mq-deadline]", "scheduler", Severity::Warn),
    ("sys/block/nvme0n1/queue/write_cache", "write back", "write_cache", Severity::Warn),
    ("sys/block/nvme0n1/queue/fua", "1", "write_cache", Severity::Fatal),
    ("sys/block/nvme0n1/queue/nr_requests", "32", "nr_requests", Severity::Warn),
    ("sys/block/nvme0n1/queue/nomerges", "0", "nomerges", Severity::Warn),
    ("sys/block/nvme0n1/queue/rq_affinity", "1", "rq_affinity", Severity::Warn),
    ("sys/block/nvme0n1/queue/wbt_lat_usec", "2000", "wbt", Severity::Warn),
    ("sys/block/nvme0n1/queue/iostats", "1", "iostats", Severity::Warn),
    ("sys/block/nvme0n1/queue/add_random", "1", "add_random", Severity::Warn),
    ("sys/module/nvme/parameters/poll_queues", "4", "poll_queues", Severity::Warn),
];
const CURRENT_CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const DEFRAG: &str = "sys/kernel/mm/transparent_hugepage/defrag";

#[test]
fn each_change_for_the_worse_is_found_and_no_other() {
    for (path, text, name, severity) in WORSE {
        let knobs = Fixture::good().with(path, text).knobs();
        let worse: Vec<_> = knobs.iter().filter(|knob| knob.is_short()).collect();
        let found: Vec<_> = worse.iter().map(|knob| (knob.name, knob.severity)).collect();
        assert_eq!(found, [(name, severity)], "after {path} = {text}");
        assert!(!worse[0].remedy.is_empty(), "{:?}", worse[0]);
    }
}

#[test]
fn blocks_larger_than_a_nodes_are_fatal_and_smaller_ones_of_a_4k_drive_cost() {
    let of = |bytes: &str| Fixture::good().with(&format!("{QUEUE}/logical_block_size"), bytes);
    assert_eq!(of("16384").severity("block_size"), Severity::Fatal);
    let small = of("512");
    assert_eq!(small.severity("block_size"), Severity::Ok);
    let knob = small.knob("lba_format");
    assert_eq!(knob.severity, Severity::Warn);
    assert!(knob.remedy.contains("LOSES ALL DATA"), "{knob:?}");
    assert_eq!(knob.change, Default::default(), "formatting is never done");
    let honest = small.with(&format!("{QUEUE}/physical_block_size"), "512");
    assert_eq!(honest.severity("lba_format"), Severity::NotApplicable);
}

#[test]
fn a_discard_that_was_switched_off_is_found() {
    let off = Fixture::good().with(&format!("{QUEUE}/discard_max_bytes"), "0");
    let knob = off.knob("discard");
    assert_eq!((knob.severity, knob.change.writes[0].value.as_str()), (Severity::Warn, "2199023255040"));
    let none = off.with(&format!("{QUEUE}/discard_max_hw_bytes"), "0");
    assert_eq!(none.severity("discard"), Severity::NotApplicable);
}

#[test]
fn packets_are_handed_on_where_queues_are_fewer_than_cpus() {
    let machine = Fixture::untuned();
    let rps = machine.knob("rps");
    assert_eq!((rps.severity, rps.wanted.as_str()), (Severity::Warn, "f"));
    assert_eq!(rps.change.writes.len(), 2);
    let rfs = machine.knobs().into_iter().find(|knob| knob.name == "rfs" && knob.target == "ens5").unwrap();
    assert_eq!((rfs.severity, rfs.wanted.as_str()), (Severity::Warn, "16384 or more"));
    let down = Fixture::good().with(&format!("{NIC}/operstate"), "down");
    assert_eq!(down.severity("rps"), Severity::NotApplicable);
}

#[test]
fn a_process_below_its_limits_is_told_so() {
    let limits = |files: &str, memlock: &str| {
        let text = format!("Max open files {files} 9 files\nMax locked memory {memlock} 9 bytes");
        Fixture::good().with("proc/self/limits", &text)
    };
    assert_eq!(limits("16384", "8388608").severity("nofile"), Severity::Ok);
    assert_eq!(limits("1024", "8388608").severity("nofile"), Severity::Warn);
    assert_eq!(limits("64", "8388608").severity("nofile"), Severity::Fatal);
    assert_eq!(limits("unlimited", "unlimited").severity("memlock"), Severity::Ok);
    assert_eq!(limits("16384", "65536").severity("memlock"), Severity::Warn);
}

#[test]
fn the_limits_of_the_nodes_unit_count_where_it_has_some() {
    let process = "Max open files 1024 9 files\nMax locked memory 65536 9 bytes";
    let with_unit = |unit: &str| {
        let machine = Fixture::good().with("proc/self/limits", process);
        machine.with("etc/systemd/system/lode.service", &format!("[Service]\n{unit}\n"))
    };
    let good = with_unit("LimitNOFILE=16384\nLimitMEMLOCK=1G");
    assert_eq!(good.severity("nofile"), Severity::Ok);
    assert_eq!(good.knob("nofile").current, "16384 (the node's unit)");
    assert_eq!(good.severity("memlock"), Severity::Ok);
    assert_eq!(with_unit("LimitNOFILE=infinity").severity("nofile"), Severity::Ok);
    assert_eq!(with_unit("LimitNOFILE=512:16384").severity("nofile"), Severity::Warn);
    assert_eq!(with_unit("LimitNOFILE=many").severity("nofile"), Severity::Warn, "the process's counts");
    assert_eq!(with_unit("LimitNOFILE=16384").severity("memlock"), Severity::Warn, "the process's counts");
    let dropped_in = with_unit("LimitNOFILE=512")
        .with("etc/systemd/system/lode.service.d/10-image.conf", "[Service]\nLimitNOFILE=16384");
    assert_eq!(dropped_in.severity("nofile"), Severity::Ok, "the last one holds");
}

#[test]
fn what_the_machine_does_not_tell_is_not_guessed() {
    let bare = Fixture::bare();
    for knob in bare.knobs() {
        // Without even a kernel version, the switch for io_uring counts as one from before it.
        if !["io_uring", "drives"].contains(&knob.name) {
            assert_eq!(knob.severity, Severity::NotApplicable, "{knob:?}");
        }
    }
    let no_switch = Fixture::good().without("proc/sys/kernel/io_uring_disabled");
    assert_eq!(no_switch.severity("io_uring"), Severity::Fatal);
    let older = no_switch.with("proc/sys/kernel/osrelease", "6.1.0");
    assert_eq!(older.severity("io_uring"), Severity::Ok);
    let virtual_machine = Fixture::good().without("sys/devices/system/cpu/smt/active");
    assert_eq!(virtual_machine.severity("smt"), Severity::NotApplicable);
}

#[test]
fn garbage_and_what_may_not_be_read_are_said_and_not_judged() {
    for garbage in ["", "many", "-5", "99999999999999999999999"] {
        let knob = Fixture::good().with("proc/sys/net/core/somaxconn", garbage).knob("somaxconn");
        assert_eq!(knob.severity, Severity::NotApplicable, "{garbage:?}");
        assert!(
            knob.why.contains("/proc/sys/net/core/somaxconn holds") && knob.why.contains("not a number"),
            "{knob:?}"
        );
    }
    let machine = Fixture::good();
    // Not text at all; root may read what has no right bits, so a directory stands for what cannot be read.
    fs::write(machine.path("proc/sys/vm/stat_interval"), [0xff, 0xfe, 0x00]).unwrap();
    fs::remove_file(machine.path("proc/sys/net/core/busy_poll")).unwrap();
    fs::create_dir(machine.path("proc/sys/net/core/busy_poll")).unwrap();
    fs::set_permissions(machine.path("proc/sys/net/core/busy_read"), fs::Permissions::from_mode(0o000))
        .unwrap();
    for (name, file) in [("stat_interval", "vm/stat_interval"), ("busy_poll", "core/busy_poll")] {
        let knob = machine.knob(name);
        assert_eq!(knob.severity, Severity::NotApplicable, "{knob:?}");
        assert!(knob.why.contains(file) && knob.why.contains("cannot be read"), "{knob:?}");
    }
    let machine = Fixture::good()
        .with("sys/devices/system/cpu/online", "3-1,x")
        .with("proc/meminfo", "MemTotal: 18446744073709551615 kB")
        .with("sys/block/nvme0n1/size", "18446744073709551615")
        .with("sys/class/net/ens5/queues/rx-0/rps_cpus", "zz")
        .with("sys/devices/virtual/workqueue/cpumask", "?");
    for name in ["cores", "memory", "rps", "nic_interrupts"] {
        assert_eq!(machine.severity(name), Severity::NotApplicable, "{name}");
    }
}

#[test]
fn a_privileged_process_may_use_io_uring_where_others_may_not() {
    let machine = Fixture::good()
        .with("proc/sys/kernel/io_uring_disabled", "1")
        .with("proc/self/status", "CapEff:\t000001ffffffffff");
    assert_eq!(machine.severity("io_uring"), Severity::Warn);
}

#[test]
fn a_drive_on_tmpfs_is_buffered_and_has_no_disk() {
    let machine = Fixture::good().with(
        "proc/self/mountinfo",
        "22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n23 22 0:40 / /var rw - tmpfs tmpfs rw",
    );
    assert_eq!(machine.severity("direct_io"), Severity::Warn);
    let scheduler = machine.knob("scheduler");
    assert_eq!(scheduler.severity, Severity::NotApplicable);
    assert!(scheduler.why.contains("tmpfs"), "{scheduler:?}");
}

#[test]
fn read_ahead_matters_only_through_the_page_cache() {
    let direct = Fixture::good().with(&format!("{QUEUE}/read_ahead_kb"), "8192");
    assert_eq!(direct.severity("read_ahead"), Severity::NotApplicable);
    let buffered = direct.with("proc/self/mountinfo", "22 1 259:1 / / rw - overlay overlay rw");
    assert_eq!(buffered.severity("read_ahead"), Severity::Warn);
}

#[test]
fn the_memory_wanted_grows_with_the_drive() {
    let machine = Fixture::good();
    assert!(machine.knob("memory").why.contains("not there yet"));
    let drive = machine.path("var/lib/lode/drive.lode");
    fs::create_dir_all(drive.parent().unwrap()).unwrap();
    // Sparse: 1 TiB of nothing; 16 GiB of memory are too few for it.
    fs::File::create(&drive).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(machine.severity("memory"), Severity::Warn);
}

#[test]
fn a_drive_is_found_by_serial_number_by_id_and_by_device() {
    let mut machine = Fixture::untuned();
    for name in
        ["id:SERIAL-B", "id:nvme-A_Drive_SERIAL-B", "/dev/disk/by-id/nvme-A_Drive_SERIAL-B", "/dev/nvme1n1"]
    {
        machine.drives = vec![name.to_owned()];
        let knob = machine.knob("scheduler");
        assert_eq!(knob.target, "SERIAL-B", "{name}");
        assert!(knob.remedy.contains("/sys/block/nvme1n1/"), "{knob:?}");
    }
    machine.drives = vec!["id:SERIAL-C".to_owned()];
    let knob = machine.knob("drives");
    assert!(knob.severity == Severity::Fatal && knob.remedy.contains("SERIAL-C"), "{knob:?}");
}

#[test]
fn names_may_swap_between_boots() {
    let mut machine = Fixture::untuned();
    machine.drives = vec!["id:SERIAL-B".to_owned()];
    let place = machine.knob("scheduler").change.writes[0].place.clone();
    assert_eq!(place.locate(&machine.probe()).unwrap(), "/sys/block/nvme1n1/queue/scheduler");
    machine.set("sys/devices/pci/nvme0/serial", "SERIAL-B");
    machine.set("sys/devices/pci/nvme1/serial", "SERIAL-A");
    assert_eq!(place.locate(&machine.probe()).unwrap(), "/sys/block/nvme0n1/queue/scheduler");
    // Two that say the same: neither is taken for the one that is meant.
    machine.set("sys/devices/pci/nvme1/serial", "SERIAL-B");
    assert_eq!(place.locate(&machine.probe()), None);
}

#[test]
fn the_profile_knows_its_drives_by_model() {
    let machine = Fixture::azure();
    let knob = machine.knob("drives");
    assert_eq!((knob.severity, knob.current.as_str()), (Severity::Ok, "nvme1n1 SERIAL-B"));
    let none = machine.with("sys/block/nvme1n1/device/model", "Something Else");
    let knob = none.knob("drives");
    assert!(
        knob.severity == Severity::Warn && knob.remedy.contains("Microsoft NVMe Direct Disk"),
        "{knob:?}"
    );
}

#[test]
fn cpus_are_set_apart_by_boot_parameters_or_by_cpusets_but_not_by_both() {
    let plain = Fixture::good();
    assert_eq!(plain.severity("isolation"), Severity::NotApplicable);
    let groups = Fixture::good().wanting("isolation = \"cpusets\"");
    let knob = groups.knob("isolation");
    assert_eq!(knob.severity, Severity::Warn);
    let lines: Vec<String> = knob.change.units.iter().map(|l| format!("{} {}", l.unit, l.line)).collect();
    assert!(lines.contains(&"system.slice AllowedCPUs=0".to_owned()), "{lines:?}");
    assert!(lines.contains(&"lode.slice AllowedCPUs=1-3".to_owned()), "{lines:?}");
    assert!(knob.change.boot.is_empty());
    assert_eq!(groups.knob("workqueue_mask").wanted, "1");
    for group in ["system.slice", "user.slice", "init.scope"] {
        groups.set(&format!("sys/fs/cgroup/{group}/cpuset.cpus"), "0");
    }
    assert_eq!(groups.severity("isolation"), Severity::Ok);
    let both = groups.with("proc/cmdline", "quiet isolcpus=1-3");
    let knob = both.knob("isolation");
    assert!(knob.severity == Severity::Warn && knob.change == Default::default(), "{knob:?}");
    // Nor where the profile asks for neither.
    let neither = Fixture::good()
        .with("proc/cmdline", "isolcpus=1-3")
        .with("sys/fs/cgroup/system.slice/cpuset.cpus", "0");
    assert_eq!(neither.severity("isolation"), Severity::Warn);
    let boot = Fixture::good().wanting("isolation = \"boot\"");
    let parameters = boot.knob("isolation").change.boot;
    assert_eq!(parameters, ["isolcpus=managed_irq,domain,1-3", "nohz_full=1-3", "rcu_nocbs=1-3"]);
    assert!(boot.knob("isolation").change.units.is_empty());
    let booted = boot.with("proc/cmdline", &parameters.join(" "));
    assert_eq!(booted.severity("isolation"), Severity::Ok);
}

#[test]
fn threads_of_one_core_keep_house_together() {
    let machine = Fixture::good().wanting("isolation = \"cpusets\"");
    for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
        machine.set(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), siblings);
    }
    assert_eq!(machine.knob("isolation").wanted, "everything else on 0,2, a node on 1,3");
    machine.set("sys/devices/system/cpu/online", "0-1");
    assert_eq!(machine.severity("isolation"), Severity::NotApplicable);
}

#[test]
fn the_write_cache_is_never_written() {
    for machine in [Fixture::good(), Fixture::untuned(), Fixture::azure()] {
        for fua in ["0", "1"] {
            for cache in ["write back", "write through"] {
                machine.set("sys/block/nvme0n1/queue/write_cache", cache);
                machine.set("sys/block/nvme0n1/queue/fua", fua);
                for write in machine.knobs().iter().flat_map(|knob| &knob.change.writes) {
                    assert!(!write.place.to_string().contains("write_cache"), "{write:?}");
                }
            }
        }
    }
}

#[test]
fn a_volatile_cache_that_a_profile_keeps_is_no_fault_and_one_that_is_hidden_stays_one() {
    let machine = Fixture::good().wanting("write_cache = \"keep\"");
    machine.set("sys/block/nvme0n1/queue/write_cache", "write back");
    let knob = machine.knob("write_cache");
    assert_eq!((knob.severity, knob.current.as_str()), (Severity::NotApplicable, "write back"));
    machine.set("sys/block/nvme0n1/queue/write_cache", "write through");
    machine.set("sys/block/nvme0n1/queue/fua", "1");
    assert_eq!(machine.severity("write_cache"), Severity::Fatal);
}

#[test]
fn a_clock_that_the_kernel_does_not_offer_is_not_chosen() {
    let machine = Fixture::good()
        .with(CURRENT_CLOCK, "hpet")
        .with(&format!("{CLOCK}/available_clocksource"), "hpet acpi_pm");
    let knob = machine.knob("clocksource");
    assert!(knob.severity == Severity::Warn && knob.change.writes.is_empty(), "{knob:?}");
    let offered = machine.with(&format!("{CLOCK}/available_clocksource"), "hpet tsc");
    assert_eq!(offered.knob("clocksource").change.writes[0].value, "tsc");
}

#[test]
fn what_a_profile_keeps_is_shown_and_not_judged() {
    let machine = Fixture::untuned().wanting("swappiness = \"keep\"\nscheduler = \"keep\"\nrps = \"keep\"");
    for (name, current) in [("swappiness", "60"), ("scheduler", "mq-deadline"), ("rps", "0 0")] {
        let knob = machine.knob(name);
        assert_eq!((knob.severity, knob.current.as_str()), (Severity::NotApplicable, current), "{knob:?}");
        assert_eq!(knob.change, Default::default());
    }
}

#[test]
fn names_are_unique_and_plain() {
    for machine in [Fixture::good(), Fixture::untuned(), Fixture::azure()] {
        let knobs = machine.knobs();
        let mut names: Vec<_> = knobs.iter().map(|knob| (knob.name, knob.target.as_str())).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(names.iter().all(|(name, _)| name.bytes().all(plain)));
    }
}
