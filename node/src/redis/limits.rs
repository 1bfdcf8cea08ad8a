//! What the RESP door takes, all in one place. How many connections, the node's own `--max-connections` says.

use std::time::Duration;

/// What one request may hold, in bytes, each argument counted with 32 more; a larger one is read and refused.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;
/// The same before a connection has shown a token, where the node wants one.
pub const MAX_STRANGER_BYTES: usize = 4 << 10;
/// How long a connection has to show a token.
pub const STRANGER_TIMEOUT: Duration = Duration::from_secs(5);
/// What all connections together may hold of requests and replies, in bytes, before each is kept to its least.
pub const MAX_HELD_BYTES: usize = 256 << 20;
/// What one connection may always hold of a request, and of replies that wait, in bytes.
pub const LEAST_HELD_BYTES: usize = 64 << 10;
/// What one connection reads ahead of the commands it works on, in bytes, while memory is not short.
pub const MAX_READ_AHEAD_BYTES: usize = 16 << 20;
/// Replies that wait for their reader, in bytes, before a connection begins no more commands.
pub const MAX_PENDING_REPLY_BYTES: usize = 16 << 20;
/// Commands of one connection that are begun and not answered.
pub const MAX_IN_WORK: usize = 128;
/// Keys of a command that is under way together with others of its connection; one of more is alone.
pub const MAX_KEYS_ABREAST: usize = 64;
/// One reply of keys or records, in bytes.
pub const MAX_REPLY_BYTES: usize = 16 << 20;
/// Keys that one DEL takes at one instant; of more, each goes by itself.
pub const MAX_KEYS_AT_ONCE: usize = 1024;
/// And so many bytes of keys.
pub const MAX_KEY_BYTES_AT_ONCE: usize = 256 << 10;
/// Commands that wait for EXEC.
pub const MAX_QUEUED_COMMANDS: usize = 4096;
/// Their arguments, in bytes, each counted with [`KEPT_ARGUMENT_BYTES`] more.
pub const MAX_QUEUED_BYTES: usize = 2 << 20;
/// Keys that one connection watches.
pub const MAX_WATCHED_KEYS: usize = 4096;
/// Their bytes, each key counted with [`KEPT_ARGUMENT_BYTES`] more: a transaction looks at no more of them.
pub const MAX_WATCHED_BYTES: usize = 1 << 20;
/// What an argument that is kept between commands costs beside its bytes: without it, empty ones would cost nothing.
pub const KEPT_ARGUMENT_BYTES: usize = 64;
/// Longest pattern of KEYS and SCAN, in bytes: every byte of a key may have to be held against all of it.
pub const MAX_PATTERN_BYTES: usize = 16 << 10;
/// Places at which scans may go on, two of each scan: where all are taken, whoever has most of them loses the one that he
/// has not used for longest.
pub const MAX_CURSORS: usize = 4096;
/// Keys that one SCAN looks at; a larger COUNT counts as this.
pub const MAX_SCAN_COUNT: u64 = 4096;
/// Longest name of a client, in bytes.
pub const MAX_CLIENT_NAME_BYTES: usize = 128;
/// A connection that stops within a request, or takes no byte of its replies, is closed after so long.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections have to finish what they work on when the node stops.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);
