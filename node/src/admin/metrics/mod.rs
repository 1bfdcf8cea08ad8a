//! `/metrics`: the picture of the node in OpenMetrics text, or in Prometheus' protobuf format, which is the one that carries
//! native histograms. Never more than [`MAX_SERIES`] series, whatever the number of partitions.

mod doors;
mod rows;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use lode_net::wire::Status;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, NativeHistogram, NativeHistogramBuckets, NoLabelSet,
    prometheus_protobuf, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::State;
use super::health::{Colour, Stage};
use super::partitions::Live;
use super::view::View;
use crate::reactor::latency::{FIRST_EXPONENT, Latencies, SCHEMA};
use crate::reactor::meter::Kind as RequestKind;
pub use rows::{Kind, ROWS, Row};

/// Most series that are exposed; a test holds it.
pub const MAX_SERIES: usize = 300;
/// In front of every name.
const PREFIX: &str = "lode";
/// Classic buckets end at the powers of two of seconds from 2^-15 (31 us) to 2^2 (4 s).
const CLASSIC: (i32, i32) = (-15, 1);

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0 text, with classic histograms.
    Text,
    /// Prometheus' protobuf messages, with native histograms beside the classic ones.
    Protobuf,
}

impl Format {
    /// What a client wants that sends this `Accept`: protobuf where it names it before any text.
    pub fn of(accept: &str) -> Format {
        let first = accept.split(',').map(str::trim).find(|one| {
            one.starts_with("application/vnd.google.protobuf")
                || one.starts_with("application/openmetrics-text")
                || one.starts_with("text/")
        });
        match first {
            Some(one) if one.starts_with("application/vnd.google.protobuf") => Format::Protobuf,
            _ => Format::Text,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The node's metrics in this format.
pub fn encode(state: &Arc<State>, format: Format) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape {
        view: state.view(),
        stage: state.stage(),
        name: state.name.clone(),
        begun: state.begun_wall,
        history_bytes: state.history_bytes(),
        doors: doors::of(state),
    }));
    match format {
        Format::Text => {
            let mut told = String::new();
            text::encode(&mut told, &registry)?;
            Ok(told.into_bytes())
        }
        Format::Protobuf => prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error),
    }
}

