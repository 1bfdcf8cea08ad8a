//! What a shard promises, held over a simulated drive. One program: each of many would have the support compiled, and be linked, by itself.
#![allow(missing_docs)]

mod compact_asking;
mod compact_damage;
mod compact_frames;
mod counters;
mod damage;
mod drops;
mod expiry;
mod full;
mod gathering;
mod golden;
mod hostile_keys;
mod journal;
mod limits;
mod loading;
mod loose_scans;
mod poison;
mod quarantine;
mod read_queue;
mod scrub;
mod serialisable;
mod serves;
mod settling;
mod short_lives;
mod strays;
#[path = "../support/mod.rs"]
mod support;
mod torn_tails;
mod transactions;
