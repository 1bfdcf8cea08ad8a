//! The node's statistics as one JSON object: the node, each shard, and the sums.

use std::time::Instant;

use lode_engine::{DamagedRecord, QuarantinedPartition, ScrubStats, ShardId, ShardStats};
use lode_net::ring::{Features, RingCounters};
use lode_net::wire::MapVersion;
use lode_net::wire::server::NodeInfo;
use serde_json::{Map, Value, json};

use crate::reactor::{Closed, ReactorStats, Waited};

/// What is known of the node besides its counters.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// When it began to start.
    pub begun: Instant,
    /// The drive, in words and numbers.
    pub drive: Value,
    /// How the memory was divided.
    pub memory: Value,
    /// Milliseconds from the start to serving.
    pub recovery_ms: f64,
    /// What the rings found.
    pub ring: Value,
    /// Whether shards are pinned to cores.
    pub pinned: bool,
    /// What a new table is like where its maker leaves it open.
    pub table_defaults: Value,
    /// What the drive is taken to stand, and where that comes from.
    pub io: Value,
}

impl NodeFacts {
    /// The node is up.
    pub fn recovered<'a>(&mut self, features: impl Iterator<Item = &'a Features>) {
        self.recovery_ms = self.begun.elapsed().as_secs_f64() * 1000.0;
        self.ring = features
            .map(|found| {
                json!({
                    "kernel": found.kernel,
                    "task_run": format!("{:?}", found.task_run).to_lowercase(),
                    "single_issuer": found.single_issuer,
                    "multishot_receive": found.multishot_receive,
                    "multishot_accept": found.multishot_accept,
                    "registered_ring": found.registered_ring,
                    "registered_drive": found.registered_drive,
                    "registered_buffer_bytes": found.registered_buffer_bytes,
                })
            })
            .collect();
    }
}

/// Names every field of a struct of numbers, so that none is forgotten when one is added.
macro_rules! numbers {
    ($of:expr, $name:ident { $($field:ident),* $(,)? } $(, except $($rest:ident),*)?) => {{
        let $name { $($field),* $($(, $rest: _)*)? } = $of;
        let pairs: Vec<(&str, u64)> = vec![$((stringify!($field), *$field)),*];
        pairs
    }};
}

/// The whole object.
pub fn to_json(
    facts: &NodeFacts,
    node: &NodeInfo,
    map_version: MapVersion,
    shards: Vec<(ShardId, ShardStats, ReactorStats)>,
) -> Value {
    let mut totals: Map<String, Value> = Map::new();
    let mut list = Vec::new();
    for (shard, engine, reactor) in &shards {
        let mut pairs = engine_numbers(engine);
        pairs.extend(reactor_numbers(reactor));
        let mut object = Map::new();
        object.insert("shard".into(), json!(shard.0));
        for (name, number) in pairs {
            let sum = totals.get(name).and_then(Value::as_u64).unwrap_or(0) + number;
            totals.insert(name.into(), json!(sum));
            object.insert(name.into(), json!(number));
        }
        add_ratios(&mut object);
        object.insert("scrub".into(), scrub_json(&engine.scrub));
        list.push(Value::Object(object));
    }
    add_ratios(&mut totals);
    let damaged =
        |of: fn(&ScrubStats) -> u64| shards.iter().map(|(_, engine, _)| of(&engine.scrub)).sum::<u64>();
    totals.insert("damaged_records".into(), json!(damaged(|scrub| scrub.damaged_records)));
    totals.insert("damaged_places".into(), json!(damaged(|scrub| scrub.damaged_places)));
    let process = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    json!({
        "node": {
            "name": node.name,
            "incarnation": node.incarnation,
            "uptime_ms": facts.begun.elapsed().as_millis() as u64,
            "recovery_ms": facts.recovery_ms,
            "map_version": map_version.0,
            "process_cpu_us": process.tv_sec as u64 * 1_000_000 + process.tv_nsec as u64 / 1000,
            "resident_bytes": resident_bytes(),
            "pinned": facts.pinned,
        },
        "table_defaults": facts.table_defaults,
        "drive": facts.drive,
        "memory": facts.memory,
        "ring": facts.ring,
        "io": facts.io,
        "shards": list,
        "totals": totals,
    })
}

/// How far the scrub of a shard is, and the damage that is known.
fn scrub_json(scrub: &ScrubStats) -> Value {
    let finished_ms = Some(scrub.last_finished_wall_ns / 1_000_000).filter(|ms| *ms > 0);
    json!({
        "rate_bytes_per_s": scrub.rate_bytes_per_s,
        "round": scrub.round,
        "rounds_finished": scrub.rounds_finished,
        "percent": scrub.percent,
        "round_bytes": scrub.round_bytes,
        "bytes": scrub.bytes,
        "last_finished_unix_ms": finished_ms,
        "asked": scrub.asked,
        "answered": scrub.answered,
        "damaged_records": scrub.damaged_records,
        "damaged_unlisted": scrub.damaged_unlisted,
        "damaged_places": scrub.damaged_places,
        "repaired_superblocks": scrub.repaired_superblocks,
        "repaired_images": scrub.repaired_images,
        "damaged": scrub.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
        "quarantined": scrub.quarantined.iter().map(quarantined_json).collect::<Vec<_>>(),
    })
}

