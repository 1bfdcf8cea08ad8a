//! What the admin port tells: a picture of the node, made once a second, that every answer is read from.

use std::collections::BTreeMap;
use std::sync::Arc;

use lode_engine::ShardStats;
use serde_json::{Map, Value, json};

use super::health::Health;
use super::partitions::{Live, SERIES, figure_json};
use crate::control::stats::{engine_numbers, reactor_numbers};
use crate::mailbox::NodeMap;
use crate::reactor::ReactorStats;
use crate::reactor::latency::Latencies;
use crate::reactor::meter::Kind;

/// One shard as it was found last.
#[derive(Clone, Debug, Default)]
pub struct ShardView {
    /// Its number.
    pub id: u16,
    /// The engine's counters.
    pub engine: ShardStats,
    /// The reactor's.
    pub reactor: ReactorStats,
    /// Seconds for which it has not answered, where that is too long.
    pub silent_s: Option<u64>,
}

/// Counters and gauges by name, summed over the shards.
pub type Numbers = BTreeMap<&'static str, u64>;

/// The node as it was found last.
#[derive(Clone, Debug)]
pub struct View {
    /// UNIX milliseconds.
    pub at_ms: u64,
    /// Seconds since the start of the node.
    pub uptime_s: f64,
    /// Every shard.
    pub shards: Vec<ShardView>,
    /// The sums.
    pub totals: Numbers,
    /// By how much each grew in the last second, by the second; of gauges it means nothing.
    pub rates: BTreeMap<&'static str, f64>,
    /// How long requests took since the observer began, by kind.
    pub latencies: [Latencies; Kind::ALL.len()],
    /// The same of the last few seconds.
    pub recent: [Latencies; Kind::ALL.len()],
    /// How requests ended, by status.
    pub statuses: Vec<u64>,
    /// Memory of the process, in bytes.
    pub resident_bytes: u64,
    /// CPU time of the process, in seconds.
    pub cpu_s: f64,
    /// Part of a core that the busiest shard's thread took in the last second.
    pub busiest_shard: f64,
    /// How it is.
    pub health: Health,
    /// Partitions over the last few seconds, by id.
    pub live: Arc<Vec<Live>>,
    /// Seconds that those are.
    pub live_s: f64,
    /// Those with the most load.
    pub top: Arc<Vec<Live>>,
    /// Partitions that are not told apart, as there are too many.
    pub left_out: u64,
    /// Tables' names by id.
    pub tables: Arc<BTreeMap<u32, Arc<str>>>,
    /// The partition map.
    pub map: Arc<NodeMap>,
}

impl View {
    /// Before anything is known.
    pub fn empty() -> View {
        View {
            at_ms: 0,
            uptime_s: 0.0,
            shards: Vec::new(),
            totals: Numbers::new(),
            rates: BTreeMap::new(),
            latencies: Default::default(),
            recent: Default::default(),
            statuses: vec![0; lode_net::wire::Status::ALL.len()],
            resident_bytes: 0,
            cpu_s: 0.0,
            busiest_shard: 0.0,
            health: Health::of_shards(&[], 0.0),
            live: Arc::default(),
            live_s: 1.0,
            top: Arc::default(),
            left_out: 0,
            tables: Arc::default(),
            map: Arc::new(NodeMap::empty()),
        }
    }

    /// One of the sums; 0 of what is not known.
    pub fn total(&self, name: &str) -> u64 {
        self.totals.get(name).copied().unwrap_or(0)
    }

    /// How fast one of the sums grows.
    pub fn rate(&self, name: &str) -> f64 {
        self.rates.get(name).copied().unwrap_or(0.0)
    }

    /// A table's name.
    pub fn table_name(&self, table: u32) -> &str {
        self.tables.get(&table).map_or("", |name| name)
    }

    fn partition_json(&self, live: &Live) -> Value {
        let figures = live.figures.iter().enumerate();
        let pairs = figures.map(|(n, figure)| (SERIES[n].to_owned(), figure_json(n, *figure, self.live_s)));
        let mut object: Map<_, _> = pairs.collect();
        object.insert("partition".into(), json!(live.partition));
        object.insert("table".into(), json!(self.table_name(live.table)));
        object.insert("shard".into(), json!(live.shard));
        Value::Object(object)
    }

    /// For the console: everything but the partitions, of which it has the busiest.
    pub fn to_json(&self) -> Value {
        let latency = |kind: Kind| {
            let recent = &self.recent[kind as usize];
            let of = |part| recent.quantile_s(part);
            let quantiles =
                json!({ "count": recent.count(), "p50_s": of(0.5), "p99_s": of(0.99), "p999_s": of(0.999) });
            (kind.name().to_owned(), quantiles)
        };
        let shard = |shard: &ShardView| {
            let pairs = [engine_numbers(&shard.engine), reactor_numbers(&shard.reactor)].concat();
            let mut object: Map<String, Value> =
                pairs.into_iter().map(|(name, number)| (name.to_owned(), json!(number))).collect();
            object.insert("shard".into(), json!(shard.id));
            object.insert("silent_s".into(), json!(shard.silent_s));
            object.insert("scrub_percent".into(), json!(shard.engine.scrub.percent));
            Value::Object(object)
        };
        json!({
            "at_ms": self.at_ms,
            "uptime_s": self.uptime_s,
            "health": self.health.to_json(),
            "totals": self.totals,
            "rates": self.rates,
            "latency": Kind::ALL.into_iter().map(latency).collect::<Map<_, _>>(),
            "resident_bytes": self.resident_bytes,
            "cpu_s": self.cpu_s,
            "shard_cpu_busiest": self.busiest_shard,
            "shards": self.shards.iter().map(shard).collect::<Vec<_>>(),
            "top": self.top.iter().map(|live| self.partition_json(live)).collect::<Vec<_>>(),
            "partitions_left_out": self.left_out,
            "tables": self.tables.len(),
        })
    }
}

/// What all shards have counted, by name.
pub fn sums(shards: &[ShardView]) -> Numbers {
    let mut totals = Numbers::new();
    for shard in shards {
        let scrub = &shard.engine.scrub;
        let more = [
            ("damaged_records", scrub.damaged_records),
            ("damaged_places", scrub.damaged_places),
            ("scrub_bytes", scrub.bytes),
            ("scrub_rounds", scrub.rounds_finished),
        ];
        let pairs = engine_numbers(&shard.engine).into_iter().chain(reactor_numbers(&shard.reactor));
        pairs.chain(more).for_each(|(name, number)| *totals.entry(name).or_insert(0) += number);
    }
    totals
}
