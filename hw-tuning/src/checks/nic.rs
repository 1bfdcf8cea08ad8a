//! Network interfaces: which CPUs take packets in, and which send them.

use super::judge::{OneFile, Rule};
use super::{Context, Facts};
use crate::change::{Place, Write};
use crate::knob::{Knob, Severity};
use crate::machine::cpus::CpuSet;
use crate::machine::nics::Nic;
use crate::probe::Probe;

pub fn knobs(cx: &Context, facts: &Facts) -> Vec<Knob> {
    let mut knobs = vec![balancer(cx)];
    if facts.nics.is_empty() {
        let why = "no network interface has a device behind it";
        knobs.extend(["nic_interrupts", "rps", "rfs", "xps"].map(|name| Knob::not_applicable(name, why)));
        return knobs;
    }
    let steered = facts.nics.iter().any(|nic| wants_rps(cx, facts, nic) == Some(true));
    knobs.push(flow_entries(cx, steered));
    for nic in &facts.nics {
        let target = nic.name.as_str();
        if nic.state.known().is_some_and(|state| state == "down") {
            let why = "the interface is down";
            knobs.extend(
                ["nic_interrupts", "rps", "rfs", "xps"]
                    .map(|name| Knob::not_applicable(name, why).of(target)),
            );
            continue;
        }
        if !nic.has_own_address(&facts.nics) && nic.attached_at.known().is_none() {
            let why = "another interface has the same address and driver, and /sys does not tell where it is attached: what is set could be the \
                       other's after a boot";
            knobs.extend(
                ["nic_interrupts", "rps", "rfs", "xps"]
                    .map(|name| Knob::not_applicable(name, why).of(target)),
            );
            continue;
        }
        let nic = &Steered { nic, has_own_address: nic.has_own_address(&facts.nics) };
        knobs.push(interrupts(cx, facts, nic).of(target));
        knobs.push(rps(cx, facts, nic).of(target));
        knobs.push(rfs(cx, facts, nic).of(target));
        knobs.push(xps(cx, facts, nic).of(target));
    }
    knobs
}

fn kept(cx: &Context, name: &'static str, current: &str) -> Knob {
    let why = format!("the profile {} leaves it as it is", cx.profile.name);
    Knob { current: current.to_owned(), ..Knob::not_applicable(name, why) }
}

/// An interface, and whether its address is no other's.
struct Steered<'a> {
    nic: &'a Nic,
    has_own_address: bool,
}

impl std::ops::Deref for Steered<'_> {
    type Target = Nic;

    fn deref(&self) -> &Nic {
        self.nic
    }
}

/// What stays of an interface from boot to boot: its address, its driver, and where it is attached.
fn identity(nic: &Steered) -> (String, String, Option<String>) {
    let text = |known: &crate::machine::Known<String>| known.known().cloned().unwrap_or_default();
    let address = if nic.has_own_address { text(&nic.address) } else { String::new() };
    (address, text(&nic.driver), nic.attached_at.known().cloned())
}

/// The place of a file of an interface.
fn place(nic: &Steered, file: String) -> Place {
    let (address, driver, at) = identity(nic);
    Place::Nic { address, driver, at, file }
}

fn file(nic: &Nic, name: &str) -> String {
    format!("/sys/class/net/{}/{name}", nic.name)
}

/// irqbalance, which moves interrupts back within seconds.
fn balancer(cx: &Context) -> Knob {
    if cx.profile.word("nic_interrupts").is_none() {
        return kept(cx, "irqbalance", "-");
    }
    let processes = cx.probe.names("/proc");
    let mut numbers = processes.iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).peekable();
    if numbers.peek().is_none() {
        return Knob::not_applicable("irqbalance", "no processes are listed under /proc");
    }
    let runs =
        numbers.any(|pid| cx.probe.text(&format!("/proc/{pid}/comm")).as_deref() == Some("irqbalance"));
    let why = "it moves interrupts as it sees fit, every ten seconds, so that none stays where it was put";
    Knob::ok("irqbalance", if runs { "runs" } else { "does not run" }, "does not run", why).unless(
        !runs,
        Severity::Warn,
        "systemctl disable --now irqbalance",
    )
}

