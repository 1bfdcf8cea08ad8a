//! What `lode top` shows: lines made of what a node has told.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::screen::{Line, Table, Tone, bar, heights};
use crate::cli::figures::{bytes, count, percent, span, time, time_us};
use crate::cli::slow::{clock, stages};

/// Columns of a bar.
const BAR: usize = 20;
/// From so much of a limit on it is odd, and from so much bad.
const MUCH: f64 = 0.85;
const NEARLY_ALL: f64 = 0.97;

/// What is known.
pub struct Seen<'a> {
    /// Where it was asked.
    pub addr: &'a str,
    /// What it told last, if it ever told anything.
    pub told: Option<&'a Value>,
    /// Requests a second at the last looks, the oldest first.
    pub rates: &'a [f64],
    /// Since when it does not answer, and why.
    pub gone: Option<(SystemTime, &'a str)>,
}

/// All requests a second.
pub fn requests_per_s(node: &Value) -> f64 {
    ["gets", "scans", "puts", "deletes", "batches", "increments", "expiry_changes", "transactions_committed"]
        .into_iter()
        .map(|name| number(&node["rates"], name))
        .sum()
}

fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(0.0)
}

fn text<'v>(of: &'v Value, name: &str) -> &'v str {
    of[name].as_str().unwrap_or_default()
}

fn heading(text: &str) -> Line {
    Line::of(Tone::Bold, text)
}

impl Seen<'_> {
    /// The picture; its last line tells of the keys.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = vec![self.first()];
        if let Some((_, why)) = self.gone {
            lines.push(Line::of(Tone::Bad, format!("  {why}")));
            let last = if self.told.is_some() { "  What is below is what it told last." } else { "" };
            lines.push(Line::of(Tone::Bad, last));
        }
        if let Some(told) = self.told {
            let node = &told["node"];
            lines.extend(reasons(node));
            lines.push(Line::default());
            lines.extend(self.requests(node));
            lines.push(Line::default());
            lines.extend(drive_and_memory(node));
            lines.push(Line::default());
            lines.extend(shards(node));
            lines.push(Line::default());
            lines.extend(partitions(&told["partitions"]));
            lines.push(Line::default());
            lines.extend(slow(&told["slow"]));
        }
        lines.push(Line::of(Tone::Dim, "q quits"));
        lines
    }

    fn first(&self) -> Line {
        if let Some((since, _)) = self.gone {
            let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            let name = self.told.map_or("lode", |told| text(&told["node"], "name"));
            let line = Line::of(Tone::Bold, format!("{name}  "));
            return line.and(Tone::Bad, format!("DEAD: no answer from {} since {}", self.addr, clock(since)));
        }
        let Some(told) = self.told else { return heading(&format!("asking {} ...", self.addr)) };
        let node = &told["node"];
        let colour = text(&node["health"], "colour");
        let tone = match colour {
            "green" => Tone::Good,
            "yellow" => Tone::Odd,
            _ => Tone::Bad,
        };
        let serving = if node["ready"] == true { "serving" } else { "not serving" };
        heading(text(node, "name"))
            .and(Tone::Plain, format!("  lode {}  ", text(node, "version")))
            .and(tone, colour)
            .and(
                Tone::Plain,
                format!(
                    "  {serving}, up {}  {}",
                    span(number(node, "uptime_s")),
                    clock(number(node, "at_ms") as u64)
                ),
            )
    }

    fn requests(&self, node: &Value) -> Vec<Line> {
        let table = Table::new(&[14, 9, 10, 10, 10]);
        let rates = &node["rates"];
        let rate = |names: &[&str]| names.iter().map(|name| number(rates, name)).sum::<f64>();
        let mut lines = vec![heading(&table.row(&["requests", "/s", "p50", "p99", "p99.9"]))];
        for (kind, names) in [
            ("get", &["gets"][..]),
            ("write", &["puts", "deletes", "batches", "increments", "expiry_changes"]),
            ("scan", &["scans"]),
            ("transaction", &["transactions_committed"]),
        ] {
            let latency = &node["latency"][kind];
            let of = |name: &str| time(latency[name].as_f64());
            let cells = [kind.to_owned(), count(rate(names)), of("p50_s"), of("p99_s"), of("p999_s")];
            lines.push(Line::of(Tone::Plain, table.row(&cells.each_ref().map(String::as_str))));
        }
        let refused = [("busy", "busy"), ("throttled", "throttled"), ("slow", "slow_requests")];
        let refused = refused.map(|(word, name)| (word, number(rates, name)));
        let mut line = Line::of(Tone::Plain, format!(" all {}/s ", count(requests_per_s(node))));
        for (word, rate) in refused {
            let tone = if rate >= 1.0 { Tone::Odd } else { Tone::Plain };
            line = line.and(tone, format!("  {word} {}/s", count(rate)));
        }
        if !self.rates.is_empty() {
            line = line.and(Tone::Good, format!("  {}", heights(self.rates)));
        }
        lines.push(line);
        lines
    }
}

