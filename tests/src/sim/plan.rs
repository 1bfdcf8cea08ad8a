//! What a run is like: all of it follows from the seed.

use super::schedule::FaultSet;
use crate::value::Dice;

/// A millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// How often what goes wrong. Rates are in a million; means of intervals in nanoseconds, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads of the drive that fail.
    pub read_errors_ppm: u64,
    /// Writes, flushes too, that fail: the shard takes no more writes until the node starts again.
    pub write_errors_ppm: u64,
    /// Operations of the drive that take long.
    pub slow_operations_ppm: u64,
    /// How many times as long.
    pub slowness: u64,
    /// Between two ends of the process.
    pub crash_interval_ns: u64,
    /// Of a hundred such ends, how many lose the drive's power too.
    pub power_losses_percent: u64,
    /// Between two resets of connections.
    pub reset_interval_ns: u64,
    /// Between two connections that go silent without a word.
    pub silence_interval_ns: u64,
    /// Between two clients that say that they will send no more, and wait for what they are owed.
    pub half_close_interval_ns: u64,
    /// Between two jumps of the wall clock.
    pub clock_jump_interval_ns: u64,
    /// How far it jumps at most, forth or back.
    pub clock_jump_ns: u64,
    /// A node may end again while it recovers.
    pub crash_in_recovery: bool,
    /// Of a hundred starts, how many are followed by another end of the process within a few milliseconds: it
    /// starts over and over again.
    pub short_lives_percent: u64,
    /// Between two damages of what lies on the drive.
    pub damage_interval_ns: u64,
    /// Reads that give other bytes than lie there, or none.
    pub misreads_ppm: u64,
    /// Writes that the drive reports as done and has lost, or put at another place.
    pub miswrites_ppm: u64,
    /// The drive says that writes are durable, and leaves them in its cache. No seed has this: no node survives it, and
    /// so it shows that the oracles see what is lost.
    pub drive_lies: bool,
}

/// What is left of the writes that no flush has made durable when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None.
    None,
    /// All, those too that were under way.
    All,
    /// The first.
    First,
    /// All but the first.
    AllButFirst,
    /// The last.
    Last,
    /// Every second.
    EverySecond,
    /// Of each, every second sector.
    Torn,
    /// Those of the first writes whose bits are set; none of the others.
    Some(u32),
}

/// Of so many writes that are not durable each subset is tried by itself.
const MOST_SUBSET_WRITES: u32 = 5;

impl Kept {
    /// Ways that differ however many writes there are.
    pub const ALL: [Kept; 7] =
        [Kept::None, Kept::All, Kept::First, Kept::AllButFirst, Kept::Last, Kept::EverySecond, Kept::Torn];

    /// All ways to lose some of so many writes: each subset of a few, and of many those above.
    pub fn of(writes: u32) -> Vec<Kept> {
        if writes > MOST_SUBSET_WRITES {
            return Kept::ALL.to_vec();
        }
        (0..1 << writes).map(Kept::Some).chain((writes > 0).then_some(Kept::Torn)).collect()
    }
}

/// The power goes at a chosen moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// After so many beginnings and ends of drive operations, counted while clients work; of a second cut, from the start
    /// that follows the first until all has been read.
    pub at: u64,
    /// What is left of what was not durable.
    pub kept: Kept,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Shards of the node.
    pub shards: u16,
    /// Bytes of the drive.
    pub drive_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Longest value.
    pub longest_value_bytes: u32,
    /// Partitions, dealt to the shards in turn.
    pub partitions: u32,
    /// How long the records of the table live whose records expire, in milliseconds.
    pub ttl_ms: u64,
    /// Requests a second that the second partition may take; 0 for any number.
    pub quota_per_s: u64,
    /// Keys of a partition that hold records.
    pub keys: u64,
    /// Accounts, between which transactions move money.
    pub accounts: u64,
    /// Keys that are counted up.
    pub counters: u64,
    /// Clients.
    pub clients: u32,
    /// Requests that a client has under way.
    pub depth: usize,
    /// How long clients ask, in virtual nanoseconds.
    pub duration_ns: u64,
    /// A client's mean pause between two requests.
    pub think_ns: u64,
    /// Of the read cache, a shard.
    pub cache_bytes: u64,
    /// Of index and memory tables, the most that a shard takes.
    pub memory_bytes: u64,
    /// Size at which a frame is closed.
    pub frame_bytes: u32,
    /// Most frames written at once.
    pub frames_in_flight: usize,
    /// How long a frame waits for company.
    pub commit_window_ns: u64,
    /// Bytes of frames between two checkpoints.
    pub checkpoint_interval_bytes: u64,
    /// Whether freed segments are discarded.
    pub discard: bool,
    /// Of the scrub, a shard.
    pub scrub_bytes_per_s: u64,
    /// Whether the table has a compact index.
    pub is_compact: bool,
    /// Whether a table is made and dropped while clients work: not where what is damaged may bring one back, or take one.
    pub churns: bool,
    /// How long what is sent is on its way at most, in each direction.
    pub network_ns: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Of all that goes wrong, by number, what does: all of it where nothing is said.
    pub only: Option<FaultSet>,
    /// When the power goes and nobody asks for anything new any more; then everything is read.
    pub cut: Option<Cut>,
    /// When it goes again, in the life that follows.
    pub second_cut: Option<Cut>,
}

