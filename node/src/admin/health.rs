//! How the node is, as a colour with reasons, and whether it serves.

use serde_json::{Value, json};

use super::view::ShardView;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// As it should be.
    Green,
    /// Somebody should look.
    Yellow,
    /// Requests fail, or will soon.
    Red,
}

impl Colour {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Colour::Green => "green",
            Colour::Yellow => "yellow",
            Colour::Red => "red",
        }
    }
}

/// A colour and what it comes from, the worst first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    reasons: Vec<(Colour, String)>,
}

/// Where the node is between its start and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does not serve yet; what it is at.
    Starting(&'static str),
    /// It serves.
    Serving,
    /// It ends.
    Stopping,
}

/// So much of a limit is a lot.
const MUCH: f64 = 0.85;
/// And so much is nearly all.
const NEARLY_ALL: f64 = 0.97;

impl Health {
    /// Of a node that does not serve yet, or no more.
    pub fn of_stage(stage: &Stage) -> Option<Health> {
        let reason = match stage {
            Stage::Serving => return None,
            Stage::Starting(what) => format!("the node is starting: {what}"),
            Stage::Stopping => "the node is stopping".to_owned(),
        };
        Some(Health { reasons: vec![(Colour::Yellow, reason)] })
    }

    /// Of a node that serves, from what its shards tell.
    pub fn of_shards(shards: &[ShardView], busy_per_s: f64) -> Health {
        let mut reasons: Vec<(Colour, String)> = shards.iter().flat_map(of_shard).collect();
        if busy_per_s >= 1.0 {
            let told =
                format!("{busy_per_s:.0} requests a second are told Busy: more is asked than can be done");
            reasons.push((Colour::Yellow, told));
        }
        reasons.sort_by_key(|(colour, _)| std::cmp::Reverse(*colour));
        Health { reasons }
    }

    /// The worst of all.
    pub fn colour(&self) -> Colour {
        self.reasons.first().map_or(Colour::Green, |(colour, _)| *colour)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let reasons = self.reasons.iter();
        json!({
            "colour": self.colour().name(),
            "reasons": reasons.map(|(colour, text)| json!({ "colour": colour.name(), "text": text })).collect::<Vec<_>>(),
        })
    }
}

fn of_shard(shard: &ShardView) -> Vec<(Colour, String)> {
    let (id, stats) = (shard.id, &shard.engine);
    let mut reasons = Vec::new();
    let mut say = |colour, text: String| reasons.push((colour, format!("shard {id}: {text}")));
    if let Some(silent_s) = shard.silent_s {
        return vec![(Colour::Red, format!("shard {id} has not answered for {silent_s} s"))];
    }
    if stats.poisoned > 0 {
        say(Colour::Red, "the drive failed a write; it takes no writes until the node restarts".into());
    }
    if stats.may_lack_tables > 0 {
        say(Colour::Red, "damage may have taken tables; see lode scrub".into());
    }
    let damaged = stats.scrub.damaged_records;
    if damaged > 0 {
        say(Colour::Red, format!("{damaged} records are damaged on the drive; lode scrub lists them"));
    }
    let quarantined = stats.partitions_quarantined;
    if quarantined > 0 {
        say(
            Colour::Red,
            format!("{quarantined} partitions may have lost writes to damage; lode scrub lists them"),
        );
    }
    if stats.quarantined_frames > 0 {
        let frames = stats.quarantined_frames;
        say(Colour::Yellow, format!("{frames} damaged places were found at the start"));
    }
    if stats.failed_reads > 0 {
        say(Colour::Yellow, format!("the drive failed {} reads", stats.failed_reads));
    }
    let memory_bytes = stats.index_bytes + stats.memory_table_bytes;
    let fills = [
        ("live records take", "of what the drive may hold", stats.live_bytes, stats.live_limit_bytes),
        ("index and memory tables take", "of their memory", memory_bytes, stats.memory_limit_bytes),
    ];
    for (what, of, part, whole) in fills {
        let share = if whole > 0 { part as f64 / whole as f64 } else { 0.0 };
        let colour = if share >= NEARLY_ALL { Colour::Red } else { Colour::Yellow };
        if share >= MUCH {
            say(colour, format!("{what} {:.0} % {of}", share * 100.0));
        }
    }
    if stats.partitions_unloaded > 0 {
        let left = stats.partitions_unloaded;
        say(Colour::Yellow, format!("{left} partitions are not loaded yet since the start"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_engine::ShardStats;

    fn shard(engine: ShardStats) -> ShardView {
        ShardView { id: 1, engine, ..ShardView::default() }
    }

    #[test]
    fn the_worst_reason_gives_the_colour_and_comes_first() {
        let well = ShardStats { live_limit_bytes: 100, memory_limit_bytes: 100, ..ShardStats::default() };
        let health = |stats: &ShardStats| Health::of_shards(&[shard(stats.clone())], 0.0);
        assert_eq!(health(&well).colour(), Colour::Green);
        let filling = ShardStats { live_bytes: 90, ..well.clone() };
        assert_eq!(health(&filling).colour(), Colour::Yellow);
        assert!(health(&filling).reasons[0].1.contains("90 % of what the drive"), "{:?}", health(&filling));
        let full = ShardStats { index_bytes: 50, memory_table_bytes: 48, ..filling.clone() };
        assert_eq!(health(&full).colour(), Colour::Red);
        let broken = ShardStats { poisoned: 1, ..filling };
        let told = health(&broken);
        assert_eq!((told.colour(), told.reasons.len()), (Colour::Red, 2));
        assert!(told.reasons[0].1.contains("failed a write"), "{told:?}");
        let silent = ShardView { silent_s: Some(7), ..shard(well.clone()) };
        assert_eq!(Health::of_shards(&[silent], 0.0).colour(), Colour::Red);
        assert_eq!(Health::of_shards(&[shard(well)], 3.0).colour(), Colour::Yellow);
        assert_eq!(
            Health::of_stage(&Stage::Starting("it opens its drive")).map(|h| h.colour()),
            Some(Colour::Yellow)
        );
    }
}