fn reasons(node: &Value) -> Vec<Line> {
    let reasons = node["health"]["reasons"].as_array();
    let line = |reason: &Value| {
        let tone = if text(reason, "colour") == "red" { Tone::Bad } else { Tone::Odd };
        Line::of(tone, format!("  {}", text(reason, "text")))
    };
    reasons.into_iter().flatten().map(line).collect()
}

/// A part of a limit, as a bar and in words.
fn filled(name: &str, part: f64, whole: f64) -> Line {
    let share = if whole > 0.0 { part / whole } else { 0.0 };
    let tone = match share {
        share if share >= NEARLY_ALL => Tone::Bad,
        share if share >= MUCH => Tone::Odd,
        _ => Tone::Plain,
    };
    let told = format!("{} of {}, {}", bytes(part), bytes(whole), percent(share));
    Line::of(Tone::Plain, format!(" {name:<8} "))
        .and(tone, bar(share, BAR))
        .and(Tone::Plain, format!(" {told}"))
}

fn drive_and_memory(node: &Value) -> Vec<Line> {
    let (totals, rates) = (&node["totals"], &node["rates"]);
    let all = |name: &str| number(totals, name);
    let per_s = |name: &str| format!("{}/s", bytes(number(rates, name)));
    let written: f64 =
        ["user_frame_bytes", "cleaning_frame_bytes", "journal_bytes", "image_bytes", "meta_bytes"]
            .into_iter()
            .map(|name| number(rates, name))
            .sum();
    let drive = format!(
        "   read {}, written {}/s, of that cleaning {}; {} of {} segments free",
        per_s("device_read_bytes"),
        bytes(written),
        per_s("cleaning_frame_bytes"),
        count(all("segments_free")),
        count(all("segments")),
    );
    let buffers = all("buffer_bytes");
    let memory = format!("   {} resident", bytes(number(node, "resident_bytes")));
    vec![
        heading("drive").and(Tone::Plain, drive),
        filled("live", all("live_bytes"), all("live_limit_bytes")),
        heading("memory").and(Tone::Plain, memory),
        filled("index", all("index_bytes") + all("memory_table_bytes"), all("memory_limit_bytes")),
        filled("cache", all("cache_bytes"), all("cache_limit_bytes")),
        filled("buffers", buffers - all("buffer_bytes_free"), buffers),
    ]
}

fn shards(node: &Value) -> Vec<Line> {
    let totals = &node["totals"];
    let shards = node["shards"].as_array().map_or(0, Vec::len);
    let told = format!(
        "   {shards}, the busiest takes {} of its core; {} connections, {} requests in work, {} wait for their turn",
        percent(number(node, "shard_cpu_busiest")),
        count(number(totals, "connections")),
        count(number(totals, "pending")),
        count(number(totals, "queued")),
    );
    vec![heading("shards").and(Tone::Plain, told)]
}

fn partitions(top: &Value) -> Vec<Line> {
    let table = Table::new(&[24, 9, 5, 9, 9, 11, 10, 10]);
    let head = ["busiest partitions", "id", "shard", "reads/s", "writes/s", "bytes/s", "mean", "longest"];
    let mut lines = vec![heading(&table.row(&head))];
    for one in top.as_array().into_iter().flatten() {
        let rate = |name: &str| count(number(one, name));
        let us = |name: &str| time_us(number(one, name) as u64);
        let cells = [
            text(one, "table").to_owned(),
            format!("{}", number(one, "partition")),
            format!("{}", number(one, "shard")),
            rate("reads_per_s"),
            rate("writes_per_s"),
            bytes(number(one, "read_bytes_per_s") + number(one, "write_bytes_per_s")),
            us("latency_mean_us"),
            us("latency_max_us"),
        ];
        lines.push(Line::of(Tone::Plain, table.row(&cells.each_ref().map(String::as_str))));
    }
    if lines.len() == 1 {
        lines.push(Line::of(Tone::Dim, " nobody asks for anything"));
    }
    lines
}