/// A partition in quarantine.
pub fn quarantined_json(found: &QuarantinedPartition) -> Value {
    json!({ "table": found.table_name, "partition": found.partition.0, "upto": found.upto.to_string() })
}

/// A key is text where it is UTF-8, else bytes in hexadecimal digits.
fn damaged_json(record: &DamagedRecord) -> Value {
    let (name, key) = match std::str::from_utf8(&record.key) {
        Ok(text) => ("key", text.to_owned()),
        Err(_) => ("key_hex", record.key.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    json!({
        "table": record.table_name,
        "partition": record.partition.0,
        name: key,
        "key_is_whole": record.is_whole_key,
        "at": record.at,
        "bytes": record.len,
    })
}

/// What follows from the counters: reads per GET, device bytes per byte of user data.
fn add_ratios(object: &mut Map<String, Value>) {
    let number = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0) as f64;
    let ratio = |part: f64, whole: f64| if whole > 0.0 { json!(part / whole) } else { Value::Null };
    let from_drive = number("gets") - number("get_cache_hits") - number("get_misses");
    let reads_per_get = ratio(number("get_device_reads"), number("gets"));
    let reads_per_cold_get = ratio(number("get_device_reads"), from_drive);
    let written = ["user_frame_bytes", "cleaning_frame_bytes", "journal_bytes", "image_bytes", "meta_bytes"];
    let write_amplification = ratio(written.map(number).iter().sum(), number("user_bytes"));
    let writes = number("puts")
        + number("deletes")
        + number("batches")
        + number("increments")
        + number("expiry_changes");
    let device_writes_per_write = ratio(number("user_frame_writes"), writes);
    object.insert("device_reads_per_get".into(), reads_per_get);
    object.insert("device_reads_per_cold_get".into(), reads_per_cold_get);
    object.insert("write_amplification".into(), write_amplification);
    object.insert("device_writes_per_write".into(), device_writes_per_write);
}

/// The engine's counters and gauges by their names.
pub fn engine_numbers(stats: &ShardStats) -> Vec<(&'static str, u64)> {
    numbers!(
        stats,
        ShardStats {
            gets,
            get_cache_hits,
            get_misses,
            puts,
            deletes,
            batches,
            increments,
            expiry_changes,
            expired,
            expiring_records,
            expiry_bytes,
            scans,
            refused,
            busy,
            reads_given_up,
            key_reads,
            device_reads,
            device_read_bytes,
            get_device_reads,
            values_sent_from_device_buffer,
            value_bytes_copied_to_reply,
            user_frame_writes,
            user_frame_bytes,
            cleaning_frame_bytes,
            journal_bytes,
            image_bytes,
            meta_bytes,
            user_bytes,
            segments_cleaned,
            relocated_bytes, gathered_bytes,
            checkpoints,
            corrupt_records,
            failed_reads,
            quarantined_frames,
            transactions_begun,
            transactions_committed,
            transaction_conflicts,
            transactions_rolled_back,
            transactions_ended,
            transactions_open,
            transaction_bytes,
            tables,
            partitions,
            partitions_unloaded, partitions_quarantined,
            records,
            memory_records,
            live_bytes,
            live_limit_bytes,
            segments,
            segments_free,
            index_bytes,
            memory_table_bytes,
            memory_limit_bytes,
            cache_bytes,
            cache_limit_bytes,
            writes_in_flight,
            requests_parked,
            recovered_frames,
            recovered_journal_entries,
            recovered_image_records,
            recovery_read_bytes,
            poisoned,
        },
        except scrub, highest_table, highest_partition, may_lack_tables
    )
}

/// The reactor's counters and gauges by their names.
pub fn reactor_numbers(stats: &ReactorStats) -> Vec<(&'static str, u64)> {
    let mut pairs = numbers!(
        stats,
        ReactorStats {
            turns, spins, requests, answers, sends, value_bytes_from_drive_buffers, values_from_drive_buffers,
            value_bytes_shared, value_bytes_copied, answers_given_up, reply_bytes, requests_queued, requests_given_up, queued, queued_bytes, throttled,
            connections_held_up, slow_requests, hops_out, hops_in, accepted, refused_connections,
            connections, pending, buffer_bytes, buffer_bytes_free, buffers_refused, cpu_us,
        },
        except closed, ring, waited
    );
    let Closed { by_peer, protocol, silent, deaf, overload, stop } = stats.closed;
    pairs.extend([
        ("closed_by_peer", by_peer),
        ("closed_protocol", protocol),
        ("closed_silent", silent),
        ("closed_deaf", deaf),
        ("closed_overload", overload),
        ("closed_stop", stop),
    ]);
    let RingCounters { enters, sleeps, submitted, completed, short_sends, short_transfers, starved_receives } =
        stats.ring;
    pairs.extend([
        ("ring_enters", enters),
        ("ring_sleeps", sleeps),
        ("ring_submitted", submitted),
        ("ring_completed", completed),
        ("ring_short_sends", short_sends),
        ("ring_short_transfers", short_transfers),
        ("ring_starved_receives", starved_receives),
    ]);
    let Waited { request_ns, drive_ns, drive_operations } = stats.waited;
    pairs.extend([
        ("request_wait_us", request_ns / 1000),
        ("drive_wait_us", drive_ns / 1000),
        ("drive_operations", drive_operations),
    ]);
    pairs
}

/// Memory of the process that is resident now.
pub fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}
