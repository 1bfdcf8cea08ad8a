//! Requests that wait for an answer: one slot each, named by the [`RequestId`] that travels with them.

use lode_engine::{RequestId, ShardId};

use super::connection::ConnectionKey;
use super::fair::Share;
use super::slow::Timing;
use crate::dispatch::Asked;
use crate::mailbox::JobId;

/// Who wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A connection of this shard.
    Connection(ConnectionKey),
    /// Another shard, which knows the request by this name.
    Hop {
        /// That shard.
        shard: ShardId,
        /// Its name for the request.
        ticket: RequestId,
    },
    /// The control thread.
    Control(JobId),
    /// Nobody: the answer is thrown away.
    Nobody,
}

/// A request without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who wants the answer.
    pub origin: Origin,
    /// What the answer needs to know of the request.
    pub asked: Asked,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// When it came, of those of which it matters, and what else is told of it if it takes long.
    timing: Timing,
    /// Bytes of it that are on their way to another shard, or wait there.
    away_bytes: u32,
    /// What it counts while it runs.
    share: Option<Share>,
    pending: Option<Pending>,
}

/// The requests of one shard that wait for an answer.
#[derive(Debug, Default)]
pub struct PendingTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl PendingTable {
    /// Adds a request and names it.
    pub fn insert(&mut self, pending: Pending) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            let timing = Timing::default();
            self.slots.push(Slot { generation: 0, timing, away_bytes: 0, share: None, pending: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.pending.is_none(), "slot {index} is in use");
        slot.pending = Some(pending);
        RequestId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Adds a request of which it matters when it came, and names it.
    pub fn insert_at(&mut self, pending: Pending, timing: Timing) -> RequestId {
        let id = self.insert(pending);
        self.slots[id.0 as u32 as usize].timing = timing;
        id
    }

    /// What is known of when a request came, and of what it has waited for.
    pub fn timing(&mut self, id: RequestId) -> &mut Timing {
        &mut self.slots[id.0 as u32 as usize].timing
    }

    /// Who wants the answer.
    pub fn origin(&self, id: RequestId) -> Origin {
        let pending = self.slots[id.0 as u32 as usize].pending;
        pending.map_or(Origin::Nobody, |pending| pending.origin)
    }

    /// The request runs, and counts so much while it does.
    pub fn run(&mut self, id: RequestId, share: Share, now_ns: u64) {
        let slot = &mut self.slots[id.0 as u32 as usize];
        assert!(slot.pending.is_some() && slot.share.is_none(), "request {id} begins to run once");
        slot.share = Some(share);
        slot.timing.begun_ns = Some(now_ns);
    }

    /// The answer is there: what the request counted while it ran; nothing where it never did.
    pub fn end_run(&mut self, id: RequestId) -> Option<Share> {
        self.slots[id.0 as u32 as usize].share.take()
    }

    /// The request went to another shard, with so many bytes.
    pub fn send_away(&mut self, id: RequestId, bytes: u32) {
        self.slots[id.0 as u32 as usize].away_bytes = bytes;
    }

    /// The answer is there: how many bytes went to another shard with the request.
    pub fn come_back(&mut self, id: RequestId) -> u32 {
        std::mem::take(&mut self.slots[id.0 as u32 as usize].away_bytes)
    }

    /// The answer is there: forgets the request. Each request is answered exactly once.
    pub fn remove(&mut self, id: RequestId) -> Pending {
        let (index, generation) = (id.0 as u32, (id.0 >> 32) as u32);
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.generation, generation, "request {id} was answered before");
        assert!(slot.share.is_none(), "request {id} runs no more");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.pending.take().expect("a request waits for its answer")
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = (RequestId, &Pending)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = RequestId(u64::from(slot.generation) << 32 | index as u64);
            Some((id, slot.pending.as_ref()?))
        })
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_engine::OwnerId;
    use lode_net::wire;

    fn pending(job: u64) -> Pending {
        let asked = Asked { request_id: wire::RequestId(job), opcode: 2, flags: 0, owner: OwnerId(1) };
        Pending { origin: Origin::Control(JobId(job)), asked }
    }

    #[test]
    fn names_are_not_reused_at_once() {
        let mut table = PendingTable::default();
        let first = table.insert(pending(1));
        let second = table.insert(pending(2));
        assert_eq!(table.remove(first), pending(1));
        let third = table.insert(pending(3));
        assert_ne!(first, third);
        assert_eq!((table.remove(third), table.remove(second)), (pending(3), pending(2)));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn what_went_to_another_shard_comes_back_once() {
        let mut table = PendingTable::default();
        let id = table.insert(pending(1));
        table.send_away(id, 700);
        assert_eq!((table.come_back(id), table.come_back(id)), (700, 0));
        table.remove(id);
    }

    #[test]
    #[should_panic(expected = "was answered before")]
    fn a_second_answer_is_caught() {
        let mut table = PendingTable::default();
        let id = table.insert(pending(1));
        table.remove(id);
        table.remove(id);
    }
}