/// The CPUs of each interrupt, those that can be read.
fn affinities(probe: &Probe, nic: &Nic) -> Vec<CpuSet> {
    let read =
        |number: &u32| CpuSet::from_list(&probe.text(&format!("/proc/irq/{number}/smp_affinity_list"))?);
    nic.interrupts.iter().filter_map(read).collect()
}

fn interrupts(cx: &Context, facts: &Facts, nic: &Steered) -> Knob {
    let name = "nic_interrupts";
    let sets = affinities(cx.probe, nic);
    if nic.interrupts.is_empty() {
        let why =
            "the interface has no interrupts of its own in /sys (a synthetic one's come with its channels)";
        return Knob::not_applicable(name, why);
    }
    if sets.len() < nic.interrupts.len() || facts.online.is_empty() {
        return Knob::not_applicable(name, "the CPUs of its interrupts cannot be read under /proc/irq");
    }
    let current = sets.iter().map(CpuSet::to_string).collect::<Vec<_>>().join(" ");
    if cx.profile.word(name).is_none() {
        return kept(cx, name, &current);
    }
    // Each on one CPU, and no CPU with two more than another.
    let of_cpu = |cpu: &u32| sets.iter().filter(|set| set.0.contains(cpu)).count();
    let counts: Vec<usize> = facts.online.0.iter().map(of_cpu).collect();
    let even = counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1);
    let fine = even && sets.iter().all(|set| set.len() == 1);
    let cpus: Vec<u32> = facts.online.0.iter().copied().collect();
    let (address, driver, attached_at) = identity(nic);
    let writes = nic.interrupts.iter().enumerate().map(|(index, _)| {
        let (address, driver, at) = (address.clone(), driver.clone(), attached_at.clone());
        let at = Place::Interrupt { address, driver, at, index };
        let cpu = if fine { sets[index].to_string() } else { cpus[index % cpus.len()].to_string() };
        Write::at(at, cpu)
    });
    let why = "a CPU that serves more than its share of interrupts makes its shard wait; a driver that keeps them \
               to itself answers EPERM, and that is left as it is";
    let remedy = "lode-tune tune apply, or one CPU each into /proc/irq/*/smp_affinity_list";
    Knob::ok(name, current, "one CPU each, evenly", why).unless(fine, Severity::Warn, remedy).written(writes)
}

/// Whether packets are to be handed on to other CPUs: where there are fewer queues than CPUs. `None` to keep.
fn wants_rps(cx: &Context, facts: &Facts, nic: &Nic) -> Option<bool> {
    match cx.profile.word("rps")? {
        "off" => Some(false),
        _ => Some(facts.online.len() > 1 && nic.rx_queues < facts.online.len()),
    }
}

fn rps(cx: &Context, facts: &Facts, nic: &Steered) -> Knob {
    let mut masks = Vec::new();
    for queue in 0..nic.rx_queues {
        let path = file(nic, &format!("queues/rx-{queue}/rps_cpus"));
        match cx.probe.text(&path).as_deref().and_then(CpuSet::from_mask) {
            Some(mask) => masks.push(mask),
            None => return Knob::not_applicable("rps", format!("{path} cannot be read, or holds no mask")),
        }
    }
    if masks.is_empty() {
        return Knob::not_applicable("rps", "the interface has no queues for receiving in /sys");
    }
    let current = masks.iter().map(CpuSet::to_mask).collect::<Vec<_>>().join(" ");
    let Some(steer) = wants_rps(cx, facts, nic) else {
        return kept(cx, "rps", &current);
    };
    let wanted = if steer { facts.online.clone() } else { CpuSet::default() };
    let fine = masks.iter().all(|mask| *mask == wanted);
    let mask = wanted.to_mask();
    let why = "with fewer queues than CPUs, those without one never take packets in, and the others are full first; \
               with one for each, handing on costs an interrupt for nothing";
    let writes = (0..nic.rx_queues)
        .map(|queue| Write::at(place(nic, format!("queues/rx-{queue}/rps_cpus")), mask.clone()));
    let remedy = format!("echo {mask} > {}", file(nic, "queues/rx-*/rps_cpus"));
    Knob::ok("rps", current, &mask, why).unless(fine, Severity::Warn, remedy).written(writes)
}

