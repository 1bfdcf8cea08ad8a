//! What came of the turns.

use serde::Serialize;

use super::attack::Deeds;
use crate::node_stats::NodeStats;
use crate::options::{HostileKind, HostileOptions};
use crate::report::RunReport;
use crate::spread::median;

/// What the others met in one turn.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct HostileTurn {
    /// Their GETs, in microseconds from when each was to be sent.
    pub get_p50_us: f64,
    /// As above.
    pub get_p99_us: f64,
    /// Their PUTs.
    pub put_p50_us: f64,
    /// As above.
    pub put_p99_us: f64,
    /// Requests of theirs that were answered well, per second.
    pub ops_per_s: f64,
    /// Those that were answered `Busy` or `Throttled`.
    pub turned_away: u64,
    /// Answers that were wrong, missing or refused.
    pub unsound: u64,
    /// The most memory that the node had resident, in bytes.
    pub peak_bytes: u64,
}

/// Connections that the node has ended, by why, and those that it did not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Closed {
    /// Their clients did.
    pub by_peer: u64,
    /// For what was sent.
    pub protocol: u64,
    /// A handshake or a request did not come in whole in time.
    pub silent: u64,
    /// Answers were not read.
    pub deaf: u64,
    /// Unfinished requests held too much memory, or there were too many connections.
    pub overload: u64,
}

/// One turn, in full.
pub struct Measured {
    pub turn: HostileTurn,
    pub deeds: Deeds,
    pub closed: Closed,
    pub left_open: u64,
}

/// What hostile clients of one kind came to.
#[derive(Debug, Serialize)]
pub struct HostileRow {
    /// What they do.
    pub kind: HostileKind,
    /// What the others met.
    pub turns: Vec<HostileTurn>,
    /// What the hostile did, in all turns.
    pub deeds: Deeds,
    /// What became of connections, in all turns.
    pub closed: Closed,
    /// Connections that the node had open ten seconds after the hostile had gone.
    pub left_open: u64,
    /// Of medians over the turns: p99 of the others' GETs, over that without hostile clients.
    pub get_p99_ratio: f64,
    /// Of their PUTs; 0 where they make none.
    pub put_p99_ratio: f64,
    /// The most memory that the node had resident, in bytes.
    pub peak_bytes: u64,
    /// Whether p99 and memory are within their limits, every answer was right, and no connection was left.
    pub holds: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct HostileReport {
    /// Records of the others.
    pub records: u64,
    /// Their requests per second.
    pub rate: u64,
    /// What the node may take, in bytes.
    pub memory_bytes: u64,
    /// What it had resident when it began to listen, on its drive as it was.
    pub idle_bytes: u64,
    /// The same when the tables were filled.
    pub filled_bytes: u64,
    /// How many times as long p99 may be.
    pub most_ratio: f64,
    /// Turns without hostile clients.
    pub quiet: Vec<HostileTurn>,
    /// Turns with them.
    pub rows: Vec<HostileRow>,
    /// Whether all rows hold.
    pub all_hold: bool,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl HostileTurn {
    /// What a load has found.
    pub fn of(run: &RunReport, peak_bytes: u64) -> HostileTurn {
        HostileTurn {
            get_p50_us: run.get_us.p50,
            get_p99_us: run.get_us.p99,
            put_p50_us: run.put_us.p50,
            put_p99_us: run.put_us.p99,
            ops_per_s: run.ops_per_s,
            turned_away: run.busy + run.throttled,
            unsound: run.missing + run.wrong + run.refused,
            peak_bytes,
        }
    }
}

impl Closed {
    /// Those between two moments.
    pub fn since(before: &NodeStats, after: &NodeStats) -> Closed {
        let grown = |name| after.total(name).saturating_sub(before.total(name));
        Closed {
            by_peer: grown("closed_by_peer"),
            protocol: grown("closed_protocol"),
            silent: grown("closed_silent"),
            deaf: grown("closed_deaf"),
            overload: grown("closed_overload"),
        }
    }

    fn add(&mut self, other: &Closed) {
        self.by_peer += other.by_peer;
        self.protocol += other.protocol;
        self.silent += other.silent;
        self.deaf += other.deaf;
        self.overload += other.overload;
    }
}

impl HostileReport {
    /// Before the first turn.
    pub fn new(options: &HostileOptions, idle_bytes: Option<u64>) -> HostileReport {
        let row = |kind| HostileRow {
            kind,
            turns: Vec::new(),
            deeds: Deeds::default(),
            closed: Closed::default(),
            left_open: 0,
            get_p99_ratio: 0.0,
            put_p99_ratio: 0.0,
            peak_bytes: 0,
            holds: false,
        };
        HostileReport {
            records: options.load.data.records,
            rate: options.load.rate,
            memory_bytes: options.memory_mib << 20,
            idle_bytes: idle_bytes.unwrap_or(0),
            filled_bytes: 0,
            most_ratio: options.most_ratio,
            quiet: Vec::new(),
            rows: options.kinds().into_iter().map(row).collect(),
            all_hold: false,
        }
    }

    /// One more turn: of hostile clients of this kind, or of none.
    pub fn push(&mut self, kind: Option<HostileKind>, measured: Measured) {
        let Some(kind) = kind else { return self.quiet.push(measured.turn) };
        for row in self.rows.iter_mut().filter(|row| row.kind == kind) {
            row.turns.push(measured.turn);
            row.deeds.add(&measured.deeds);
            row.closed.add(&measured.closed);
            row.left_open += measured.left_open;
        }
    }

    /// What all turns come to.
    pub fn judge(&mut self, most_ratio: f64) {
        let of =
            |turns: &[HostileTurn], field: fn(&HostileTurn) -> f64| median(turns.iter().map(field).collect());
        let ratio = |turns: &[HostileTurn], field| {
            let quiet = of(&self.quiet, field);
            if quiet > 0.0 { of(turns, field) / quiet } else { 0.0 }
        };
        for row in &mut self.rows {
            row.get_p99_ratio = ratio(&row.turns, |turn| turn.get_p99_us);
            row.put_p99_ratio = ratio(&row.turns, |turn| turn.put_p99_us);
            row.peak_bytes = row.turns.iter().map(|turn| turn.peak_bytes).max().unwrap_or(0);
            let is_sound = row.turns.iter().all(|turn| turn.unsound == 0 && turn.ops_per_s > 0.0);
            let is_fast = row.get_p99_ratio <= most_ratio && row.put_p99_ratio <= most_ratio;
            row.holds = is_sound && is_fast && row.peak_bytes <= self.memory_bytes && row.left_open == 0;
        }
        self.all_hold = self.rows.iter().all(|row| row.holds);
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} requests/s of others; the node may take {:.0} MiB, has {:.0} idle and {:.0} when filled\n\n\
             {:<13} {:>9} {:>9} {:>9} {:>9} {:>10} {:>6} {:>9}\n",
            self.rate,
            mib(self.memory_bytes),
            mib(self.idle_bytes),
            mib(self.filled_bytes),
            "us",
            "GET p50",
            "GET p99",
            "PUT p50",
            "PUT p99",
            "answered/s",
            "away",
            "peak MiB"
        );
        let quiet = self.quiet.iter().map(|turn| ("quiet".to_owned(), turn));
        let rows = self.rows.iter().flat_map(|row| row.turns.iter().map(|turn| (row.kind.name(), turn)));
        for (name, turn) in quiet.chain(rows) {
            text += &format!(
                "{name:<13} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>10.0} {:>6} {:>9.0}\n",
                turn.get_p50_us,
                turn.get_p99_us,
                turn.put_p50_us,
                turn.put_p99_us,
                turn.ops_per_s,
                turn.turned_away,
                mib(turn.peak_bytes)
            );
        }
        self.tell_rows(&mut text);
        text += &format!(
            "\np99 of the others with hostile clients, over that without (medians): {:.1} at most; memory: {:.0} MiB at most\n",
            self.most_ratio,
            mib(self.memory_bytes)
        );
        text
    }

