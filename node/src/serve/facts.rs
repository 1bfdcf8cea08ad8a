//! What a node that starts tells of itself: to its clients, and in its statistics.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lode_net::wire::control::{NodeLimits, ShardAddress};
use lode_net::wire::server::NodeInfo;
use serde_json::json;

use super::ServeConfig;
use super::memory::MemoryPlan;
use crate::control::NodeFacts;
use crate::drive::{Drive, DriveKind};
use crate::io_limits::Chosen;

/// For its statistics.
pub fn node_facts(
    begun: Instant,
    drive: &Drive,
    memory: MemoryPlan,
    pinned: bool,
    config: &ServeConfig,
    io: &Chosen,
) -> NodeFacts {
    NodeFacts {
        begun,
        drive: drive_json(drive),
        memory: memory.to_json(),
        recovery_ms: 0.0,
        ring: json!([]),
        pinned,
        table_defaults: config.table_defaults.clone(),
        io: io.to_json(),
    }
}

/// For its clients.
pub fn node_info(config: &ServeConfig, drive: &Drive, ports: &[u16]) -> NodeInfo {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shards = ports.iter().enumerate();
    NodeInfo {
        name: config.name.clone(),
        incarnation: (since_epoch.as_nanos() as u64).max(1),
        shards: shards.map(|(shard, port)| ShardAddress { shard: shard as u16, port: *port }).collect(),
        limits: NodeLimits { value_bytes: drive.geometry.max_value_bytes, ..NodeLimits::default() },
    }
}

fn drive_json(drive: &Drive) -> serde_json::Value {
    json!({
        "path": drive.path.display().to_string(),
        "kind": match drive.kind {
            DriveKind::File => "file",
            DriveKind::BlockDevice => "block device",
        },
        "bytes": drive.geometry.drive_bytes,
        "segment_bytes": drive.geometry.segment_bytes,
        "segments_per_shard": drive.geometry.segments_per_shard,
        "max_value_bytes": drive.geometry.max_value_bytes,
        "shards": drive.geometry.shards,
        "direct": drive.direct,
        "write_cache": drive.write_cache.text(),
        "discard": drive.discard,
    })
}
