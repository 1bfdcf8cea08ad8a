//! CPUs, the nodes of memory they lie at, and lists and masks of them as the kernel writes them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Known;
use crate::checks::human_bytes;
use crate::probe::Probe;

/// The most CPUs that a list may name: Linux knows no more than 8,192.
const MOST_CPUS: u64 = 8192;
const DIRECTORY: &str = "/sys/devices/system/cpu";

/// The CPUs.
#[derive(Debug, Serialize)]
pub struct Cpus {
    /// Their model.
    pub model: Known<String>,
    /// Which are online.
    pub online: Known<CpuSet>,
    /// How many are online.
    pub count: Known<u64>,
    /// Groups of CPUs that are threads of one core, where a core has more than one.
    pub siblings: Vec<CpuSet>,
    /// The NUMA nodes.
    pub numa_nodes: Vec<NumaNode>,
    /// Taken out of the scheduler's balancing at boot.
    pub isolated: CpuSet,
    /// Without a periodic tick since boot.
    pub nohz_full: CpuSet,
    /// What the kernel reads the time from.
    pub clocksource: Known<String>,
}

/// One node of memory and the CPUs at it.
#[derive(Debug, Serialize)]
pub struct NumaNode {
    /// Its number.
    pub node: u64,
    /// The CPUs at it.
    pub cpus: CpuSet,
    /// Its memory in bytes.
    pub memory_bytes: Known<u64>,
}

/// A set of CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(pub BTreeSet<u32>);

impl CpuSet {
    /// `0-3,8,10-11`; an empty text is the empty set. Nothing where it is no such list.
    pub fn from_list(list: &str) -> Option<CpuSet> {
        let mut set = BTreeSet::new();
        for range in list.trim().split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || u64::from(last) >= MOST_CPUS {
                return None;
            }
            set.extend(first..=last);
        }
        Some(CpuSet(set))
    }

    /// `ff,ffffffff`: hexadecimal, 32 CPUs between commas, the highest first.
    pub fn from_mask(mask: &str) -> Option<CpuSet> {
        let digits: Vec<u32> =
            mask.trim().chars().filter(|c| *c != ',').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        if digits.is_empty() || digits.len() as u64 * 4 > MOST_CPUS {
            return None;
        }
        let bits = digits.iter().rev().enumerate();
        let cpus = bits.flat_map(|(at, digit)| {
            (0..4).filter(move |bit| digit >> bit & 1 == 1).map(move |bit| at as u32 * 4 + bit)
        });
        Some(CpuSet(cpus.collect()))
    }

    /// As the kernel writes masks: groups of eight digits.
    pub fn to_mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| *last as usize / 32 + 1);
        let mut mask = vec![0u32; words];
        for cpu in &self.0 {
            mask[*cpu as usize / 32] |= 1 << (cpu % 32);
        }
        let mut words = mask.iter().rev();
        let first = words.next().map_or_else(String::new, |word| format!("{word:x}"));
        words.fold(first, |text, word| format!("{text},{word:08x}"))
    }

    /// Whether no CPU is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }
}

