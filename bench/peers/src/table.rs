//! The table: medians over the rounds, how far they spread, and ratios to lode's.

use std::collections::BTreeSet;

use lode_bench::spread::median;
use serde::Serialize;

use crate::figures::{Figures, Latency, Setting, Turn};
use crate::points::Point;

/// Whom all others are compared with.
const LODE: &str = "lode";

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Under what; `None` where nothing was measured.
    pub setting: Option<Setting>,
    /// In the order of their points, and of the peers' first turns.
    pub rows: Vec<Row>,
}

/// One peer at one point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub point: Point,
    /// Which peer.
    pub peer: String,
    /// When its writes are durable.
    pub durable: String,
    /// Rounds that were measured.
    pub rounds: usize,
    /// Medians; `None` where no round was measured.
    pub median: Option<Figures>,
    /// The most over the least of the rounds' operations per second, less one, in percent.
    pub spread_percent: f64,
    /// lode's operations per second over this peer's: the median of the rounds in which both were measured.
    pub lode_over_this: Option<f64>,
    /// Why rounds failed.
    pub failed: Vec<String>,
}

impl Table {
    /// Of all turns.
    pub fn new(turns: Vec<Turn>) -> Table {
        let points: BTreeSet<Point> = turns.iter().map(|turn| turn.point).collect();
        let mut peers: Vec<&str> = Vec::new();
        for turn in &turns {
            if !peers.contains(&turn.peer.as_str()) {
                peers.push(&turn.peer);
            }
        }
        let rows = points.into_iter().flat_map(|point| {
            let of_peer = |name: &&str| Row::new(&turns, point, name);
            peers.iter().filter_map(of_peer).collect::<Vec<Row>>()
        });
        Table { rows: rows.collect(), setting: turns.first().map(|turn| turn.setting.clone()) }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let Some(setting) = &self.setting else {
            return "nothing was measured\n".to_owned();
        };
        let Setting { records, value_size, memory, limited_by, clients, seconds, machine } = setting;
        let limit = match limited_by {
            Some(by) => format!("limited to {} MiB each by {by}", memory >> 20),
            None => "NOT LIMITED: the page cache of the whole machine serves those that use it".to_owned(),
        };
        let mut text = format!(
            "{records} records of {value_size} B, {clients} requests in flight, {seconds} s a point; memory {limit}\n\
             {machine}\n"
        );
        let mut point = None;
        for row in &self.rows {
            if point != Some(row.point) {
                point = Some(row.point);
                text += &format!(
                    "\n{} ({})\n{:<20} {:>15} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n",
                    row.point.title(),
                    row.point.name(),
                    "",
                    "durable",
                    "ops/s",
                    "spread",
                    "lode is",
                    "p50 us",
                    "p99 us",
                    "PUT p50",
                    "p99 us",
                    "CPU us"
                );
            }
            text += &row.to_text();
        }
        text
    }
}

