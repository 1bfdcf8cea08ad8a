//! Transactions are of the connection that began them: no other one's requests find them, and they end with it.

use lode_engine::{OwnerId, Request, RequestBody, ShardId};
use lode_net::wire::{Opcode, Status};

use super::connection::{ConnectionKey, Phase};
use super::pending::{Origin, Pending};
use super::{OURS, Reactor, ReactorIo};
use crate::dispatch::Answer;
use crate::mailbox::Mail;

/// Bits of an owner's name that are its connection's number.
const NUMBER_BITS: u32 = 48;

/// The name by which all shards know a connection of one of them.
pub fn owner_of(shard: ShardId, connection: ConnectionKey) -> OwnerId {
    let number = connection.number;
    assert!(number >> NUMBER_BITS == 0, "connection {number} is more than any shard ever accepts");
    OwnerId(u64::from(shard.0) << NUMBER_BITS | number)
}

impl<I: ReactorIo> Reactor<I> {
    /// A connection that has asked for transactions is gone: every shard is told once, whatever it has begun.
    pub(super) fn end_transactions_of(&mut self, connection: ConnectionKey) {
        let owner = owner_of(self.config.shard, connection);
        for shard in (0..self.config.mailboxes.len()).map(|shard| ShardId(shard as u16)) {
            if shard != self.config.shard {
                self.post(shard, Mail::EndTransactions(owner));
            }
        }
        self.end_transactions_here(owner);
    }

    /// Those on this shard.
    pub(super) fn end_transactions_here(&mut self, owner: OwnerId) {
        let id = self.pending.insert(Pending { origin: Origin::Nobody, asked: OURS });
        self.commands.push(Request { id, body: RequestBody::EndTransactions { owner } });
    }

    /// A transaction has begun for a connection that was on its way out meanwhile: that was told before this.
    pub(super) fn end_orphan(&mut self, pending: &Pending, answer: &Answer) {
        let has_begun = answer.head.opcode == Opcode::Begin as u8 && answer.head.status == Status::Ok;
        let Origin::Connection(key) = pending.origin else { return };
        let is_there = |phase: Option<Phase>| phase.is_some_and(|phase| phase != Phase::Closing);
        if has_begun && !is_there(self.connections.find(key).map(|connection| connection.phase)) {
            self.end_transactions_of(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_net::ring::SocketId;

    #[test]
    fn every_connection_of_every_shard_has_a_name_of_its_own() {
        let name = |shard, socket, number| {
            owner_of(ShardId(shard), ConnectionKey { socket: SocketId(socket), number })
        };
        assert_ne!(name(0, 1, 1), name(1, 1, 1));
        assert_ne!(name(0, 1, 1), name(0, 1, 2), "a socket's id is used again, a number is not");
        assert_eq!(name(u16::MAX, 1, (1 << NUMBER_BITS) - 1), OwnerId(u64::MAX));
    }
}