fn slow(slow: &Value) -> Vec<Line> {
    let Some(threshold_us) = slow["threshold_us"].as_u64() else {
        return vec![heading("slow requests").and(Tone::Dim, "   none is slow: --slow-request is 0s")];
    };
    let told = format!(
        "   {} since the start took {} or longer",
        count(number(slow, "noted")),
        time_us(threshold_us)
    );
    let mut lines = vec![heading("slow requests").and(Tone::Plain, told)];
    for one in slow["requests"].as_array().into_iter().flatten() {
        let total = time_us(one["total_us"].as_u64().unwrap_or(0));
        let begin = format!(" {} {total:>9}  {:<12} ", clock(number(one, "at_ms") as u64), text(one, "verb"));
        let place = format!("{} (partition {})  ", text(one, "table"), number(one, "partition"));
        lines.push(Line::of(Tone::Plain, begin).and(Tone::Plain, place).and(Tone::Dim, stages(one)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::screen::Look;
    use super::*;
    use serde_json::json;

    fn told() -> Value {
        json!({
            "node": {
                "name": "n1", "version": "9.9", "ready": true, "uptime_s": 125.0, "at_ms": 3_661_000,
                "health": { "colour": "yellow", "reasons": [{ "colour": "yellow", "text": "the drive fills" }] },
                "rates": { "gets": 12_345.0, "puts": 10.0, "deletes": 2.0, "busy": 3.0, "device_read_bytes": 1_048_576.0 },
                "latency": { "get": { "p50_s": 0.0001, "p99_s": 0.0015, "p999_s": null } },
                "totals": { "live_bytes": 90, "live_limit_bytes": 100, "connections": 7 },
                "shards": [{}, {}], "shard_cpu_busiest": 0.5, "resident_bytes": 2_097_152,
            },
            "partitions": [{ "table": "users", "partition": 12, "shard": 1, "reads_per_s": 500.0, "latency_max_us": 900 }],
            "slow": { "threshold_us": 100_000, "noted": 2, "requests": [
                { "at_ms": 1000, "total_us": 150_000, "verb": "put", "table": "users", "partition": 3,
                  "stages": { "drive_us": 149_000, "queue_us": 1_000 } },
            ] },
        })
    }

    fn plain(seen: &Seen<'_>) -> String {
        seen.lines().iter().map(|line| line.render(200, Look::Plain) + "\n").collect()
    }

    #[test]
    fn a_node_is_shown_with_all_that_it_told() {
        let told = told();
        let shown = plain(&Seen { addr: "a:1", told: Some(&told), rates: &[1.0, 2.0], gone: None });
        for words in [
            "n1  lode 9.9  yellow  serving, up 2 min 5 s  01:01:01Z",
            "  the drive fills",
            " get               12.3 k     100 us    1.50 ms          -",
            " write                 12          -          -          -",
            "busy 3/s",
            "▅█",
            "read 1 MiB/s",
            "[##################..] 90 B of 100 B, 90 %",
            "2, the busiest takes 50 % of its core; 7 connections",
            " users                           12     1       500         0         0 B       0 us     900 us",
            "2 since the start took 100 ms or longer",
            "150 ms  put          users (partition 3)  drive 149 ms, queue 1.00 ms",
        ] {
            assert!(shown.contains(words), "{words:?} is missing in\n{shown}");
        }
    }

    #[test]
    fn a_node_that_is_gone_is_said_to_be() {
        let told = told();
        let gone = Some((UNIX_EPOCH, "connection refused"));
        let shown = plain(&Seen { addr: "a:1", told: Some(&told), rates: &[], gone });
        assert!(
            shown.starts_with("n1  DEAD: no answer from a:1 since 00:00:00Z\n  connection refused\n"),
            "{shown}"
        );
        assert!(shown.contains("what it told last") && shown.contains("users"), "{shown}");
        let never = plain(&Seen { addr: "a:1", told: None, rates: &[], gone });
        assert!(never.contains("DEAD") && !never.contains("told last"), "{never}");
    }
}
