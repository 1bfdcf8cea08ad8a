//! What cleaning costs: device bytes written per user byte, by cause, and the PUTs' latencies.
//!
//! `cargo run --release -p lode-engine --example cleaning_bench -- [--NAME VALUE]...`
//!
//! | option | default | what it is |
//! |---|---|---|
//! | `--fill` | 85 | live records, in percent of the payload of all segments |
//! | `--distribution` | zipf | of the overwrites: `zipf` (0.99) or `uniform` |
//! | `--value-bytes` | 1000 | keys have 16 bytes |
//! | `--segments` | 2048 | |
//! | `--segment-kib` | 256 | |
//! | `--overwrites` | 10 | as many as there are records, times this; the last third is measured |
//! | `--in-flight` | 256 | PUTs under way at once |
//! | `--rate` | none | PUTs a second that come whether or not earlier ones were answered, in place of `--in-flight` |
//! | `--mb-per-s` | 2000 | bandwidth of the simulated drive; its latency is 80 us |
//! | `--peers` | yes | `no` leaves out what other ways of cleaning do with the same trace |
//!
//! The engine is the very one that serves; drive and clock are simulated, so a run is the same everywhere.
#![allow(missing_docs)]

mod drive;
mod load;
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;
mod trace;

use std::collections::BTreeMap;

use lode_engine::{Census, Geometry, ShardStats};

use drive::Speed;
use load::{Arrival, KEY_BYTES, Load};
use peers::{Peer, Simulation};
use trace::Trace;

const BLOCK_BYTES: u64 = 4096;
const RECORD_HEADER_BYTES: usize = 30;
const SEED: u64 = 7;
const LATENCY_NS: u64 = 80_000;

struct Options(BTreeMap<String, String>);

impl Options {
    fn parse() -> Options {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let known = [
            "fill",
            "distribution",
            "value-bytes",
            "segments",
            "segment-kib",
            "overwrites",
            "in-flight",
            "rate",
            "mb-per-s",
            "peers",
        ];
        let pair = |pair: &[String]| {
            let name = pair[0].strip_prefix("--").unwrap_or_default();
            assert!(
                known.contains(&name) && pair.len() == 2,
                "not an option and its value: {pair:?}; see the source"
            );
            (name.to_owned(), pair[1].clone())
        };
        Options(args.chunks(2).map(pair).collect())
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, name: &str, default: &str) -> u64 {
        self.text(name, default).parse().unwrap_or_else(|_| panic!("--{name} takes a number"))
    }
}

fn main() {
    let options = Options::parse();
    let zipf = match options.text("distribution", "zipf").as_str() {
        "zipf" => true,
        "uniform" => false,
        other => panic!("--distribution is zipf or uniform, not {other}"),
    };
    let value_bytes = options.number("value-bytes", "1000") as usize;
    let (segments, segment_kib) = (options.number("segments", "2048"), options.number("segment-kib", "256"));
    let segment_bytes = segment_kib << 10;
    let drive_bytes = segments * segment_bytes + (256 << 10);
    let geometry = Geometry::plan(drive_bytes, 1, Some(segment_bytes as u32), value_bytes.max(1) as u32);
    let geometry = geometry.expect("segments of a power of two that hold three records");
    let record_bytes = (RECORD_HEADER_BYTES + KEY_BYTES + value_bytes) as u64;
    let fill = options.number("fill", "85") as f64 / 100.0;
    let payload = u64::from(geometry.segments_per_shard) * (segment_bytes - BLOCK_BYTES);
    let records = (payload as f64 * fill / record_bytes as f64) as u32;
    let overwrites = u64::from(records) * options.number("overwrites", "10");
    let measured = overwrites / 3;
    let arrival = match options.number("rate", "0") {
        0 => Arrival::InFlight(options.number("in-flight", "256") as usize),
        rate => Arrival::EveryNs(1_000_000_000 / rate),
    };
    let speed = Speed { latency_ns: LATENCY_NS, bytes_per_us: options.number("mb-per-s", "2000") };
    println!(
        "{records} records of {record_bytes} bytes, {} segments of {segment_kib} KiB",
        geometry.segments_per_shard
    );

    let mut load = Load::new(geometry, value_bytes, speed);
    let mut trace = Trace::new(zipf, records, SEED);
    load.put(Arrival::InFlight(256), trace.fill());
    load.settle();
    load.put(arrival, (0..overwrites - measured).map(|_| trace.draw()));
    load.settle();
    let (before, before_bytes) = (load.shard.stats(), load.drive.written_bytes);
    load.latencies_ns.clear();
    load.censuses.clear();
    load.put(arrival, (0..measured).map(|_| trace.draw()));
    load.settle();
    let (after, bytes) = (load.shard.stats(), load.drive.written_bytes - before_bytes);
    report(&before, &after, bytes, segment_bytes - BLOCK_BYTES);
    census(&load.censuses, &load.shard.census(), segment_bytes - BLOCK_BYTES);
    latencies(&mut load.latencies_ns);
    let read_bytes = load.restart();
    let found = load.shard.stats();
    assert_eq!(found.records, u64::from(records), "nothing is lost");
    println!(
        "a start now reads {:.1} MB before it serves, and {:.1} MB more, of an area of {:.0} MB: {} records of images, \
         {} entries of the journal, {} frames",
        read_bytes as f64 / 1e6,
        (found.recovery_read_bytes - read_bytes) as f64 / 1e6,
        geometry.area_bytes() as f64 / 1e6,
        found.recovered_image_records,
        found.recovered_journal_entries,
        found.recovered_frames,
    );
    if options.text("peers", "yes") == "yes" {
        let segment_records = ((segment_bytes - BLOCK_BYTES) / record_bytes) as usize;
        println!("records alone, simulated with the same trace:");
        for (peer, name) in Peer::ALL {
            let simulation = Simulation::new(peer, segments as usize, segment_records, records);
            let written = peers::run(simulation, Trace::new(zipf, records, SEED), overwrites, measured);
            println!("  {name:<32}{written:6.2}");
        }
        println!("  {:<32}{:6.2}", "limit, every rate known", peers::separation_limit(zipf, records, fill));
    }
}

