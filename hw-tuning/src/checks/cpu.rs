//! Cores, and what makes them slow or unsteady.

use super::{Context, Facts};
use crate::change::Write;
use crate::knob::{Knob, Severity};
use crate::probe::{Probe, Unread};

/// Clock sources that are read without leaving user space, the best first.
const FAST_CLOCKS: [&str; 4] = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"];
const DIRECTORY: &str = "/sys/devices/system/cpu";

pub fn knobs(cx: &Context, facts: &Facts) -> Vec<Knob> {
    vec![
        cores(facts),
        quota(cx.probe),
        smt(cx.probe),
        governor(cx, facts),
        boost(cx),
        c_states(cx, facts),
        clock(cx),
    ]
}

fn kept(cx: &Context, name: &'static str, current: String) -> Knob {
    let why = format!("the profile {} leaves it as it is", cx.profile.name);
    Knob { current, ..Knob::not_applicable(name, why) }
}

fn cores(facts: &Facts) -> Knob {
    let count = facts.online.len();
    if count == 0 {
        return Knob::not_applicable("cores", "the list of CPUs cannot be read");
    }
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

fn governor(cx: &Context, facts: &Facts) -> Knob {
    let file = |cpu: &u32, name: &str| format!("{DIRECTORY}/cpu{cpu}/cpufreq/{name}");
    let scaled =
        facts.online.0.iter().filter_map(|cpu| Some((cpu, cx.probe.text(&file(cpu, "scaling_governor"))?)));
    let scaled: Vec<(&u32, String)> = scaled.collect();
    let mut governors: Vec<&str> = scaled.iter().map(|(_, governor)| governor.as_str()).collect();
    governors.sort_unstable();
    governors.dedup();
    if governors.is_empty() {
        return Knob::not_applicable(
            "governor",
            "no frequency scaling here; the host of a guest has its own",
        );
    }
    let Some(wanted) = cx.profile.word("governor") else {
        return kept(cx, "governor", governors.join(", "));
    };
    let why = "an idle core that has clocked down takes its time to come back, and requests wait for it";
    let knob = Knob::ok("governor", governors.join(", "), wanted, why);
    let offered = |cpu: &u32| {
        let list = cx.probe.text(&file(cpu, "scaling_available_governors"));
        list.is_none_or(|list| list.split_whitespace().any(|word| word == wanted))
    };
    if let Some((cpu, _)) = scaled.iter().find(|(cpu, _)| !offered(cpu)) {
        let remedy = format!("CPU {cpu} does not offer it: load the module cpufreq_{wanted}");
        return knob.unless(governors == [wanted], Severity::Warn, remedy);
    }
    knob.unless(governors == [wanted], Severity::Warn, format!("cpupower frequency-set -g {wanted}"))
        .written(scaled.iter().map(|(cpu, _)| Write::machine(file(cpu, "scaling_governor"), wanted)))
}

/// Two drivers, two files, two meanings.
fn boost(cx: &Context) -> Knob {
    let files = [("cpufreq/boost", "1", "0"), ("intel_pstate/no_turbo", "0", "1")];
    let found = files.iter().find(|(file, ..)| cx.probe.exists(&format!("{DIRECTORY}/{file}")));
    let Some((file, on, off)) = found else {
        return Knob::not_applicable("boost", "no switch for it here; the host of a guest has its own");
    };
    let path = format!("{DIRECTORY}/{file}");
    let current = match cx.probe.read(&path) {
        Ok(text) if text == *on => "on",
        Ok(text) if text == *off => "off",
        Ok(text) => return Knob::not_applicable("boost", format!("{path} holds {text:?}, neither 0 nor 1")),
        Err(Unread::Absent) => return Knob::not_applicable("boost", format!("{path} has gone")),
        Err(Unread::Refused(why)) => return Knob::not_applicable("boost", why),
    };
    let Some(wanted) = cx.profile.word("boost") else {
        return kept(cx, "boost", current.to_owned());
    };
    let value = if wanted == "on" { on } else { off };
    let why = "without it a core stays at its base clock, a quarter and more below what it could";
    Knob::ok("boost", current, wanted, why)
        .unless(current == wanted, Severity::Warn, format!("echo {value} > {path}"))
        .written([Write::machine(path, *value)])
}

/// Sleep states whose way back takes longer than the profile bears, in microseconds.
fn c_states(cx: &Context, facts: &Facts) -> Knob {
    let mut states = Vec::new();
    for cpu in &facts.online.0 {
        let directory = format!("{DIRECTORY}/cpu{cpu}/cpuidle");
        for state in cx.probe.names(&directory) {
            let file = |name: &str| format!("{directory}/{state}/{name}");
            let (latency, off) = (cx.probe.number(&file("latency")), cx.probe.number(&file("disable")));
            if let (Some(latency_us), Some(off)) = (latency, off) {
                let name = cx.probe.text(&file("name")).unwrap_or_else(|| state.clone());
                states.push((latency_us, name, off != 0, file("disable")));
            }
        }
    }
    if states.is_empty() {
        return Knob::not_applicable("c_states", "no sleep states here; the host of a guest has its own");
    }
    let deepest = states.iter().filter(|(_, _, off, _)| !off).max_by_key(|(latency_us, ..)| *latency_us);
    let current = deepest.map_or("none".to_owned(), |(us, name, ..)| format!("{name} ({us} us)"));
    let Some(most_us) = cx.profile.number("c_states") else {
        return kept(cx, "c_states", current);
    };
    let why =
        "a core that sleeps deeply takes that long to wake for a request, which is on top of every lone one";
    let fine = deepest.is_none_or(|(latency_us, ..)| *latency_us <= most_us);
    let deep = states.iter().filter(|(latency_us, ..)| *latency_us > most_us);
    Knob::ok("c_states", current, &format!("none deeper than {most_us} us"), why)
        .unless(fine, Severity::Warn, format!("cpupower idle-set -D {most_us}"))
        .written(deep.map(|(.., file)| Write::machine(file, "1")))
}

fn clock(cx: &Context) -> Knob {
    let file = |name: &str| format!("/sys/devices/system/clocksource/clocksource0/{name}_clocksource");
    let Some(source) = cx.probe.text(&file("current")) else {
        return Knob::not_applicable("clocksource", "the clock source cannot be read");
    };
    if cx.profile.word("clocksource").is_none() {
        return kept(cx, "clocksource", source);
    }
    let why = "a node reads the clock once per loop; hpet and acpi_pm cost a microsecond and a system call";
    let fine = FAST_CLOCKS.contains(&source.as_str());
    let knob = Knob::ok("clocksource", source.clone(), "tsc (or the hypervisor's page)", why);
    let available = cx.probe.text(&file("available")).unwrap_or_default();
    let best = FAST_CLOCKS.iter().find(|fast| available.split_whitespace().any(|offer| offer == **fast));
    let remedy = "boot with clocksource=tsc tsc=reliable if the TSC is sound";
    match best {
        _ if fine => knob.written([Write::machine(file("current"), source)]),
        Some(best) => knob
            .short(Severity::Warn, format!("echo {best} > {}", file("current")))
            .written([Write::machine(file("current"), *best)]),
        // The kernel has found the TSC unsound and offers it no more: it is not for a program to overrule that.
        None => knob.short(Severity::Warn, remedy),
    }
}