/// What one scrape tells.
#[derive(Debug)]
struct Scrape {
    view: Arc<View>,
    stage: Stage,
    name: String,
    begun: SystemTime,
    history_bytes: usize,
    /// Of the doors beside the shards.
    doors: Vec<(&'static str, f64)>,
}

/// The metrics that are no plain sums, their types and what they mean.
pub const OTHERS: [(&str, &str, &str); 32] = [
    ("node", "info", "Name and version of the node."),
    ("uptime_seconds", "gauge", "Time since the node began to start."),
    ("ready", "gauge", "1 where the node serves, else 0."),
    ("health_level", "gauge", "0: green, 1: yellow, 2: red; /api/node tells the reasons."),
    ("shards", "gauge", "Shards of the node."),
    ("shards_silent", "gauge", "Shards that have not answered the observer for more than 5 s."),
    ("resident_memory_bytes", "gauge", "Memory of the process."),
    ("process_cpu_seconds", "counter", "CPU time of the process."),
    (
        "shard_cpu_busiest_ratio",
        "gauge",
        "Part of a core that the busiest shard's thread took since the last second.",
    ),
    ("tables", "gauge", "Tables of the node."),
    ("requests", "counter", "Answers by status, as clients were told."),
    (
        "request_duration_seconds",
        "histogram",
        "Time from a request's arrival to its answer's departure, by kind.",
    ),
    (
        "top_partition_requests_per_second",
        "gauge",
        "Requests of the partitions with the most of them, over 2 s.",
    ),
    ("top_partition_read_bytes_per_second", "gauge", "Bytes read of those partitions, over 2 s."),
    ("top_partition_write_bytes_per_second", "gauge", "Bytes written of those partitions, over 2 s."),
    (
        "top_partition_limited_per_second",
        "gauge",
        "Requests of those partitions told Busy or Throttled, over 2 s.",
    ),
    ("partitions_untracked", "gauge", "Partitions that are not told apart, as the node has too many."),
    ("history_bytes", "gauge", "Memory of the last hour's history of partitions."),
    ("admin_connections", "gauge", "Connections of the admin port."),
    ("admin_refused_connections", "counter", "Connections that the admin port had no room for."),
    (
        "admin_requests_refused",
        "counter",
        "Requests to the admin port that showed no good token, came too often, or were for a name that is not answered.",
    ),
    ("resp_connections", "gauge", "Connections of Redis clients that are open."),
    ("resp_connections_accepted", "counter", "Connections of Redis clients accepted."),
    (
        "resp_connections_refused",
        "counter",
        "Connections of Redis clients refused because there were too many.",
    ),
    ("resp_commands", "counter", "Commands of Redis clients."),
    ("resp_errors", "counter", "Commands of Redis clients answered with an error."),
    ("resp_secrets_refused", "counter", "Secrets shown by Redis clients that are no token's."),
    ("resp_held_bytes", "gauge", "Memory of requests and replies of Redis clients."),
    ("tls_handshakes", "counter", "Handshakes of TLS that came to their end."),
    ("tls_handshakes_failed", "counter", "Handshakes that did not: no TLS, another authority, or too slow."),
    ("tls_handshakes_refused", "counter", "Connections closed because too many were shaking hands."),
    (
        "tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the certificate ends, in seconds of UNIX time; 0 without one.",
    ),
];

/// What is known of one of them.
fn help_of(name: &str) -> (&'static str, MetricType) {
    let (_, kind, help) = OTHERS.iter().find(|(other, ..)| *other == name).expect("it is listed");
    let kind = match *kind {
        "counter" => MetricType::Counter,
        "histogram" => MetricType::Histogram,
        "info" => MetricType::Info,
        _ => MetricType::Gauge,
    };
    (help, kind)
}

/// A status in a label: as it is named, in small letters.
fn status_label(status: Status) -> String {
    let mut label = String::new();
    for letter in format!("{status:?}").chars() {
        if letter.is_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Row { name, source, kind, scale, help } in ROWS {
            let sum = self.view.total(source) as f64 * scale;
            number(&mut encoder, name, help, *kind == Kind::Counter, sum)?;
        }
        self.node(&mut encoder)?;
        self.statuses(&mut encoder)?;
        self.latencies(&mut encoder)?;
        self.top(&mut encoder)
    }
}

fn number(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    is_counter: bool,
    number: f64,
) -> fmt::Result {
    match is_counter {
        true => {
            let counter = ConstCounter::new(number);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        }
        false => {
            let gauge = ConstGauge::new(number);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        }
    }
}

impl Scrape {
    fn node(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let view = &self.view;
        let (help, kind) = help_of("node");
        let labels = [("name", self.name.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
        encoder.encode_descriptor("node", help, None, kind)?.encode_info(&labels)?;
        let silent = view.shards.iter().filter(|shard| shard.silent_s.is_some()).count();
        let level = match (Stage::Serving == self.stage, view.health.colour()) {
            (false, _) | (true, Colour::Yellow) => 1.0,
            (true, Colour::Green) => 0.0,
            (true, Colour::Red) => 2.0,
        };
        let uptime_s = self.begun.elapsed().unwrap_or_default().as_secs_f64();
        for (name, value) in [
            ("uptime_seconds", uptime_s),
            ("ready", if self.stage == Stage::Serving { 1.0 } else { 0.0 }),
            ("health_level", level),
            ("shards", view.shards.len() as f64),
            ("shards_silent", silent as f64),
            ("resident_memory_bytes", view.resident_bytes as f64),
            ("process_cpu_seconds", view.cpu_s),
            ("shard_cpu_busiest_ratio", view.busiest_shard),
            ("tables", view.tables.len() as f64),
            ("partitions_untracked", view.left_out as f64),
            ("history_bytes", self.history_bytes as f64),
        ]
        .iter()
        .chain(&self.doors)
        {
            let (help, kind) = help_of(name);
            number(encoder, name, help, matches!(kind, MetricType::Counter), *value)?;
        }
        Ok(())
    }

    fn statuses(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (help, kind) = help_of("requests");
        let mut family = encoder.encode_descriptor("requests", help, None, kind)?;
        for (status, count) in Status::ALL.iter().zip(&self.view.statuses) {
            let labels = [("status", status_label(*status))];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn latencies(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (help, kind) = help_of("request_duration_seconds");
        let mut family = encoder.encode_descriptor("request_duration_seconds", help, None, kind)?;
        for (of, latencies) in RequestKind::ALL.iter().zip(&self.view.latencies) {
            let labels = [("kind", of.name())];
            let mut encoder = family.encode_family(&labels)?;
            let classic = latencies.octaves(CLASSIC.0, CLASSIC.1);
            let (spans, deltas) = latencies.sparse();
            let none = NativeHistogramBuckets { spans: &[], deltas: &[] };
            encoder.encode_histogram_with_native::<NoLabelSet>(
                latencies.sum_s(),
                latencies.count(),
                &classic,
                None,
                native(latencies, NativeHistogramBuckets { spans: &spans, deltas: &deltas }, none),
            )?;
        }
        Ok(())
    }

    fn top(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        type Figure = fn(&Live) -> u64;
        let figures: [(&str, Figure); 4] = [
            ("top_partition_requests_per_second", Live::requests),
            ("top_partition_read_bytes_per_second", |live| live.figures[2]),
            ("top_partition_write_bytes_per_second", |live| live.figures[3]),
            ("top_partition_limited_per_second", |live| live.figures[5]),
        ];
        for (name, figure) in figures {
            let (help, kind) = help_of(name);
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for live in self.view.top.iter() {
                let id = live.partition.to_string();
                let labels = [("table", self.view.table_name(live.table)), ("partition", id.as_str())];
                let rate = figure(live) as f64 / self.view.live_s;
                ConstGauge::new(rate).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn native<'a>(
    latencies: &Latencies,
    positive: NativeHistogramBuckets<'a>,
    negative: NativeHistogramBuckets<'a>,
) -> NativeHistogram<'a> {
    NativeHistogram {
        schema: SCHEMA,
        zero_threshold: f64::from(FIRST_EXPONENT).exp2(),
        zero_count: latencies.least(),
        negative,
        positive,
        created: None,
    }
}
