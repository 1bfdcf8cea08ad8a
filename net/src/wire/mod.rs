//! The wire format, as values and as pure functions over bytes. `PROTOCOL.md` is the same in prose.
//!
//! Every message is one frame: a fixed little-endian header, then a body whose length the header
//! gives. The checksum covers both. Nothing here opens a socket or reads a clock.

pub mod batch;
pub mod control;
#[cfg(test)]
mod document;
pub mod header;
mod ids;
pub mod limits;
pub mod map;
pub mod opcode;
pub mod parser;
pub mod quota;
pub mod reply;
pub mod request;
pub mod scan;
pub mod server;
pub mod status;

pub use batch::{BatchBuilder, BatchView, BatchWrite};
pub use header::{REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, ReplyHeader, RequestHeader};
pub use ids::{Epoch, MapVersion, PartitionId, RequestId, Seq, ShardId, TableId, TransactionId};
pub use map::{PartitionMap, PublishedMap, Route};
pub use opcode::Opcode;
pub use parser::{FrameParser, Parsed, Violation};
pub use quota::Quota;
pub use reply::{ReplyHead, ReplyView, encode_reply, encode_reply_header};
pub use request::{Condition, DecodeError, ReadView, RequestView, Secret, Target, Ttl};
pub use scan::{RangeView, ScanView};
pub use server::{Frame, Incoming, NodeInfo, ServerConnection};
pub use status::Status;

/// Version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Oldest version of the protocol that this build speaks.
pub const OLDEST_PROTOCOL_VERSION: u16 = 1;
/// First four bytes of a Hello's body.
pub const MAGIC: [u8; 4] = *b"LODE";

const _: () = assert!(OLDEST_PROTOCOL_VERSION <= PROTOCOL_VERSION);
