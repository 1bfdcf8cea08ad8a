//! What an operator should hear of: told once when it begins, and once when it ends. Found by comparing counters once
//! a second, so that no shard has to say anything itself.

use std::fmt;

use lode_engine::{ShardId, ShardStats};

use super::Control;
use crate::reactor::ReactorStats;

/// So many looks in a row without it end a spell.
const QUIET_LOOKS: u32 = 10;
/// At this share of what it may hold a shard counts as full, in percent.
const FULL_PERCENT: u64 = 98;
/// And at this as not full any more.
const ROOM_PERCENT: u64 = 95;

/// What is looked at of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records and other places known to be damaged.
    pub damaged: u64,
    /// Frames that recovery set aside.
    pub quarantined: u64,
    /// Reads that the drive failed.
    pub failed_reads: u64,
    /// Whether its log is closed.
    pub poisoned: bool,
    /// Rounds of the scrub.
    pub scrubs: u64,
    /// Live bytes, and how many there may be.
    pub drive: (u64, u64),
    /// Bytes of memory, and how many there may be.
    pub memory: (u64, u64),
    /// Requests refused by quotas.
    pub throttled: u64,
    /// Requests refused because too much waits.
    pub busy: u64,
    /// Connections refused.
    pub refused_connections: u64,
}

impl Seen {
    /// Of a shard's counters.
    pub fn of(engine: &ShardStats, reactor: &ReactorStats) -> Seen {
        Seen {
            damaged: engine.scrub.damaged_records + engine.scrub.damaged_places,
            quarantined: engine.quarantined_frames,
            failed_reads: engine.failed_reads,
            poisoned: engine.poisoned > 0,
            scrubs: engine.scrub.rounds_finished,
            drive: (engine.live_bytes, engine.live_limit_bytes),
            memory: (engine.index_bytes + engine.memory_table_bytes, engine.memory_limit_bytes),
            throttled: reactor.throttled,
            busy: engine.busy + reactor.answers_given_up,
            refused_connections: reactor.refused_connections,
        }
    }
}

/// How serious it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is good to know.
    Info,
    /// Somebody should look at it soon.
    Warn,
    /// Somebody should look at it now.
    Error,
}

/// Something that began, ended or was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// More is damaged than was known.
    Damage { shard: ShardId, places: u64 },
    /// Frames were set aside.
    Quarantine { shard: ShardId, frames: u64 },
    /// The drive fails reads.
    FailedReads { shard: ShardId, reads: u64 },
    /// The drive failed a write.
    Poisoned { shard: ShardId },
    /// The scrub has read everything once more.
    Scrubbed { shard: ShardId, rounds: u64 },
    /// The drive has little room left, or has room again.
    Drive { shard: ShardId, full: bool, live_bytes: u64, limit_bytes: u64 },
    /// Memory has little room left, or has room again.
    Memory { shard: ShardId, full: bool, bytes: u64, limit_bytes: u64 },
    /// Requests or connections are refused, or are no more; then with how many there were.
    Refusing { what: Refused, ended: Option<u64> },
}

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Requests above a quota.
    Throttled,
    /// Requests for which there is no room.
    Busy,
    /// Connections.
    Connections,
}

