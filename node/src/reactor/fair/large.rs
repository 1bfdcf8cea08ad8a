//! Reads that cost more than their partitions may have running: how much of them runs, and which partitions wait for it.

use std::collections::BTreeMap;

use lode_net::wire::PartitionId;

use super::Share;

/// A partition's turn: by what it has had.
type Turn = (u64, PartitionId);

/// The large reads of a shard.
#[derive(Debug)]
pub struct Large {
    most_running: u32,
    running: u32,
    /// Partitions whose next request is large, and what it costs.
    waiting: BTreeMap<Turn, u32>,
}

impl Large {
    /// For a drive that is kept busy by so much at a time.
    pub fn new(most_running: u32) -> Large {
        Large { most_running, running: 0, waiting: BTreeMap::new() }
    }

    /// Whether a request that has just come may run; always, unless it is large. Who waits is not passed, though there is room for
    /// less than he wants: there might never be more.
    pub fn has_room_at_once(&self, share: Share) -> bool {
        !share.is_large || (self.waiting.is_empty() && self.fits(share.cost))
    }

    /// Whether a request that has waited may run, whose partition has this turn.
    pub fn has_room(&self, share: Share, turn: Turn) -> bool {
        let is_next = self.waiting.first_key_value().is_none_or(|(first, _)| turn < *first);
        !share.is_large || (is_next && self.fits(share.cost))
    }

    /// One alone may always, however large it is.
    fn fits(&self, cost: u32) -> bool {
        self.running == 0 || self.running.saturating_add(cost) <= self.most_running
    }

    /// A request begins to run.
    pub fn run(&mut self, share: Share) {
        self.running += if share.is_large { share.cost } else { 0 };
    }

    /// A request that ran has been answered.
    pub fn done(&mut self, share: Share) {
        self.running -= if share.is_large { share.cost } else { 0 };
    }

    /// A partition's next request has no room.
    pub fn wait(&mut self, turn: Turn, share: Share) {
        self.waiting.insert(turn, share.cost);
    }

    /// A partition waits no more; whether it did.
    pub fn leave(&mut self, turn: Turn) -> bool {
        self.waiting.remove(&turn).is_some()
    }

    /// The partition that has waited longest, by what it has had, where there is room for what it wants.
    pub fn next(&self) -> Option<&Turn> {
        self.waiting.first_key_value().filter(|(_, cost)| self.fits(**cost)).map(|(turn, _)| turn)
    }
}
