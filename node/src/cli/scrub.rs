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
    let (records, places) = (sum("damaged_records"), sum("damaged_places"));
    let mended = sum("repaired_superblocks") + sum("repaired_images");
    let damaged: Vec<&Value> =
        scrubs(stats).filter_map(|scrub| scrub["damaged"].as_array()).flatten().collect();
    let mut failure = (records > 0).then(|| {
        Failure::new(
            Exit::VerificationFailed,
            format_args!("{records} records are damaged: write or delete them, or restore them from a copy"),
        )
    });
    if out.style() == Style::Json {
        let found = json!({
            "clean": records == 0,
            "bytes": sum("round_bytes"),
            "damaged_records": records,
            "damaged_places": places,
            "repaired_superblocks": sum("repaired_superblocks"),
            "repaired_images": sum("repaired_images"),
            "damaged": damaged,
        });
        out.answer(found, failure.as_mut())?;
    } else {
        for record in &damaged {
            out.line(&format!("damaged: {}", record_in_words(record)))?;
        }
        let unlisted = sum("damaged_unlisted");
        if unlisted > 0 {
            out.line(&format!("and {unlisted} more"))?;
        }
        if places > 0 {
            out.line(&format!("{places} damaged places hold no live record: nothing is lost there"))?;
        }
        if mended > 0 {
            out.line(&format!(
                "{mended} superblocks and images were damaged and written anew since the start"
            ))?;
        }
        if records == 0 {
            out.line("clean: every live record is whole")?;
        }
    }
    failure.map_or(Ok(()), Err)
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
