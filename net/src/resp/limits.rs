//! What the protocol allows, as Redis has it.

/// Longest inline command, and longest line that announces a number of arguments or a length, in bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Most arguments of one request, its name among them.
pub const MAX_ARGUMENTS: usize = 1024 * 1024;
/// Longest argument that may be announced, in bytes.
pub const MAX_BULK_BYTES: usize = 512 * 1024 * 1024;
/// What an argument costs beside its bytes, counted for what a request may hold.
pub const ARGUMENT_OVERHEAD_BYTES: usize = 32;