/// A way to make a run simpler, to see what a failure needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Simpler {
    /// The process does not end.
    NoCrashes,
    /// It does not end soon after a start.
    NoShortLives,
    /// Where it ends, the drive's power stays.
    NoPowerLoss,
    /// It does not end while it recovers.
    NoCrashInRecovery,
    /// No read fails.
    NoReadErrors,
    /// No write fails.
    NoWriteErrors,
    /// No operation of the drive is slow.
    NoSlowness,
    /// No connection breaks.
    NoResets,
    /// No connection goes silent.
    NoSilence,
    /// No client says that it will send no more.
    NoHalfCloses,
    /// The clock does not jump.
    NoClockJumps,
    /// Nothing is damaged.
    NoDamage,
    /// What is read is what lies there.
    NoMisreads,
    /// What is written is where it belongs.
    NoMiswrites,
    /// Nothing is scrubbed.
    NoScrub,
    /// Nothing is discarded.
    NoDiscard,
    /// One shard.
    OneShard,
    /// One client.
    OneClient,
    /// One request at a time, of each client.
    DepthOne,
    /// The index holds whole keys.
    FullIndex,
    /// Half as long; may be said several times.
    HalfAsLong,
}

impl Plan {
    /// The run of this seed.
    pub fn from_seed(seed: u64) -> Plan {
        let mut dice = Dice::new(seed ^ 0x7061_6c6e);
        let mut pick = |choices: &[u64]| choices[dice.below(choices.len() as u64) as usize];
        let shards = pick(&[1, 2, 3]) as u16;
        let segment_bytes = pick(&[64 << 10, 128 << 10]) as u32;
        let longest_value_bytes = pick(&[2 << 10, 12 << 10]) as u32;
        let think_ns = pick(&[MS / 5, MS, 4 * MS, 50 * MS, 400 * MS]);
        let duration_ns = think_ns * pick(&[300, 1_000, 3_000]);
        // What goes wrong does so a few times in a run, however long it is.
        let mut interval = |times: &[u64]| match pick(times) {
            0 => 0,
            times => duration_ns / times,
        };
        let faults = Faults {
            crash_interval_ns: interval(&[0, 3, 12, 40]),
            reset_interval_ns: interval(&[0, 0, 10, 60]),
            silence_interval_ns: interval(&[0, 0, 6]),
            clock_jump_interval_ns: interval(&[0, 0, 15]),
            read_errors_ppm: pick(&[0, 0, 2_000]),
            write_errors_ppm: pick(&[0, 0, 0, 300]),
            slow_operations_ppm: pick(&[0, 1_000, 20_000]),
            power_losses_percent: pick(&[0, 50, 100]),
            crash_in_recovery: pick(&[0, 1]) == 1,
            clock_jump_ns: 1_000 * MS,
            ..Faults::default()
        };
        let mut plan = Plan {
            seed,
            shards,
            drive_bytes: u64::from(shards) * pick(&[24, 40, 96]) * u64::from(segment_bytes) + (64 << 10),
            segment_bytes,
            longest_value_bytes,
            partitions: pick(&[3, 5, 9]) as u32,
            keys: pick(&[16, 60, 200]),
            accounts: pick(&[4, 8]),
            counters: pick(&[2, 6]),
            clients: pick(&[2, 4, 8]) as u32,
            depth: pick(&[1, 2, 4]) as usize,
            duration_ns,
            think_ns,
            cache_bytes: pick(&[0, 64 << 10, 4 << 20]),
            frame_bytes: pick(&[8 << 10, 32 << 10]) as u32,
            frames_in_flight: pick(&[1, 2, 4]) as usize,
            commit_window_ns: pick(&[0, 50_000, 500_000]),
            checkpoint_interval_bytes: pick(&[64 << 10, 256 << 10, 1 << 30]),
            discard: pick(&[0, 1]) == 1,
            scrub_bytes_per_s: pick(&[0, 0, 1 << 20, 64 << 20]),
            is_compact: false,
            ttl_ms: 0,
            quota_per_s: 0,
            memory_bytes: 0,
            churns: false,
            network_ns: 60_000,
            faults,
            only: None,
            cut: None,
            second_cut: None,
        };
        plan.vary(&mut pick);
        plan
    }

