//! What the kernel is working on: one slot per request, which keeps alive all that it points to.

use super::outgoing::Outgoing;
use super::slab::SlabBuffer;
use super::sockets::SocketId;

/// Names a request in flight; travels as the entry's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId {
    index: u32,
    generation: u32,
}

impl SlotId {
    pub(super) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_user_data(data: u64) -> SlotId {
        SlotId { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What a drive operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriveKind {
    Read,
    Write { durable: bool },
    Flush,
    Discard,
}

/// A drive operation, and how far it has come.
#[derive(Debug)]
pub(super) struct DriveWork {
    pub(super) token: u64,
    pub(super) kind: DriveKind,
    pub(super) buffer: Option<SlabBuffer>,
    pub(super) registered: bool,
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) done: u32,
    pub(super) retries: u8,
}

/// A send, and how far it has come. Boxed by its slot: the kernel holds addresses into it.
pub(super) struct SendWork {
    pub(super) socket: SocketId,
    pub(super) outgoing: Outgoing,
    pub(super) done: usize,
    pub(super) vectors: Vec<libc::iovec>,
    pub(super) message: libc::msghdr,
}

/// What a slot's request is for.
pub(super) enum Work {
    Drive(DriveWork),
    Accept(SocketId),
    Receive(SocketId),
    Send(Box<SendWork>),
    /// Reads the waker's eventfd into the ring's own word.
    Wake,
    /// Cancels another request; its own result says nothing that the other's does not.
    Cancel,
}

struct Slot {
    generation: u32,
    work: Option<Work>,
}

/// The table of requests in flight.
#[derive(Default)]
pub(super) struct InFlight {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl InFlight {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, work: Work) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, work: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.work.is_none(), "slot {index} is in use");
        slot.work = Some(work);
        SlotId { index, generation: slot.generation }
    }

    /// The work of a request that is still in flight.
    pub(super) fn get_mut(&mut self, id: SlotId) -> &mut Work {
        let slot = &mut self.slots[id.index as usize];
        assert_eq!(slot.generation, id.generation, "slot {} has been reused", id.index);
        slot.work.as_mut().expect("a completion names a request in flight")
    }

    /// The request is over.
    pub(super) fn remove(&mut self, id: SlotId) -> Work {
        let slot = &mut self.slots[id.index as usize];
        assert_eq!(slot.generation, id.generation, "slot {} has been reused", id.index);
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        slot.work.take().expect("a completion names a request in flight")
    }
}
