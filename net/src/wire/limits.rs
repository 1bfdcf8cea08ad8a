//! Every limit of the wire, in one place. The node's own limits come in its answer to Hello.

/// Longest key, in bytes. The shortest is 1.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Longest value, in bytes. An empty value is a value.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Longest body of a request, in bytes: the largest value or batch, and what goes with it.
pub const MAX_REQUEST_BODY_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// Longest body of a reply, in bytes: a scan's page, or the partition map of a full node.
pub const MAX_REPLY_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of the partition map, as [`MapBody::size_bound`](crate::wire::control::MapBody::size_bound) tells
/// them: with the rest of the answer to a Hello it fits a reply. A table that would make it larger is refused.
pub const MAX_MAP_BYTES: usize = MAX_REPLY_BODY_BYTES - 1024 * 1024;
/// Most writes in one batch.
pub const MAX_BATCH_WRITES: usize = 4096;
/// Most bytes of keys, values and write headers in one batch's body.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024 + 8 * 1024;
/// Most records in one page of a scan.
pub const MAX_SCAN_RECORDS: u32 = 4096;
/// Most bytes of keys and values in one page of a scan; a page always holds at least one record.
pub const MAX_SCAN_BYTES: u32 = 4 * 1024 * 1024;
/// Longest time to live, in milliseconds: a hundred years. The shortest is 1.
pub const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// Largest weight of a partition. The smallest is 1.
pub const MAX_WEIGHT: u32 = 10_000;
/// The weight of a partition that says nothing.
pub const DEFAULT_WEIGHT: u32 = 100;
/// The most of a rate that may be saved up, in milliseconds: five minutes. The least is 1.
pub const MAX_BURST_MS: u32 = 300_000;
/// What is saved up of a rate where nothing is said, in milliseconds.
pub const DEFAULT_BURST_MS: u32 = 1_000;
/// The highest limit of a rate: requests or bytes a second.
pub const MAX_QUOTA_PER_S: u64 = 1 << 40;
/// Longest table name, in bytes of UTF-8.
pub const MAX_TABLE_NAME_BYTES: usize = 128;
/// Longest name that a client may give itself, in bytes of UTF-8.
pub const MAX_CLIENT_NAME_BYTES: usize = 128;
/// Longest secret of a token, in bytes. The shortest is 1.
pub const MAX_SECRET_BYTES: usize = 256;
/// Longest body of a request before the node knows for whom a connection acts, where it wants to know, in bytes.
pub const MAX_UNKNOWN_BODY_BYTES: usize = 1024;
/// Most requests of one connection that the node works on at once; one more is answered `Busy`.
pub const MAX_IN_FLIGHT: u32 = 1024;
/// Most bytes of replies that wait for one connection's reader; at more the node stops receiving from it.
pub const MAX_QUEUED_REPLY_BYTES: usize = 8 * 1024 * 1024;
/// A connection has this long from its opening to a Hello that is answered, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
/// A request has this long from its first byte to its last, in milliseconds.
pub const FRAME_TIMEOUT_MS: u64 = 30_000;
/// A connection whose peer takes no byte of waiting replies for this long is closed, in milliseconds.
pub const SEND_TIMEOUT_MS: u64 = 30_000;

const _: () = assert!(MAX_REQUEST_BODY_BYTES >= MAX_VALUE_BYTES + MAX_KEY_BYTES + 16);
const _: () = assert!(MAX_REQUEST_BODY_BYTES >= MAX_BATCH_BYTES + 4);
const _: () = assert!(MAX_KEY_BYTES <= u16::MAX as usize);
const _: () = assert!(MAX_REPLY_BODY_BYTES <= u32::MAX as usize);
