//! The answer to a Hello with the whole map in it: archived once for a version of the map, not once for each
//! client. With 131,072 partitions it takes 70 ms to make, for which a shard serves nobody.

use std::sync::{Arc, OnceLock};

use crate::wire::control::{HelloReply, MapBody};
use crate::wire::ids::ShardId;
use crate::wire::server::NodeInfo;

/// The body of the answer to a Hello that wants the map, but for the shard that gives it.
#[derive(Debug)]
pub struct EncodedHello {
    incarnation: u64,
    bytes: Vec<u8>,
}

/// Kept with a map, by whoever asks first.
pub type HelloCell = Arc<OnceLock<Arc<EncodedHello>>>;

impl EncodedHello {
    /// Of this run of the node. A cell belongs to one map and one run; another run's is made anew.
    pub fn in_cell(
        cell: &HelloCell,
        node: &NodeInfo,
        map: impl FnOnce() -> MapBody + Clone,
    ) -> Arc<EncodedHello> {
        let make = |map: MapBody| {
            let bytes = reply(node, ShardId(0), Some(map)).to_bytes();
            Arc::new(EncodedHello { incarnation: node.incarnation, bytes })
        };
        let kept = cell.get_or_init(|| make(map.clone()()));
        if kept.incarnation == node.incarnation { Arc::clone(kept) } else { make(map()) }
    }

    /// The body as this shard gives it.
    pub fn for_shard(&self, shard: ShardId) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let at = bytes.len() - shard_from_end();
        bytes[at..at + 2].copy_from_slice(&shard.0.to_le_bytes());
        bytes
    }
}

/// The answer to a Hello.
pub fn reply(node: &NodeInfo, shard: ShardId, map: Option<MapBody>) -> HelloReply {
    HelloReply {
        node_name: node.name.clone(),
        incarnation: node.incarnation,
        shard: shard.0,
        shards: node.shards.clone(),
        limits: node.limits,
        map,
    }
}

/// How far from the archive's end the shard lies. An archive ends with its root, whose fields have fixed places, so
/// that two small ones tell it.
fn shard_from_end() -> usize {
    static FROM_END: OnceLock<usize> = OnceLock::new();
    *FROM_END.get_or_init(|| {
        let node =
            NodeInfo { name: String::new(), incarnation: 1, shards: Vec::new(), limits: Default::default() };
        let [low, high] = [0, u16::MAX].map(|shard| reply(&node, ShardId(shard), None).to_bytes());
        let differ = |at: &usize| low[*at] != high[*at];
        let places: Vec<_> = (0..low.len()).filter(differ).collect();
        assert!(places.len() == 2 && places[1] == places[0] + 1, "a shard is two bytes, here {places:?}");
        low.len() - places[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PublishedMap;
    use crate::wire::control::{MapPartition, MapTable, PlacementKind, ShardAddress, Store};

    #[test]
    fn it_is_archived_once_and_every_shard_names_itself() {
        let table =
            MapTable { id: 1, name: "t".into(), store: Store::Durable, placement: PlacementKind::Range };
        let partition = MapPartition {
            id: 9,
            table: 1,
            epoch: 1,
            shard: 0,
            start: b"".to_vec(),
            end: Some(b"m".to_vec()),
        };
        let body = MapBody { version: 3, tables: vec![table], partitions: vec![partition] };
        let map = PublishedMap::new(body.clone()).expect("a map");
        let shards = vec![ShardAddress { shard: 0, port: 40 }, ShardAddress { shard: 700, port: 41 }];
        let node = NodeInfo { name: "a name".into(), incarnation: 5, shards, limits: Default::default() };
        for shard in [0, 1, 700, u16::MAX] {
            let bytes = map.hello(&node).for_shard(ShardId(shard));
            let expected = reply(&node, ShardId(shard), Some(body.clone()));
            assert_eq!(HelloReply::from_bytes(&bytes), Ok(expected));
        }
        assert!(Arc::ptr_eq(&map.hello(&node), &map.clone().hello(&node)), "made once");
        let later = NodeInfo { incarnation: 6, ..node };
        let bytes = map.hello(&later).for_shard(ShardId(0));
        assert_eq!(HelloReply::from_bytes(&bytes).expect("own bytes").incarnation, 6);
    }
}
