//! Memory.

use serde::Serialize;

use super::Known;
use crate::checks::human_bytes;
use crate::probe::Probe;

/// Memory.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// All that the kernel has, in bytes.
    pub total_bytes: Known<u64>,
    /// What a new process could have, in bytes.
    pub available_bytes: Known<u64>,
    /// Swap, in bytes; 0 for none.
    pub swap_bytes: Known<u64>,
    /// Huge pages set aside at this moment.
    pub huge_pages: Known<u64>,
    /// Bytes of a huge page.
    pub huge_page_bytes: Known<u64>,
}

pub fn read(probe: &Probe) -> Memory {
    let line =
        |name| Known::or(probe.memory_bytes(name), "/proc/meminfo has no such line, or cannot be read");
    Memory {
        total_bytes: line("MemTotal"),
        available_bytes: line("MemAvailable"),
        swap_bytes: line("SwapTotal"),
        huge_pages: Known::or(probe.number("/proc/sys/vm/nr_hugepages"), "this kernel has no huge pages"),
        huge_page_bytes: line("Hugepagesize"),
    }
}

impl Memory {
    pub(super) fn to_text(&self) -> String {
        let bytes = |known: &Known<u64>| match known {
            Known::Is(bytes) => human_bytes(*bytes),
            Known::Not(why) => format!("not known ({why})"),
        };
        format!(
            "memory: {}; available {}; swap {}; huge pages {} of {}\n",
            bytes(&self.total_bytes),
            bytes(&self.available_bytes),
            bytes(&self.swap_bytes),
            self.huge_pages,
            bytes(&self.huge_page_bytes)
        )
    }
}
