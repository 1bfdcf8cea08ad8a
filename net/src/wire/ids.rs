//! The identifiers of the wire: newtypes, so that no bare integer crosses a module.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// The client's name for a request, unique among those in flight on its connection; 0 is never a request.
    RequestId(u64)
);
id!(
    /// A transaction of a partition. Never reused while the node runs.
    TransactionId(u64)
);
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
    /// A shard of the node.
    ShardId(u16)
);
id!(
    /// Version of the partition map within one run of the node; 0 means none.
    MapVersion(u32)
);

/// The version of a write: higher wins. 16 bytes: 8 of UNIX nanoseconds, 4 of counter, 4 of node id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    /// UNIX time of the write in nanoseconds.
    pub wall_ns: u64,
    /// Distinguishes writes of one nanosecond.
    pub counter: u32,
    /// The node that made it.
    pub node: u32,
}

impl Seq {
    /// Size of an encoded `Seq`.
    pub const BYTES: usize = 16;

    /// Little-endian: time, counter, node.
    pub fn to_bytes(self) -> [u8; Seq::BYTES] {
        let mut out = [0u8; Seq::BYTES];
        out[0..8].copy_from_slice(&self.wall_ns.to_le_bytes());
        out[8..12].copy_from_slice(&self.counter.to_le_bytes());
        out[12..16].copy_from_slice(&self.node.to_le_bytes());
        out
    }

    /// The reverse of [`to_bytes`](Seq::to_bytes).
    pub fn from_bytes(bytes: [u8; Seq::BYTES]) -> Seq {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Seq {
            wall_ns: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            counter: u32::from_le_bytes([i, j, k, l]),
            node: u32::from_le_bytes([m, n, o, p]),
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.wall_ns, self.counter, self.node)
    }
}

/// A text that is not a [`Seq`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: give it as printed, three numbers with dots between")]
pub struct SeqTextError {
    /// The text.
    pub text: String,
}

impl std::str::FromStr for Seq {
    type Err = SeqTextError;

    /// The reverse of `Display`.
    fn from_str(text: &str) -> Result<Seq, SeqTextError> {
        let parse = || {
            let mut parts = text.split('.');
            let seq = Seq {
                wall_ns: parts.next()?.parse().ok()?,
                counter: parts.next()?.parse().ok()?,
                node: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(seq)
        };
        parse().ok_or_else(|| SeqTextError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_comes_back_from_its_bytes_and_its_text() {
        let seq = Seq { wall_ns: 0x0102_0304_0506_0708, counter: 0x0a0b_0c0d, node: 77 };
        assert_eq!(Seq::from_bytes(seq.to_bytes()), seq);
        assert_eq!(seq.to_string().parse(), Ok(seq));
        for wrong in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.4294967296"] {
            assert!(wrong.parse::<Seq>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_later_seq_is_higher() {
        let at = |wall_ns, counter, node| Seq { wall_ns, counter, node };
        assert!(at(2, 0, 0) > at(1, 9, 9));
        assert!(at(1, 1, 0) > at(1, 0, 9));
        assert!(at(1, 1, 1) > at(1, 1, 0));
    }
}
