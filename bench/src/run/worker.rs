//! The loops of a load: closed, open, and the filling of the table before.

use std::time::{Duration, Instant};

use lode_net::wire::ShardId;

use super::ask::{Answer, Ask, Outcome, Step};
use super::choice::Choice;
use super::link::LinkError;
use super::pool::{Pool, PoolError};
use super::steps::{self, Next};
use super::tally::Tally;
use crate::draw::{Dice, ValueSizes, Values, belongs};
use crate::options::RunOptions;
use crate::workload::Operation;

/// How long answers may take after the end of a load.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest wait for an event, so that the loop looks at the clock now and then.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// What a worker is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Requests in flight on each connection.
    pub depth: usize,
    /// Lengths of values.
    pub value_sizes: ValueSizes,
    /// Length of the slices of time that are told apart.
    pub slice: Duration,
    /// Times of everything below count from here.
    pub origin: Instant,
    /// When to begin counting.
    pub from: Duration,
    /// When to end.
    pub until: Duration,
}

impl Plan {
    /// What `options` say; when to begin and to end is left open.
    pub fn new(options: &RunOptions) -> Plan {
        Plan {
            depth: usize::from(options.depth),
            value_sizes: options.data.value_size.clone(),
            slice: options.slice(),
            origin: Instant::now(),
            from: Duration::ZERO,
            until: Duration::ZERO,
        }
    }

    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// When counting begins and ends, in nanoseconds since the origin.
    fn window(&self) -> std::ops::Range<u64> {
        self.from.as_nanos() as u64..self.until.as_nanos() as u64
    }
}

/// Which requests count: those that were due in the window, or those that are answered in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Due,
    Answered,
    None,
}

/// One thread's part of a load.
pub struct Worker {
    plan: Plan,
    choice: Choice,
    pool: Pool,
    dice: Dice,
    values: Values,
    tally: Tally,
    /// What follows an answer, on the same connection.
    following: Vec<(usize, Ask)>,
}

impl Worker {
    /// A worker with connections of its own.
    pub fn new(plan: Plan, choice: Choice, pool: Pool, seed: u64) -> Worker {
        let values = Values::new(plan.value_sizes.clone(), seed);
        let tally = Tally::new(plan.slice);
        Worker { plan, choice, pool, dice: Dice::new(seed), values, tally, following: Vec::new() }
    }

    /// Keeps `depth` requests in flight on every connection.
    pub fn run_closed(mut self) -> Result<Tally, PoolError> {
        let until = self.plan.window().end;
        let mut now_ns = self.plan.now_ns();
        while now_ns < until {
            for place in 0..self.pool.links.len() {
                self.top_up(place, now_ns)?;
            }
            self.pool.flush()?;
            self.take_answers(LONGEST_WAIT, Counts::Answered)?;
            now_ns = self.plan.now_ns();
        }
        self.drain(Counts::None)?;
        Ok(self.tally)
    }

    /// Sends each request when its time has come; its latency counts from then.
    pub fn run_open(mut self, per_second: f64) -> Result<Tally, PoolError> {
        // Without it, the kernel rounds each wait up by 50 us.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let window = self.plan.window();
        let mean_ns = 1e9 / per_second;
        let mut next_ns = self.plan.now_ns() as f64 + self.dice.exponential(mean_ns);
        loop {
            let now_ns = self.plan.now_ns();
            while next_ns as u64 <= now_ns.min(window.end) {
                let due_ns = next_ns as u64;
                if window.contains(&due_ns) {
                    self.tally.offered += 1;
                    self.tally.lateness.record(now_ns - due_ns);
                }
                let (ask, shard) = self.choice.next(&mut self.dice, None, due_ns);
                self.pool.link_to(shard).backlog.push_back(ask);
                next_ns += self.dice.exponential(mean_ns);
            }
            self.send_backlog(now_ns)?;
            if now_ns >= window.end {
                break;
            }
            let next = Duration::from_nanos((next_ns as u64).saturating_sub(self.plan.now_ns()));
            self.take_answers(next.min(LONGEST_WAIT), Counts::Due)?;
        }
        self.give_up_backlog();
        self.drain(Counts::Due)?;
        Ok(self.tally)
    }