/// The table of the machine, that each queue's is a part of.
fn flow_entries(cx: &Context, steered: bool) -> Knob {
    let key = "net.core.rps_sock_flow_entries";
    let why = "a packet is handed to the CPU whose thread reads the connection, rather than to any";
    let mut knob = OneFile::sysctl("rfs", key, why);
    knob.absent = "this kernel hands no packets on";
    if !steered && cx.profile.number("rfs").is_some() {
        return Knob::not_applicable("rfs", "no interface has packets handed on (rps)");
    }
    knob.number(cx, Rule::AtLeast, None)
}

fn rfs(cx: &Context, facts: &Facts, nic: &Steered) -> Knob {
    let Some(entries) = cx.profile.number("rfs") else {
        return kept(cx, "rfs", "-");
    };
    if wants_rps(cx, facts, nic) != Some(true) {
        return Knob::not_applicable("rfs", "its packets are not handed on (rps)");
    }
    let each = entries / nic.rx_queues.max(1) as u64;
    let files: Vec<String> =
        (0..nic.rx_queues).map(|queue| format!("queues/rx-{queue}/rps_flow_cnt")).collect();
    let counts: Option<Vec<u64>> = files.iter().map(|name| cx.probe.number(&file(nic, name))).collect();
    let Some(counts) = counts.filter(|counts| !counts.is_empty()) else {
        return Knob::not_applicable("rfs", "the tables of its queues cannot be read");
    };
    let current = counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let fine = counts.iter().all(|count| *count >= each);
    let why =
        "without room in its queues' tables, a packet goes to any CPU rather than to the one that reads it";
    let remedy = format!("echo {each} > {}", file(nic, "queues/rx-*/rps_flow_cnt"));
    let writes = files
        .iter()
        .zip(&counts)
        .map(|(name, count)| Write::at(place(nic, name.clone()), (*count).max(each).to_string()));
    Knob::ok("rfs", current, &format!("{each} or more"), why)
        .unless(fine, Severity::Warn, remedy)
        .written(writes)
}

fn xps(cx: &Context, facts: &Facts, nic: &Steered) -> Knob {
    if nic.tx_queues < 2 {
        return Knob::not_applicable("xps", "the interface has one queue for sending, which all CPUs share");
    }
    let files: Vec<String> = (0..nic.tx_queues).map(|queue| format!("queues/tx-{queue}/xps_cpus")).collect();
    let read = |name: &String| CpuSet::from_mask(&cx.probe.text(&file(nic, name))?);
    let Some(masks) = files.iter().map(read).collect::<Option<Vec<CpuSet>>>() else {
        return Knob::not_applicable("xps", "the CPUs of its queues cannot be read");
    };
    let current = masks.iter().map(CpuSet::to_mask).collect::<Vec<_>>().join(" ");
    if cx.profile.word("xps").is_none() {
        return kept(cx, "xps", &current);
    }
    // Every CPU has a queue, and no queue more than its share of them.
    let share = facts.online.len().div_ceil(nic.tx_queues);
    let covered =
        facts.online.0.iter().all(|cpu| masks.iter().filter(|mask| mask.0.contains(cpu)).count() == 1);
    let fine = covered && masks.iter().all(|mask| mask.len() <= share);
    let wanted = |queue: usize| {
        let cpus = facts.online.0.iter().enumerate();
        CpuSet(cpus.filter(|(at, _)| at % nic.tx_queues == queue).map(|(_, cpu)| *cpu).collect())
    };
    let why = "CPUs that send through one queue wait for its lock, and another CPU frees what they sent";
    let writes = files.iter().enumerate().map(|(queue, name)| {
        let mask = if fine { masks[queue].to_mask() } else { wanted(queue).to_mask() };
        Write::at(place(nic, name.clone()), mask)
    });
    let remedy = format!("one CPU (or its share of them) into each of {}", file(nic, "queues/tx-*/xps_cpus"));
    Knob::ok("xps", current, "each CPU at one queue, evenly", why)
        .unless(fine, Severity::Warn, remedy)
        .written(writes)
}