impl Row {
    /// `None` where the peer was not asked.
    fn new(turns: &[Turn], point: Point, peer: &str) -> Option<Row> {
        let of = |name: &str| -> Vec<&Turn> {
            turns.iter().filter(|turn| turn.point == point && turn.peer == name).collect()
        };
        let own = of(peer);
        let durable = own.first()?.durable.clone();
        let measured = |turns: &[&Turn]| -> Vec<(u32, Figures)> {
            turns.iter().filter_map(|turn| Some((turn.round, turn.outcome.clone().ok()?))).collect()
        };
        let (rounds, lodes) = (measured(&own), measured(&of(LODE)));
        let ratios: Vec<f64> = rounds
            .iter()
            .filter_map(|(round, figures)| {
                let lode = lodes.iter().find(|(other, _)| other == round)?;
                (figures.ops_per_s > 0.0).then(|| lode.1.ops_per_s / figures.ops_per_s)
            })
            .collect();
        let mut failed: Vec<String> = own.iter().filter_map(|turn| turn.outcome.clone().err()).collect();
        failed.dedup();
        let rates: Vec<f64> = rounds.iter().map(|(_, figures)| figures.ops_per_s).collect();
        let (least, most) = rates.iter().fold((f64::MAX, 0.0f64), |(a, b), x| (a.min(*x), b.max(*x)));
        let figures: Vec<Figures> = rounds.into_iter().map(|(_, figures)| figures).collect();
        Some(Row {
            point,
            peer: peer.to_owned(),
            durable,
            rounds: figures.len(),
            median: (!figures.is_empty()).then(|| middle(&figures)),
            spread_percent: if least > 0.0 && most > 0.0 { (most / least - 1.0) * 100.0 } else { 0.0 },
            lode_over_this: (!ratios.is_empty()).then(|| median(ratios)),
            failed,
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(figures) = &self.median {
            let us = |latency: Option<Latency>, of: fn(Latency) -> f64| {
                latency.map_or("-".to_owned(), |latency| format!("{:.0}", of(latency)))
            };
            let (read, put) = (figures.read_us, figures.put_us);
            text += &format!(
                "{:<20} {:>15} {:>9.0} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n",
                self.peer,
                self.durable,
                figures.ops_per_s,
                format!("{:.0} %", self.spread_percent),
                self.lode_over_this.map_or("-".to_owned(), |ratio| format!("{ratio:.2} x")),
                us(read, |l| l.p50),
                us(read, |l| l.p99),
                us(put, |l| l.p50),
                us(put, |l| l.p99),
                figures.cpu_us_per_op.map_or("-".to_owned(), |us| format!("{us:.1}")),
            );
            if figures.errors > 0 {
                text += &format!("{:<20} {} requests failed (median of the rounds)\n", "", figures.errors);
            }
        }
        for why in &self.failed {
            text += &format!("{:<20} not measured: {why}\n", self.peer);
        }
        text
    }
}

/// The median of each figure.
fn middle(figures: &[Figures]) -> Figures {
    let of = |field: &dyn Fn(&Figures) -> Option<f64>| -> Option<f64> {
        let values: Vec<f64> = figures.iter().filter_map(field).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let latency = |field: fn(&Figures) -> Option<Latency>| {
        Some(Latency {
            p50: of(&|f| Some(field(f)?.p50))?,
            p99: of(&|f| Some(field(f)?.p99))?,
            p999: of(&|f| Some(field(f)?.p999))?,
        })
    };
    Figures {
        ops_per_s: of(&|f| Some(f.ops_per_s)).unwrap_or(0.0),
        errors: of(&|f| Some(f.errors as f64)).unwrap_or(0.0) as u64,
        read_us: latency(|f| f.read_us),
        put_us: latency(|f| f.put_us),
        cpu_us_per_op: of(&|f| f.cpu_us_per_op),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(peer: &str, round: u32, point: Point, outcome: Result<f64, &str>) -> Turn {
        let setting = Setting {
            records: 10,
            value_size: 100,
            memory: 64 << 20,
            limited_by: None,
            clients: 2,
            seconds: 1.0,
            machine: "this one".to_owned(),
        };
        let read_us = Some(Latency { p50: 1.0, p99: 2.0, p999: 3.0 });
        let figures =
            |ops_per_s| Figures { ops_per_s, errors: 0, read_us, put_us: None, cpu_us_per_op: None };
        let outcome = outcome.map(figures).map_err(str::to_owned);
        Turn { setting, peer: peer.to_owned(), durable: "no".to_owned(), round, point, outcome }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_medians_of_all() {
        let mut turns = Vec::new();
        for (round, lode, other) in [(1, 100.0, 50.0), (2, 300.0, 100.0), (3, 200.0, 20.0)] {
            turns.push(turn("lode", round, Point::Put, Ok(lode)));
            turns.push(turn("other", round, Point::Put, Ok(other)));
        }
        turns.push(turn("lode", 1, Point::Get, Ok(5.0)));
        turns.push(turn("gone", 1, Point::Get, Err("it is not installed")));
        let table = Table::new(turns);
        let row = |peer: &str, point| table.rows.iter().find(|row| row.peer == peer && row.point == point);
        let other = row("other", Point::Put).unwrap();
        assert_eq!(other.lode_over_this, Some(3.0), "of 2, 3 and 10");
        assert_eq!(other.median.as_ref().unwrap().ops_per_s, 50.0);
        assert_eq!((other.rounds, other.spread_percent.round()), (3, 400.0));
        assert_eq!(row("lode", Point::Put).unwrap().lode_over_this, Some(1.0));
        assert!(row("other", Point::Get).is_none(), "it was not asked");
        let text = table.to_text();
        assert!(text.contains("not measured: it is not installed") && text.contains("3.00 x"), "{text}");
        assert!(text.contains("NOT LIMITED"), "{text}");
        assert!(text.find("GET, uniform") < text.find("PUT, uniform"));
        assert_eq!(Table::new(Vec::new()).to_text(), "nothing was measured\n");
    }
}