/// Device bytes per user byte, by cause.
fn report(before: &ShardStats, after: &ShardStats, drive_bytes: u64, payload_bytes: u64) {
    let grown = |of: fn(&ShardStats) -> u64| of(after) - of(before);
    let user = grown(|stats| stats.user_bytes) as f64;
    let causes = [
        ("user frames, padding counted", grown(|stats| stats.user_frame_bytes)),
        ("cleaning", grown(|stats| stats.cleaning_frame_bytes)),
        ("journal", grown(|stats| stats.journal_bytes)),
        ("images", grown(|stats| stats.image_bytes)),
        ("superblocks, segment headers", grown(|stats| stats.meta_bytes)),
    ];
    println!("device bytes per byte of keys and values:");
    for (name, bytes) in causes {
        println!("  {name:<32}{:6.3}", bytes as f64 / user);
    }
    assert_eq!(causes.iter().map(|(_, bytes)| bytes).sum::<u64>(), drive_bytes, "every byte has its cause");
    println!("  {:<32}{:6.3}", "all", drive_bytes as f64 / user);
    let (cleaned, moved) = (grown(|stats| stats.segments_cleaned), grown(|stats| stats.relocated_bytes));
    println!(
        "{cleaned} segments cleaned, {:.1} % live on average, {:.3} bytes written for a byte moved; {} checkpoints; \
         {} of {} segments free at the end; live records fill {:.1} % of their limit",
        100.0 * moved as f64 / (cleaned.max(1) * payload_bytes) as f64,
        grown(|stats| stats.cleaning_frame_bytes) as f64 / moved.max(1) as f64,
        grown(|stats| stats.checkpoints),
        after.segments_free,
        after.segments,
        100.0 * after.live_bytes as f64 / after.live_limit_bytes as f64,
    );
}

/// What the segments are there for: under the load on average, and at rest.
fn census(under_load: &[Census], at_rest: &Census, payload_bytes: u64) {
    println!("segments, on average under the load, and at rest:");
    type Part = (&'static str, fn(&Census) -> f64);
    let parts: [Part; 8] = [
        ("with live records, sealed", |census| f64::from(census.records)),
        ("empty, waiting for the journal", |census| f64::from(census.emptied)),
        ("free", |census| f64::from(census.free)),
        ("being discarded", |census| f64::from(census.discarding)),
        ("open for users", |census| f64::from(census.user_open)),
        ("open for cleaning", |census| f64::from(census.cleaning_open)),
        ("journal", |census| f64::from(census.journal)),
        ("images", |census| f64::from(census.image)),
    ];
    let mean =
        |of: &dyn Fn(&Census) -> f64| under_load.iter().map(of).sum::<f64>() / under_load.len().max(1) as f64;
    for (name, of) in parts {
        println!("  {name:<32}{:8.1}{:8.0}", mean(&of), of(at_rest));
    }
    let unfilled = |census: &Census| census.unfilled_bytes as f64 / payload_bytes as f64;
    println!("  {:<32}{:8.1}{:8.1}", "unfilled ends of those, as many", mean(&unfilled), unfilled(at_rest));
    let fill = |census: &Census| {
        100.0 * census.live_bytes as f64 / (f64::from(census.records) * payload_bytes as f64)
    };
    println!("  {:<32}{:8.1}{:8.1}", "live in those, percent", mean(&fill), fill(at_rest));
}

fn latencies(of_ns: &mut [u64]) {
    of_ns.sort_unstable();
    let at = |share: f64| of_ns[((of_ns.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "PUT p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, longest {:.0} us",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