impl Notice {
    /// Its name for programs.
    pub fn event(&self) -> &'static str {
        match self {
            Notice::Damage { .. } => "damage",
            Notice::Quarantine { .. } => "quarantine",
            Notice::FailedReads { .. } => "failed_reads",
            Notice::Poisoned { .. } => "poisoned",
            Notice::Scrubbed { .. } => "scrubbed",
            Notice::Drive { full: true, .. } => "full_begin",
            Notice::Drive { .. } => "full_end",
            Notice::Memory { full: true, .. } => "memory_full_begin",
            Notice::Memory { .. } => "memory_full_end",
            Notice::Refusing { what: Refused::Throttled, ended: None } => "throttled_begin",
            Notice::Refusing { what: Refused::Throttled, .. } => "throttled_end",
            Notice::Refusing { what: Refused::Busy, ended: None } => "busy_begin",
            Notice::Refusing { what: Refused::Busy, .. } => "busy_end",
            Notice::Refusing { what: Refused::Connections, ended: None } => "connections_refused_begin",
            Notice::Refusing { what: Refused::Connections, .. } => "connections_refused_end",
        }
    }

    /// How serious it is.
    pub fn weight(&self) -> Weight {
        match self {
            Notice::Damage { .. } | Notice::Quarantine { .. } | Notice::Poisoned { .. } => Weight::Error,
            Notice::FailedReads { .. }
            | Notice::Drive { full: true, .. }
            | Notice::Memory { full: true, .. } => Weight::Warn,
            Notice::Refusing { ended: None, .. } => Weight::Warn,
            Notice::Scrubbed { .. }
            | Notice::Drive { .. }
            | Notice::Memory { .. }
            | Notice::Refusing { .. } => Weight::Info,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Damage { shard, places } => {
                write!(f, "shard {shard}: {places} more damaged places were found; lode scrub lists them")
            }
            Notice::Quarantine { shard, frames } => write!(
                f,
                "shard {shard}: {frames} frames were set aside after damage; their keys answer with an error until they are \
                 written anew"
            ),
            Notice::FailedReads { shard, reads } => {
                write!(f, "shard {shard}: the drive failed {reads} more reads; see the kernel's log")
            }
            Notice::Poisoned { shard } => write!(
                f,
                "shard {shard}: the drive failed a write, and the shard takes no more until the node restarts; see the \
                 kernel's log first"
            ),
            Notice::Scrubbed { shard, rounds } => {
                write!(f, "shard {shard}: the scrub has read everything, {rounds} times since the start")
            }
            Notice::Drive { shard, full: true, live_bytes, limit_bytes } => write!(
                f,
                "shard {shard}: the drive is nearly full, {live_bytes} bytes of {limit_bytes}; delete or drop something, or add \
                 a drive"
            ),
            Notice::Drive { shard, live_bytes, limit_bytes, .. } => {
                write!(f, "shard {shard}: the drive has room again, {live_bytes} bytes of {limit_bytes}")
            }
            Notice::Memory { shard, full: true, bytes, limit_bytes } => write!(
                f,
                "shard {shard}: memory for keys is nearly full, {bytes} bytes of {limit_bytes}; delete or drop something, or \
                 raise --memory"
            ),
            Notice::Memory { shard, bytes, limit_bytes, .. } => {
                write!(f, "shard {shard}: memory for keys has room again, {bytes} bytes of {limit_bytes}")
            }
            Notice::Refusing { what, ended } => match (what, ended) {
                (Refused::Throttled, None) => {
                    f.write_str("requests are refused because partitions are above their quotas")
                }
                (Refused::Throttled, Some(count)) => {
                    write!(f, "no partition is above its quota any more; {count} requests were refused")
                }
                (Refused::Busy, None) => f.write_str("requests are refused because too many wait"),
                (Refused::Busy, Some(count)) => {
                    write!(f, "no request is refused for want of room any more; {count} were")
                }
                (Refused::Connections, None) => {
                    f.write_str("connections are refused, as there are too many; raise --max-connections")
                }
                (Refused::Connections, Some(count)) => {
                    write!(f, "no connection is refused any more; {count} were")
                }
            },
        }
    }
}

/// A time in which something goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Spell {
    /// How often it has happened in it; 0 outside of any.
    count: u64,
    quiet: u32,
}

