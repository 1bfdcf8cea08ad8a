//! `lode scrub`: everything that lies on the drive is read now, while the node serves.

use std::time::Duration;

use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use super::progress::Progress;
use super::session::Session;

/// How often the node is asked how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Begins a round, waits for its end, and prints what it found.
pub fn run(session: &Session, out: &mut Output) -> Result<(), Failure> {
    session.wait(session.client.scrub())?;
    let mut stats = session.wait(session.client.stats())?;
    let targets: Vec<u64> = scrubs(&stats).map(|scrub| number(scrub, "asked")).collect();
    let mut progress = Progress::new("scrub", number(&stats["totals"], "live_bytes"), 0);
    let mut shown = 0;
    while scrubs(&stats).zip(&targets).any(|(scrub, target)| number(scrub, "answered") < *target) {
        let read = scrubs(&stats).map(|scrub| number(scrub, "round_bytes")).sum::<u64>();
        progress.add(read.saturating_sub(shown), 0);
        shown = shown.max(read);
        session.block_on(async { tokio::time::sleep(LOOK_AGAIN).await });
        stats = session.wait(session.client.stats())?;
    }
    progress.finish();
    tell(&stats, out)
}

fn tell(stats: &Value, out: &mut Output) -> Result<(), Failure> {
    let sum = |name: &str| scrubs(stats).map(|scrub| number(scrub, name)).sum::<u64>();
    let list = |name: &'static str| -> Vec<&Value> {
        scrubs(stats).filter_map(|scrub| scrub[name].as_array()).flatten().collect()
    };
    let (records, partitions) = (sum("damaged_records"), number(&stats["totals"], "partitions_quarantined"));
    let mut failure = failure_of(records, partitions);
    if out.style() == Style::Json {
        let found = json!({
            "clean": failure.is_none(),
            "bytes": sum("round_bytes"),
            "damaged_records": records,
            "damaged_places": sum("damaged_places"),
            "repaired_superblocks": sum("repaired_superblocks"),
            "repaired_images": sum("repaired_images"),
            "damaged": list("damaged"),
            "partitions_quarantined": partitions,
            "quarantined": list("quarantined"),
        });
        out.answer(found, failure.as_mut())?;
        return failure.map_or(Ok(()), Err);
    }
    for record in list("damaged") {
        out.line(&format!("damaged: {}", record_in_words(record)))?;
    }
    let unlisted = sum("damaged_unlisted");
    if unlisted > 0 {
        out.line(&format!("and {unlisted} more"))?;
    }
    let quarantined = list("quarantined");
    for partition in &quarantined {
        out.line(&format!("quarantined: {}", partition_in_words(partition)))?;
    }
    if partitions > quarantined.len() as u64 {
        out.line(&format!("and {} more partitions", partitions - quarantined.len() as u64))?;
    }
    let (places, mended) = (sum("damaged_places"), sum("repaired_superblocks") + sum("repaired_images"));
    if places > 0 {
        out.line(&format!("{places} damaged places hold no live record: nothing is lost there"))?;
    }
    if mended > 0 {
        out.line(&format!("{mended} superblocks and images were damaged and written anew since the start"))?;
    }
    match failure {
        None => out.line("clean: every live record is whole"),
        Some(failure) => Err(failure),
    }
}

/// What is wrong, and what to do.
fn failure_of(records: u64, partitions: u64) -> Option<Failure> {
    let of_records =
        format!("{records} records are damaged: write or delete them, or restore them from a copy");
    let of_partitions = format!(
        "{partitions} partitions may have lost writes to damage, and what was written before it answers Quarantined: copy the rest, drop the table and load it again"
    );
    let told = [(records, of_records), (partitions, of_partitions)];
    let told: Vec<_> = told.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    (!told.is_empty()).then(|| Failure::new(Exit::VerificationFailed, told.join("; and ")))
}

/// One line for a partition in quarantine.
pub fn partition_in_words(found: &Value) -> String {
    format!(
        "table {} partition {}: writes up to version {} may be lost",
        found["table"].as_str().unwrap_or_default(),
        found["partition"],
        found["upto"].as_str().unwrap_or_default(),
    )
}

/// Behind what a compact table knows of a damaged record's key.
pub const AND_MORE: &str = "... (its beginning)";

/// One line for a damaged record of the statistics.
pub fn record_in_words(record: &Value) -> String {
    let key = match record["key"].as_str() {
        Some(key) => lode_node::escape::escape(key.as_bytes(), None),
        None => format!("0x{}", record["key_hex"].as_str().unwrap_or_default()),
    };
    let more = if record["key_is_whole"] == false { AND_MORE } else { "" };
    format!(
        "table {} partition {} key {key}{more} ({} bytes at byte {} of the drive)",
        record["table"].as_str().unwrap_or_default(),
        record["partition"],
        record["bytes"],
        record["at"]
    )
}

fn scrubs(stats: &Value) -> impl Iterator<Item = &Value> {
    stats["shards"].as_array().into_iter().flatten().map(|shard| &shard["scrub"])
}

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or(0)
}
