//! CPUs set apart for a node: by control groups or at boot, never by both; and what else would run on them.

use super::judge::{OneFile, Rule};
use super::{Context, Facts};
use crate::change::{UnitLine, Write};
use crate::knob::{Knob, Severity};
use crate::machine::cpus::CpuSet;
use crate::probe::{Probe, Unread};
use crate::render::units::{NODE, SLICE};

/// Slices and the scope that hold everything that is not a node.
const OTHERS: [(&str, &str); 3] =
    [("system.slice", "Slice"), ("user.slice", "Slice"), ("init.scope", "Scope")];
/// What sets CPUs apart at boot.
const PARAMETERS: [&str; 3] = ["isolcpus", "nohz_full", "rcu_nocbs"];
/// CPUs below which none is set apart: each is a shard's.
const LEAST_CPUS: usize = 4;

pub fn knobs(cx: &Context, facts: &Facts) -> Vec<Knob> {
    let migration = OneFile::sysctl(
        "timer_migration",
        "kernel.timer_migration",
        "timers of idle CPUs move to busy ones, which are the shards'",
    );
    let statistics = OneFile::sysctl(
        "stat_interval",
        "vm.stat_interval",
        "every so many seconds each CPU stops to add up its memory statistics",
    );
    let apart = Apart::of(cx, facts);
    vec![
        isolation(cx, &apart),
        workqueue(cx, &apart),
        migration.number(cx, Rule::Exactly, None),
        statistics.number(cx, Rule::AtLeast, None),
    ]
}

/// The CPUs in two parts, or why they are not parted.
enum Apart {
    No(String),
    Yes { housekeeping: CpuSet, node: CpuSet },
}

impl Apart {
    fn of(cx: &Context, facts: &Facts) -> Apart {
        if !matches!(cx.profile.word("isolation"), Some("cpusets" | "boot")) {
            let why =
                format!("the profile {} sets no CPUs apart: a node has a shard on each", cx.profile.name);
            return Apart::No(why);
        }
        let cores = cx.profile.number("housekeeping_cores").unwrap_or(1) as usize;
        let mut housekeeping = CpuSet::default();
        let mut taken = 0;
        for cpu in &facts.online.0 {
            if taken == cores {
                break;
            }
            if housekeeping.0.contains(cpu) {
                continue;
            }
            let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let siblings = cx.probe.text(&file).and_then(|list| CpuSet::from_list(&list)).unwrap_or_default();
            housekeeping.0.insert(*cpu);
            housekeeping.0.extend(siblings.0.intersection(&facts.online.0));
            taken += 1;
        }
        let node = facts.online.without(&housekeeping);
        if facts.online.len() < LEAST_CPUS || housekeeping.is_empty() || node.is_empty() {
            return Apart::No(format!("{} CPUs are too few to set any apart", facts.online.len()));
        }
        Apart::Yes { housekeeping, node }
    }
}

/// What the kernel was booted with of [`PARAMETERS`], as it stands there.
fn booted_with(probe: &Probe) -> Vec<String> {
    let line = probe.text("/proc/cmdline").unwrap_or_default();
    let ours = |word: &&str| word.split_once('=').is_some_and(|(name, _)| PARAMETERS.contains(&name));
    line.split_whitespace().filter(ours).map(str::to_owned).collect()
}

/// The CPUs that a control group was given.
fn given(probe: &Probe, group: &str) -> Option<CpuSet> {
    let set = CpuSet::from_list(&probe.text(&format!("/sys/fs/cgroup/{group}/cpuset.cpus"))?)?;
    (!set.is_empty()).then_some(set)
}