    /// What else differs from run to run.
    fn vary(&mut self, pick: &mut impl FnMut(&[u64]) -> u64) {
        // In every other run what the drive gives is what it took.
        let has_damage = pick(&[0, 1]) == 1;
        self.faults.damage_interval_ns = match pick(&[0, 2, 10, 50]) {
            times if times > 0 && has_damage => self.duration_ns / times,
            _ => 0,
        };
        self.faults.misreads_ppm = if has_damage { pick(&[0, 300, 3_000]) } else { 0 };
        self.ttl_ms = (self.duration_ns / MS / pick(&[3, 20])).max(1);
        self.faults.clock_jump_ns = pick(&[1_000 * MS, self.ttl_ms * MS, 3_600_000 * MS]);
        self.churns = !self.has_damage();
        self.memory_bytes = pick(&[32 << 20, 32 << 20, 256 << 10, 64 << 10]);
        // A few in every second that the clients think, or many.
        self.quota_per_s = pick(&[0, 0, 1, 20]) * 1_000 * MS / self.think_ns / 10;
        self.is_compact = pick(&[0, 1]) == 1;
        self.faults.short_lives_percent = pick(&[0, 0, 0, 60, 97]);
        self.faults.half_close_interval_ns = match pick(&[0, 0, 10]) {
            0 => 0,
            times => self.duration_ns / times,
        };
        // Where many operations are slow, none takes most of a second: nothing would get done.
        self.faults.slowness = match self.faults.slow_operations_ppm {
            1_000 => pick(&[100, 10_000]),
            _ => 100,
        };
        self.network_ns = pick(&[60_000, 60_000, 5 * MS, 100 * MS]);
        if has_damage {
            self.faults.miswrites_ppm = pick(&[0, 300, 3_000]);
            self.churns = !self.has_damage();
        }
    }

    /// The same shape with nothing that goes wrong, so short that the power can be cut at every moment of it.
    pub fn small(seed: u64) -> Plan {
        let plan = Plan::from_seed(seed);
        Plan {
            drive_bytes: u64::from(plan.shards) * 24 * (64 << 10) + (64 << 10),
            segment_bytes: 64 << 10,
            longest_value_bytes: 4 << 10,
            partitions: 3,
            keys: 6,
            clients: 3,
            depth: 4,
            think_ns: MS / 5,
            duration_ns: 10 * MS,
            checkpoint_interval_bytes: 64 << 10,
            discard: false,
            scrub_bytes_per_s: 0,
            network_ns: 60_000,
            faults: Faults::default(),
            ..plan
        }
    }

    /// Whether bytes may come back from the drive otherwise than they were written.
    pub fn has_damage(&self) -> bool {
        let Faults { damage_interval_ns, misreads_ppm, miswrites_ppm, .. } = self.faults;
        damage_interval_ns > 0 || misreads_ppm > 0 || miswrites_ppm > 0
    }

    /// The same, simpler.
    pub fn simplified(mut self, how: Simpler) -> Plan {
        match how {
            Simpler::NoCrashes => self.faults.crash_interval_ns = 0,
            Simpler::NoShortLives => self.faults.short_lives_percent = 0,
            Simpler::NoPowerLoss => self.faults.power_losses_percent = 0,
            Simpler::NoCrashInRecovery => self.faults.crash_in_recovery = false,
            Simpler::NoReadErrors => self.faults.read_errors_ppm = 0,
            Simpler::NoWriteErrors => self.faults.write_errors_ppm = 0,
            Simpler::NoSlowness => self.faults.slow_operations_ppm = 0,
            Simpler::NoResets => self.faults.reset_interval_ns = 0,
            Simpler::NoSilence => self.faults.silence_interval_ns = 0,
            Simpler::NoHalfCloses => self.faults.half_close_interval_ns = 0,
            Simpler::NoClockJumps => self.faults.clock_jump_interval_ns = 0,
            Simpler::NoDamage => self.faults.damage_interval_ns = 0,
            Simpler::NoMisreads => self.faults.misreads_ppm = 0,
            Simpler::NoMiswrites => self.faults.miswrites_ppm = 0,
            Simpler::NoScrub => self.scrub_bytes_per_s = 0,
            Simpler::NoDiscard => self.discard = false,
            Simpler::OneShard => {
                self.drive_bytes = (self.drive_bytes - (64 << 10)) / u64::from(self.shards) + (64 << 10);
                self.shards = 1;
            }
            Simpler::OneClient => self.clients = 1,
            Simpler::DepthOne => self.depth = 1,
            Simpler::FullIndex => self.is_compact = false,
            Simpler::HalfAsLong => self.duration_ns /= 2,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_seed_is_always_the_same_run_and_every_simplification_simplifies_some() {
        assert_eq!(Plan::from_seed(7), Plan::from_seed(7));
        for how in Simpler::value_variants() {
            let changes = |seed| Plan::from_seed(seed).simplified(*how) != Plan::from_seed(seed);
            assert!((0..100).any(changes), "{how:?}");
        }
    }
}
