//! The ring: a thin, safe room over io_uring, for one thread, one drive and many sockets.
//!
//! All `unsafe` of lode is here. What keeps it sound:
//! - memory that the kernel may touch (slab, receive chunks, wake word) is owned by the [`Ring`], which
//!   unmaps it only when nothing is in flight, and leaks it if the kernel does not finish in time;
//! - a slab buffer, or a chunk, has one owner at a time, and its bytes cannot be had while the kernel
//!   owns it;
//! - everything else that a request points to is boxed in its in-flight slot until its last completion;
//! - a socket's descriptor is closed only when no request names it.

mod buddy;
mod chunks;
mod core;
mod drive;
pub mod echo;
mod features;
pub mod floor;
mod inflight;
mod memory;
mod outgoing;
mod slab;
mod sleep;
/// What the sleep flag is made of; a test puts loom's in their place.
mod atomic {
    pub use std::sync::atomic::{AtomicBool, Ordering, fence};
}
mod sockets;
#[cfg(test)]
mod tests;
mod unplugged;
mod wake;

pub use chunks::{Chunk, Chunks};
pub use core::{Event, Ring, RingConfig, RingCounters, RingError};
pub use features::{Allowed, Features, TaskRun};
pub use outgoing::Outgoing;
pub use slab::{BLOCK_BYTES, MAX_BUFFER_BYTES, Slab, SlabBuffer};
pub use sockets::SocketId;
pub use unplugged::UnpluggedMemory;
pub use wake::Waker;