impl Spell {
    fn look(&mut self, what: Refused, more: u64) -> Option<Notice> {
        let begins = self.count == 0 && more > 0;
        self.count += more;
        self.quiet = if more > 0 { 0 } else { self.quiet + 1 };
        if begins {
            return Some(Notice::Refusing { what, ended: None });
        }
        let over = self.count > 0 && self.quiet >= QUIET_LOOKS;
        over.then(|| Notice::Refusing { what, ended: Some(std::mem::take(&mut self.count)) })
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    shards: Vec<Seen>,
    drive_full: Vec<bool>,
    memory_full: Vec<bool>,
    throttled: Spell,
    busy: Spell,
    connections: Spell,
}

impl Watch {
    /// What is new, with what each shard says now.
    pub fn look(&mut self, now: &[Seen]) -> Vec<Notice> {
        self.shards.resize(now.len(), Seen::default());
        self.drive_full.resize(now.len(), false);
        self.memory_full.resize(now.len(), false);
        let before = std::mem::replace(&mut self.shards, now.to_vec());
        let mut notices = Vec::new();
        for (at, (before, now)) in before.iter().zip(now).enumerate() {
            let shard = ShardId(at as u16);
            notices.extend(found(shard, before, now));
            if let Some(full) = turned(&mut self.drive_full[at], now.drive) {
                let (live_bytes, limit_bytes) = now.drive;
                notices.push(Notice::Drive { shard, full, live_bytes, limit_bytes });
            }
            if let Some(full) = turned(&mut self.memory_full[at], now.memory) {
                let (bytes, limit_bytes) = now.memory;
                notices.push(Notice::Memory { shard, full, bytes, limit_bytes });
            }
        }
        let more = |of: fn(&Seen) -> u64| -> u64 {
            before.iter().zip(now).map(|(before, now)| of(now).saturating_sub(of(before))).sum()
        };
        notices.extend(self.throttled.look(Refused::Throttled, more(|seen| seen.throttled)));
        notices.extend(self.busy.look(Refused::Busy, more(|seen| seen.busy)));
        notices.extend(self.connections.look(Refused::Connections, more(|seen| seen.refused_connections)));
        notices
    }
}

/// What was found on a shard since the last look.
fn found(shard: ShardId, before: &Seen, now: &Seen) -> impl Iterator<Item = Notice> {
    let more = |before: u64, now: u64| Some(now.saturating_sub(before)).filter(|more| *more > 0);
    let notices = [
        more(before.damaged, now.damaged).map(|places| Notice::Damage { shard, places }),
        more(before.quarantined, now.quarantined).map(|frames| Notice::Quarantine { shard, frames }),
        more(before.failed_reads, now.failed_reads).map(|reads| Notice::FailedReads { shard, reads }),
        (now.poisoned && !before.poisoned).then_some(Notice::Poisoned { shard }),
        more(before.scrubs, now.scrubs).map(|_| Notice::Scrubbed { shard, rounds: now.scrubs }),
    ];
    notices.into_iter().flatten()
}

/// Whether it has become full, or not full any more.
fn turned(full: &mut bool, (bytes, limit_bytes): (u64, u64)) -> Option<bool> {
    let above = |percent: u64| limit_bytes > 0 && bytes >= limit_bytes / 100 * percent;
    let now = if *full { above(ROOM_PERCENT) } else { above(FULL_PERCENT) };
    (std::mem::replace(full, now) != now).then_some(now)
}

impl Control {
    /// Looks at all shards' counters, and logs what is new.
    pub(super) fn look(&mut self) {
        let seen: Vec<Seen> =
            self.ask_stats().iter().map(|(_, engine, reactor)| Seen::of(engine, reactor)).collect();
        for notice in self.watch.look(&seen) {
            let event = notice.event();
            match notice.weight() {
                Weight::Info => tracing::info!(event, "{notice}"),
                Weight::Warn => tracing::warn!(event, "{notice}"),
                Weight::Error => tracing::error!(event, "{notice}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(watch: &mut Watch, now: &[Seen]) -> Vec<&'static str> {
        watch.look(now).iter().map(Notice::event).collect()
    }

    #[test]
    fn each_thing_is_told_once() {
        let mut watch = Watch::default();
        let room = Seen { drive: (10, 1000), memory: (10, 1000), ..Seen::default() };
        assert!(events(&mut watch, &[room, room]).is_empty());
        let bad = Seen { damaged: 3, quarantined: 2, failed_reads: 1, poisoned: true, scrubs: 1, ..room };
        let all = ["damage", "quarantine", "failed_reads", "poisoned", "scrubbed"];
        assert_eq!(events(&mut watch, &[room, bad]), all);
        assert!(events(&mut watch, &[room, bad]).is_empty(), "told already");
        let worse = Seen { damaged: 4, ..bad };
        assert_eq!(watch.look(&[room, worse]), [Notice::Damage { shard: ShardId(1), places: 1 }]);
    }

    #[test]
    fn full_begins_and_ends_and_does_not_flutter() {
        let mut watch = Watch::default();
        let at = |bytes| [Seen { drive: (bytes, 1000), memory: (5, 1000), ..Seen::default() }];
        assert!(events(&mut watch, &at(979)).is_empty());
        assert_eq!(events(&mut watch, &at(980)), ["full_begin"]);
        for bytes in [970, 985, 951] {
            assert!(events(&mut watch, &at(bytes)).is_empty(), "{bytes}");
        }
        assert_eq!(events(&mut watch, &at(949)), ["full_end"]);
        let memory = [Seen { memory: (990, 1000), drive: (0, 1000), ..Seen::default() }];
        assert_eq!(events(&mut watch, &memory), ["memory_full_begin"]);
    }

    #[test]
    fn a_spell_of_refusals_is_two_lines() {
        let mut watch = Watch::default();
        let at = |throttled| [Seen { throttled, ..Seen::default() }];
        assert!(events(&mut watch, &at(0)).is_empty());
        assert_eq!(events(&mut watch, &at(5)), ["throttled_begin"]);
        for (look, throttled) in [(1, 9), (2, 9), (3, 12)] {
            assert!(events(&mut watch, &at(throttled)).is_empty(), "{look}");
        }
        for _ in 1..QUIET_LOOKS {
            assert!(watch.look(&at(12)).is_empty());
        }
        let ended = Notice::Refusing { what: Refused::Throttled, ended: Some(12) };
        assert_eq!(watch.look(&at(12)), [ended]);
        assert!(watch.look(&at(12)).is_empty());
    }
}
