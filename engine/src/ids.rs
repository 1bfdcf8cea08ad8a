//! The engine's identifiers: newtypes, so that no bare integer crosses a module.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A table of the node. Never reused after a drop.
    TableId(u32)
);
id!(
    /// A partition of the node. Never reused after a drop; 0 is never a partition.
    PartitionId(u32)
);
id!(
    /// Fencing number of a partition's assignment; every request carries it.
    Epoch(u32)
);
id!(
    /// A shard of the drive: one core's thread and all it owns.
    ShardId(u16)
);
id!(
    /// The node's number, the last four bytes of every [`Seq`](crate::Seq).
    NodeId(u32)
);
id!(
    /// A segment's place in its shard's area, counted from 0.
    SegmentId(u32)
);
id!(
    /// How often a segment has been opened for writing; 0 means never.
    Generation(u32)
);
id!(
    /// Number of a frame in its stream, from 1, without gaps.
    FrameNumber(u64)
);
id!(
    /// Byte position on the drive, counted from the drive's first byte.
    DriveOffset(u64)
);
id!(
    /// Whose a transaction is: the caller's name for a connection. Only requests of its owner find it.
    OwnerId(u64)
);
id!(
    /// The caller's name for a request; comes back in its reply. Unique among requests in flight.
    RequestId(u64)
);
id!(
    /// The engine's name for an operation; comes back in its completion.
    Token(u64)
);
id!(
    /// UNIX time in milliseconds: when a record expires.
    WallMs(u64)
);
id!(
    /// A buffer of the [`Buffers`](crate::Buffers) pool.
    BufferId(u32)
);

impl Generation {
    /// The highest. Segments of 4 MiB have it after a shard has written 16 PB: what says more is damaged.
    pub const MAX: Generation = Generation(0xf000_0000);
}

impl FrameNumber {
    /// The highest: a stream with a million frames a second has it after 142 years, so what says more is damaged.
    pub const MAX: FrameNumber = FrameNumber(1 << 52);

    /// Whether a frame may have it.
    pub fn is_possible(self) -> bool {
        (FrameNumber(1)..=FrameNumber::MAX).contains(&self)
    }

    /// The frame after this one.
    pub fn next(self) -> FrameNumber {
        FrameNumber(self.0 + 1)
    }
}

/// The version of a write: higher wins. 16 bytes: 8 of UNIX nanoseconds, 4 of counter, 4 of node id.
///
/// Ordered by (time, counter, node). The counter's top byte is the low byte of the shard, so that
/// two shards of a node never make the same `Seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    /// UNIX time of the write in nanoseconds, never running backwards within a shard.
    pub wall_ns: u64,
    /// Distinguishes writes of one nanosecond.
    pub counter: u32,
    /// The node that made it.
    pub node: NodeId,
}

impl Seq {
    /// Size of an encoded `Seq`.
    pub const BYTES: usize = 16;

    /// Little-endian: time, counter, node.
    pub fn to_bytes(self) -> [u8; Seq::BYTES] {
        let mut out = [0u8; Seq::BYTES];
        out[0..8].copy_from_slice(&self.wall_ns.to_le_bytes());
        out[8..12].copy_from_slice(&self.counter.to_le_bytes());
        out[12..16].copy_from_slice(&self.node.0.to_le_bytes());
        out
    }

    /// The reverse of [`to_bytes`](Seq::to_bytes).
    pub fn from_bytes(bytes: [u8; Seq::BYTES]) -> Seq {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Seq {
            wall_ns: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            counter: u32::from_le_bytes([i, j, k, l]),
            node: NodeId(u32::from_le_bytes([m, n, o, p])),
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.wall_ns, self.counter, self.node)
    }
}

/// An open transaction of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    /// Whose it is.
    pub owner: OwnerId,
    /// Its number, never used again until the shard is opened anew.
    pub number: u64,
}
