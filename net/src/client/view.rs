//! What a client knows of its node: shards, limits, map. Pure; both clients keep one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::wire::control::{HelloReply, MapBody, NodeLimits};
use crate::wire::{MapVersion, PartitionMap, ShardId};

/// A node as last heard of.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    incarnation: u64,
    /// By shard number.
    shards: Arc<[SocketAddr]>,
    limits: NodeLimits,
    map: Arc<PartitionMap>,
}

impl NodeView {
    /// Before anything was heard.
    pub(crate) fn unknown() -> NodeView {
        NodeView {
            incarnation: 0,
            shards: Arc::new([]),
            limits: NodeLimits::default(),
            map: Arc::new(PartitionMap::default()),
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn limits(&self) -> &NodeLimits {
        &self.limits
    }

    pub(crate) fn map(&self) -> &Arc<PartitionMap> {
        &self.map
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn shard_address(&self, shard: ShardId) -> Option<SocketAddr> {
        self.shards.get(usize::from(shard.0)).copied()
    }

    /// Takes in the answer to a Hello that came from `ip`.
    pub(crate) fn adopt_hello(&mut self, ip: IpAddr, hello: HelloReply) -> Result<(), String> {
        let mut shards = hello.shards;
        shards.sort_by_key(|s| s.shard);
        let in_order = shards.iter().enumerate().all(|(place, s)| usize::from(s.shard) == place);
        if !in_order || shards.is_empty() {
            return Err("its shards are not numbered from 0 without gaps".to_owned());
        }
        if hello.incarnation != self.incarnation && hello.map.is_none() {
            return Err("it keeps its map from a client that has none".to_owned());
        }
        if let Some(body) = hello.map {
            self.adopt_map(body, hello.incarnation)?;
        }
        self.incarnation = hello.incarnation;
        self.limits = hello.limits;
        self.shards = shards.iter().map(|s| SocketAddr::new(ip, s.port)).collect();
        Ok(())
    }

    /// Takes in a map, where it is newer than the present one or of another run of the node.
    pub(crate) fn adopt_map(&mut self, body: MapBody, incarnation: u64) -> Result<(), String> {
        let is_news = incarnation != self.incarnation || MapVersion(body.version) > self.map.version();
        if is_news {
            self.map = Arc::new(PartitionMap::new(body).map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Takes in a map that a reply carried, on a connection to this run of the node.
    pub(crate) fn adopt_map_bytes(&mut self, bytes: &[u8], incarnation: u64) -> Result<(), String> {
        if incarnation != self.incarnation {
            // A last word of a node that has since been started again.
            return Ok(());
        }
        self.adopt_map(MapBody::from_bytes(bytes).map_err(|error| error.to_string())?, incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::ShardAddress;

    fn hello(incarnation: u64, map_version: Option<u32>, shards: &[u16]) -> HelloReply {
        HelloReply {
            node_name: "n".into(),
            incarnation,
            shard: 0,
            shards: shards.iter().map(|s| ShardAddress { shard: *s, port: 5000 + *s }).collect(),
            limits: NodeLimits::default(),
            map: map_version.map(|version| MapBody { version, ..MapBody::default() }),
        }
    }

    #[test]
    fn a_newer_map_or_a_newer_node_wins() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let mut view = NodeView::unknown();
        assert!(view.adopt_hello(ip, hello(7, None, &[0])).is_err());
        assert!(view.adopt_hello(ip, hello(7, Some(3), &[0, 2])).is_err());
        assert!(view.adopt_hello(ip, hello(7, Some(3), &[])).is_err());
        let mut view = NodeView::unknown();
        assert_eq!(view.adopt_hello(ip, hello(7, Some(3), &[1, 0])), Ok(()));
        assert_eq!(view.shard_address(ShardId(1)), Some(SocketAddr::new(ip, 5001)));
        let version_after = |view: &mut NodeView, version, incarnation| {
            let bytes = MapBody { version, ..MapBody::default() }.to_bytes();
            view.adopt_map_bytes(&bytes, incarnation).expect("good map");
            view.map().version().0
        };
        assert_eq!(version_after(&mut view, 2, 7), 3, "older");
        assert_eq!(version_after(&mut view, 4, 7), 4, "newer");
        assert_eq!(version_after(&mut view, 9, 6), 4, "of another run");
        assert_eq!(view.adopt_hello(ip, hello(8, Some(1), &[0])), Ok(()));
        assert_eq!((view.map().version().0, view.shard_count(), view.incarnation()), (1, 1, 8));
    }
}
