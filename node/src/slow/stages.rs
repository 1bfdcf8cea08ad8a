//! The stages of a request: where its time can go.

use std::fmt;

use lode_engine::Delay;

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waited for its partition's turn.
    Queue,
    /// It was on its way to the shard of its partition, or its answer was on its way back.
    Hop,
    /// The shard worked, or it waited there for memory, for room, or for its partition's index.
    Shard,
    /// The drive read its record, or wrote its frame.
    Drive,
    /// It waited for its frame to be closed, and for frames before it.
    Commit,
    /// Its answer waited for others before it, and for its reader.
    Send,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: [Stage; 6] =
        [Stage::Queue, Stage::Hop, Stage::Shard, Stage::Drive, Stage::Commit, Stage::Send];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Hop => "hop",
            Stage::Shard => "shard",
            Stage::Drive => "drive",
            Stage::Commit => "commit",
            Stage::Send => "send",
        }
    }
}

/// How long a request was in each stage, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// See [`Stage::Queue`].
    pub queue_us: u32,
    /// See [`Stage::Hop`].
    pub hop_us: u32,
    /// See [`Stage::Shard`].
    pub shard_us: u32,
    /// See [`Stage::Drive`].
    pub drive_us: u32,
    /// See [`Stage::Commit`].
    pub commit_us: u32,
    /// See [`Stage::Send`].
    pub send_us: u32,
}

/// More than an hour is an hour and some.
fn us(ns: u64) -> u32 {
    u32::try_from(ns / 1000).unwrap_or(u32::MAX)
}

impl Stages {
    /// Of a request that came to a shard, began to run there unless it never did, and was answered by it.
    pub fn at_shard(since_ns: u64, begun_ns: Option<u64>, answered_ns: u64, delay: Delay) -> Stages {
        let begun_ns = begun_ns.unwrap_or(answered_ns).clamp(since_ns, answered_ns.max(since_ns));
        let ran_ns = answered_ns.saturating_sub(begun_ns);
        let drive_ns = delay.drive_ns.min(ran_ns);
        let commit_ns = delay.commit_ns.min(ran_ns - drive_ns);
        Stages {
            queue_us: us(begun_ns - since_ns),
            shard_us: us(ran_ns - drive_ns - commit_ns),
            drive_us: us(drive_ns),
            commit_us: us(commit_ns),
            ..Stages::default()
        }
    }

    /// The same of one that another shard has answered: what of all its time was not there, it was on the way.
    pub fn with_hop(self, whole_ns: u64) -> Stages {
        let hop_us = u64::from(us(whole_ns)).saturating_sub(self.total_us());
        Stages { hop_us: hop_us as u32, ..self }
    }

    /// The same, and then it was sent.
    pub fn with_send(self, send_ns: u64) -> Stages {
        Stages { send_us: us(send_ns), ..self }
    }

    /// All of it.
    pub fn total_us(self) -> u64 {
        Stage::ALL.into_iter().map(|stage| u64::from(self.of(stage))).sum()
    }

    /// One of them.
    pub fn of(self, stage: Stage) -> u32 {
        match stage {
            Stage::Queue => self.queue_us,
            Stage::Hop => self.hop_us,
            Stage::Shard => self.shard_us,
            Stage::Drive => self.drive_us,
            Stage::Commit => self.commit_us,
            Stage::Send => self.send_us,
        }
    }

    /// The longest of them, the first where several are.
    pub fn longest(self) -> Stage {
        let rest = Stage::ALL.into_iter().skip(1);
        rest.fold(Stage::Queue, |most, stage| if self.of(stage) > self.of(most) { stage } else { most })
    }
}

/// Those that took some time.
impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for stage in Stage::ALL.into_iter().filter(|stage| self.of(*stage) > 0) {
            write!(f, "{between}{} {}", stage.name(), Told(u64::from(self.of(stage))))?;
            between = ", ";
        }
        Ok(())
    }
}

/// Microseconds for people.
pub struct Told(pub u64);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} us"),
            us @ 1_000..1_000_000 => write!(f, "{:.1} ms", us as f64 / 1e3),
            us => write!(f, "{:.2} s", us as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_parts_are_the_whole() {
        let delay = Delay { drive_ns: 20 * MS, commit_ns: 5 * MS };
        let stages = Stages::at_shard(100 * MS, Some(110 * MS), 140 * MS, delay);
        assert_eq!((stages.queue_us, stages.drive_us), (10_000, 20_000));
        assert_eq!((stages.commit_us, stages.shard_us), (5_000, 5_000));
        let stages = stages.with_hop(43 * MS).with_send(2 * MS);
        assert_eq!((stages.hop_us, stages.send_us, stages.total_us()), (3_000, 2_000, 45_000));
        assert_eq!(stages.longest(), Stage::Drive);
        assert_eq!(
            stages.to_string(),
            "queue 10.0 ms, hop 3.0 ms, shard 5.0 ms, drive 20.0 ms, commit 5.0 ms, send 2.0 ms"
        );
    }

    #[test]
    fn what_cannot_be_is_cut_to_what_can() {
        let delay = Delay { drive_ns: 900 * MS, commit_ns: 900 * MS };
        let stages = Stages::at_shard(MS, Some(2 * MS), 5 * MS, delay);
        assert_eq!((stages.drive_us, stages.commit_us, stages.total_us()), (3_000, 0, 4_000));
        let never_ran = Stages::at_shard(MS, None, 5 * MS, Delay::default());
        assert_eq!((never_ran.queue_us, never_ran.total_us()), (4_000, 4_000));
        let behind = Stages::at_shard(5 * MS, Some(MS), 2 * MS, delay);
        assert_eq!(behind.total_us(), 0);
    }
}