    /// By kind.
    fn tell_rows(&self, text: &mut String) {
        *text += &format!(
            "\n{:<13} {:>9} {:>9} {:>9} {:>11} {:>9} {:>8} {:>9} {:>7} {:>6} {:>9} {:>5}\n",
            "p99 ratio",
            "GET",
            "PUT",
            "peak MiB",
            "connections",
            "sent MB",
            "by peer",
            "protocol",
            "silent",
            "deaf",
            "overload",
            "left"
        );
        for row in &self.rows {
            let HostileRow { deeds, closed, .. } = row;
            *text += &format!(
                "{:<13} {:>9.2} {:>9.2} {:>9.0} {:>11} {:>9.1} {:>8} {:>9} {:>7} {:>6} {:>9} {:>5} {}\n",
                row.kind.name(),
                row.get_p99_ratio,
                row.put_p99_ratio,
                mib(row.peak_bytes),
                deeds.connections,
                deeds.sent_bytes as f64 / 1e6,
                closed.by_peer,
                closed.protocol,
                closed.silent,
                closed.deaf,
                closed.overload,
                row.left_open,
                if row.holds { "" } else { "MISSED" }
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Arguments, Command};

    fn report(p99_us: f64, peak_bytes: u64, left_open: u64) -> HostileReport {
        let line = "lode-bench hostile --dir d --kinds drops --memory-mib 64";
        let Command::Hostile(options) = Arguments::parse_from(line.split(' ')).command else {
            panic!("it is not this verb: {line}");
        };
        let mut report = HostileReport::new(&options, Some(1));
        let turn = |get_p99_us, peak_bytes| Measured {
            turn: HostileTurn { get_p99_us, peak_bytes, ops_per_s: 1.0, ..HostileTurn::default() },
            deeds: Deeds { connections: 1, ..Deeds::default() },
            closed: Closed::default(),
            left_open: 0,
        };
        report.push(None, turn(100.0, 0));
        report.push(Some(HostileKind::Drops), Measured { left_open, ..turn(p99_us, peak_bytes) });
        report.judge(options.most_ratio);
        report
    }

    #[test]
    fn each_limit_is_held_at_and_above() {
        assert!(report(200.0, 64 << 20, 0).all_hold);
        for missed in [report(201.0, 0, 0), report(0.0, (64 << 20) + 1, 0), report(0.0, 0, 1)] {
            assert!(!missed.all_hold);
            assert!(missed.to_text().contains("MISSED"));
        }
    }
}
