//! What quickstart has found, as one screen or one JSON object.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::progress::rate_per_s;
use crate::cli::size::Size;

/// Everything that is told at the end.
pub struct Summary<'a> {
    /// How this program was called.
    pub program: String,
    /// What was loaded, in words.
    pub source: String,
    /// Records that the node has from the input: one for each key.
    pub records: u64,
    /// Records of the input that were written: more than `records` where it has a key several times.
    pub rows: u64,
    /// Rows, lines or files of the input that are no records, and were left out.
    pub skipped: u64,
    /// Bytes of the keys and values that were written.
    pub bytes: u64,
    /// How long the load took.
    pub load_time: Duration,
    /// How long reading everything back took.
    pub read_time: Duration,
    /// Partitions of the node.
    pub partitions: u64,
    /// Shards of the node.
    pub shards: u64,
    /// Writes that were acknowledged, over everything.
    pub acknowledged: u64,
    /// Acknowledged writes that the restarted node did not have, or not whole.
    pub acknowledged_lost: u64,
    /// What is wrong, in words; nothing if everything verified.
    pub faults: Vec<String>,
    /// GET latencies of the open loop.
    pub get_us: &'a Histogram<u64>,
    /// PUT latencies of the open loop.
    pub put_us: &'a Histogram<u64>,
    /// Operations done per second in the open loop.
    pub ops_per_s: u64,
    /// Operations begun per second in the open loop, as planned.
    pub offered_per_s: u64,
    /// Reads of the device per GET that found nothing in the cache.
    pub device_reads_per_cold_get: f64,
    /// Bytes written to the device per byte of keys and values.
    pub write_amplification: f64,
    /// From the start of the killed node's successor to its readiness.
    pub recovery_time: Duration,
    /// The drive.
    pub drive: &'a Path,
    /// Its size.
    pub drive_bytes: u64,
}

impl Summary<'_> {
    /// The keys that programs may rely on, and no others.
    pub fn to_json(&self) -> Value {
        json!({
            "records": self.records,
            "skipped": self.skipped,
            "bytes": self.bytes,
            "partitions": self.partitions,
            "shards": self.shards,
            "verified": self.faults.is_empty(),
            "acknowledged": self.acknowledged,
            "acknowledged_lost": self.acknowledged_lost,
            "get_us": quantiles(self.get_us),
            "put_us": quantiles(self.put_us),
            "ops_per_s": self.ops_per_s,
            "device_reads_per_cold_get": rounded(self.device_reads_per_cold_get),
            "write_amplification": rounded(self.write_amplification),
            "recovery_ms": self.recovery_time.as_millis() as u64,
            "drive": self.drive.display().to_string(),
        })
    }

    /// One screen.
    pub fn to_text(&self) -> String {
        let Summary { records, partitions, shards, acknowledged, acknowledged_lost, .. } = self;
        let verdict = match self.faults.is_empty() {
            true => "everything verified".to_owned(),
            false => format!("NOT everything verified:\n    {}", self.faults.join("\n    ")),
        };
        let rate = |time: Duration| format!("{}/s", Size(rate_per_s(self.bytes, time)));
        let mut source = self.source.clone();
        if self.rows > *records {
            let again = self.rows - records;
            source.push_str(&format!("; {again} records were replaced by later ones of the same key"));
        }
        if self.skipped > 0 {
            source.push_str(&format!(
                "\n              {} rows, lines or files left out: they are no records",
                self.skipped
            ));
        }
        let (drive, program) = (self.drive.display(), &self.program);
        format!(
            "
lode quickstart: {verdict}

  loaded      {records} records, {} into {partitions} partitions on {shards} shards
              from {}
              {} written, {} read back, every byte compared
  load        {} operations/s done of {} begun on time, whether or not earlier ones were done
              GET us  {}
              PUT us  {}
  device      {:.3} reads per GET that missed the cache, write amplification {:.2}
  crash       killed with SIGKILL while writing, ready again in {} ms
              {acknowledged} acknowledged writes checked, {acknowledged_lost} lost
  data        {drive} ({})

Try next:
  {program} serve --data {drive}
                  # serve it; from then on it is yours, and quickstart leaves it alone
  {program} shell                       # talk to it, from another terminal
  {program} scan quickstart -n 5 -k     # see some keys
  {program} stats totals                # see what the node counts
  {program} check {drive}
                  # read every checksum, with no node running
",
            Size(self.bytes),
            source,
            rate(self.load_time),
            rate(self.read_time),
            self.ops_per_s,
            self.offered_per_s,
            quantile_text(self.get_us),
            quantile_text(self.put_us),
            self.device_reads_per_cold_get,
            self.write_amplification,
            self.recovery_time.as_millis(),
            Size(self.drive_bytes),
        )
    }
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let mut object = serde_json::Map::new();
    for (name, quantile) in QUANTILES {
        object.insert(name.to_owned(), histogram.value_at_quantile(quantile).into());
    }
    object.insert("max".to_owned(), histogram.max().into());
    object.into()
}

fn quantile_text(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile);
    format!("p50 {:>6}   p99 {:>6}   p99.9 {:>6}   max {:>6}", at(0.5), at(0.99), at(0.999), histogram.max())
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_promised_keys_and_the_text_fits_a_screen() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record(250).unwrap();
        let mut summary = Summary {
            program: "lode".into(),
            source: "here".into(),
            records: 2,
            rows: 2,
            skipped: 0,
            bytes: 3,
            load_time: Duration::from_secs(1),
            read_time: Duration::from_secs(1),
            partitions: 1200,
            shards: 2,
            acknowledged: 9,
            acknowledged_lost: 0,
            faults: Vec::new(),
            get_us: &histogram,
            put_us: &histogram,
            ops_per_s: 5,
            offered_per_s: 5,
            device_reads_per_cold_get: 1.00049,
            write_amplification: 1.2,
            recovery_time: Duration::from_millis(77),
            drive: Path::new("d.lode"),
            drive_bytes: 1 << 30,
        };
        let json = summary.to_json();
        let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let promised = "acknowledged acknowledged_lost bytes device_reads_per_cold_get drive get_us ops_per_s \
                        partitions put_us records recovery_ms shards skipped verified write_amplification";
        assert_eq!(keys, promised.split_whitespace().collect::<Vec<_>>());
        assert_eq!(json["get_us"], json!({"p50": 250, "p99": 250, "p999": 250, "max": 250}));
        assert_eq!((&json["verified"], &json["device_reads_per_cold_get"]), (&json!(true), &json!(1.0)));
        assert!(summary.to_text().lines().count() <= 24);
        (summary.rows, summary.skipped) = (5, 4);
        let text = summary.to_text();
        assert!(
            text.contains("3 records were replaced") && text.contains("4 rows, lines or files left out"),
            "{text}"
        );
        assert_eq!(summary.to_json()["skipped"], 4);
        summary.faults.push("a key is gone".into());
        assert_eq!(summary.to_json()["verified"], false);
        assert!(summary.to_text().contains("a key is gone"));
    }
}
