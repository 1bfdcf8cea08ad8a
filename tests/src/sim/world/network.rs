//! The network between clients and node: pieces, in order, each in its time.

use super::super::link::{Arrival, Link, LinkId, NodeEnd};
use super::super::trace::checksum;
use super::{CONNECTION_RESET, Happening, Season, World};

/// How long what is sent is on its way at most, where clients do no work and nothing goes wrong.
const QUICK_NS: u64 = 60_000;

impl World<'_> {
    /// How long what is sent is on its way at most.
    pub(super) fn network_ns(&self) -> u64 {
        if self.season == Season::Work { self.plan.network_ns } else { QUICK_NS }
    }

    pub(super) fn link_of(&self, shard: u16, socket: lode_net::ring::SocketId) -> Option<LinkId> {
        let run = self.node.as_ref()?.run;
        let is_it =
            |link: &Link| link.run == run && link.shard == shard && link.node_end == NodeEnd::Open(socket);
        self.links.iter().find(|(_, link)| is_it(link)).map(|(id, _)| *id)
    }

    pub(super) fn send_to_client(&mut self, shard: u16, socket: lode_net::ring::SocketId, arrival: Arrival) {
        let Some(id) = self.link_of(shard, socket) else { return };
        let at_ns = self.now_ns + self.dice.below(self.network_ns());
        let at_ns = self.links.get_mut(&id).expect("it was found").send_to_client(at_ns, arrival);
        self.at(at_ns, Happening::ToClient(id));
    }

    pub(super) fn arrive_at_server(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (run, shard, node_end) = (link.run, link.shard, link.node_end);
        let Some(arrival) = link.at_server(self.now_ns) else { return };
        let delay_ns = self.dice.roll();
        let node = self.node.as_mut().filter(|node| node.run == run && node.is_serving());
        let Some(node) = node else {
            return self.refuse(id);
        };
        let io = node.io(shard);
        // The first bytes find the connection made.
        let socket = match node_end {
            NodeEnd::Open(socket) => socket,
            NodeEnd::Unaccepted
                if matches!(arrival, Arrival::Bytes(_))
                    && self.clients[link.client as usize].link == Some(id) =>
            {
                let socket = io.accept();
                link.node_end = NodeEnd::Open(socket);
                socket
            }
            // Broken before it was made; or closed, and bytes that were on their way make no connection.
            NodeEnd::Unaccepted | NodeEnd::Closed => {
                link.node_end = NodeEnd::Closed;
                return;
            }
        };
        match arrival {
            Arrival::Bytes(bytes) => io.arrived(socket, &bytes),
            Arrival::End => io.peer_ended(socket, None),
            Arrival::Reset => io.peer_ended(socket, Some(CONNECTION_RESET)),
        }
        node.wake(shard, self.now_ns, delay_ns);
    }

    pub(super) fn refuse(&mut self, id: LinkId) {
        let at_ns = self.now_ns + self.dice.below(self.network_ns());
        let at_ns = self.links.get_mut(&id).expect("it was looked up").send_to_client(at_ns, Arrival::Reset);
        self.at(at_ns, Happening::ToClient(id));
    }

    pub(super) fn take_sending(&mut self, id: LinkId) {
        let most = match self.dice.below(4) {
            0 => 1 + self.dice.below(3_000) as usize,
            _ => usize::MAX,
        };
        let (arrive_ns, delay_ns) = (self.dice.below(self.network_ns()), self.dice.roll());
        let Some(link) = self.links.get_mut(&id) else { return };
        let NodeEnd::Open(socket) = link.node_end else { return };
        let Some((bytes, last)) = link.take_sending(most) else { return };
        let (shard, run, count) = (link.shard, link.run, bytes.len());
        let at_ns = link.send_to_client(self.now_ns + arrive_ns, Arrival::Bytes(bytes));
        self.at(at_ns, Happening::ToClient(id));
        if let Some(node) = self.node.as_mut().filter(|node| node.run == run) {
            node.io(shard).sent(socket, count, last);
            node.wake(shard, self.now_ns, delay_ns);
        }
        if !last {
            self.at(self.now_ns + arrive_ns, Happening::Send(id));
        }
    }

    pub(super) fn arrive_at_client(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(arrival) = link.at_client(self.now_ns) else { return };
        let client = link.client;
        let place = client as usize;
        if self.clients[place].link != Some(id) {
            return;
        }
        self.heard_ns[place] = self.now_ns;
        match arrival {
            Arrival::Bytes(bytes) => {
                let facts = [("client", u64::from(client)), ("bytes", bytes.len() as u64), checksum(&bytes)];
                self.trace.note(self.now_ns, "bytes come", &facts);
                let received = self.clients[place].receive(&bytes, &mut self.history);
                let ended = self.history.take_ended();
                self.are_told(&ended);
                if let Err(what) = received {
                    self.history.violations.push(format!("client {client}: {what}"));
                    return self.give_up(client);
                }
                self.flush(client);
            }
            Arrival::End => {
                let owed = self.clients[place].owed();
                if !owed.is_empty() {
                    let what = format!(
                        "client {client} sent no more, and the node owes it {owed:?} and sends no more either"
                    );
                    self.history.violations.push(what);
                }
                self.give_up(client);
            }
            Arrival::Reset => self.give_up(client),
        }
    }

    /// What the client has to say goes out, in pieces.
    pub(super) fn flush(&mut self, client: u32) {
        let Some(id) = self.clients[client as usize].link else { return };
        let mut output = self.clients[client as usize].take_output();
        let mut at_ns = self.now_ns;
        while !output.is_empty() {
            let most = if self.dice.below(3) == 0 { 1 + self.dice.below(500) as usize } else { output.len() };
            let rest = output.split_off(most.min(output.len()));
            at_ns += self.dice.below(self.network_ns());
            let piece = Arrival::Bytes(std::mem::replace(&mut output, rest));
            at_ns = self.links.get_mut(&id).expect("links stay").send_to_server(at_ns, piece);
            self.at(at_ns, Happening::ToServer(id));
        }
    }
}
