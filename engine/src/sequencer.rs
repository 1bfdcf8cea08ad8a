//! Makes versions that only rise.

use crate::ids::{NodeId, Seq, ShardId};

/// Bits of the counter below the shard's byte.
const COUNTER_BITS: u32 = 24;

/// A shard's source of [`Seq`]s.
#[derive(Debug)]
pub struct Sequencer {
    shard_byte: u32,
    node: NodeId,
    last_wall_ns: u64,
    last_count: u32,
}

impl Sequencer {
    /// For one shard of one node.
    pub fn new(shard: ShardId, node: NodeId) -> Sequencer {
        let shard_byte = u32::from(shard.0 as u8) << COUNTER_BITS;
        Sequencer { shard_byte, node, last_wall_ns: 0, last_count: 0 }
    }

    /// The next version: of `wall_ns` or, where that is not after the last, of just after the last.
    pub fn next(&mut self, wall_ns: u64) -> Seq {
        if wall_ns > self.last_wall_ns {
            self.last_wall_ns = wall_ns;
            self.last_count = 0;
        } else if self.last_count + 1 < 1 << COUNTER_BITS {
            self.last_count += 1;
        } else {
            self.last_wall_ns += 1;
            self.last_count = 0;
        }
        Seq { wall_ns: self.last_wall_ns, counter: self.shard_byte | self.last_count, node: self.node }
    }

    /// A version was seen on the drive: the next ones are beyond it.
    pub fn observe(&mut self, seq: Seq) {
        if seq.wall_ns >= self.last_wall_ns {
            self.last_wall_ns = seq.wall_ns + 1;
            self.last_count = 0;
        }
    }

    /// The last version that was made, or one beyond all that were seen.
    pub fn last(&self) -> Seq {
        Seq { wall_ns: self.last_wall_ns, counter: self.shard_byte | self.last_count, node: self.node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_even_when_the_clock_falls() {
        let mut sequencer = Sequencer::new(ShardId(3), NodeId(1));
        let mut last = sequencer.next(100);
        for wall_ns in [100, 100, 99, 0, 101, 50, 101] {
            let next = sequencer.next(wall_ns);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        sequencer.observe(Seq { wall_ns: 1000, counter: u32::MAX, node: NodeId(9) });
        assert!(sequencer.next(5) > Seq { wall_ns: 1000, counter: u32::MAX, node: NodeId(9) });
    }
}
