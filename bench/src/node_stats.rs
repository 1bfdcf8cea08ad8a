//! What the node counts, before and after a load.

use serde::Serialize;
use serde_json::Value;

/// The counters of a node at one moment, summed over its shards.
#[derive(Debug, Clone)]
pub struct NodeStats {
    json: Value,
}

/// What a node did between two moments. A ratio is `None` where nothing of its kind was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct NodeDelta {
    /// GETs answered.
    pub gets: u64,
    /// GETs answered from memory.
    pub get_cache_hits: u64,
    /// PUTs acknowledged.
    pub puts: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Device reads for GETs, over all GETs.
    pub device_reads_per_get: Option<f64>,
    /// Device reads for GETs, over those GETs that memory could not answer.
    pub device_reads_per_get_miss: Option<f64>,
    /// Device writes of user frames, over PUTs.
    pub device_writes_per_put: Option<f64>,
    /// Bytes written to the device, over bytes of keys and values acknowledged.
    pub write_amplification: Option<f64>,
    /// The part of it that cleaning has written.
    pub cleaning_amplification: Option<f64>,
    /// Bytes of values copied between the drive's buffer and the socket.
    pub value_bytes_copied: u64,
    /// CPU of the whole process in microseconds.
    pub cpu_us: u64,
    /// CPU microseconds, over GETs and PUTs.
    pub cpu_us_per_operation: Option<f64>,
    /// Mean time of a request in the node, in microseconds.
    pub request_us: Option<f64>,
    /// Drive operations of all kinds.
    pub drive_operations: u64,
    /// Drive operations in flight on average, over all shards.
    pub drive_in_flight: Option<f64>,
    /// Mean time of a drive operation, in microseconds.
    pub drive_operation_us: Option<f64>,
    /// Drive operations that a request waits for: reads of GETs, and one for each PUT and transaction.
    pub device_waits_per_request: Option<f64>,
}

impl NodeStats {
    /// The answer to a Stats request.
    pub fn new(json: Value) -> NodeStats {
        NodeStats { json }
    }

    /// Shards of the node; each has a thread of its own.
    pub fn shards(&self) -> u16 {
        self.json["shards"].as_array().map_or(1, |shards| shards.len().max(1) as u16)
    }

    /// Most bytes of live records that the node takes.
    pub fn live_limit_bytes(&self) -> u64 {
        self.total("live_limit_bytes")
    }

    /// Bytes of live records.
    pub fn live_bytes(&self) -> u64 {
        self.total("live_bytes")
    }

    /// One part of what the node says about itself, such as `drive`.
    pub fn part(&self, name: &str) -> &Value {
        &self.json[name]
    }

    /// One counter, summed over the shards.
    pub fn total(&self, name: &str) -> u64 {
        self.json["totals"][name].as_u64().unwrap_or(0)
    }

    fn cpu_us(&self) -> u64 {
        self.json["node"]["process_cpu_us"].as_u64().unwrap_or(0)
    }

    fn uptime_ms(&self) -> u64 {
        self.json["node"]["uptime_ms"].as_u64().unwrap_or(0)
    }

    /// What happened since `before`.
    pub fn since(&self, before: &NodeStats) -> NodeDelta {
        let grown = |name: &str| self.total(name).saturating_sub(before.total(name));
        let (gets, hits, puts) = (grown("gets"), grown("get_cache_hits"), grown("puts"));
        let written =
            ["user_frame_bytes", "cleaning_frame_bytes", "journal_bytes", "image_bytes", "meta_bytes"];
        let device_bytes: u64 = written.into_iter().map(grown).sum();
        let found_nothing = grown("get_misses");
        let cpu_us = self.cpu_us().saturating_sub(before.cpu_us());
        let (drive_us, drive_operations) = (grown("drive_wait_us"), grown("drive_operations"));
        let elapsed_us = 1000 * self.uptime_ms().saturating_sub(before.uptime_ms());
        let waits = grown("get_device_reads") + puts + grown("deletes") + grown("transactions_committed");
        NodeDelta {
            gets,
            get_cache_hits: hits,
            puts,
            busy: grown("busy"),
            device_reads_per_get: ratio(grown("get_device_reads"), gets),
            device_reads_per_get_miss: ratio(
                grown("get_device_reads"),
                gets.saturating_sub(hits).saturating_sub(found_nothing),
            ),
            device_writes_per_put: ratio(grown("user_frame_writes"), puts),
            write_amplification: ratio(device_bytes, grown("user_bytes")),
            cleaning_amplification: ratio(grown("cleaning_frame_bytes"), grown("user_bytes")),
            value_bytes_copied: grown("value_bytes_copied_to_reply") + grown("value_bytes_copied"),
            cpu_us,
            cpu_us_per_operation: ratio(cpu_us, gets + puts),
            request_us: ratio(grown("request_wait_us"), grown("answers")),
            drive_operations,
            drive_in_flight: ratio(drive_us, elapsed_us),
            drive_operation_us: ratio(drive_us, drive_operations),
            device_waits_per_request: ratio(waits, grown("answers")),
        }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_delta_is_what_has_grown() {
        let stats = |gets: u64, hits: u64, reads: u64, cpu: u64| {
            let totals = json!({"gets": gets, "get_cache_hits": hits, "get_device_reads": reads});
            NodeStats::new(json!({"totals": totals, "node": {"process_cpu_us": cpu}}))
        };
        let delta = stats(110, 60, 50, 900).since(&stats(10, 10, 0, 400));
        assert_eq!((delta.gets, delta.get_cache_hits, delta.cpu_us), (100, 50, 500));
        assert_eq!(delta.device_reads_per_get, Some(0.5));
        assert_eq!(delta.device_reads_per_get_miss, Some(1.0));
        assert_eq!(delta.cpu_us_per_operation, Some(5.0));
        assert_eq!(delta.write_amplification, None);
    }
}
