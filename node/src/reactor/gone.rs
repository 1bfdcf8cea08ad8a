//! Requests of connections that are gone: the shards that work on them are told, so that reads which have
//! not begun are not done for nobody.

use std::collections::HashSet;

use lode_engine::RequestId;
use lode_net::wire::Status;

use super::pending::{Origin, PendingTable};
use super::{Reactor, ReactorIo};
use crate::dispatch::Asked;
use crate::mailbox::{Mail, Mailbox};

/// Who has gone since the last step.
#[derive(Debug, Default)]
pub struct Gone {
    origins: HashSet<Origin>,
}

impl Gone {
    /// Nobody wants the answers to this origin's requests any more.
    pub fn add(&mut self, origin: Origin) {
        self.origins.insert(origin);
    }

    /// Whether nobody has gone.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Their requests; forgets them. One look at all that wait, however many have gone.
    fn take_requests(&mut self, pending: &PendingTable) -> Vec<(RequestId, Origin)> {
        let requests = pending.iter().filter(|(_, pending)| self.origins.contains(&pending.origin));
        let requests = requests.map(|(id, pending)| (id, pending.origin)).collect();
        self.origins.clear();
        requests
    }
}

impl<I: ReactorIo> Reactor<I> {
    /// What the engine need not read. Other shards are told of what was sent on to them; where a mailbox is full
    /// they do the work for nobody.
    pub(super) fn unwanted(&mut self) -> Vec<RequestId> {
        if self.gone.is_empty() {
            return Vec::new();
        }
        let requests = self.gone.take_requests(&self.pending);
        let own = requests.iter().filter(|(_, origin)| matches!(origin, Origin::Connection(_)));
        let tickets: Vec<_> = own.map(|(id, _)| *id).collect();
        let here = usize::from(self.config.shard.0);
        let others = self.config.mailboxes.iter().enumerate().filter(|(shard, _)| *shard != here);
        let tell = |(_, mailbox): (usize, &Mailbox)| {
            // Full, it has enough to do.
            let _ = mailbox.post(Mail::Gone { origin: self.config.shard, tickets: tickets.clone() });
        };
        if !tickets.is_empty() {
            others.for_each(tell);
        }
        let requests: Vec<RequestId> = requests.into_iter().map(|(id, _)| id).collect();
        self.give_up_queued(&requests);
        requests
    }

    /// Those that wait for their partition's turn never come before the engine.
    fn give_up_queued(&mut self, unwanted: &[RequestId]) {
        if self.fair.queued() == 0 {
            return;
        }
        let unwanted: HashSet<u64> = unwanted.iter().map(|id| id.0).collect();
        for (id, owner, frame) in self.fair.give_up(|(id, ..)| unwanted.contains(&id.0)) {
            self.stats.requests_given_up += 1;
            self.answers.push((id, Asked::of(&frame.header, owner).plain(Status::Busy)));
        }
    }
}

#[cfg(test)]
mod tests {
    use lode_engine::ShardId;
    use lode_net::ring::SocketId;
    use lode_net::wire;

    use super::super::connection::ConnectionKey;
    use super::super::pending::Pending;
    use super::*;
    use lode_engine::OwnerId;

    #[test]
    fn only_requests_of_who_has_gone_are_found_and_only_once() {
        let mut pending = PendingTable::default();
        let of = |number| Origin::Connection(ConnectionKey { socket: SocketId(3), number });
        let hop = |ticket| Origin::Hop { shard: ShardId(1), ticket: RequestId(ticket) };
        let asked = Asked { request_id: wire::RequestId(1), opcode: 2, flags: 0, owner: OwnerId(1) };
        let origins = [of(7), of(8), hop(7), hop(8), of(7)];
        let ids: Vec<_> =
            origins.iter().map(|origin| pending.insert(Pending { origin: *origin, asked })).collect();
        let mut gone = Gone::default();
        gone.add(of(7));
        gone.add(hop(8));
        pending.remove(ids[0]);
        assert_eq!(gone.take_requests(&pending), [(ids[3], hop(8)), (ids[4], of(7))]);
        assert!(gone.is_empty() && gone.take_requests(&pending).is_empty());
    }
}
