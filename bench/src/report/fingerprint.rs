//! What was measured on what: machine, kernel, drive and configuration.

use serde::Serialize;
use serde_json::Value;

use crate::node_stats::NodeStats;
use crate::options::RunOptions;

/// The machine that the generator runs on, and what the server says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct Fingerprint {
    /// Version of this program.
    pub version: &'static str,
    /// The generator's kernel.
    pub kernel: String,
    /// Its processor.
    pub processor: String,
    /// How many cores it has.
    pub cores: usize,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Where the server is.
    pub addr: String,
    /// What a node says about itself; empty of another server.
    pub node: Value,
    /// Its drive.
    pub drive: Value,
    /// How it divides its memory.
    pub memory: Value,
    /// What its rings can do; those of all shards are alike.
    pub ring: Value,
}

impl Fingerprint {
    /// Looks at this machine, and at what the server has said.
    pub fn new(options: &RunOptions, counters: &NodeStats) -> Fingerprint {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let processor = field(&cpu, "model name").or_else(|| field(&cpu, "CPU part"));
        let memory = read("/proc/meminfo");
        let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Fingerprint {
            version: env!("CARGO_PKG_VERSION"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.unwrap_or("not told").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            addr: options.data.addr.clone(),
            node: counters.part("node").clone(),
            drive: counters.part("drive").clone(),
            memory: counters.part("memory").clone(),
            ring: counters.part("ring")[0].clone(),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nMemTotal:   12 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(field(text, "MemTotal"), Some("12 kB"));
        assert_eq!(field(text, "missing"), None);
    }
}