fn isolation(cx: &Context, apart: &Apart) -> Knob {
    let at_boot = booted_with(cx.probe);
    let groups = OTHERS.map(|(group, _)| given(cx.probe, group).map(|set| format!("{group} on {set}")));
    let groups: Vec<String> = groups.into_iter().flatten().collect();
    let current = match (at_boot.is_empty(), groups.is_empty()) {
        (true, true) => "none".to_owned(),
        _ => at_boot.iter().chain(&groups).cloned().collect::<Vec<_>>().join(", "),
    };
    let both = "CPUs taken from the scheduler at boot are out of its balance in every control group: \
                threads of a cpuset on them stay where they began";
    if !at_boot.is_empty() && !groups.is_empty() {
        let remedy = format!("boot without {}, or take AllowedCPUs= from the slices", at_boot.join(" "));
        return Knob::ok("isolation", current, "one of boot parameters and cpusets", both)
            .short(Severity::Warn, remedy);
    }
    let why = "whatever else runs on a shard's core makes its requests wait";
    let (housekeeping, node) = match apart {
        Apart::Yes { housekeeping, node } => (housekeeping, node),
        Apart::No(why) => return Knob { current, ..Knob::not_applicable("isolation", why.clone()) },
    };
    if cx.profile.word("isolation") == Some("boot") {
        let parameters = [
            format!("isolcpus=managed_irq,domain,{node}"),
            format!("nohz_full={node}"),
            format!("rcu_nocbs={node}"),
        ];
        let wanted = parameters.join(" ");
        if !groups.is_empty() {
            let remedy = "take AllowedCPUs= from the slices first: one, not both";
            return Knob::ok("isolation", current, &wanted, both).short(Severity::Warn, remedy);
        }
        let fine = parameters.iter().all(|parameter| at_boot.contains(parameter));
        return Knob::ok("isolation", current, &wanted, why)
            .unless(fine, Severity::Warn, format!("boot with {wanted}"))
            .booted(parameters);
    }
    let wanted = format!("everything else on {housekeeping}, a node on {node}");
    if !at_boot.is_empty() {
        let remedy = format!("boot without {}: one, not both", at_boot.join(" "));
        return Knob::ok("isolation", current, &wanted, both).short(Severity::Warn, remedy);
    }
    let fine = OTHERS.iter().all(|(group, _)| given(cx.probe, group).as_ref() == Some(housekeeping));
    let others =
        OTHERS.map(|(unit, section)| UnitLine { unit, section, line: format!("AllowedCPUs={housekeeping}") });
    let ours = [
        UnitLine { unit: SLICE, section: "Slice", line: format!("AllowedCPUs={node}") },
        UnitLine { unit: NODE, section: "Service", line: format!("Slice={SLICE}") },
    ];
    Knob::ok("isolation", current, &wanted, why)
        .unless(
            fine,
            Severity::Warn,
            "install the slices of `lode-tune tune render`, then systemctl daemon-reload",
        )
        .with_units(others.into_iter().chain(ours))
}

fn workqueue(cx: &Context, apart: &Apart) -> Knob {
    let file = "/sys/devices/virtual/workqueue/cpumask";
    let knob = OneFile::machine(
        "workqueue_mask",
        file,
        "the kernel's own work (writing back, discards, timeouts) runs where it was asked for, which is a shard's core",
        "this kernel does not tell",
    );
    let text = match cx.probe.read(file) {
        Ok(text) => text,
        Err(unread) => return knob.unread(unread),
    };
    if cx.profile.word("workqueue_mask").is_none() {
        return knob.kept(cx, &text);
    }
    let Some(current) = CpuSet::from_mask(&text) else {
        return knob.unread(Unread::Refused(format!("{file} holds {text:?}, which is not a mask of CPUs")));
    };
    let housekeeping = match apart {
        Apart::Yes { housekeeping, .. } => housekeeping,
        Apart::No(why) => return Knob { current: text, ..Knob::not_applicable(knob.name, why.clone()) },
    };
    let mask = housekeeping.to_mask();
    Knob::ok(knob.name, text, &mask, knob.why)
        .unless(current == *housekeeping, Severity::Warn, format!("echo {mask} > {file}"))
        .written([Write::machine(file, mask)])
}