/// As a list: `0-3,8`.
impl std::fmt::Display for CpuSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &cpu in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => runs.push((cpu, cpu)),
            }
        }
        let run = |&(first, last): &(u32, u32)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        f.write_str(&runs.iter().map(run).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for CpuSet {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

pub fn read(probe: &Probe) -> Cpus {
    let online = probe.online_cpus();
    let unread = "/sys/devices/system/cpu/online cannot be read";
    let list = |name: &str| {
        let text = probe.text(&format!("{DIRECTORY}/{name}"));
        text.and_then(|text| CpuSet::from_list(&text)).unwrap_or_default()
    };
    let clock = probe.text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    Cpus {
        model: Known::or(model(probe), "/proc/cpuinfo has no model name"),
        count: Known::or(online.as_ref().map(|set| set.len() as u64), unread),
        siblings: online.as_ref().map(|set| siblings(probe, set)).unwrap_or_default(),
        online: Known::or(online, unread),
        numa_nodes: numa_nodes(probe),
        isolated: list("isolated"),
        nohz_full: list("nohz_full"),
        clocksource: Known::or(clock, "the clock source cannot be read"),
    }
}

fn model(probe: &Probe) -> Option<String> {
    let info = probe.text("/proc/cpuinfo")?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The threads of each core that has more than one.
fn siblings(probe: &Probe, online: &CpuSet) -> Vec<CpuSet> {
    let group = |cpu: &u32| {
        let text = probe.text(&format!("{DIRECTORY}/cpu{cpu}/topology/thread_siblings_list"))?;
        CpuSet::from_list(&text).filter(|set| set.len() > 1)
    };
    let groups: BTreeSet<CpuSet> = online.0.iter().filter_map(group).collect();
    groups.into_iter().collect()
}

/// The NUMA nodes, in the order of their numbers; none where the kernel knows of none.
pub fn numa_nodes(probe: &Probe) -> Vec<NumaNode> {
    let directory = "/sys/devices/system/node";
    let numbers = probe.names(directory).into_iter();
    let mut nodes: Vec<NumaNode> = numbers
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .map(|node: u64| NumaNode {
            node,
            cpus: probe
                .text(&format!("{directory}/node{node}/cpulist"))
                .and_then(|list| CpuSet::from_list(&list))
                .unwrap_or_default(),
            memory_bytes: Known::or(node_memory(probe, node), "the node's meminfo cannot be read"),
        })
        .collect();
    nodes.sort_by_key(|node| node.node);
    nodes
}

/// `Node 0 MemTotal:       16384000 kB`.
fn node_memory(probe: &Probe, node: u64) -> Option<u64> {
    let info = probe.text(&format!("/sys/devices/system/node/node{node}/meminfo"))?;
    let line = info.lines().find(|line| line.contains("MemTotal:"))?;
    let kib: u64 = line.split_once("MemTotal:")?.1.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

impl Cpus {
    pub(super) fn to_text(&self) -> String {
        let or_none = |set: &CpuSet| if set.is_empty() { "none".to_owned() } else { set.to_string() };
        let siblings: Vec<String> = self.siblings.iter().map(CpuSet::to_string).collect();
        let siblings = if siblings.is_empty() { "none".to_owned() } else { siblings.join(" ") };
        let mut out = format!(
            "cpus: {} online ({}); {}; threads of one core: {siblings}; isolated {}; nohz_full {}; clock {}\n",
            self.count,
            self.online,
            self.model,
            or_none(&self.isolated),
            or_none(&self.nohz_full),
            self.clocksource
        );
        for node in &self.numa_nodes {
            let memory = match &node.memory_bytes {
                Known::Is(bytes) => human_bytes(*bytes),
                Known::Not(why) => format!("not known ({why})"),
            };
            out += &format!("numa node {}: cpus {}; memory {memory}\n", node.node, or_none(&node.cpus));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuSet {
        CpuSet::from_list(text).unwrap()
    }

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(list("0-3,8,10-11").len(), 7);
        for text in ["0", "0-3,8,10-11", "5,7", ""] {
            assert_eq!(list(text).to_string(), text);
        }
        for garbage in ["3-1", "x", "1-", "-", "0-99999999", "1;2"] {
            assert_eq!(CpuSet::from_list(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn masks_are_read_and_written() {
        for (mask, text) in [("f", "0-3"), ("0", ""), ("1,00000001", "0,32"), ("80000000", "31")] {
            assert_eq!(list(text).to_mask(), mask);
            assert_eq!(CpuSet::from_mask(mask), Some(list(text)));
        }
        assert_eq!(CpuSet::from_mask("00000000,0000000f"), Some(list("0-3")));
        assert_eq!(CpuSet::from_mask("xyz"), None);
        assert_eq!(CpuSet::from_mask(""), None);
    }
}
