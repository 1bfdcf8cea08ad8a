//! The engine's buffers are the ring's slab: the drive reads into them, and sockets send from them.

use lode_engine::{BufferId, Buffers};
use lode_net::ring::{Slab, SlabBuffer};

/// The slab, as the engine sees it. A [`BufferId`] is a [`SlabBuffer`] under the engine's name.
#[derive(Debug)]
pub struct EngineBuffers<'a>(pub &'a mut Slab);

/// The slab's name for an engine's buffer.
pub fn slab_buffer(buffer: BufferId) -> SlabBuffer {
    SlabBuffer(buffer.0)
}

impl Buffers for EngineBuffers<'_> {
    fn acquire(&mut self, len: usize) -> Option<BufferId> {
        self.0.acquire(len).map(|buffer| BufferId(buffer.0))
    }

    fn release(&mut self, buffer: BufferId) {
        self.0.release(slab_buffer(buffer));
    }

    fn bytes(&self, buffer: BufferId) -> &[u8] {
        self.0.bytes(slab_buffer(buffer))
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        self.0.bytes_mut(slab_buffer(buffer))
    }
}
