//! What one tenant's flood costs the others: one load at a constant rate over many partitions, with and without
//! another client that asks one more partition for far more than its share, by turns.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::draw::ValueSizes;
use crate::options::{DataOptions, FloodKind, LoadOptions, RunOptions, TenantsOptions};
use crate::report::RunReport;
use crate::run::{Ready, RunError, measure, prepare};
use crate::spread::median;
use crate::workload::Workload;

/// How much longer than the others the flood runs, at either end.
const FLOOD_MARGIN: Duration = Duration::from_millis(500);
/// Most records of the flood's table: enough that the node's cache does not hold them, where values are large.
const MOST_FLOOD_BYTES: u64 = 512 << 20;

/// What the others met in one turn.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Turn {
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
    /// What the flood got done, per second.
    pub flood_ops_per_s: f64,
    /// Of the flood's requests, those answered `Busy` or `Throttled`.
    pub flood_turned_away: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct TenantsReport {
    /// Partitions of the others.
    pub partitions: u32,
    /// Their requests per second.
    pub rate: u64,
    /// The flood, in words.
    pub flood: String,
    /// Turns without the flood.
    pub quiet: Vec<Turn>,
    /// Turns with it.
    pub flooded: Vec<Turn>,
    /// Of medians over the turns: p99 of the others' GETs with the flood, over that without.
    pub get_p99_ratio: f64,
    /// Of their PUTs; 0 where they make none.
    pub put_p99_ratio: f64,
}

/// Runs both phases by turns.
pub fn tenants(options: &TenantsOptions) -> Result<TenantsReport, RunError> {
    let mut others = prepare(&others_run(&options.load))?;
    let flood_data = flood_data(options);
    let mut flood = prepare(&flood_run(options, &flood_data))?;
    let mut report = TenantsReport {
        partitions: options.load.data.partitions,
        rate: options.load.rate,
        flood: describe(options),
        quiet: Vec::new(),
        flooded: Vec::new(),
        get_p99_ratio: 0.0,
        put_p99_ratio: 0.0,
    };
    for round in 1..=options.load.rounds {
        eprintln!("round {round} of {}", options.load.rounds);
        report.quiet.push(Turn::of(&measure(&mut others, &others_run(&options.load))?, None));
        let (run, flooding) = with_flood(&mut others, &mut flood, options, &flood_data)?;
        report.flooded.push(Turn::of(&run, Some(&flooding)));
    }
    let ratio = |of: fn(&Turn) -> f64| {
        let quiet = median(report.quiet.iter().map(of).collect());
        if quiet > 0.0 { median(report.flooded.iter().map(of).collect()) / quiet } else { 0.0 }
    };
    (report.get_p99_ratio, report.put_p99_ratio) =
        (ratio(|turn| turn.get_p99_us), ratio(|turn| turn.put_p99_us));
    Ok(report)
}

fn with_flood(
    others: &mut Ready,
    flood: &mut Ready,
    options: &TenantsOptions,
    flood_data: &DataOptions,
) -> Result<(RunReport, RunReport), RunError> {
    let flood_run = flood_run(options, flood_data);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| measure(flood, &flood_run));
        thread::sleep(FLOOD_MARGIN);
        let run = measure(others, &others_run(&options.load));
        // A panic in the load is a bug of this program; it goes on where it was.
        let flooding = flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((run?, flooding?))
    })
}

/// The load of the others.
pub fn others_run(load: &LoadOptions) -> RunOptions {
    RunOptions {
        read_percent: load.read_percent,
        rate: Some(load.rate),
        connections: load.connections,
        depth: load.depth,
        duration: load.duration,
        warmup: load.warmup,
        ..RunOptions::new(load.data.clone(), Workload::Mixed)
    }
}

fn flood_data(options: &TenantsOptions) -> DataOptions {
    let bytes = options.flood_value_size;
    let records = options.load.data.records.min(MOST_FLOOD_BYTES / u64::from(bytes.max(1024)));
    let table = format!("{}-flood-{bytes}", options.load.data.table);
    let value_size = ValueSizes::fixed(bytes);
    DataOptions { table, tables: 1, records, value_size, partitions: 1, ..options.load.data.clone() }
}

fn flood_run(options: &TenantsOptions, data: &DataOptions) -> RunOptions {
    let load = &options.load;
    let workload = match options.flood {
        FloodKind::Get => Workload::Get,
        FloodKind::Put => Workload::Put,
    };
    RunOptions {
        rate: (options.flood_rate > 0).then_some(options.flood_rate),
        connections: options.flood_connections,
        depth: options.flood_depth,
        duration: load.warmup + load.duration + FLOOD_MARGIN,
        // On a machine of its own it would take none of the node's cores.
        yields: true,
        ..RunOptions::new(data.clone(), workload)
    }
}

fn describe(options: &TenantsOptions) -> String {
    let how = match options.flood_rate {
        0 => "as fast as it is answered".to_owned(),
        rate => format!("{rate} a second"),
    };
    let what = match options.flood {
        FloodKind::Get => "GETs",
        FloodKind::Put => "PUTs",
    };
    format!(
        "{what} of {} B, {how}, {} connections x {}",
        options.flood_value_size, options.flood_connections, options.flood_depth
    )
}

impl Turn {
    fn of(run: &RunReport, flood: Option<&RunReport>) -> Turn {
        let turned_away = |run: &RunReport| run.busy + run.throttled;
        Turn {
            get_p50_us: run.get_us.p50,
            get_p99_us: run.get_us.p99,
            put_p50_us: run.put_us.p50,
            put_p99_us: run.put_us.p99,
            ops_per_s: run.ops_per_s,
            turned_away: turned_away(run),
            flood_ops_per_s: flood.map_or(0.0, |flood| flood.ops_per_s),
            flood_turned_away: flood.map_or(0, turned_away),
        }
    }
}

impl TenantsReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} requests/s over {} partitions; the flood: {}\n\n{:<8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7} {:>10} {:>9}\n",
            self.rate,
            self.partitions,
            self.flood,
            "us",
            "GET p50",
            "GET p99",
            "PUT p50",
            "PUT p99",
            "answered/s",
            "away",
            "flood/s",
            "its away"
        );
        for (quiet, flooded) in self.quiet.iter().zip(&self.flooded) {
            for (name, turn) in [("quiet", quiet), ("flooded", flooded)] {
                text += &format!(
                    "{name:<8} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>10.0} {:>7} {:>10.0} {:>9}\n",
                    turn.get_p50_us,
                    turn.get_p99_us,
                    turn.put_p50_us,
                    turn.put_p99_us,
                    turn.ops_per_s,
                    turn.turned_away,
                    turn.flood_ops_per_s,
                    turn.flood_turned_away
                );
            }
        }
        text += &format!(
            "\np99 of the others with the flood, over that without (medians): GET {:.2}, PUT {:.2} (1.3 wanted)\n",
            self.get_p99_ratio, self.put_p99_ratio
        );
        text
    }
}
