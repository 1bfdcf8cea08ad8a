//! Cores, and what makes them slow or unsteady.

use crate::knob::{Knob, Severity};
use crate::probe::{Probe, text_of};

/// Clock sources that are read without leaving user space.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

pub fn knobs(probe: &Probe) -> Vec<Knob> {
    vec![cores(probe), quota(probe), smt(probe), governor(probe), clock(probe)]
}

fn cores(probe: &Probe) -> Knob {
    let Some(count) = probe.online_cpus() else {
        return Knob::not_applicable("cores", "the list of CPUs cannot be read");
    };
    let why = "one shard owns one core; on a single core the shard shares it with everything else";
    let remedy = "give the machine a second core";
    Knob::ok("cores", count.to_string(), "2 or more", why).unless(count >= 2, Severity::Warn, remedy)
}

/// Both the unified hierarchy and the first version's, of the cgroup that is the root here.
fn quota(probe: &Probe) -> Knob {
    let unified = probe.text("/sys/fs/cgroup/cpu.max");
    let first = || {
        let quota = probe.text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?;
        let period = probe.text("/sys/fs/cgroup/cpu/cpu.cfs_period_us")?;
        Some(format!("{} {period}", quota.replace("-1", "max")))
    };
    let Some(text) = unified.or_else(first) else {
        return Knob::not_applicable("cpu_quota", "no CPU quota can be set on this control group");
    };
    let why = "a group that has used up its quota stands still for the rest of the period, \
               often 50 ms and more";
    Knob::ok("cpu_quota", text.clone(), "max (none)", why).unless(
        text.starts_with("max"),
        Severity::Warn,
        "give the node whole cores (cpuset) and no quota",
    )
}

fn smt(probe: &Probe) -> Knob {
    let Some(active) = probe.number("/sys/devices/system/cpu/smt/active") else {
        return Knob::not_applicable("smt", "the kernel does not tell whether cores run two threads");
    };
    let current = if active == 1 { "on" } else { "off" };
    let why = "two shards on the two threads of a core slow each other down";
    let remedy = "serve with as many shards as there are physical cores, or boot with nosmt";
    Knob::ok("smt", current, "off", why).unless(active == 0, Severity::Warn, remedy)
}

fn governor(probe: &Probe) -> Knob {
    let directory = probe.path("/sys/devices/system/cpu");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut governors: Vec<String> =
        entries.filter_map(|entry| text_of(&entry.path().join("cpufreq/scaling_governor"))).collect();
    governors.sort();
    governors.dedup();
    if governors.is_empty() {
        return Knob::not_applicable(
            "governor",
            "no frequency scaling here; the host of a guest has its own",
        );
    }
    let why = "an idle core that has clocked down takes its time to come back, and requests wait for it";
    Knob::ok("governor", governors.join(", "), "performance", why).unless(
        governors == ["performance"],
        Severity::Warn,
        "cpupower frequency-set -g performance",
    )
}

fn clock(probe: &Probe) -> Knob {
    let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Some(source) = probe.text(file) else {
        return Knob::not_applicable("clocksource", "the clock source cannot be read");
    };
    let why = "a node reads the clock once per loop; hpet and acpi_pm cost a microsecond and a system call";
    Knob::ok("clocksource", source.clone(), "tsc (or the hypervisor's page)", why).unless(
        FAST_CLOCKS.contains(&source.as_str()),
        Severity::Warn,
        "boot with clocksource=tsc tsc=reliable if the TSC is sound",
    )
}
