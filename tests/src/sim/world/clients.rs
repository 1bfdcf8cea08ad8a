//! What clients do: connect, ask, wait, give up.

use super::super::link::{Arrival, Link, LinkId};
use super::super::plan::MS;
use super::super::work::{Ask, OpId};
use super::drive::DRIVE_NS;
use super::{Happening, Season, World};

/// How long a client waits for any answer before it gives its connection up.
const PATIENCE_NS: u64 = 2_000 * MS;
/// How long nothing at all may come over a connection that is whole, whatever the drive does: longer, and its client was forgotten.
const FORGOTTEN_NS: u64 = 30_000 * MS;
/// A request takes no longer than this, so many times the longest way of a piece over the network, and so many slow operations
/// of the drive. The ways add up most, for a transaction's requests go one after the other, and in pieces. Of 400 seeds
/// none took more than a third of it all, and few a tenth.
const REQUEST_NS: u64 = 500 * MS;
const REQUEST_WAYS: u64 = 20;
const REQUEST_SLOW_OPERATIONS: u64 = 4;

impl World<'_> {
    /// The client's connection is over, on its side.
    pub(super) fn give_up(&mut self, client: u32) {
        let place = client as usize;
        let Some(id) = self.clients[place].link else { return };
        self.trace.note(self.now_ns, "a client gives its connection up", &[("client", u64::from(client))]);
        self.clients[place].lost(&mut self.history);
        let at_ns = self.now_ns + self.dice.below(self.network_ns());
        let link = self.links.get_mut(&id).expect("links stay");
        let at_ns = link.send_to_server(at_ns, Arrival::Reset);
        self.at(at_ns, Happening::ToServer(id));
    }

    /// A client does something, or waits for another moment to.
    pub(super) fn act(&mut self, client: u32) {
        let think_ns =
            if self.season == Season::Work { self.plan.think_ns } else { self.plan.think_ns.min(MS) };
        let pause_ns = 1 + self.dice.below(2 * think_ns);
        self.at(self.now_ns + pause_ns, Happening::Client(client));
        let place = client as usize;
        if self.clients[place].link.is_none() {
            return self.connect(client);
        }
        if let Some((id, waits_ns)) = self.starved(place) {
            let waits_ms = waits_ns / MS;
            self.history
                .violation(id, &format!("it has waited for {waits_ms} ms, though its connection is whole"));
            return self.give_up(client);
        }
        let waits_ns = self.now_ns - self.heard_ns[place];
        if waits_ns > PATIENCE_NS && self.clients[place].in_flight() > 0 {
            if !self.is_cut_off(place) {
                if waits_ns <= FORGOTTEN_NS {
                    return;
                }
                self.history
                    .violations
                    .push(format!("client {client} hears nothing, though its connection is whole"));
            }
            return self.give_up(client);
        }
        if !self.clients[place].is_ready() {
            if self.now_ns - self.heard_ns[place] > PATIENCE_NS {
                self.give_up(client);
            }
            return;
        }
        if self.clients[place].in_flight() < self.plan.depth
            && let Some(ask) = self.draw(place)
        {
            let id = self.history.call(ask, self.now_ns);
            if self.clients[place].in_flight() == 0 {
                self.heard_ns[place] = self.now_ns;
            }
            self.clients[place].ask(id, &self.history);
            self.flush(client);
        }
    }

    /// What a client over a connection that is whole has waited for too long, whatever else it was answered meanwhile.
    fn starved(&self, client: usize) -> Option<(OpId, u64)> {
        let faults = &self.plan.faults;
        let slowness = if faults.slow_operations_ppm > 0 { faults.slowness } else { 1 };
        let most_ns =
            REQUEST_NS + REQUEST_WAYS * self.plan.network_ns + REQUEST_SLOW_OPERATIONS * slowness * DRIVE_NS;
        let id = self.clients[client].oldest().filter(|_| !self.is_cut_off(client))?;
        let waits_ns = self.now_ns - self.history.op(id).called_ns;
        (waits_ns > most_ns).then_some((id, waits_ns))
    }

    /// Whether nothing arrives of what a client asks, or of what it is answered.
    pub(super) fn is_cut_off(&self, client: usize) -> bool {
        let link = self.clients[client].link.and_then(|id| self.links.get(&id));
        link.is_none_or(|link| link.silent)
    }

    pub(super) fn draw(&mut self, client: usize) -> Option<Ask> {
        match self.season {
            Season::Work => {
                let known =
                    |key: &[u8]| -> Option<(OpId, lode_net::wire::Seq)> { self.clients[client].known(key) };
                Some(self.keys.draw(&mut self.dice, &known))
            }
            Season::Tables if client > 0 || self.clients[client].in_flight() > 0 => None,
            Season::Tables | Season::Setup | Season::Audit => self.to_do.pop(),
            Season::Rest | Season::Calm => None,
        }
    }

    pub(super) fn connect(&mut self, client: u32) {
        let Some(node) = &self.node else { return };
        let (run, shards) = (node.run, u64::from(self.plan.shards));
        let shard = self.dice.below(shards) as u16;
        self.next_link += 1;
        let id = LinkId(self.next_link);
        self.links.insert(id, Link::new(client, shard, run));
        self.clients[client as usize].connect(id);
        self.heard_ns[client as usize] = self.now_ns;
        let facts = [("client", u64::from(client)), ("connection", id.0), ("shard", u64::from(shard))];
        self.trace.note(self.now_ns, "a client connects", &facts);
        self.flush(client);
    }
}
