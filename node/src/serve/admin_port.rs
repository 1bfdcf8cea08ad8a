//! The admin port of a node that starts: where it listens, and what it tells of the configuration.

use std::sync::Arc;

use serde_json::{Value, json};

use super::access::Keys;
use super::{NodeSockets, ServeConfig, ServeError, listen};
use crate::admin::{self, AdminConfig, OpenAdmin};
use crate::control::NodeFacts;
use crate::mailbox::Mailbox;
use crate::redis::OpenDoor;
use crate::slow::SlowLog;

/// Opens it, where there is to be one.
pub fn open(config: &ServeConfig, keys: &Keys) -> Result<Option<OpenAdmin>, ServeError> {
    let Some(addr) = config.admin else { return Ok(None) };
    let socket = listen::begin(listen::bind_admin(addr)?)?;
    let wants = AdminConfig {
        name: &config.name,
        access: keys.access.clone(),
        client: config.client,
        tls: keys.tls.clone(),
        hosts: config.admin_hosts.clone(),
    };
    Ok(Some(admin::open(socket, wants)?))
}

/// The node serves: so does its admin port, where there is one.
pub fn serve(
    admin: Option<OpenAdmin>,
    mailboxes: Arc<[Mailbox]>,
    slow: Arc<SlowLog>,
    door: Option<&OpenDoor>,
    settings: Value,
) -> Result<Option<OpenAdmin>, ServeError> {
    let Some(mut admin) = admin else { return Ok(None) };
    admin.serves(mailboxes, slow, door.map(|door| Arc::clone(&door.tally)), settings)?;
    Ok(Some(admin))
}

/// What the admin port tells of the configuration.
pub fn settings(config: &ServeConfig, facts: &NodeFacts, sockets: &NodeSockets) -> Value {
    json!({
        "listen": sockets.addr,
        "shard_ports": sockets.ports,
        "redis": config.redis,
        "admin": config.admin,
        "admin_hosts": Some(config.admin_hosts.to_string()).filter(|names| !names.is_empty()),
        "tls": config.tls.is_some(),
        "max_connections": config.max_connections,
        "memory_bytes": config.memory_bytes,
        "memory_of_each_shard": facts.memory,
        "drive": facts.drive,
        "io": facts.io,
        "pinned": facts.pinned,
        "scrub_bytes_per_s": config.scrub_bytes_per_s,
        "slow_request_us": (!config.slow_request.is_zero()).then_some(config.slow_request.as_micros() as u64),
        "table_defaults": facts.table_defaults,
        "limits": {
            "key_bytes": lode_engine::limits::MAX_KEY_BYTES,
            "value_bytes": facts.drive["max_value_bytes"],
            "partitions_of_each_shard": lode_engine::limits::MAX_PARTITIONS,
        },
    })
}