    /// Writes the records `indexes`, each at least once, and tells `progress` how many were acknowledged.
    pub fn fill(mut self, indexes: std::ops::Range<u64>, progress: &dyn Fn(u64)) -> Result<Tally, PoolError> {
        let total = indexes.end - indexes.start;
        let mut next = indexes.clone();
        self.write(total, progress, &mut |worker| {
            let index = next.next()?;
            Some(worker.choice.ask_of(index, Operation::Put, &mut worker.dice, 0))
        })?;
        Ok(self.tally)
    }

    /// Writes `writes` records that are drawn, and tells `progress` how many were acknowledged.
    pub fn overwrite(mut self, writes: u64, progress: &dyn Fn(u64)) -> Result<Tally, PoolError> {
        let mut left = writes;
        self.write(writes, progress, &mut |worker| {
            left = left.checked_sub(1)?;
            Some(worker.choice.next(&mut worker.dice, None, 0))
        })?;
        Ok(self.tally)
    }

    fn write(
        &mut self,
        total: u64,
        progress: &dyn Fn(u64),
        next: &mut dyn FnMut(&mut Worker) -> Option<(Ask, ShardId)>,
    ) -> Result<(), PoolError> {
        let mut written = 0;
        while written < total && self.tally.refused == 0 {
            let room = self.plan.depth * self.pool.links.len();
            while self.backlog() < room {
                let Some((ask, shard)) = next(self) else {
                    break;
                };
                self.pool.link_to(shard).backlog.push_back(ask);
            }
            self.send_backlog(0)?;
            let mut busy = Vec::new();
            let tally = &mut self.tally;
            self.pool.wait(LONGEST_WAIT, &mut |_, ask, answer| match answer.outcome {
                Outcome::Done => written += 1,
                Outcome::Busy | Outcome::Throttled => busy.push(ask),
                _ => refuse(tally, answer),
            })?;
            for ask in busy {
                let (ask, shard) = self.choice.ask_of(ask.index, Operation::Put, &mut self.dice, 0);
                self.pool.link_to(shard).backlog.push_back(ask);
            }
            progress(written);
        }
        Ok(())
    }

    fn backlog(&self) -> usize {
        self.pool.links.iter().map(|link| link.backlog.len()).sum()
    }

    /// Draws requests of the connection's own shard until it has `depth` in flight.
    fn top_up(&mut self, place: usize, now_ns: u64) -> Result<(), LinkError> {
        while self.pool.links[place].in_flight() < self.plan.depth {
            let shard = self.pool.links[place].shard;
            let (ask, _) = self.choice.next(&mut self.dice, Some(shard), now_ns);
            self.send(place, ask)?;
        }
        Ok(())
    }

    fn send(&mut self, place: usize, ask: Ask) -> Result<(), LinkError> {
        let value: &[u8] = match ask.step {
            Step::Write | Step::Commit(_) => self.values.next(ask.index, &mut self.dice),
            _ => &[],
        };
        let key = self.choice.key_of(ask.index);
        self.pool.links[place].ask(ask, key, value)
    }

    /// Sends what has waited, as far as `depth` allows, and counts how long it was held back.
    fn send_backlog(&mut self, now_ns: u64) -> Result<(), PoolError> {
        let window = self.plan.window();
        for place in 0..self.pool.links.len() {
            while self.pool.links[place].in_flight() < self.plan.depth {
                let Some(ask) = self.pool.links[place].backlog.pop_front() else {
                    break;
                };
                if window.contains(&ask.at_ns) {
                    self.tally.held_back.record(now_ns.saturating_sub(ask.at_ns));
                }
                self.send(place, ask)?;
            }
        }
        self.pool.flush()
    }

