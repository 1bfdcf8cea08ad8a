//! Transactions end with the connection that began them: what each connection has begun, and its end.

use std::collections::VecDeque;

use lode_engine::{Epoch, PartitionId, Request, RequestBody, Target, TransactionId};
use lode_net::wire::{self, Frame, Opcode, Status};

use super::connection::Phase;
use super::pending::{Origin, Pending};
use super::{OURS, Reactor};
use crate::dispatch::Answer;
use crate::mailbox::{Mail, OpenTransaction};

/// Most transactions that a connection is known to have begun. Its oldest ends for one more: most likely it
/// has run out of time long ago.
const MAX_TRANSACTIONS: usize = 1024;

/// A connection ends a transaction by itself: it need not be ended with the connection. Should it go on all the
/// same, its lifetime ends it.
pub fn forget_ended(transactions: &mut VecDeque<OpenTransaction>, frame: &Frame<'_>) {
    let ends = [Opcode::Commit as u8, Opcode::Rollback as u8].contains(&frame.header.opcode);
    let Some(id) = frame.body().first_chunk().filter(|_| ends && !transactions.is_empty()) else { return };
    let ended = OpenTransaction {
        partition: frame.header.partition,
        id: wire::TransactionId(u64::from_le_bytes(*id)),
    };
    transactions.retain(|open| *open != ended);
}

impl Reactor {
    /// A transaction that has begun is its connection's; one whose connection is gone meanwhile ends.
    pub(super) fn note_begun(&mut self, pending: &Pending, answer: &Answer) {
        let has_begun = answer.head.opcode == Opcode::Begin as u8 && answer.head.status == Status::Ok;
        let Origin::Connection(key) = pending.origin else { return };
        if !has_begun {
            return;
        }
        let (partition, id) = (pending.asked.partition, wire::TransactionId(answer.head.aux));
        let open = OpenTransaction { partition, id };
        let connection = self.connections.find(key).filter(|connection| connection.phase != Phase::Closing);
        let to_end = match connection {
            None => Some(open),
            Some(connection) => {
                connection.transactions.push_back(open);
                let is_full = connection.transactions.len() > MAX_TRANSACTIONS;
                if is_full { connection.transactions.pop_front() } else { None }
            }
        };
        to_end.into_iter().for_each(|open| self.end_transaction(open));
    }

    /// Nobody is there any more to end it.
    pub(super) fn end_transaction(&mut self, open: OpenTransaction) {
        match self.map.shard_of(open.partition) {
            // Dropped, and its transactions with it.
            None => {}
            Some(shard) if shard != self.config.shard => self.post(shard, Mail::EndTransaction(open)),
            Some(_) => {
                let target = Target { partition: PartitionId(open.partition.0), epoch: Epoch(0) };
                let body = RequestBody::Rollback { target, transaction: TransactionId(open.id.0) };
                let id = self.pending.insert(Pending { origin: Origin::Nobody, asked: OURS });
                self.commands.push(Request { id, body });
            }
        }
    }
}
