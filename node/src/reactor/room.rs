//! Whether a long answer would find room on its way to whoever asked: looked at before anything is read for it.

use lode_engine::ShardId;
use lode_net::ring::Slab;
use lode_net::wire::Opcode;

use super::connection::Spares;
use super::pending::Origin;
use super::{Reactor, ReactorConfig, ReactorIo};

/// How much of a shard's buffers is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// Half or more.
    Plenty,
    /// Less than half.
    Half,
    /// Less than a quarter: who asks for much must wait.
    Short,
}

impl Buffers {
    /// As it is now.
    pub fn of(slab: &Slab) -> Buffers {
        let (free, total) = (slab.free_bytes(), slab.total_bytes());
        match () {
            _ if free < total / 4 => Buffers::Short,
            _ if free < total / 2 => Buffers::Half,
            _ => Buffers::Plenty,
        }
    }

    /// Whether there are so few that who asks for much must wait.
    pub fn is_short(self) -> bool {
        self == Buffers::Short
    }
}

/// What an answer's way depends on.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub config: &'a ReactorConfig,
    pub spares: &'a Spares,
    pub buffers: Buffers,
}

impl Way<'_> {
    /// Whether a long answer to a request of this origin and kind would have room on all of its way, as things are now.
    pub fn has_room(&self, origin: Origin, opcode: u8) -> bool {
        // One value stays in the buffer that it was read into; a page is put together elsewhere.
        let is_value = matches!(Opcode::from_u8(opcode), Some(Opcode::Get | Opcode::TransactionGet));
        match origin {
            // The reads that run already take buffers, and this one will: with half of them free some are left.
            Origin::Connection(_) => !self.spares.is_short() || (is_value && self.buffers == Buffers::Plenty),
            Origin::Hop { shard, .. } => !is_mail_crowded(self.config, shard, usize::MAX),
            Origin::Control(_) | Origin::Nobody => true,
        }
    }
}

/// Whether so much waits for a shard, or lies there, that an answer of so many bytes had better be asked for again.
fn is_mail_crowded(config: &ReactorConfig, shard: ShardId, answer_bytes: usize) -> bool {
    let mailbox = &config.mailboxes[usize::from(shard.0)];
    let (most, waiting_bytes) = (config.max_reply_bytes, mailbox.value_bytes());
    waiting_bytes >= most / 2
        || Spares::has_no_room(waiting_bytes + mailbox.lying_bytes(), most, answer_bytes)
}

impl<I: ReactorIo> Reactor<I> {
    /// Whether there is no room for an answer of so many bytes on the way to who asked.
    pub(super) fn is_crowded(&mut self, origin: Origin, answer_bytes: usize) -> bool {
        match origin {
            Origin::Connection(key) => {
                let queued_bytes =
                    self.connections.find(key).map(|connection| connection.server.queued_bytes());
                queued_bytes.is_none_or(|queued_bytes| self.spares.is_crowded(queued_bytes + answer_bytes))
            }
            Origin::Hop { shard, .. } => self.is_mail_crowded(shard, answer_bytes),
            Origin::Control(_) | Origin::Nobody => false,
        }
    }

    /// See [`is_mail_crowded`]; so it is where mail for others waits here already.
    pub(super) fn is_mail_crowded(&self, shard: ShardId, answer_bytes: usize) -> bool {
        !self.backlog.is_empty() || is_mail_crowded(&self.config, shard, answer_bytes)
    }

    /// Other shards are told how much lies here, for what they read for this one's clients lies here in the end.
    pub(super) fn tell_lying_bytes(&self) {
        let (mailbox, lying_bytes) = (self.mailbox(), self.spares.waiting_bytes());
        // Others read the line that it stands in: it is written to only where something has changed.
        if mailbox.lying_bytes() != lying_bytes {
            mailbox.set_lying_bytes(lying_bytes);
        }
    }
}