    /// What has not gone out at the end has failed.
    fn give_up_backlog(&mut self) {
        let window = self.plan.window();
        for link in &mut self.pool.links {
            for ask in link.backlog.drain(..) {
                self.tally.unsent += 1;
                if window.contains(&ask.at_ns) {
                    self.tally.errors[ask.operation as usize] += 1;
                    self.tally.slices.fail(ask.at_ns - window.start, ask.operation);
                    self.tally.partitions.fail(ask.place);
                }
            }
        }
    }

    fn take_answers(&mut self, timeout: Duration, counts: Counts) -> Result<(), PoolError> {
        let Worker { plan, choice, pool, tally, following, .. } = self;
        let window = plan.window();
        pool.wait(timeout, &mut |place, mut ask, answer| {
            let next = steps::next(&mut ask, answer, choice.routes(), tally);
            if let Next::Again = next {
                following.push((place, ask));
                return;
            }
            let now_ns = plan.now_ns();
            // Of an open loop above what the node can do, whoever is answered in this time was due before it.
            if window.contains(&now_ns) && next == Next::Done {
                tally.answered += 1;
            }
            let at_ns = match counts {
                Counts::Due => ask.at_ns,
                Counts::Answered => now_ns,
                Counts::None => u64::MAX,
            };
            if next != Next::Ignored {
                choice.ended(&ask, next == Next::Done);
                if window.contains(&at_ns) {
                    count(
                        tally,
                        &ask,
                        answer,
                        &Counted { next, now_ns, since_ns: at_ns - window.start, plan },
                    );
                }
            }
            if let (Next::Failed, Step::ReadWithin(id) | Step::Commit(id)) = (next, ask.step)
                && answer.outcome != Outcome::Conflict
            {
                following.push((place, Ask { step: Step::Rollback(id), ..ask }));
            }
        })?;
        if self.following.is_empty() {
            return Ok(());
        }
        for (place, ask) in std::mem::take(&mut self.following) {
            self.send(place, ask)?;
        }
        self.pool.flush()
    }

    /// Waits for what is in flight at the end, so that the node is idle when the next load begins.
    fn drain(&mut self, counts: Counts) -> Result<(), PoolError> {
        let until = Instant::now() + DRAIN;
        while self.pool.in_flight() > 0 && Instant::now() < until {
            self.pool.flush()?;
            self.take_answers(LONGEST_WAIT, counts)?;
        }
        self.tally.unsent += self.pool.in_flight() as u64;
        Ok(())
    }
}

/// How a request ended that counts, and when.
struct Counted<'a> {
    next: Next,
    now_ns: u64,
    since_ns: u64,
    plan: &'a Plan,
}

/// Counts one request.
fn count(tally: &mut Tally, ask: &Ask, answer: &Answer<'_>, counted: &Counted<'_>) {
    let operation = ask.operation;
    if counted.next == Next::Done {
        let latency_ns = counted.now_ns.saturating_sub(ask.at_ns);
        tally.latencies[operation as usize].record(latency_ns);
        tally.slices.record(counted.since_ns, operation, latency_ns);
        tally.partitions.record(ask.place, latency_ns);
        if operation == Operation::Get && !belongs(answer.body, ask.index, &counted.plan.value_sizes) {
            tally.wrong += 1;
        }
        return;
    }
    tally.errors[operation as usize] += 1;
    tally.slices.fail(counted.since_ns, operation);
    tally.partitions.fail(ask.place);
    match answer.outcome {
        Outcome::NotFound => tally.missing += 1,
        Outcome::Busy => tally.busy += 1,
        Outcome::Throttled => tally.throttled += 1,
        Outcome::Conflict => tally.conflicts += 1,
        Outcome::Done | Outcome::Refused => refuse(tally, answer),
    }
}

fn refuse(tally: &mut Tally, answer: &Answer<'_>) {
    tally.refused += 1;
    tally.refusal = Some(answer.message.to_owned());
}
