//! What goes wrong, and when.

use super::super::drive::DriveOp;
use super::super::link::{Arrival, LinkId, NodeEnd};
use super::super::plan::MS;
use super::{Happening, Season, UnderWay, World};

impl World<'_> {
    pub(super) fn begin_faults(&mut self) {
        let faults = &self.plan.faults;
        let all = [
            (faults.crash_interval_ns, Happening::Crash),
            (faults.reset_interval_ns, Happening::Reset),
            (faults.silence_interval_ns, Happening::Silence),
            (faults.half_close_interval_ns, Happening::HalfClose),
            (faults.clock_jump_interval_ns, Happening::ClockJump),
            (faults.damage_interval_ns, Happening::Damage),
        ];
        for (interval_ns, happening) in all {
            self.after_interval(interval_ns, happening);
        }
    }

    pub(super) fn after_interval(&mut self, interval_ns: u64, happening: Happening) {
        if interval_ns > 0 {
            let pause_ns = 1 + self.dice.below(2 * interval_ns);
            self.at(self.now_ns + pause_ns, happening);
        }
    }

    pub(super) fn happens(&mut self, ppm: u64) -> bool {
        self.season == Season::Work && ppm > 0 && self.dice.below(1_000_000) < ppm && self.strikes()
    }

    /// Something would go wrong now: whether it does. All that does is chosen by chance, and may be told apart by its number.
    pub(super) fn strikes(&mut self) -> bool {
        self.faults += 1;
        self.plan.only.as_ref().is_none_or(|only| only.contains(self.faults))
    }

    pub(super) fn crash(&mut self) {
        let faults = self.plan.faults;
        if self.node.is_none() {
            return;
        }
        let loses_power = self.dice.below(100) < faults.power_losses_percent;
        let what = if loses_power { "the process ends with the power" } else { "the process ends" };
        self.trace.note(self.now_ns, what, &[("life", self.lives)]);
        self.node = None;
        for (_, under_way) in std::mem::take(&mut self.under_way) {
            self.drive.abandon(&under_way.op);
        }
        if loses_power {
            self.drive.lose_power();
        }
        self.arrive_late();
        self.history.crashed();
        // Without power the other side is told nothing; a dead process's connections are reset.
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let at_ns = self.now_ns + self.dice.below(self.network_ns());
            let link = self.links.get_mut(&id).expect("it was listed");
            link.node_end = NodeEnd::Closed;
            let at_ns = link.send_to_client(at_ns, Arrival::Reset);
            self.at(at_ns, Happening::ToClient(id));
        }
        let pause_ns = self.dice.below(20 * MS);
        self.at(self.now_ns + pause_ns, Happening::Start);
    }

    /// A drive operation has begun, or ended: the moment at which a plan may cut the power.
    pub(super) fn drive_event(&mut self) {
        let is_first = !self.is_cut;
        let counts = match self.season {
            Season::Work => is_first,
            Season::Rest | Season::Audit => !is_first && !self.is_cut_again,
            _ => false,
        };
        if !counts || self.node.is_none() {
            return;
        }
        self.drive_events += 1;
        let is_next = is_first == self.plan.cut.is_none();
        if let Some(risks) = self.risks.as_mut().filter(|_| is_next) {
            let is_write = |under_way: &&UnderWay| matches!(under_way.op, DriveOp::Write { .. });
            let writes = self.under_way.values().filter(is_write).count();
            risks.push(self.drive.writes_at_risk(writes));
        }
        let cut = if is_first { self.plan.cut } else { self.plan.second_cut };
        let Some(cut) = cut.filter(|cut| cut.at == self.drive_events) else { return };
        (self.is_cut, self.is_cut_again) = (true, !is_first);
        // The next is counted from the start that follows.
        self.drive_events = 0;
        let under_way: Vec<DriveOp> =
            std::mem::take(&mut self.under_way).into_values().map(|u| u.op).collect();
        self.drive.cut(&under_way, cut.kept);
        self.crash();
    }

    pub(super) fn jump(&mut self) {
        self.after_interval(self.plan.faults.clock_jump_interval_ns, Happening::ClockJump);
        let most_ns = self.plan.faults.clock_jump_ns;
        let jump_ns = self.dice.below(2 * most_ns) as i64 - most_ns as i64;
        if !self.strikes() {
            return;
        }
        let what = if jump_ns < 0 { "the clock is set back" } else { "the clock is set forward" };
        self.trace.note(self.now_ns, what, &[("by_ns", jump_ns.unsigned_abs())]);
        self.wall_offset_ns += jump_ns;
    }

    /// A connection that a client has now.
    fn any_link(&mut self) -> Option<LinkId> {
        let links: Vec<LinkId> = self.clients.iter().filter_map(|client| client.link).collect();
        let place = (!links.is_empty()).then(|| self.dice.below(links.len() as u64))?;
        links.get(place as usize).copied()
    }

    pub(super) fn reset(&mut self) {
        self.after_interval(self.plan.faults.reset_interval_ns, Happening::Reset);
        let Some(id) = self.any_link().filter(|_| self.strikes()) else { return };
        self.trace.note(self.now_ns, "a connection breaks", &[("connection", id.0)]);
        let (there_ns, here_ns) = (self.dice.below(self.network_ns()), self.dice.below(self.network_ns()));
        let (now_ns, lost) = (self.now_ns, self.dice.below(4) as usize);
        let link = self.links.get_mut(&id).expect("it was drawn");
        // What was on its way is lost in part: a request ends within its frame.
        link.lose_to_server(lost);
        let there_ns = link.send_to_server(now_ns + there_ns, Arrival::Reset);
        let here_ns = link.send_to_client(now_ns + here_ns, Arrival::Reset);
        self.at(there_ns, Happening::ToServer(id));
        self.at(here_ns, Happening::ToClient(id));
    }

    pub(super) fn silence(&mut self) {
        self.after_interval(self.plan.faults.silence_interval_ns, Happening::Silence);
        let Some(id) = self.any_link().filter(|_| self.strikes()) else { return };
        self.trace.note(self.now_ns, "a connection goes silent", &[("connection", id.0)]);
        self.links.get_mut(&id).expect("it was drawn").silent = true;
    }

    /// A client says that it will send no more; what it has asked for is owed to it all the same.
    pub(super) fn half_close(&mut self) {
        self.after_interval(self.plan.faults.half_close_interval_ns, Happening::HalfClose);
        let Some(id) = self.any_link().filter(|_| self.strikes()) else { return };
        self.trace.note(self.now_ns, "a client sends no more", &[("connection", id.0)]);
        let at_ns = self.now_ns + self.dice.below(self.network_ns());
        let link = self.links.get_mut(&id).expect("it was drawn");
        let client = link.client;
        let at_ns = link.send_to_server(at_ns, Arrival::End);
        self.at(at_ns, Happening::ToServer(id));
        self.clients[client as usize].finish();
    }
}
