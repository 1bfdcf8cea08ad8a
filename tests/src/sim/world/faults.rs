//! What goes wrong, and when.

use super::super::drive::DriveOp;
use super::super::link::{Arrival, LinkId, NodeEnd};
use super::super::plan::MS;
use super::{Happening, NETWORK_NS, Season, World};

impl World<'_> {
    pub(super) fn begin_faults(&mut self) {
        let faults = &self.plan.faults;
        let all = [
            (faults.crash_interval_ns, Happening::Crash),
            (faults.reset_interval_ns, Happening::Reset),
            (faults.silence_interval_ns, Happening::Silence),
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
        self.season == Season::Work && ppm > 0 && self.dice.below(1_000_000) < ppm
    }

    pub(super) fn crash(&mut self) {
        let faults = self.plan.faults;
        if self.node.is_none() {
            return;
        }
        let loses_power = self.dice.below(100) < faults.power_losses_percent;
        self.trace.note(self.now_ns, "crash", &[u64::from(loses_power)]);
        self.node = None;
        for (_, under_way) in std::mem::take(&mut self.under_way) {
            self.drive.abandon(&under_way.op);
        }
        if loses_power {
            self.drive.lose_power();
        }
        self.history.crashed();
        // Without power the other side is told nothing; a dead process's connections are reset.
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let at_ns = self.now_ns + self.dice.below(NETWORK_NS);
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
        if self.season != Season::Work || self.node.is_none() {
            return;
        }
        self.drive_events += 1;
        let Some(cut) = self.plan.cut.filter(|cut| cut.at == self.drive_events) else { return };
        self.is_cut = true;
        let under_way: Vec<DriveOp> =
            std::mem::take(&mut self.under_way).into_values().map(|u| u.op).collect();
        self.drive.cut(&under_way, cut.kept);
        self.crash();
    }

    pub(super) fn jump(&mut self) {
        self.after_interval(self.plan.faults.clock_jump_interval_ns, Happening::ClockJump);
        let most_ns = self.plan.faults.clock_jump_ns;
        let jump_ns = self.dice.below(2 * most_ns) as i64 - most_ns as i64;
        self.trace.note(self.now_ns, "clock jump", &[jump_ns as u64]);
        self.wall_offset_ns += jump_ns;
    }

    pub(super) fn any_link(&mut self) -> Option<LinkId> {
        let count = self.links.len() as u64;
        let place = (count > 0).then(|| self.dice.below(count))?;
        self.links.keys().nth(place as usize).copied()
    }

    pub(super) fn reset(&mut self) {
        self.after_interval(self.plan.faults.reset_interval_ns, Happening::Reset);
        let Some(id) = self.any_link() else { return };
        self.trace.note(self.now_ns, "reset", &[id.0]);
        let (there_ns, here_ns) = (self.dice.below(NETWORK_NS), self.dice.below(NETWORK_NS));
        let now_ns = self.now_ns;
        let link = self.links.get_mut(&id).expect("it was drawn");
        let there_ns = link.send_to_server(now_ns + there_ns, Arrival::Reset);
        let here_ns = link.send_to_client(now_ns + here_ns, Arrival::Reset);
        self.at(there_ns, Happening::ToServer(id));
        self.at(here_ns, Happening::ToClient(id));
    }

    pub(super) fn silence(&mut self) {
        self.after_interval(self.plan.faults.silence_interval_ns, Happening::Silence);
        let Some(id) = self.any_link() else { return };
        self.trace.note(self.now_ns, "silence", &[id.0]);
        self.links.get_mut(&id).expect("it was drawn").silent = true;
    }
}
